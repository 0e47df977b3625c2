"""Arms x seeds as a tree of stages: what is shared, what is done, why the rest is needed, and what it costs.

It looks at nothing itself: the task's planner, the recorded state and the measured speeds come in as arguments.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from ablation.errors import AblateError
from ablation.planning.jobs import Job
from ablation.planning.states import Changes, RecordedState, branch_state, run_state
from ablation.planning.tree import Branch, Chains, WantedRun, build_tree, mark_wanted
from ablation.planning.workspace import short_inputs
from ablation.study.config import Arm, Choice, Study
from ablation.study.params import changed_params, moved_params, params
from ablation.study.task import Planner, Request, Step, Task
from ablation.system.digests import digest


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
    request: Request
    used_key: str  # the key under which its numbers are recorded: another than `key` where stale ones are kept
    choice: Choice | None = None  # where its numbers are those of another arm's run, chosen once these are there

    @property
    def needed(self) -> bool:
        """Whether something has to be computed for it."""
        return self.state == "missing"


@dataclass(frozen=True)
class Node:
    """A stretch of a stage that is worked through in one go."""

    job: Job
    seed: int
    first_epoch: int  # of the arm
    epochs: int
    end_epoch: int  # of the stage
    remaining_epochs: int
    arms: tuple[str, ...]
    state: str  # done, partial, missing
    seconds: float  # of training and testing that are left
    testing: float  # of these, seconds of testing at the end
    items: int  # images or the like, per epoch
    owner: str  # the arm on whose account its time goes; for the others it is shared

    @property
    def span(self) -> range:
        """Its epochs, counted from the arm's start."""
        return range(self.first_epoch, self.first_epoch + self.epochs)


@dataclass(frozen=True)
class Plan:
    """Everything that a run will do."""

    study: Study
    seeds: tuple[int, ...]
    selected: tuple[str, ...]
    labels: Mapping[str, Mapping[str, str]]
    runs: tuple[Run, ...]
    others: tuple[Run, ...]  # runs of other arms and seeds of the study that are recorded as they would come out now
    nodes: Mapping[str, Node]  # by key, parents first
    left: frozenset[str]  # the keys of the stages that other arms and seeds of the study need, and that are not recorded
    metric: str = ""  # what the study goes by, by its name in the store
    metric_reason: str = ""  # why, in a clause

    @property
    def first_arm(self) -> Arm:
        """The first of the selected arms."""
        return next(arm for arm in self.study.arms if arm.name in self.selected)

    @property
    def seconds(self) -> float:
        """The work still to be done, in seconds of one worker."""
        return sum(node.seconds for node in self.nodes.values())

    @property
    def waiting(self) -> list[Run]:
        """The runs for which something has to be computed."""
        return [run for run in self.runs if run.needed]

    def lineage(self, run: Run) -> list[Node]:
        """The stretches of work behind a run, first to last."""
        nodes, key = [], run.chain[-1]
        while key:
            nodes.append(self.nodes[key])
            key = self.nodes[key].job.parent
        return nodes[::-1]


