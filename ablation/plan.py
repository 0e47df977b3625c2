"""Arms x seeds as a tree of stages: what is shared, what is done, why the rest is needed, and what it costs.

It looks at nothing itself: the recorded state and the measured speeds come in as arguments.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ablation import groups, keys
from ablation.config import Arm, Choice, Stage, Study
from ablation.errors import AblateError
from ablation.labels import images_per_epoch, labels, labels_of_choice
from ablation.training.frozen import before_backbone, is_frozen
from ablation.training.loop import Tracked
from ablation.worker import Evaluation, Job, products

FORWARD = 0.35  # the share of a training step that is its forward pass, about


@dataclass(frozen=True)
class Source:
    """The data of one arm and seed, as far as a plan must know them."""

    dataset: Path
    digest: str
    counts: tuple[int, ...]  # training images per class
    test_counts: tuple[int, ...]
    num_validation: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Surroundings:
    """What a plan needs from outside: data, weights, the device, and how to name tail classes."""

    source: Callable[[Arm, int], Source]
    weights: Callable[[Any], tuple[str, Path | None]]  # of a model: digest and file
    precision: Callable[[str], str]
    device_class: str
    tail: Callable[[Sequence[int], Sequence[str]], tuple[int, ...]]
    stages: Path  # the folder of trained stages
    results: Path  # the folder of computed results
    shelf: Path  # the folder of features that several trainings share


@dataclass(frozen=True)
class Past:
    """What is there already: in the store, and in the local folders."""

    recorded: Mapping[tuple[str, int], Sequence["RecordedRun"]] = field(default_factory=dict)  # by (arm, seed), the newest first
    results: frozenset[str] = frozenset()  # keys of runs whose numbers lie in the local folder
    stages: Mapping[str, frozenset[str]] = field(default_factory=dict)  # products of finished stages, by key
    partial: Mapping[str, int] = field(default_factory=dict)  # epochs of the stage that a checkpoint has, by key


@dataclass(frozen=True)
class RecordedRun:
    """A run in the store."""

    key: str
    content: str
    status: str
    kind: str  # of its failure
    reason: str


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    arm: str
    seed: int
    key: str
    content: str
    chain: tuple[str, ...]  # the keys of its stages, first to last
    state: str  # done, evaluated, stale, failed, missing
    reason: str
    evaluation: Evaluation
    used_key: str  # the key under which its numbers are recorded: another than `key` where stale ones are kept
    choice: Choice | None = None  # where its numbers are those of another arm's run, chosen once these are there

    @property
    def needed(self) -> bool:
        """Whether something has to be computed for it."""
        return self.state == "missing"


@dataclass(frozen=True)
class Node:
    """A stretch of a stage that is trained in one go."""

    job: Job
    epochs: int
    left: int  # epochs still to be trained
    arms: tuple[str, ...]
    state: str  # done, partial, missing
    seconds: float  # of training and testing that are left
    testing: float  # of these, seconds of testing at the end
    images: int  # per epoch
    owner: str  # the arm on whose account its time goes; for the others it is shared


@dataclass(frozen=True)
class Plan:
    """Everything that a run will do."""

    study: Study
    seeds: tuple[int, ...]
    selected: tuple[str, ...]
    labels: Mapping[str, Mapping[str, str]]
    classes: tuple[str, ...]
    num_test: int
    runs: tuple[Run, ...]
    others: tuple[Run, ...]  # runs of other arms and seeds of the study that are recorded as they would come out now
    nodes: Mapping[str, Node]  # by key, parents first

    @property
    def seconds(self) -> float:
        """The work still to be done, in seconds of one worker."""
        return sum(node.seconds for node in self.nodes.values())

    @property
    def waiting(self) -> list[Run]:
        """The runs for which something has to be computed."""
        return [run for run in self.runs if run.needed]

    def state_of(self, key: str) -> str:
        """The state of a stage."""
        return self.nodes[key].state


@dataclass(frozen=True)
class _Step:
    """One stage of one arm and seed, identified."""

    stage: Stage
    identity: Mapping[str, Any]  # what `keys.stage_content` takes beside the stage
    environment: str
    tracked: Tracked | None
    before: str  # the id of the average that it starts from
    classifier_before: Any  # the classifier of the state that it starts from

    @cached_property
    def group(self) -> str:
        """The stage whatever its length."""
        return keys.stage_content(self.stage, 0, **self.identity)

    @cached_property
    def content(self) -> str:
        """The identity of its end, whatever the environment."""
        return keys.stage_content(self.stage, self.stage.epochs, **self.identity)

    def key(self, epochs: int) -> str:
        """The key of its state after that many epochs."""
        content = self.content if epochs == self.stage.epochs else keys.stage_content(self.stage, epochs, **self.identity)
        return keys.with_environment(content, self.environment)


def average_id(technique: Any, since: int) -> str:
    """The name of an average within a stage's file."""
    return f"{technique.name}-{keys.digest(keys.essential(technique))[:8]}@{since}" if technique.averages else "none"


