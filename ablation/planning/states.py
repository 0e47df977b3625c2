"""The state of a run or of a stretch of work, and the reason in words, by what is recorded and what lies in the folders."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from ablation.formatting import counted
from ablation.study.metrics import READ

LOST = "LOST"  # the status of a run that was finished, and whose files are gone from the store
CONFIG = "config.yaml"  # the artifact that each finished run has
FORCED = "FORCED"  # of a run that is to be run again, whatever its record says
MOST_NAMED = 4  # changes that a reason names
UNDECLARED = "declared data"  # the input of one's own code that runs lack whose study declared none
DIGESTS = {  # inputs whose values are digests
    "data": "other images or another split",
    "weights": "other weights to start from",
    UNDECLARED: "the declared data",
    "code": "the code",
}
OF_CONTENT = (
    "data",
    "weights",
    "groups",
    "precision",
    UNDECLARED,
    "task",
    "env",
    "threads",
    "metrics",
    "classes",
)  # what makes another run, not other bits


@dataclass(frozen=True)
class RecordedRun:
    """A run in the store, with its params and with what its results depend on besides, as far as it is recorded."""

    key: str
    content: str
    status: str
    kind: str  # of its failure
    reason: str
    params: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    run_id: str = ""  # its beginning
    among: tuple[str, ...] = ()  # of one that stands for the best of some: theirs


@dataclass(frozen=True)
class RecordedState:
    """What is there already: in the store, and in the local folders."""

    runs: Mapping[tuple[str, int], Sequence[RecordedRun]] = field(default_factory=dict)  # by (arm, seed), the newest first
    results: frozenset[str] = frozenset()  # keys of runs whose numbers lie in the local folder
    stages: Mapping[str, frozenset[str]] = field(default_factory=dict)  # products of finished stages, by key
    partial: Mapping[str, int] = field(default_factory=dict)  # epochs of the stage that a checkpoint has, by key


@dataclass(frozen=True)
class Changes:
    """What has changed since a run was recorded, looked up only where a reason names it."""

    settings: Callable[[RecordedRun], Sequence[str]]  # each in words: `mix.alpha 0.4 -> 0.3`
    inputs: Callable[[], Mapping[str, str]]  # what the results would depend on now
    moved: Callable[[RecordedRun], Sequence[str]] = lambda recorded: ()  # settings that no file has, and that have another value now

    def of_content(self, recorded: RecordedRun) -> str:
        """`mix.alpha 0.4 -> 0.3`: what makes it another run."""
        words = [*self.settings(recorded), *self._of_inputs(recorded, filter(_is_of_content, self.inputs() if recorded.inputs else ()))]
        is_known = "weights" in recorded.inputs or "task" in recorded.inputs  # all that could have changed
        return _some(words) or ("how runs are told apart" if is_known else "its groups, its weights or ablate itself")

    def of_environment(self, recorded: RecordedRun) -> str:
        """`torch 2.14.0 -> 2.15.0`: what makes it a run of other bits; the code, if it is nothing else that is recorded."""
        names = [name for name in self.inputs() if name != "device" and not _is_of_content(name)] if recorded.inputs else []
        words = self._of_inputs(recorded, [*names, "device"])
        return _some(words) or ("the code" if "device" in recorded.inputs else "the code, a version or the device")

    def _of_inputs(self, recorded: RecordedRun, names: Iterable[str]) -> list[str]:
        now = self.inputs() if recorded.inputs else {}
        then = {**({UNDECLARED: ""} if "task" in recorded.inputs else {}), **recorded.inputs}
        return [
            DIGESTS.get(name) or f"{name} {then[name] or 'none'} -> {now[name] or 'none'}"
            for name in names
            if name in then and name in now and then[name] != now[name]
        ]


def _is_of_content(name: str) -> bool:
    return name in OF_CONTENT or name.startswith(READ)


def _some(words: Sequence[str]) -> str:
    rest = len(words) - MOST_NAMED
    return "; ".join([*words[:MOST_NAMED], *([f"and {counted(rest, 'other change')}"] if rest > 0 else [])])


def run_state(
    key: str, content: str, recorded: Sequence[RecordedRun], has_result: bool, rerun: str, changes: Changes
) -> tuple[str, str, str]:
    """A run's state (done, evaluated, stale, failed, missing), the reason in words, and the key under which its numbers are.

    A run is stale where only code, versions or device differ from what is recorded: `content` is equal and `key` is not, and no setting
    has another value because the code has another default.
    """
    if rerun == "force":
        return "missing", "forced", key
    exact = [run for run in recorded if run.key == key]
    if any(run.status == "FINISHED" for run in exact):
        return "done", "recorded", key
    if has_result:
        return "evaluated", "computed already; only its record is missing", key
    failed = next((run for run in exact if run.status == "FAILED" and run.kind in ("nan", "bug", "data", "timeout")), None)
    alike = [run for run in recorded if run.content == content and not changes.moved(run)]
    stale = next((run for run in alike if run.status == "FINISHED"), None)
    if failed and rerun != "retry" and not (stale and rerun == "keep"):
        return "failed", f"failed before ({failed.kind}): {failed.reason}; --rerun retry tries again", key
    if stale:
        has_changed = f"has changed since it was recorded: {changes.of_environment(stale)}"
        if rerun == "keep":
            return "done", f"kept, though this has changed since it was recorded: {changes.of_environment(stale)}", stale.key
        if rerun == "" or (rerun == "retry" and not failed):
            return "stale", has_changed, key
    if exact and exact[0].status == LOST:
        return "missing", "was recorded, and its files are gone", key
    if exact:
        return "missing", _unfinished(exact[0]), key
    if stale:
        return "missing", has_changed, key
    if alike:
        return "missing", f"was not finished, and has changed since: {changes.of_environment(alike[0])}", key
    if recorded:
        newest = next((run for run in recorded if run.status == "FINISHED"), recorded[0])
        return "missing", f"has changed: {changes.of_content(newest)}", key
    return "missing", "new", key


def _unfinished(run: RecordedRun) -> str:
    """`did not end: stopped by the user`, `was failed (memory)`, `was running`."""
    if run.status == "KILLED" and run.reason:
        return f"did not end: {run.reason}"
    return f"was {run.status.lower()}" + (f" ({run.kind})" if run.kind and run.status != FORCED else "")


def branch_state(key: str, products: Set[str], recorded: RecordedState, *, force: bool) -> str:
    """The state of a stretch of work that must keep these products: done, partial, missing."""
    if key in recorded.stages and products <= recorded.stages[key] and not force:
        return "done"
    return "partial" if key in recorded.partial and not force else "missing"
