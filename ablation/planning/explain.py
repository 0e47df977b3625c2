"""A plan in words, on one screen: what would run, how much, how long and why; and one arm in full."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ablation.formatting import WIDTH, counted, duration, shortened, size, worded, wrapped
from ablation.planning.cost import disk, is_unknown, wall_seconds
from ablation.planning.families import families
from ablation.planning.plan import Node, Plan
from ablation.planning.recorded_values import metric_words
from ablation.study.changes import flatten
from ablation.study.config import Arm
from ablation.study.task import Planner, Task
from ablation.techniques.technique import dump

MOST_REASONS, MOST_DATA, MOST_CLASSES = 6, 3, 20  # that are listed; of more there is a summary
LONGEST_NAME = 10  # letters of a class above its numbers
STATES = {"done": "recorded", "evaluated": "computed, to be recorded", "missing": "to do", "failed": "failed before", "stale": "stale"}
STALE_ADVICE = "  a run stops at stale results: --rerun keep uses them, --rerun cached runs them again"
UNREMARKABLE = ("recorded", "computed already; only its record is missing")  # reasons that the states already tell


def summary(plan: Plan, planner: Planner, num_slots: int) -> str:
    """A few lines: runs, metric, data, trainings, what sharing saves, why, time and disk."""
    return "\n".join([*_head(plan), *_data(plan, planner, with_classes=False), *_work(plan, planner, num_slots)])


def screen(plan: Plan, planner: Planner, num_slots: int) -> str:
    """The plan as `ablate plan` prints it: the arms by family, the labels, the images of each class, and what it costs."""
    more = f"ablate plan --stages lists {plan.study.task.words.listed}; ablate show ARM one arm"
    parts = [_head(plan), _arms(plan), _data(plan, planner, with_classes=True), [*_work(plan, planner, num_slots), more]]
    return "\n\n".join("\n".join(part) for part in parts if part)


def columns(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Rows of a name, a count and a text, the names and counts aligned and the texts wrapped beside them."""
    left = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    indent = sum(left) + 6
    return [line for name, count, text in rows for line in wrapped(f"  {name:<{left[0]}}  {count:>{left[1]}}  {text}", indent)]


# --- what ----------------------------------------------------------------------------------------------------------------------


def _head(plan: Plan) -> list[str]:
    """How many runs there are, by state, and the metric that verdicts go by."""
    states = Counter(run.state for run in plan.runs)
    runs = ", ".join(f"{states[state]} {words}" for state, words in STATES.items() if states[state])
    counts = f"{counted(len(plan.selected), 'arm')} x {counted(len(plan.seeds), 'seed')} = {counted(len(plan.runs), 'run')}"
    lines = wrapped(f"{plan.study.name}: {counts} ({runs})", 2)
    if plan.metric:
        reason = f" ({plan.metric_reason})" if plan.metric_reason else ""
        lines += wrapped(f"metric: {metric_words(plan)}{reason}", 2)
    return lines


def _arms(plan: Plan) -> list[str]:
    """A line for each family of arms, one for arms that are one training, and one for each label."""
    arms, schema = [arm for arm in plan.study.arms if arm.name in plan.selected], plan.study.task.schema
    rows = [(family.name, str(len(family.arms)), family.words) for family in families(plan.study.arms, plan.selected, schema)]
    alike = [f"{arm.name} = {arm.same_as}" for arm in arms if arm.same_as]
    lines = columns(rows)
    lines += wrapped(f"one training under two names: {shortened(alike, 4)}", 2) if alike else []
    return [*lines, *_labels(plan)]


def _labels(plan: Plan) -> Iterator[str]:
    """Each label with the arms that have it, and its reason where they have one in common."""
    reasons: dict[str, dict[str, str]] = {}
    for arm in plan.selected:
        for label, reason in plan.labels[arm].items():
            reasons.setdefault(label, {})[arm] = reason
    for label, by_arm in reasons.items():
        distinct = set(by_arm.values())
        why = f": {distinct.pop()}" if len(distinct) == 1 else ""
        yield from wrapped(f"{label} ({shortened(list(by_arm), 3)}){why}", 2, most=2)


# --- the data ------------------------------------------------------------------------------------------------------------------


def _data(plan: Plan, planner: Planner, *, with_classes: bool) -> list[str]:
    """What was found in the data: a line for each data set and each finding and, if wanted, the images of each class."""
    accounts = planner.data([arm for arm in plan.study.arms if arm.name in plan.selected], plan.study.seeds[0])
    lines: list[str] = []
    for account in accounts[:MOST_DATA]:
        arms = f" ({shortened(account['arms'], 4)})" if len(accounts) > 1 else ""
        lines += wrapped(f"data{arms}: {account['summary']}", 2)
        lines += _classes(account) if with_classes else []
        lines += [line for finding in account["findings"] for line in wrapped(f"  note: {finding['sentence']}", 4)]
    rest = len(accounts) - MOST_DATA
    return [*lines, *([f"and {counted(rest, 'other data set')}, which ablate data FILE shows"] if rest > 0 else [])]


