"""One run of one's own training code: a process is started and watched, and what it hands back becomes a result, whole or not at all."""

import contextlib
import json
import math
import re
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from ablation.errors import ConfigError, TrainingError
from ablation.formatting import duration
from ablation.study.task import CheckpointInterval, CodeChanged, Emit, Interrupted
from ablation.system import fencing, sealed
from ablation.system.failures import NO_MEMORY
from ablation.system.files import write_json
from ablation.system.hardware import hardware
from ablation.system.identity import place
from ablation.system.oom_kills import num_oom_kills, why_killed
from ablation.tasks.own import child, handle, keys, returned, scratch, settings
from ablation.tasks.own.alone import alone
from ablation.tasks.own.curves import Curves, LoggedFile
from ablation.tasks.own.definition import STEP, Definition
from ablation.tasks.own.environment import VISIBLE, device_tag, environment
from ablation.tasks.own.patterns import Lines, Printed
from ablation.tasks.own.process import ERRORS, GuardedProcess, held
from ablation.tasks.own.work import OwnWork
from ablation.techniques.technique import allow_code

TICK = 0.1  # seconds between two looks at whether the run shall end
FENCE_TICK = 2.0  # seconds between two looks at whether another attempt has taken over
PATIENCE = 15.0  # seconds for what an earlier attempt left on this host to end; longer than a look and what its guard takes
LOG_BYTES, TOLD_BYTES = 2**20, 20_000  # of what was printed: in the result, and in a failure
LAST_LINES = 30  # in which a message of lacking memory stands
NO_ROOM = re.compile("No space left on device|disk is full|Disk quota exceeded", re.IGNORECASE)  # of Python, SQLite and the system
KILLED = (-9, 137)  # the second is how a shell passes it on
LOG, FILES, CHECKPOINTS = "log.txt", "files", "checkpoints"
REFUSED, EARLIER = "refused", "earlier.jsonl"  # what could not be used, and the curves of earlier attempts


def run(work: OwnWork, device: str, emit: Emit, should_stop: Callable[[], bool], interval: CheckpointInterval) -> None:
    """Carry out a run that has no result yet; the folder of the result appears only when it is complete.

    Raises TrainingError, Interrupted, Fenced, or CodeChanged, at the start or at the end. A second process with the same work waits for the
    first, unless that is an earlier attempt that was given up.
    """
    allow_code(work.definition.folder)  # as the command did that planned the work; here it finds the code, which only the child imports
    code = _code(work)
    _check_packages(work)
    _check_data(work)
    folder, result = work.stages / work.key, work.results / work.request.key
    with fencing.held(folder, should_stop) as fence, alone(work, emit, should_stop):
        if not sealed.is_whole(result):
            if result.exists():
                emit({"kind": "damaged", "message": f"{result} is damaged; its run is done again"})
            with held(folder / "processes", should_stop, _patience(fence)) as descriptor:
                if descriptor is None:
                    raise Interrupted
                checkpoints = _checkpoints(folder, is_renamed=fence.left is not None)
                _carry_out(work, code, checkpoints, device, emit, should_stop, descriptor)
        _clear(folder)
    emit({"kind": "result", "run": work.request.key, "seconds": _seconds(result)})


def _patience(fence: fencing.Fence) -> float:
    """The seconds to wait for what is left of the run's processes: none where an earlier attempt left them on another host."""
    if fence.left is None:
        return math.inf
    return PATIENCE if fence.left.place == place() else 0.0


def _checkpoints(folder: Path, *, is_renamed: bool) -> Path:
    """The folder with what the code kept, of several the last; `is_renamed`, by a name that no process of an earlier attempt writes to."""
    newest = max((int(path.name.partition("-")[2] or 0), path) for path in [folder / CHECKPOINTS, *folder.glob(f"{CHECKPOINTS}-[0-9]*")])
    if not is_renamed:
        return newest[1]
    renamed = folder / f"{CHECKPOINTS}-{newest[0] + 1}"
    with contextlib.suppress(FileNotFoundError):
        newest[1].rename(renamed)
    return renamed


def _check_packages(work: OwnWork) -> None:
    """Raise TrainingError if what the code imports has other versions here than where the study was planned."""
    here = keys.packages(work.definition)
    for name in sorted(here.keys() | work.packages.keys()):
        found, planned = here.get(name, "none"), work.packages.get(name, "none")
        if found != planned:
            raise TrainingError("data", f"{name} {found} is installed here; expected {planned}, with which the study was planned")


