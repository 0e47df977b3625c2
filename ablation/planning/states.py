"""The state of a run or of a stretch of work, and the reason in words, by what is recorded and what lies in the folders."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

LOST = "LOST"  # the status of a run that was finished, and whose files are gone from the store


@dataclass(frozen=True)
class RecordedRun:
    """A run in the store."""

    key: str
    content: str
    status: str
    kind: str  # of its failure
    reason: str


@dataclass(frozen=True)
class RecordedState:
    """What is there already: in the store, and in the local folders."""

    runs: Mapping[tuple[str, int], Sequence[RecordedRun]] = field(default_factory=dict)  # by (arm, seed), the newest first
    results: frozenset[str] = frozenset()  # keys of runs whose numbers lie in the local folder
    stages: Mapping[str, frozenset[str]] = field(default_factory=dict)  # products of finished stages, by key
    partial: Mapping[str, int] = field(default_factory=dict)  # epochs of the stage that a checkpoint has, by key


def run_state(key: str, content: str, recorded: Sequence[RecordedRun], has_result: bool, rerun: str) -> tuple[str, str, str]:
    """A run's state (done, evaluated, stale, failed, missing), the reason in words, and the key under which its numbers are.

    A run is stale where only code, versions or device differ from what is recorded: `content` is equal and `key` is not.
    """
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
    if exact and exact[0].status == LOST:
        return "missing", "was recorded, and its files are gone", key
    if exact:
        return "missing", f"was {exact[0].status.lower()}" + (f" ({exact[0].kind})" if exact[0].kind else ""), key
    if stale:
        return "missing", "code, versions or device have changed", key
    if any(run.content == content for run in recorded):
        return "missing", "was not finished, and code, versions or device have changed since", key
    if recorded:
        return "missing", "its settings, data or groups have changed since it was recorded", key
    return "missing", "new", key


def branch_state(key: str, products: Set[str], recorded: RecordedState, *, force: bool) -> str:
    """The state of a stretch of work that must keep these products: done, partial, missing."""
    if key in recorded.stages and products <= recorded.stages[key] and not force:
        return "done"
    return "partial" if key in recorded.partial and not force else "missing"