def make_plan(
    study: Study,
    seeds: Sequence[int],
    selected: Sequence[str],
    around: Surroundings,
    past: Past,
    *,
    other_seeds: Sequence[int] = (),
    rerun: str = "",
    seconds_per_image: Callable[[Stage], float] = lambda stage: 0.0,
) -> Plan:
    """The plan for the selected arms and seeds.

    What a training keeps (averages, best epochs, the optimizer) is what any arm of the study needs of it, selected or not, so that
    selecting another arm later trains nothing again.

    `rerun` is "" (stop at stale results), "keep" (use them), "cached" (do them again), "retry" (what failed again), or "force" (all).
    """
    every_seed = tuple(dict.fromkeys([*seeds, *other_seeds]))
    chains = {
        (arm.name, seed): _chain(arm, seed, around) for seed in every_seed for arm in study.arms if _is_known(arm, seed, selected, around)
    }
    everything = _all_runs(study, chains, around, past, rerun)
    runs = [run for run in everything if run.arm in selected and run.seed in seeds]
    others = [run for run in everything if run not in runs and (run.state == "done" or _is_recorded(run, past))]
    growing = _grow([run for run in everything if run.seed in seeds and run.choice is None], chains, set(selected))
    nodes = _nodes(study, growing, around, past, seconds_per_image, force=rerun == "force")
    source = around.source(next(arm for arm in study.arms if arm.name in selected), seeds[0])
    honest = _labels(study, {*selected, *(run.arm for run in others)}, seeds[0], around)
    return Plan(study, tuple(seeds), tuple(selected), honest, source.classes, sum(source.test_counts), tuple(runs), tuple(others), nodes)


def with_choices(study: Study, selected: Sequence[str]) -> tuple[str, ...]:
    """The selected arms, and those between which they choose, in the study's order."""
    among = {name for arm in study.arms if arm.name in selected and arm.choice for name in arm.choice.among}
    return tuple(arm.name for arm in study.arms if arm.name in {*selected, *among})


def _is_known(arm: Arm, seed: int, selected: Sequence[str], around: Surroundings) -> bool:
    """Whether an arm is selected, or its data and weights are there, so that what it shares with selected ones can be thought of."""
    if arm.name in selected:
        return True
    try:
        _chain(arm, seed, around)
    except AblateError:
        return False
    return True


def _is_recorded(run: Run, past: Past) -> bool:
    """Whether the store has the run as it would come out now, whatever is to be done again."""
    return any(one.key == run.key and one.status == "FINISHED" for one in past.recorded.get((run.arm, run.seed), ()))