def _check_data(work: OwnWork) -> None:
    """Raise TrainingError if the declared data are no longer those of the plan."""
    if work.definition.data and keys.data_of(work.definition) != work.data:
        problem = "the declared data were changed since the study was planned, so nobody could tell which of them a run has read"
        raise TrainingError("data", f"{problem}; ablate run plans with them as they are now")


def _seconds(result: Path) -> float:
    """How long the run of a result took."""
    return float(json.loads((result / sealed.RESULT).read_text(encoding="utf-8"))["seconds"])


def _code(work: OwnWork) -> keys.Parts:
    """The parts of the code; raises CodeChanged if it is no longer that of the plan, or cannot be found any more."""
    try:
        parts = keys.parts_of(work.definition)
    except (ConfigError, OSError):
        raise CodeChanged from None
    if keys.identity(parts) != work.code:
        raise CodeChanged
    return parts


def _carry_out(
    work: OwnWork,
    code: keys.Parts,
    checkpoints: Path,
    device: str,
    emit: Emit,
    should_stop: Callable[[], bool],
    descriptor: int,
) -> None:
    folder = work.stages / work.key
    for leftover in folder.glob("try-*"):  # of a process that was killed
        if work.definition.resumes:
            _salvage(work, leftover / "out", folder / EARLIER)
        shutil.rmtree(leftover, ignore_errors=True)
    if not work.definition.resumes:
        shutil.rmtree(checkpoints, ignore_errors=True)
        (folder / EARLIER).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="try-", dir=folder, ignore_cleanup_errors=True) as name:
        attempt = Attempt.prepare(work, Path(name).resolve(), checkpoints.resolve(), device)
        try:
            attempt.watch(emit, should_stop, descriptor)
            fencing.check()
            attempt.printed.check(work.definition)
            handed_back = returned.read(work.definition, attempt.out, attempt.printed.metrics, attempt.before)
        except TrainingError as error:
            raise _failed(work, attempt, error) from None
        if problem := keys.why_changed(work.definition, code):
            emit({"kind": "told", "message": problem})
            shutil.rmtree(checkpoints, ignore_errors=True)
            raise CodeChanged
        _check_data(work)
        _write(work, attempt, handed_back)


def _clear(folder: Path) -> None:
    """Delete what a run needs no more that has its result, even if its process was killed just then; done again, it begins anew."""
    (folder / EARLIER).unlink(missing_ok=True)
    for kept in (*folder.glob(f"{CHECKPOINTS}*"), *folder.glob("try-*"), folder / REFUSED):
        shutil.rmtree(kept, ignore_errors=True)


def _salvage(work: OwnWork, out: Path, earlier: Path) -> None:
    """Keep for the next attempt what a killed one logged into its folder, of which nobody may have taken note."""
    curves = Curves(frozenset(metric.name for metric in work.definition.metrics), time.time() * 1000)
    curves.go_on(earlier)
    curves.take(LoggedFile(out / handle.CURVES))
    if curves.untold:
        curves.keep(earlier, 0.0)


def _failed(work: OwnWork, attempt: "Attempt", error: TrainingError) -> TrainingError:
    """The error, after what the code left in its folder was kept, for a run may have taken days; its log says where.

    The message says nothing of it: runs that failed for one reason are told together.
    """
    fencing.check()
    kept = work.stages / work.key / REFUSED
    shutil.rmtree(kept, ignore_errors=True)
    where = f"What it handed back is in {kept}\n" if any(attempt.out.iterdir()) else ""
    if where:
        attempt.out.replace(kept)
    return TrainingError(error.kind, error.message, log=f"{where}{error.log or attempt.tail}", facts=error.facts)


# --- the process -----------------------------------------------------------------------------------------------------------------