def _classes(account: Mapping[str, Any]) -> list[str]:
    """The images of each class in each split, classes side by side; of many classes the range."""
    counts: Mapping[str, Sequence[int]] = account.get("counts", {})
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in map(str, account.get("classes", ()))]
    if len(names) > MOST_CLASSES:
        return [line for split, per_class in counts.items() for line in wrapped(_range(split, per_class, account["classes"]), 4)]
    cells = [[name, *(f"{per_class[c]:,}" for per_class in counts.values())] for c, name in enumerate(names)]
    heads = ["images", *counts]
    widest, lines, first = max(map(len, heads)), list[str](), 0
    while first < len(cells):
        block = _fitting(cells[first:], WIDTH - widest - 2)
        lines += [f"  {head:<{widest}}" + "".join(f"  {cell[i]:>{max(map(len, cell))}}" for cell in block) for i, head in enumerate(heads)]
        first += len(block)
    return lines


def _fitting(cells: Sequence[Sequence[str]], width: int) -> Sequence[Sequence[str]]:
    """The first of these columns that fit beside each other, at least one."""
    used, number = 0, 0
    while number < len(cells) and (used := used + 2 + max(map(len, cells[number]))) <= width:
        number += 1
    return cells[: max(1, number)]


def _range(split: str, per_class: Sequence[int], classes: Sequence[str]) -> str:
    """`training: 5 to 500 images per class (fewest: 'lion', most: 'bed')`."""
    low, high = min(per_class), max(per_class)
    if low == high:
        return f"  {split}: {low:,} images per class"
    fewest, most = (classes[list(per_class).index(value)] for value in (low, high))
    return f"  {split}: {low:,} to {high:,} images per class (fewest: {fewest}, most: {most})"


# --- how much, how long, why -----------------------------------------------------------------------------------------------------


def _work(plan: Plan, planner: Planner, num_slots: int) -> list[str]:
    """What is to be trained, why, how long it takes, and the disk that it needs."""
    lines = _reasons(plan)
    if plan.waiting:
        todo, words = [node for node in plan.nodes.values() if node.state != "done"], plan.study.task.words
        length = f", {_epochs(plan, todo)}" if words.is_counted else ""
        lines += wrapped(f"{words.to_do}: {counted(len(todo), words.part)}{length}", 2)
        lines += [line for remark in planner.remarks([node.job.work for node in todo]) for line in wrapped(f"  {remark}", 4)]
        room = disk(plan, planner)
        lines.append(f"{_time(plan, num_slots)} with {num_slots} at once" + (f", {size(room)} of disk" if room else ""))
    return lines


def _epochs(plan: Plan, todo: Sequence[Node]) -> str:
    """How many epochs are left, and how many they would be without sharing."""
    lengths = {arm.name: sum(stage.epochs for stage in arm.stages) for arm in plan.study.arms}
    alone = sum(lengths[run.arm] for run in plan.waiting if run.choice is None)
    epochs = sum(node.remaining_epochs for node in todo)
    saved = f", instead of {alone:,} were each run trained alone" if alone > epochs else ""
    return f"{counted(epochs, 'epoch')}{saved}"


def _reasons(plan: Plan) -> list[str]:
    """Why runs are to be done, or cannot be: a line for each reason, the commonest first."""
    reasons = Counter(run.reason for run in plan.runs if run.reason not in UNREMARKABLE).most_common()
    if not reasons:
        return []
    rows = [(counted(count, "run"), reason) for reason, count in reasons[:MOST_REASONS]]
    rest = reasons[MOST_REASONS:]
    rows += [(counted(sum(count for _, count in rest), "run"), f"for {counted(len(rest), 'other reason')}")] if rest else []
    left = max(len(count) for count, _ in rows)
    stale = [STALE_ADVICE] if any(run.state == "stale" for run in plan.runs) else []
    lines = [line for count, reason in rows for line in wrapped(f"  {count:>{left}}  {reason}", left + 4, most=3)]
    return ["why:", *lines, *stale]


def _time(plan: Plan, num_slots: int) -> str:
    """How long the plan takes, as far as that is known."""
    known, is_known = wall_seconds(plan, num_slots), not any(is_unknown(node) for node in plan.nodes.values())
    return f"about {duration(known)}" if is_known else f"more than {duration(known)}" if known else "for an unknown time"


# --- one arm -------------------------------------------------------------------------------------------------------------------


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
    if not task.words.is_counted:
        return "\n".join(lines)
    lines.append("stages:")
    for i, stage in enumerate(arm.stages):
        own = {name: value for name, value in flatten(dump(stage.settings)).items() if plain.get(name) != value}
        lines.append(f"  {i}: {task.stage_words(stage)}")
        lines += [f"     {name}: {worded(value)}" for name, value in own.items()]
    return "\n".join(lines)
