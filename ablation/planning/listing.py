"""A plan at length: every arm with its change, every run with its state, every stage."""

from ablation.formatting import duration, ranges, shortened, wrapped
from ablation.planning.cost import is_unknown
from ablation.planning.plan import Plan
from ablation.study.wording import change_words


def listing(plan: Plan) -> str:
    """Arms, runs and stages, in lines that are as narrow as those of the screen."""
    return "\n\n".join("\n".join([title, *lines]) for title, lines in (("Arms", _arms(plan)), ("Runs", _runs(plan)), _stages(plan)))


def _arms(plan: Plan) -> list[str]:
    """Each arm with what it is compared with, what it changes, and its labels with their reasons."""
    schema, lines = plan.study.task.schema, list[str]()
    for arm in plan.study.arms:
        if arm.name in plan.selected:
            change = "; ".join(change_words(arm.change, schema)) or "nothing"
            against = f" (against {arm.parent}): {change}" if arm.parent else ""
            alike = f"; same training as {arm.same_as}" if arm.same_as else ""
            lines += wrapped(f"  {arm.name}{against}{alike}", 4)
            lines += [line for label, reason in plan.labels[arm.name].items() for line in wrapped(f"    {label}: {reason}", 6)]
    return lines


def _runs(plan: Plan) -> list[str]:
    """Runs by state and reason; alike ones of an arm in one line."""
    grouped: dict[tuple[str, str, str], list[int]] = {}
    for run in plan.runs:
        grouped.setdefault((run.arm, run.state, run.reason), []).append(run.seed)
    return [
        line
        for (arm, state, reason), seeds in grouped.items()
        for line in wrapped(f"  {arm} seed{'s' if len(seeds) > 1 else ''} {ranges(seeds)}: {state}, {reason}", 4)
    ]


def _stages(plan: Plan) -> tuple[str, list[str]]:
    """Each stage with the one that it goes on from; arms in one line share it."""
    lines, words = list[str](), plan.study.task.words
    for key, node in plan.nodes.items():
        parent = f" after {node.job.parent[:8]}" if node.job.parent else ""
        time = "unknown" if is_unknown(node) else f"about {duration(node.seconds)}" if node.state != "done" else ""
        length = f"{node.epochs} epochs" if words.is_counted else ""
        facts = ", ".join(filter(None, [node.state, length, time]))
        lines += wrapped(f"  {key[:8]}{parent} seed {node.seed}: {facts}: {shortened(node.arms, 3)}", 4)
    return words.parts_title, lines
