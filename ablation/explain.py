"""A plan in words: what would run, why, what is shared, what it costs; and one arm in full."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ablation.config import Arm, Stage, dump
from ablation.matrix import flatten, worded
from ablation.plan import Plan
from ablation.probing import Compiling
from ablation.report.words import change_words, duration, table
from ablation.techniques.models import num_parameters

DAY = 24 * 3600
BYTES = 4  # of a number in float32


def summary(plan: Plan, num_slots: int) -> str:
    """A few lines: runs, trainings, what sharing saves, time and disk."""
    states = Counter(run.state for run in plan.runs)
    waiting = plan.waiting
    words = {"done": "recorded", "evaluated": "computed, to be recorded", "missing": "to do", "failed": "failed before", "stale": "stale"}
    runs = ", ".join(f"{states[state]} {word}" for state, word in words.items() if states[state])
    lines = [f"{plan.study.name}: {len(plan.selected)} arms x {len(plan.seeds)} seeds = {len(plan.runs)} runs ({runs})"]
    if waiting:
        todo = [node for node in plan.nodes.values() if node.state != "done"]
        lengths = {arm.name: sum(stage.epochs for stage in arm.stages) for arm in plan.study.arms}
        alone = sum(lengths[run.arm] for run in waiting if run.choice is None)
        epochs = sum(node.left for node in todo)
        saved = f", instead of {alone:,} were each run trained alone" if alone > epochs else ""
        lines.append(f"to train: {len(todo)} stages, {epochs:,} epochs{saved}")
        heads = sum(node.job.shelf is not None for node in todo)
        lines += [f"of these, {heads} train a classifier on a frozen backbone that runs once for all of them"] if heads else []
        reasons = Counter(run.reason for run in waiting)
        lines.append("because: " + "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(4)))
        lines.append(f"about {duration(wall_seconds(plan, num_slots))} with {num_slots} at once, {size(disk(plan))} of disk")
    return "\n".join(lines)


def wall_seconds(plan: Plan, num_slots: int) -> float:
    """The time of the whole with every slot busy, but not less than the longest chain's."""
    chains: dict[str, float] = {}
    for key, node in plan.nodes.items():
        chains[key] = node.seconds + chains.get(node.job.parent, 0.0)
    return max(plan.seconds / num_slots, max(chains.values(), default=0.0))


def disk(plan: Plan) -> float:
    """Bytes that the waiting work leaves: each stage's state, and each run's predictions."""
    total, classes = 0.0, len(plan.classes)
    for node in plan.nodes.values():
        if node.state != "done":
            weights = BYTES * num_parameters(node.job.stage.settings.model, node.job.stage.settings.classifier, classes)
            copies = 1 + sum(one.technique.averages + len(one.best_on) for one in node.job.tracked) + 2 * node.job.keep_optimizer
            total += weights * (copies + len({one.average for one in node.job.evaluations}))
    return total + len(plan.waiting) * plan.num_test * (BYTES * classes + 8)


def size(num_bytes: float) -> str:
    """`3.2 GB`, `120 MB`."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{max(min(1, round(num_bytes)), round(num_bytes / 1e6))} MB"


def compiling(stage: Stage, found: Compiling | str, images: Sequence[int]) -> str:
    """What torch.compile would do to trainings of so many images each, in a sentence."""
    model = stage.settings.model
    what = f"{model.name} at {model.image_size} pixels, batches of {stage.settings.batch_size}"
    if isinstance(found, str):
        return f"{what}: cannot be compiled here: {found}"
    saved, spent = found.saved(images), sum(images) * found.plain
    speed = f"{found.plain / found.compiled:.2f} times as fast, {found.first:.0f} s to compile, {found.again:.0f} s for each training after"
    sense = f"`compile: true` would save {duration(saved)}" if saved > 0 else f"`compile: true` would cost {duration(-saved)} more"
    return f"{what}: {speed}; {sense} of {duration(spent)} of steps"


def full(plan: Plan, num_slots: int) -> str:
    """The plan as `ablate plan` prints it: arms, runs, stages, and what it costs."""
    return "\n\n".join([summary(plan, num_slots), _arms(plan), _honest(plan), _runs(plan), _stages(plan)])


def _arms(plan: Plan) -> str:
    rows = []
    for arm in plan.study.arms:
        if arm.name in plan.selected:
            words = change_words(arm.change)
            change = "; ".join(words[:3]) + (f"; and {len(words) - 3} more" if len(words) > 3 else "")
            alike = f"same training as {arm.same_as}" if arm.same_as else ""
            rows.append([arm.name, arm.parent or "", change, ", ".join(filter(None, [*plan.labels[arm.name], alike]))])
    return "Arms\n\n" + table(["arm", "against", "change", "labels"], rows, left=4)


def _honest(plan: Plan) -> str:
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
        time = duration(node.seconds) if node.state != "done" else ""
        rows.append([key[:8], parent, str(node.job.seed), _few(node.arms), node.state, str(node.epochs), time])
    return "Stages (arms in one row share it)\n\n" + table(["stage", "after", "seed", "arms", "state", "epochs", "about"], rows, left=5)


def _few(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def arm_text(arm: Arm, found: Mapping[str, str]) -> str:
    """One arm in full: its parent, change, labels, settings and stages."""
    lines = [f"{arm.name}" + (f" ({arm.label})" if arm.label else "")]
    if arm.note:
        lines.append(arm.note)
    if arm.choice is not None:
        lines.append(f"for each seed, the best by val/{arm.choice.metric} of {', '.join(arm.choice.among)}; below, the first of them")
    lines.append(f"against: {arm.parent}" if arm.parent else "against: nothing; others are compared with it")
    lines += [f"same training as: {arm.same_as}"] if arm.same_as else []
    lines += ["change:", *(f"  {name}: {worded(old)} -> {worded(new)}" for name, (old, new) in arm.change.items())] if arm.change else []
    lines += ["labels:", *(f"  {label}: {reason}" for label, reason in found.items())] if found else []
    lines += [f"published: {', '.join(f'{name} {value}' for name, value in arm.published.items())}"] if arm.published else []
    plain = flatten(dump(arm.settings))
    lines += ["settings:", *(f"  {name}: {worded(value)}" for name, value in plain.items())]
    lines.append("stages:")
    for i, stage in enumerate(arm.stages):
        own = {name: value for name, value in flatten(dump(stage.settings)).items() if plain.get(name) != value}
        restart = f", restarts {', '.join(stage.restart)}" if i and stage.restart else ""
        trains = f"trains {stage.train}, backbone in {stage.backbone} mode, head {stage.head}"
        lines.append(f"  {i}: {stage.epochs} epochs, {trains}, starts from {stage.start}{restart}")
        lines += [f"     {name}: {worded(value)}" for name, value in own.items()]
    return "\n".join(lines)