def _labels(study: Study, names: set[str], seed: int, around: Surroundings) -> dict[str, dict[str, str]]:
    arms = {arm.name: arm for arm in study.arms}

    def own(arm: Arm) -> dict[str, str]:
        if arm.choice is not None:
            return labels_of_choice([own(arms[name]) for name in arm.choice.among], arm)
        parent = arms[arm.parent] if arm.parent else None
        source = around.source(arm, seed)
        before = around.source(parent, seed) if parent else source
        return labels(arm, parent, sum(source.counts), sum(before.counts), len(source.classes))

    return {arm.name: own(arm) for arm in study.arms if arm.name in names}


# --- identity ----------------------------------------------------------------------------------------------------------------


def averages_since(stages: Sequence[Stage]) -> list[int]:
    """For each stage, the epoch at which its average began."""
    since = [0]
    for before, stage in itertools.pairwise(stages):
        goes_on = "average" not in stage.restart and stage.settings.average == before.settings.average
        since.append(since[-1] if goes_on else stage.first_epoch)
    return since


def _chain(arm: Arm, seed: int, around: Surroundings) -> tuple[_Step, ...]:
    source = around.source(arm, seed)
    weights, _ = around.weights(arm.settings.model)
    since, steps = averages_since(arm.stages), []
    content, environment, before = "", "", ""
    for i, stage in enumerate(arm.stages):
        settings, last = stage.settings, i == len(arm.stages) - 1
        tail = around.tail(source.counts, source.classes) if settings.mix.needs_tail else ()
        average_before = before if stage.start == "average" else ""
        trained = [one for one in keys.techniques_of(settings) if one not in (settings.average, settings.tta, settings.posthoc)]
        environment = keys.digest([environment, keys.environment(trained, around.device_class)])
        identity: dict[str, Any] = {
            "parent": content,
            "data": source.digest,
            "weights": weights,
            "seed": seed,
            "precision": around.precision(settings.precision),
            "tail": tail,
            "average_before": average_before,
        }
        before = average_id(settings.average, since[i])
        needed = last or source.num_validation > 0 or since[i + 1] == since[i] or arm.stages[i + 1].start == "average"
        best_on = (settings.select.removeprefix("best_on_"),) if last and settings.select != "last" else ()
        tracked = Tracked(before, settings.average, since[i], best_on) if needed else None
        steps.append(_Step(stage, identity, environment, tracked, average_before, arm.stages[max(i - 1, 0)].settings.classifier))
        content = steps[-1].content
    return tuple(steps)


def _all_runs(study: Study, chains: Mapping[tuple[str, int], tuple[_Step, ...]], around: Surroundings, past: Past, rerun: str) -> list[Run]:
    """The runs of all chains, those that choose after those among which they do."""
    arms, found = {arm.name: arm for arm in study.arms}, {}
    for (name, seed), chain in chains.items():
        if arms[name].choice is None:
            found[name, seed] = _run(study, arms[name], seed, chain, around, past, rerun)
    for (name, seed), chain in chains.items():
        choice = arms[name].choice
        if choice is not None and all((one, seed) in found for one in choice.among):
            points = [found[one, seed] for one in choice.among]
            found[name, seed] = _choosing_run(arms[name], seed, choice, points, chain, past, rerun)
    return [found[one] for one in chains if one in found]


def _choosing_run(arm: Arm, seed: int, choice: Choice, points: Sequence[Run], chain: tuple[_Step, ...], past: Past, rerun: str) -> Run:
    content = keys.digest([choice.metric, [point.content for point in points]])
    key = keys.digest([choice.metric, [point.used_key for point in points]])
    recorded = past.recorded.get((arm.name, seed), ())
    if any(one.key == key and one.status == "FINISHED" for one in recorded) and rerun != "force":
        state, reason = "done", "recorded"
    elif all(point.state in ("done", "evaluated") for point in points):
        state, reason = "evaluated", "its points are there; only the choice is missing"
    else:
        state = next(state for state in ("failed", "stale", "missing") if any(point.state == state for point in points))
        lacking = next(point.arm for point in points if point.state == state)
        reason = f"chooses among {len(points)} arms" + (f", of which {lacking} is {state}" if state != "missing" else "")
    stage_keys = tuple(step.key(step.stage.epochs) for step in chain)
    return Run(arm.name, seed, key, content, stage_keys, state, reason, points[0].evaluation, key, choice)


