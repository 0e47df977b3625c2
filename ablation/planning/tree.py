"""What runs share: their chains of steps, merged into a tree of stretches by key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ablation.study.task import Request, Step

Chains = Mapping[tuple[str, int], tuple[Step, ...]]  # by arm and seed


@dataclass
class Branch:
    """A stretch of a step that is worked through in one go, while the runs that need it are gathered."""

    seed: int
    begin: int  # epochs of the step before it
    end: int  # epochs of the step at its end
    parent: str  # the key of the branch that it goes on from, or ""
    is_same_step: bool  # whether that is an earlier part of the same step
    steps: list[Step] = field(default_factory=list)  # of all arms that share it
    arms: list[str] = field(default_factory=list)  # those of the selected arms
    requests: list[Request] = field(default_factory=list)
    is_carried_on: bool = False
    is_wanted: bool = False  # by a run for which something has to be computed

    @property
    def products(self) -> frozenset[str]:
        """What its end must keep."""
        kept = frozenset().union(*(step.products for step in self.steps))
        return kept | self.steps[0].continuation if self.is_carried_on else kept


@dataclass(frozen=True)
class WantedRun:
    """A run as the tree takes it: whose it is, and the numbers that have to be computed for it, if any."""

    arm: str
    seed: int
    is_selected: bool
    request: Request | None


def build_tree(runs: Sequence[WantedRun], chains: Chains) -> dict[str, Branch]:
    """Every stretch of work by its key, in an order in which parents come first.

    What a branch keeps is what any run of the study needs of it, selected or not.
    """
    steps = [step for chain in chains.values() for step in chain]
    lengths: dict[tuple[str, str], set[int]] = {}  # of the steps that begin alike
    for step in steps:
        lengths.setdefault((step.group, step.environment), set()).add(step.epochs)
    known = {step.key(step.epochs) for step in steps}
    branches: dict[str, Branch] = {}
    for run in runs:
        before = ""
        for step in chains[run.arm, run.seed]:
            keys = {length: step.key(length) for length in lengths[step.group, step.environment] if length <= step.epochs}
            ends = {length: key for length, key in keys.items() if key in known}
            if step.carries_on:
                branches[before].is_carried_on = True
            before = _grow(branches, run, step, ends, before)
        if run.is_selected and run.request is not None:
            branches[before].requests.append(run.request)
            branches[before].is_wanted = True
    return branches


def _grow(branches: dict[str, Branch], run: WantedRun, step: Step, ends: Mapping[int, str], before: str) -> str:
    """Add one step's stretches, of which each ends where another step of its group does; the key of the last one."""
    begin, parent = 0, before
    for end in sorted(ends):
        branch = branches.setdefault(ends[end], Branch(run.seed, begin, end, parent, is_same_step=begin > 0))
        branch.steps.append(step)
        if run.is_selected:
            branch.arms.append(run.arm)
        if begin:
            branches[parent].is_carried_on = True
        begin, parent = end, ends[end]
    return parent


def mark_wanted(branches: Mapping[str, Branch], states: Mapping[str, str]) -> None:
    """Ask of each parent, too, what a child lacks."""
    for key in reversed(list(branches)):  # children come after their parents
        branch = branches[key]
        if branch.is_wanted and states[key] != "done" and branch.parent:
            branches[branch.parent].is_wanted = True