def make_plan(
    study: Study,
    seeds: Sequence[int],
    selected: Sequence[str],
    planner: Planner,
    recorded: RecordedState,
    *,
    other_seeds: Sequence[int] = (),
    rerun: str = "",
    only: Collection[str] | None = None,
    seconds_per_item: Callable[[Step], float] = lambda step: 0.0,
) -> Plan:
    """The plan for the selected arms and seeds.

    What a training keeps (averages, best epochs, the optimizer) is what any arm of the study needs of it, selected or not, so that
    selecting another arm later trains nothing again.

    `rerun` is "" (stop at stale results), "keep" (use them), "cached" (do them again), "retry" (what failed again), or "force" (all
    that is selected). With `only`, the keys of some runs, nothing else is to be done.
    """
    chains = _chains(study, tuple(dict.fromkeys([*seeds, *other_seeds])), selected, planner)
    asked = {(name, seed) for name in selected for seed in seeds}
    reruns = {name: "" if rerun == "force" and name not in asked else rerun for name in chains}
    every_run = _runs(study, chains, planner, recorded, reruns)
    if only is not None:
        every_run = [run if run.key in only else replace(run, state="done") for run in every_run]
    study = _with_alike(study, every_run)
    runs = [run for run in every_run if run.arm in selected and run.seed in seeds]
    planned = {(run.arm, run.seed) for run in runs}
    others = [run for run in every_run if (run.arm, run.seed) not in planned and (run.state == "done" or _is_recorded(run, recorded))]
    wanted = [
        WantedRun(run.arm, run.seed, run.arm in selected, run.request if run.needed else None)
        for run in every_run
        if run.seed in seeds and run.choice is None
    ]
    branches = build_tree(wanted, chains)
    nodes = _nodes(study, branches, planner, recorded, seconds_per_item, force=rerun == "force")
    of_left = [run for run in every_run if (run.arm, run.seed) not in planned and run.state != "done" and run.choice is None]
    left = build_tree([WantedRun(run.arm, run.seed, False, None) for run in of_left], chains)
    arms = {arm.name: arm for arm in study.arms}
    labelled = {*selected, *(run.arm for run in others)}
    labels = {name: planner.labels(arm, arms, seeds[0]) for name, arm in arms.items() if name in labelled}
    metric = planner.metric(next(arm for arm in study.arms if arm.name in selected), seeds[0])
    return Plan(study, tuple(seeds), tuple(selected), labels, tuple(runs), tuple(others), nodes, frozenset(left), *metric)


def with_choices(study: Study, selected: Sequence[str]) -> tuple[str, ...]:
    """The selected arms, and those between which they choose, in the study's order."""
    among = {name for arm in study.arms if arm.name in selected and arm.choice for name in arm.choice.among}
    return tuple(arm.name for arm in study.arms if arm.name in {*selected, *among})


def _chains(study: Study, seeds: Sequence[int], selected: Sequence[str], planner: Planner) -> Chains:
    """The steps of the selected arms, and of the others whose data and weights are there, so that what they share can be thought of."""
    chains: dict[tuple[str, int], tuple[Step, ...]] = {}
    for seed in seeds:
        for arm in study.arms:
            try:
                chains[arm.name, seed] = planner.steps(arm, seed)
            except AblateError:
                if arm.name in selected:
                    raise
    return chains


def _with_alike(study: Study, runs: Sequence[Run]) -> Study:
    """The study whose arms also say that they are another's training where only the keys do, as with `precision: fp32` on a CPU."""
    keys: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for run in runs:
        keys[run.arm].append((run.seed, run.key))
    first = {tuple(keys[arm.name]): arm.name for arm in reversed(study.arms) if arm.name in keys}
    origins = {name: first[tuple(known)] for name, known in keys.items()}
    return replace(study, arms=tuple(replace(arm, same_as=_other(arm, origins)) for arm in study.arms))


def _other(arm: Arm, origins: Mapping[str, str]) -> str | None:
    """The arm whose training an arm is, if it is another's."""
    origin = origins.get(arm.name, arm.name)
    return origin if origin != arm.name else arm.same_as


# --- runs ----------------------------------------------------------------------------------------------------------------------


def _is_recorded(run: Run, recorded: RecordedState) -> bool:
    """Whether the store has the run as it would come out now, whatever is to be done again."""
    return any(known.key == run.key and known.status == "FINISHED" for known in recorded.runs.get((run.arm, run.seed), ()))


def _runs(study: Study, chains: Chains, planner: Planner, recorded: RecordedState, reruns: Mapping[tuple[str, int], str]) -> list[Run]:
    """The runs of all chains, those that choose after those among which they do; `reruns` says for each what earlier results are worth."""
    arms, runs = {arm.name: arm for arm in study.arms}, dict[tuple[str, int], Run]()
    for (name, seed), chain in chains.items():
        if arms[name].choice is None:
            runs[name, seed] = _run(arms[name], seed, chain, planner, recorded, reruns[name, seed], study.task)
    for (name, seed), chain in chains.items():
        choice = arms[name].choice
        if choice is not None and all((point, seed) in runs for point in choice.among):
            points = [runs[point, seed] for point in choice.among]
            runs[name, seed] = _choosing_run(arms[name], seed, choice, points, chain, recorded, reruns[name, seed])
    return [runs[name] for name in chains if name in runs]