def _run(study: Study, arm: Arm, seed: int, chain: tuple[_Step, ...], around: Surroundings, past: Past, rerun: str) -> Run:
    settings, last = arm.stages[-1].settings, chain[-1]
    assert last.tracked is not None
    content = keys.run_content(last.content, settings, last.tracked.since, study.groups)
    watchers = [settings.average, settings.tta, settings.posthoc]
    key = keys.with_environment(content, keys.digest([last.environment, keys.test_environment(watchers, around.device_class)]))
    evaluation = Evaluation(key, content, settings, last.tracked.id, study.groups, study.keep != "none")
    state, reason, used = _state(key, content, past.recorded.get((arm.name, seed), ()), key in past.results, rerun)
    stage_keys = tuple(step.key(step.stage.epochs) for step in chain)
    return Run(arm.name, seed, key, content, stage_keys, state, reason, evaluation, used)


def _state(key: str, content: str, recorded: Sequence[RecordedRun], has_result: bool, rerun: str) -> tuple[str, str, str]:
    """A run's state, the reason in words, and the key under which its numbers are."""
    if rerun == "force":
        return "missing", "forced", key
    exact = [run for run in recorded if run.key == key]
    if any(run.status == "FINISHED" for run in exact):
        return "done", "recorded", key
    if has_result:
        return "evaluated", "computed already; only its record is missing", key
    failed = next((run for run in exact if run.status == "FAILED" and run.kind in ("nan", "bug", "data")), None)
    if failed and rerun != "retry":
        return "failed", f"failed before ({failed.kind}): {failed.reason}; --rerun retry tries again", key
    stale = next((run for run in recorded if run.content == content and run.status == "FINISHED"), None)
    if stale and rerun == "keep":
        return "done", "kept, though code, versions or device have changed since", stale.key
    if stale and rerun in ("", "retry"):
        return "stale", "code, versions or device have changed since it was recorded", key
    if exact:
        return "missing", f"was {exact[0].status.lower()}" + (f" ({exact[0].kind})" if exact[0].kind else ""), key
    if stale:
        return "missing", "code, versions or device have changed", key
    if any(run.content == content for run in recorded):
        return "missing", "was not finished, and code, versions or device have changed since", key
    if recorded:
        return "missing", "its settings, data or groups have changed since it was recorded", key
    return "missing", "new", key


# --- the tree ----------------------------------------------------------------------------------------------------------------


@dataclass
class _Growing:
    """A node while the runs that need it are gathered."""

    step: _Step
    seed: int
    until: int
    parent: str
    same_stage: bool
    arms: list[str] = field(default_factory=list)
    tracked: dict[str, Tracked] = field(default_factory=dict)
    evaluations: list[Evaluation] = field(default_factory=list)
    keep_optimizer: bool = False
    wanted: bool = False  # by a run for which something has to be computed
    begin: int = 0


def _nodes(
    study: Study,
    growing: Mapping[str, _Growing],
    around: Surroundings,
    past: Past,
    seconds_per_image: Callable[[Stage], float],
    *,
    force: bool,
) -> dict[str, Node]:
    arms = {arm.name: arm for arm in study.arms}
    states = {key: _stage_state(key, node, past, force=force) for key, node in growing.items()}
    for key in reversed(list(growing)):  # children come after their parents, so what a child lacks is asked of its parent in time
        node = growing[key]
        if node.wanted and states[key] != "done" and node.parent:
            growing[node.parent].wanted = True
    heads = Counter(_seen(growing, key) for key, node in growing.items() if node.wanted and is_frozen(node.step.stage))
    found = {}
    for key, node in growing.items():
        if not node.arms:
            continue
        source = around.source(arms[node.arms[0]], node.seed)
        state = states[key] if node.wanted else "done"
        images = images_per_epoch(node.step.stage, sum(source.counts))
        left = 0 if state == "done" else node.until - max(node.begin, past.partial.get(key, 0) if state == "partial" else 0)
        per_image = seconds_per_image(node.step.stage) if left or node.evaluations else 0.0
        testing = _tested(node, source) * FORWARD * per_image
        seconds = left * (images + FORWARD * _watched(node, source)) * per_image + testing
        job = _job(key, node, source, around, heads[_seen(growing, key)])
        arms_of = tuple(dict.fromkeys(node.arms))
        found[key] = Node(job, node.until - node.begin, left, arms_of, state, seconds, testing, images, node.arms[0])
    return found


