"""A plan in words: what would run, why, what is shared, what it costs; and one arm in full."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ablation.formatting import duration, size, table, worded
from ablation.planning.cost import disk, is_unknown, wall_seconds
from ablation.planning.plan import Plan
from ablation.study.changes import flatten
from ablation.study.config import Arm
from ablation.study.task import Planner, Task, load_task
from ablation.study.wording import change_words
from ablation.techniques.technique import dump


def summary(plan: Plan, planner: Planner, num_slots: int) -> str:
    """A few lines: runs, trainings, what sharing saves, time and disk."""
    states = Counter(run.state for run in plan.runs)
    waiting = plan.waiting
    words = {"done": "recorded", "evaluated": "computed, to be recorded", "missing": "to do", "failed": "failed before", "stale": "stale"}
    runs = ", ".join(f"{states[state]} {word}" for state, word in words.items() if states[state])
    lines = [f"{plan.study.name}: {len(plan.selected)} arms x {len(plan.seeds)} seeds = {len(plan.runs)} runs ({runs})"]
    lines += _data(planner.data([arm for arm in plan.study.arms if arm.name in plan.selected], plan.study.seeds[0]))
    if waiting:
        todo = [node for node in plan.nodes.values() if node.state != "done"]
        lengths = {arm.name: sum(stage.epochs for stage in arm.stages) for arm in plan.study.arms}
        alone = sum(lengths[run.arm] for run in waiting if run.choice is None)
        epochs = sum(node.remaining_epochs for node in todo)
        saved = f", instead of {alone:,} were each run trained alone" if alone > epochs else ""
        lines.append(f"to train: {len(todo)} stages, {epochs:,} epochs{saved}")
        lines += planner.remarks([node.job.work for node in todo])
        reasons = Counter(run.reason for run in waiting)
        lines.append("because: " + "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(4)))
        lines.append(f"{_time(plan, num_slots)} with {num_slots} at once, {size(disk(plan, planner))} of disk")
    return "\n".join(lines)


def _data(accounts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was found in the data: a line for each data set, and one for whatever may make a result worth less."""
    lines = []
    for account in accounts:
        arms = f" ({_few(account['arms'])})" if len(accounts) > 1 else ""
        lines += [f"data{arms}: {account['summary']}", *(f"  note: {finding['sentence']}" for finding in account["findings"])]
    return lines


def _time(plan: Plan, num_slots: int) -> str:
    """How long the plan takes, as far as that is known."""
    known, is_known = wall_seconds(plan, num_slots), not any(is_unknown(node) for node in plan.nodes.values())
    return f"about {duration(known)}" if is_known else f"more than {duration(known)}" if known else "for an unknown time"


def full(plan: Plan, planner: Planner, num_slots: int) -> str:
    """The plan as `ablate plan` prints it: arms, runs, stages, and what it costs."""
    return "\n\n".join([summary(plan, planner, num_slots), _arms(plan), _labels(plan), _runs(plan), _stages(plan)])


def _arms(plan: Plan) -> str:
    rows = []
    for arm in plan.study.arms:
        if arm.name in plan.selected:
            words = change_words(arm.change, load_task(plan.study.task).schema)
            change = "; ".join(words[:3]) + (f"; and {len(words) - 3} more" if len(words) > 3 else "")
            alike = f"same training as {arm.same_as}" if arm.same_as else ""
            rows.append([arm.name, arm.parent or "", change, ", ".join(filter(None, [*plan.labels[arm.name], alike]))])
    return "Arms\n\n" + table(["arm", "against", "change", "labels"], rows, left=4)


def _labels(plan: Plan) -> str:
    """Each label's reasons, alike ones together."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for arm in plan.selected:
        for label, reason in plan.labels[arm].items():
            reasons.setdefault((label, reason), []).append(arm)
    lines = [f"- {label}: {reason} ({_few(arms)})" for (label, reason), arms in reasons.items()]
    return "\n".join(["Labels", "", *(lines or ["none"])])


def _runs(plan: Plan) -> str:
    """Runs by state and reason; alike ones of an arm in one row."""
    grouped: dict[tuple[str, str, str], list[int]] = {}
    for run in plan.runs:
        grouped.setdefault((run.arm, run.state, run.reason), []).append(run.seed)
    rows = [[arm, ", ".join(map(str, seeds)), state, reason] for (arm, state, reason), seeds in grouped.items()]
    return "Runs\n\n" + table(["arm", "seeds", "state", "reason"], rows, left=4)


def _stages(plan: Plan) -> str:
    rows = []
    for key, node in plan.nodes.items():
        parent = node.job.parent[:8] if node.job.parent else ""
        time = "unknown" if is_unknown(node) else duration(node.seconds) if node.state != "done" else ""
        rows.append([key[:8], parent, str(node.seed), _few(node.arms), node.state, str(node.epochs), time])
    return "Stages (arms in one row share it)\n\n" + table(["stage", "after", "seed", "arms", "state", "epochs", "about"], rows, left=5)


def _few(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def arm_text(arm: Arm, labels: Mapping[str, str], task: Task) -> str:
    """One arm in full: its parent, change, labels, settings and stages."""
    lines = [f"{arm.name}" + (f" ({arm.label})" if arm.label else "")]
    if arm.note:
        lines.append(arm.note)
    if arm.choice is not None:
        lines.append(f"for each seed, the best by val/{arm.choice.metric} of {', '.join(arm.choice.among)}; below, the first of them")
    lines.append(f"against: {arm.parent}" if arm.parent else "against: nothing; others are compared with it")
    lines += [f"same training as: {arm.same_as}"] if arm.same_as else []
    lines += ["change:", *(f"  {name}: {worded(old)} -> {worded(new)}" for name, (old, new) in arm.change.items())] if arm.change else []
    lines += ["labels:", *(f"  {label}: {reason}" for label, reason in labels.items())] if labels else []
    lines += [f"published: {', '.join(f'{name} {value}' for name, value in arm.published.items())}"] if arm.published else []
    plain = flatten(dump(arm.settings))
    lines += ["settings:", *(f"  {name}: {worded(value)}" for name, value in plain.items())]
    lines.append("stages:")
    for i, stage in enumerate(arm.stages):
        own = {name: value for name, value in flatten(dump(stage.settings)).items() if plain.get(name) != value}
        lines.append(f"  {i}: {task.stage_words(stage)}")
        lines += [f"     {name}: {worded(value)}" for name, value in own.items()]
    return "\n".join(lines)