class Attempt:
    """One attempt at a run: its folders, what it prints, and how it ends."""

    def __init__(self, definition: Definition, folder: Path, words: list[str], env: dict[str, str], tag: str) -> None:
        self.definition, self.folder, self.words, self.env, self.tag = definition, folder, words, env, tag
        self.out, self.store = folder / "out", folder / "mlflow"
        self.before = returned.states_before(definition)
        self.started = self.finished = time.time()
        self.began = self.ended = time.monotonic()
        patterns = {name: source.pattern for name, source in definition.sources.items() if source.pattern}
        self.printed = Printed(patterns, definition.curves)
        self.curves = Curves(frozenset(metric.name for metric in definition.metrics), self.started * 1000)
        if definition.resumes:
            self.curves.go_on(folder.parent / EARLIER)
            self.printed.go_on({name: self.curves.num_points(name) for name in definition.curves})
        self.log, self.errors = deque[bytes](), deque[str](maxlen=200)
        self._size, self._asked, self._checked = 0, "", time.monotonic()
        self._lines = {name: Lines() for name in ("output", ERRORS)}
        self._file = LoggedFile(self.out / handle.CURVES)

    @classmethod
    def prepare(cls, work: OwnWork, folder: Path, checkpoints: Path, device: str) -> "Attempt":
        """The attempt with its folders made and its words and environment filled in."""
        definition, out = work.definition, folder / "out"
        out.mkdir()
        checkpoints.mkdir(exist_ok=True)
        env = environment(definition, device, scratch.prepare(folder / "mlflow", work.empty_store))
        asked: dict[str, Any] = {
            "function": definition.function,
            "settings": dict(work.settings),
            "seed": work.seed,
            "folder": str(definition.folder.resolve()),
        }
        if definition.is_function:
            asked |= {"out": str(out), "checkpoints": str(checkpoints), "hold_after": work.hold_after}
            write_json(folder / "request.json", asked, is_kept=False)
            words = [sys.executable, "-P", child.__file__, str(folder / "request.json")]
        else:
            file = folder / "settings.json"
            write_json(file, {"seed": work.seed, **work.settings}, is_kept=False)
            words = settings.argv(definition, work.settings, work.seed, out, checkpoints, file)
        return cls(definition, folder, words, env, device_tag(device, env.get(VISIBLE, "")))

    def watch(self, emit: Emit, should_stop: Callable[[], bool], descriptor: int) -> None:
        """Start the process and follow it to its end.

        Raises Interrupted if it was asked to stop, Fenced if another attempt has taken over, and TrainingError if it failed.
        """
        kills = num_oom_kills()
        self.started, self.began = time.time(), time.monotonic()
        self.curves.last = self.started * 1000
        with GuardedProcess(self.words, self.definition.folder, self.env, descriptor) as process:
            while process.ended is None:
                self._take(process.read(TICK))
                self._tell(emit)
                if not self._asked and process.ended is None:
                    self._end_if_due(process, should_stop)
            self._take(process.rest())
        for name, lines in self._lines.items():
            self._see(lines.end(), name)
        self.finished, self.ended = time.time(), time.monotonic()
        self._tell(emit, is_last=True)
        self._raise_if_failed(process.ended, kills)

    def _end_if_due(self, process: GuardedProcess, should_stop: Callable[[], bool]) -> None:
        if time.monotonic() - self._checked > FENCE_TICK:
            fencing.check()
            self._checked = time.monotonic()
        timeout = self.definition.timeout
        self._asked = "stop" if should_stop() else "timeout" if timeout and time.monotonic() - self.began > timeout else ""
        if self._asked:
            process.stop(self.definition.grace)

    def _take(self, pieces: Iterator[tuple[str, bytes]]) -> None:
        for name, data in pieces:
            self.log.append(data)
            self._size += len(data)
            while self._size - len(self.log[0]) > LOG_BYTES:
                self._size -= len(self.log.popleft())
            lines = list(self._lines[name].take(data))
            self.errors.extend(lines if name == ERRORS else ())
            self._see(lines, name)

    def _see(self, lines: "Iterator[str] | list[str]", stream: str) -> None:
        for line in lines:
            for step, values in self.printed.see(line, stream):
                self.curves.add(step, int(time.time() * 1000), values)

    def _tell(self, emit: Emit, *, is_last: bool = False) -> None:
        self.curves.take(self._file)
        if self.definition.resumes and (self.curves.untold or is_last):
            fencing.check()
            self.curves.keep(self.folder.parent / EARLIER, time.monotonic() - self.began)
        for event in self.curves.events():
            emit(event)

    # --- how it ended ----------------------------------------------------------------------------------------------------------

    def _raise_if_failed(self, ended: dict[str, Any], kills: int | None) -> None:
        code = ended.get("code", -9)
        if self._asked == "stop":
            raise Interrupted
        if self._asked:
            problem = f"it had not ended after {duration(self.definition.timeout)} (task.timeout), and was ended"
            raise TrainingError("timeout", problem, log=self.tail)
        if "unstarted" in ended:
            program = f"{self.words[0]!r} could not be started in {self.definition.folder}: {ended['unstarted']}"
            raise TrainingError("data", f"{program}; expected a program")
        if code in KILLED:
            facts = why_killed(kills, num_oom_kills())
            raise TrainingError(facts.pop("failure"), facts.pop("message"), log=self.tail, facts={"exit": -9, "is_fresh": True, **facts})
        if code == 0:
            return
        last = "\n".join(list(self.errors)[-LAST_LINES:])
        if NO_MEMORY.search(last) or "MemoryError" in last or "RESOURCE_EXHAUSTED" in last:
            raise TrainingError("memory", f"out of memory: {self._last_words(code)}", log=self.tail, facts={"is_fresh": True})
        if code < 0:
            raise TrainingError("killed", f"its process ended with {code}", log=self.tail, facts={"exit": code})
        words = self._last_words(code)
        if NO_ROOM.search(words):
            raise TrainingError("store", f"a file could not be written: {words}", log=self.tail)
        raise TrainingError("bug", words, log=self.tail or "it printed nothing")

    def _last_words(self, code: int) -> str:
        """The exception of Python's last traceback, else the last line of the error output, or of all output."""
        lines = [line for line in self.errors if line.strip()]
        begins = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
        if begins:
            lines = [line for line in lines[begins[-1] + 1 :] if not line.startswith(" ")][:1] or lines
        printed = self.tail.strip().splitlines()
        return lines[-1].strip() if lines else printed[-1].strip() if printed else f"it ended with exit code {code} and printed nothing"

    @property
    def tail(self) -> str:
        """The end of what was printed."""
        return b"".join(self.log)[-TOLD_BYTES:].decode("utf-8", "replace")

    @property
    def seconds(self) -> float:
        """How long the run took, with its earlier attempts."""
        return self.curves.seconds + self.ended - self.began

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of the curves by their steps, or one without numbers."""
        empty = {"epoch": 1, "time": int(self.finished * 1000), "seconds": self.ended - self.began, "values": {}}
        return [row for _, row in sorted(self.curves.rows.items())] or [empty]

    @property
    def notes(self) -> list[str]:
        """What was found to be odd while it ran."""
        drawn = {name for row in self.curves.rows.values() for name in row["values"]}
        empty = [name for name in self.definition.curves if name != STEP and name not in drawn and f"curves/{name}" not in drawn]
        unmatched = [f"nothing that was printed matches the pattern of the curve {name}" for name in empty]
        return [*self.curves.notes, *self.printed.notes, *unmatched]


# --- the result ------------------------------------------------------------------------------------------------------------------


def _write(work: OwnWork, attempt: Attempt, handed_back: returned.Returned) -> None:
    """Write the folder of the result, which appears only when it is complete."""
    folder = work.results / work.request.key
    sealed.clear_part(folder)
    part = sealed.part_of(folder)
    for name, table in (("items", handed_back.items), ("predictions", handed_back.predictions)):
        if table is not None:
            table.to_parquet(part / f"{name}.parquet", index=False, write_page_checksum=True)
    (part / LOG).write_bytes(b"".join(attempt.log)[-LOG_BYTES:])
    files = {f"{FILES}/{name}": path for name, path in _left(attempt.out, returned.handed_back(work.definition))}
    logged = scratch.collect(attempt.store, work.definition.folder)
    if logged is not None:
        scratch.write(logged, part)
        files |= {f"own/{name}": path for name, path in logged.files.items()}
    result = {
        "key": work.request.key,
        "content": work.request.content,
        "metrics": dict(handed_back.metrics),
        "history": attempt.history,
        "started": int(attempt.curves.started),
        "finished": int(attempt.finished * 1000),
        "seconds": attempt.seconds,
        "digest": work.data,
        "tags": {"device": attempt.tag, "hardware": hardware()},
        "same": dict(handed_back.same),
        "notes": [*handed_back.notes, *attempt.notes, *(logged.notes if logged else ())],
        "own": {"words": [work.definition.function] if work.definition.is_function else attempt.words, "left": sorted(files)},
    }
    sealed.complete(folder, result, files)
    for elsewhere in logged.elsewhere if logged else ():  # the result has them
        shutil.rmtree(elsewhere, ignore_errors=True)


def _left(out: Path, recorded: Collection[str]) -> Iterator[tuple[str, Path]]:
    """The files that the code left in its folder, with their names there, beside those that are recorded anyway; no links."""
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and not path.is_symlink() and name not in recorded:
            yield name, path