def _seen(growing: Mapping[str, _Growing], key: str) -> tuple[Any, ...]:
    """What decides which features the classifier of a stretch is trained on: classifiers for which it is equal share them."""
    node, root = growing[key], key
    while root and is_frozen(growing[root].step.stage):
        root = growing[root].parent  # the last training of the whole model
    return root, node.seed, before_backbone(node.step.stage.settings), node.step.stage.first_epoch, node.begin, node.until


def _watched(node: _Growing, source: Source) -> int:
    """The images that are looked at after each epoch: the validation part, and the test images where the best epoch is chosen on them."""
    return sum(source.num_validation + sum(source.test_counts) * ("test" in one.best_on) for one in node.tracked.values())


def _tested(node: _Growing, source: Source) -> int:
    """The images that are looked at in the end: each view of each set of weights once, and for some the training images."""
    views = {(one.average, one.settings.select, view) for one in node.evaluations for view in one.settings.tta.views()}
    fitted = {(one.average, one.settings.select) for one in node.evaluations if one.settings.posthoc.needs_features}
    return len(views) * (sum(source.test_counts) + source.num_validation) + len(fitted) * sum(source.counts)


def _stage_state(key: str, node: _Growing, past: Past, *, force: bool) -> str:
    wanted = products(tuple(node.tracked.values()), keep_optimizer=node.keep_optimizer)
    if key in past.stages and wanted <= past.stages[key] and not force:
        return "done"
    return "partial" if key in past.partial and not force else "missing"


def _grow(runs: Sequence[Run], chains: Mapping[tuple[str, int], tuple[_Step, ...]], selected: set[str]) -> dict[str, _Growing]:
    """Every stretch of training by its key, in an order in which parents come first."""
    steps = [step for chain in chains.values() for step in chain]
    lengths: dict[tuple[str, str], set[int]] = {}  # of each stage
    for step in steps:
        lengths.setdefault((step.group, step.environment), set()).add(step.stage.epochs)
    known = {step.key(step.stage.epochs) for step in steps}
    growing: dict[str, _Growing] = {}
    for run in runs:
        before = ""
        for i, step in enumerate(chains[run.arm, run.seed]):
            candidates = {length: step.key(length) for length in lengths[step.group, step.environment] if length <= step.stage.epochs}
            ends = {length: key for length, key in candidates.items() if key in known}
            for end in sorted(ends):
                earlier = [other for other in ends if other < end]
                parent = ends[max(earlier)] if earlier else before
                node = growing.setdefault(ends[end], _Growing(step, run.seed, end, parent, bool(earlier), begin=max(earlier, default=0)))
                _need(node, step)
                if run.arm in selected:
                    node.arms.append(run.arm)
                if earlier:
                    growing[parent].keep_optimizer = True
            if i and "optimizer" not in step.stage.restart:
                growing[before].keep_optimizer = True
            before = ends[step.stage.epochs]
        if run.needed and run.arm in selected:
            growing[before].evaluations.append(run.evaluation)
            growing[before].wanted = True
    return growing