def _run(arm: Arm, seed: int, chain: tuple[Step, ...], planner: Planner, recorded: RecordedState, rerun: str, task: Task) -> Run:
    request = planner.request(arm, seed, chain)
    known = recorded.runs.get((arm.name, seed), ())
    changes = _changes_of(arm, seed, planner, task)
    state, reason, used = run_state(request.key, request.content, known, request.key in recorded.results, rerun, changes)
    stage_keys = tuple(step.key(step.epochs) for step in chain)
    return Run(arm.name, seed, request.key, request.content, stage_keys, state, reason, request, used)


def _changes_of(arm: Arm, seed: int, planner: Planner, task: Task) -> Changes:
    """What has changed of a run since it was recorded."""
    return Changes(
        settings=lambda known: changed_params(known.params, params(arm, seed, task), task.schema) if known.params else (),
        inputs=lambda: short_inputs(planner.inputs(arm, seed)),
        moved=lambda known: moved_params(known.params, params(arm, seed, task)) if task.has_own_defaults else (),
    )


def _choosing_run(
    arm: Arm, seed: int, choice: Choice, points: Sequence[Run], chain: tuple[Step, ...], recorded: RecordedState, rerun: str
) -> Run:
    rule = [choice.metric, *(["lower"] if choice.is_lower_better else [])]
    content = digest([*rule, [point.content for point in points]])
    key = digest([*rule, [point.used_key for point in points]])
    known = recorded.runs.get((arm.name, seed), ())
    there = {run.run_id for point in points for run in recorded.runs.get((point.arm, seed), ()) if run.status == "FINISHED"}
    if rerun != "force" and any(run.key == key and run.status == "FINISHED" and there.issuperset(run.among) for run in known):
        state, reason = "done", "recorded"
    elif all(point.state in ("done", "evaluated") for point in points):
        state, reason = "evaluated", "its points are there; only the choice is missing"
    else:
        state = next(state for state in ("failed", "stale", "missing") if any(point.state == state for point in points))
        lacking = next(point.arm for point in points if point.state == state)
        reason = f"chooses among {len(points)} arms" + (f", of which {lacking} is {state}" if state != "missing" else "")
    stage_keys = tuple(step.key(step.epochs) for step in chain)
    return Run(arm.name, seed, key, content, stage_keys, state, reason, points[0].request, key, choice)


# --- nodes ---------------------------------------------------------------------------------------------------------------------


def _nodes(
    study: Study,
    branches: Mapping[str, Branch],
    planner: Planner,
    recorded: RecordedState,
    seconds_per_item: Callable[[Step], float],
    *,
    force: bool,
) -> dict[str, Node]:
    states = {key: branch_state(key, branch.products, recorded, force=force) for key, branch in branches.items()}
    mark_wanted(branches, states)
    nodes = {}
    for key, work in planner.works(branches).items():
        branch = branches[key]
        state = states[key] if branch.is_wanted else "done"
        nodes[key] = _node(key, work, branch, state, study.task.name, planner, recorded, seconds_per_item)
    return nodes


def _node(
    key: str,
    work: object,
    branch: Branch,
    state: str,
    task: str,
    planner: Planner,
    recorded: RecordedState,
    seconds_per_item: Callable[[Step], float],
) -> Node:
    step, arms = branch.steps[0], tuple(dict.fromkeys(branch.arms))
    begun = max(branch.begin, recorded.partial.get(key, 0)) if state == "partial" else branch.begin
    remaining = 0 if state == "done" else branch.end - begun
    cost = planner.cost(branch, remaining, seconds_per_item(step) if remaining or branch.requests else 0.0)
    requests = tuple(dict.fromkeys(request.key for request in branch.requests))
    return Node(
        job=Job(key, branch.parent, step.kind, requests, task, work),
        seed=branch.seed,
        first_epoch=step.first_epoch + branch.begin,
        epochs=branch.end - branch.begin,
        end_epoch=branch.end,
        remaining_epochs=remaining,
        arms=arms,
        state=state,
        seconds=cost.seconds,
        testing=cost.testing,
        items=cost.items,
        owner=branch.arms[0],
    )
