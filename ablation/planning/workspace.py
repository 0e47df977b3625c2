"""The folders beside the store: what lies in them, who holds them, and what is deleted there."""

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ablation.errors import AblateError
from ablation.planning.states import RecordedRun, RecordedState
from ablation.study.task import Task
from ablation.system import sealed
from ablation.system.digests import digest
from ablation.system.files import write_json
from ablation.system.locks import runs_elsewhere
from ablation.tracking.texts import LONGEST_TAG, plain

PATIENCE = 60.0  # seconds for whoever lets no study begin
AMONG, ID = "ablation.among", 12  # the tag of a run that stands for the best of some, with so many letters of the ids of these
AMONG_AT_ONCE = 300  # ids in a tag; the rest are in AMONG.1, AMONG.2 ...
INPUTS = "ablation.inputs"  # the tag of a run with what its results depend on besides its settings, as JSON
LONGEST_INPUT = 200  # letters of the value of one of these; of a longer one, a digest


@dataclass(frozen=True)
class Workspace:
    """The folders beside the store: decoded data, trained stages, computed results."""

    root: Path
    part: str = ""  # what tells a part that works beside others, such as .part-3-of-8

    @property
    def stages(self) -> Path:
        """A folder per trained stage, by key."""
        return self.root / "stages"

    @property
    def results(self) -> Path:
        """A folder per computed run, by key."""
        return self.root / "results"

    @property
    def data(self) -> Path:
        """The decoded data sets."""
        return self.root / "data"

    @property
    def speeds(self) -> Path:
        """Measured seconds per training image."""
        return self.root / "speeds.json"

    @property
    def locks(self) -> Path:
        """A lock per study, held while it is run."""
        return self.root / "locks"

    @property
    def parts(self) -> Path:
        """A folder per study, with one for each split of its plan into parts."""
        return self.root / "parts"

    def features(self, study: str) -> Path:
        """What trainings of one study, or of one part of it, share while it is run, deleted afterwards."""
        return self.root / "features" / f"{study}{self.part}"

    def forget(self, stages: Iterable[str], results: Iterable[str]) -> None:
        """Delete what these stages and runs have come to, so that they are computed from their beginning.

        Of a stage's folder the locks and the claim stay: files without a suffix. Raises AblateError if a result cannot be deleted, which
        would pass for a new one.
        """
        for key in stages:
            for path in (self.stages / key).glob("*"):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.suffix:
                    path.unlink(missing_ok=True)
        for key in results:
            shutil.rmtree(self.results / key, ignore_errors=True)
            if (self.results / key).exists():
                raise AblateError(f"{self.results / key} could not be deleted, and nothing was started; expected a folder of this user")

    @contextlib.contextmanager
    def beginning(self) -> Iterator[None]:
        """Held by a study while it takes its lock, and by what lets none begin; after a minute whoever holds it may be lost."""
        self.locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.locks / "beginning")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=PATIENCE)
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def held_off(self, but: str = "") -> Iterator[list[str]]:
        """Let no study but one begin to run in this folder for a while; the names of those that do already.

        On other hosts, those that said so within a minute: of a lock there nothing may be known on a network disk. A stage that is deleted
        while it is trained ends at its next checkpoint.
        """
        with contextlib.ExitStack() as locks:
            if self.root.exists():
                locks.enter_context(self.beginning())
            running = [path.stem for path in sorted((self.root / "status").glob("*.json")) if path.stem != but and runs_elsewhere(path)]
            for path in sorted(self.locks.glob("*.lock")):
                try:
                    if path.stem != but:
                        locks.enter_context(FileLock(path, timeout=0))
                except Timeout:
                    running.append(path.stem)
            yield list(dict.fromkeys(running))

    def recorded_state(self, known: Iterable[Mapping[str, Any]], task: Task) -> RecordedState:
        """What lies in the folders and, of the store's runs, what is recorded."""
        by_run: dict[tuple[str, int], list[RecordedRun]] = {}
        for run in known:
            tags = run["tags"]
            if tags.get("ablation.kind") == "run":
                recorded = RecordedRun(
                    tags["ablation.key"],
                    tags.get("ablation.content", ""),
                    run["status"],
                    tags.get("ablation.failure", ""),
                    tags.get("ablation.reason", ""),
                    run.get("params", {}),
                    _inputs(run),
                    run["run_id"][:ID],
                    among(tags),
                )
                by_run.setdefault((tags["ablation.arm"], int(tags["ablation.seed"])), []).append(recorded)
        finished = {run.key for runs in by_run.values() for run in runs if run.status == "FINISHED"}  # these are not looked at again
        computed = {path.parent.name for path in self.results.glob(f"*/{sealed.RESULT}")}
        results = frozenset(key for key in computed if key in finished or sealed.is_whole(self.results / key))
        saved = task.saved_stages(self.stages)
        return RecordedState(by_run, results, saved.finished, saved.partial)


def among_tags(run_ids: Sequence[str]) -> dict[str, str]:
    """The tags of a run that stands for the best of these."""
    some = [run_ids[begin : begin + AMONG_AT_ONCE] for begin in range(0, len(run_ids), AMONG_AT_ONCE)]
    return {f"{AMONG}.{i}" if i else AMONG: " ".join(run_id[:ID] for run_id in ids) for i, ids in enumerate(some)}


def among(tags: Mapping[str, str]) -> tuple[str, ...]:
    """The beginnings of the ids of the runs for the best of which one with these tags stands."""
    first = tags.get(AMONG, "").split()
    rest = (tags.get(f"{AMONG}.{i}", "").split() for i in range(1, len(tags) + 1))
    return (*first, *chain.from_iterable(takewhile(bool, rest)))


def short_inputs(inputs: Mapping[str, str]) -> dict[str, str]:
    """What a run's results depend on as it is recorded and compared: long values by their digests, the longest left out if need be."""
    short = _short_values(inputs)
    while len(json.dumps(short, ensure_ascii=False)) > LONGEST_TAG:
        del short[max(short, key=lambda name: (len(name) + len(short[name]), name))]
    return short


def _short_values(inputs: Mapping[str, str]) -> dict[str, str]:
    return {name: value if len(value) <= LONGEST_INPUT else digest(value) for name, value in inputs.items()}


def inputs_tag(inputs: Mapping[str, str]) -> dict[str, str]:
    """The tag with what a run's results depend on besides its settings."""
    return {INPUTS: json.dumps(short_inputs(inputs), ensure_ascii=False)}


def _inputs(run: Mapping[str, Any]) -> dict[str, str]:
    """What a recorded run's results depended on besides its settings, as far as it was recorded and can be read."""
    from ablation.tracking.recorded import VERSION_TAG

    tags = run["tags"]
    versions = {name.removeprefix(VERSION_TAG): value for name, value in tags.items() if name.startswith(VERSION_TAG)}
    others = {"data": run.get("digest", ""), **{name: tags.get(f"ablation.{name}", "") for name in ("device", "precision")}}
    known = {name: value for name, value in {**versions, **others}.items() if value}
    return {**known, **_short_values({name: str(value) for name, value in plain(tags.get(INPUTS, ""), {}).items()})}


def read_speeds(path: Path) -> dict[str, float]:
    """The measured seconds per image, by speed key."""
    try:
        return {str(name): float(value) for name, value in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def note_speed(path: Path, name: str, seconds: float) -> None:
    """Keep a measured speed for later plans."""
    write_json(path, read_speeds(path) | {name: seconds}, is_kept=False)