def _need(node: _Growing, step: _Step) -> None:
    if step.tracked is not None:
        known = node.tracked.get(step.tracked.id)
        best_on = tuple(sorted({*(known.best_on if known else ()), *step.tracked.best_on}))
        node.tracked[step.tracked.id] = Tracked(step.tracked.id, step.tracked.technique, step.tracked.since, best_on)


def _job(key: str, node: _Growing, source: Source, around: Surroundings, sharers: int) -> Job:
    settings = node.step.stage.settings
    return Job(
        key=key,
        stage=node.step.stage,
        seed=node.seed,
        until=node.until,
        parent=node.parent,
        parent_average="" if node.same_stage else node.step.before,
        parent_classifier=node.step.classifier_before,
        same_stage=node.same_stage,
        tracked=tuple(node.tracked.values()),
        keep_optimizer=node.keep_optimizer,
        evaluations=tuple({one.key: one for one in node.evaluations}.values()),
        dataset=source.dataset,
        weights_file=around.weights(settings.model)[1],
        tail=around.tail(source.counts, source.classes) if settings.mix.needs_tail else (),
        stages=around.stages,
        results=around.results,
        code=keys.code_of([settings, *(one.settings for one in node.evaluations)]),
        shelf=around.shelf if sharers > 1 else None,
        sharers=sharers,
    )


# --- as data -----------------------------------------------------------------------------------------------------------------


def describe(plan: Plan, around: Surroundings, *, others: bool = False) -> dict[str, Any]:
    """The plan as plain data, for machines; with `others`, and the other runs that are recorded already, for the record."""
    runs = [*plan.runs, *(plan.others if others else ())]
    seeds = list(dict.fromkeys([*plan.seeds, *(run.seed for run in runs)]))
    names = {*plan.selected, *(run.arm for run in runs)}
    study, first = plan.study, next(arm for arm in plan.study.arms if arm.name in plan.selected)
    source = around.source(first, plan.seeds[0])
    members = groups.resolve(study.groups, source.counts, source.classes)
    return {
        "study": study.name,
        "seeds": seeds,
        "classes": list(source.classes),
        "groups": {name: [source.classes[c] for c in classes] for name, classes in members.items()},
        "counts": {str(seed): list(around.source(first, seed).counts) for seed in seeds},
        "test_counts": list(source.test_counts),
        "margin": study.margin,
        "arms": [_arm_as_data(arm, plan.labels[arm.name]) for arm in study.arms if arm.name in names],
        "runs": [{"arm": run.arm, "seed": run.seed, "key": run.used_key, "state": run.state, "reason": run.reason} for run in runs],
        "stages": [_node_as_data(key, node) for key, node in plan.nodes.items()],
    }


def _arm_as_data(arm: Arm, found: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": arm.name,
        "kind": arm.kind,
        "parent": arm.parent,
        "baseline": arm.baseline,
        "condition": arm.condition,
        "change": {name: list(values) for name, values in arm.change.items()},
        "labels": dict(found),
        "same_as": arm.same_as,
        "label": arm.label,
        "note": arm.note,
        "published": dict(arm.published),
        "factors": dict(arm.factors),
        "posthoc": arm.stages[-1].settings.posthoc.name,
    }


def _node_as_data(key: str, node: Node) -> dict[str, Any]:
    return {
        "key": key,
        "parent": node.job.parent or None,
        "seed": node.job.seed,
        "arms": list(node.arms),
        "owner": node.owner,
        "epochs": node.epochs,
        "state": node.state,
        "seconds": node.seconds,
    }


def lineage(plan: Plan, run: Run) -> list[Node]:
    """The stretches of training behind a run, first to last."""
    found, key = [], run.chain[-1]
    while key:
        found.append(plan.nodes[key])
        key = plan.nodes[key].job.parent
    return found[::-1]


def epochs_of(node: Node) -> range:
    """The epochs, counted from the arm's start, that a stretch trains."""
    start = node.job.stage.first_epoch
    return range(start + node.job.until - node.epochs, start + node.job.until)
