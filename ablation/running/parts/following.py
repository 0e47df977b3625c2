"""Follows parts that an engine carries out: their logs become the record and the display, and what is lost is submitted again."""

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.errors import AblateError
from ablation.formatting import counted, duration, ranges
from ablation.planning.plan import Plan, Run
from ablation.running.outcomes import Outcome, Outcomes, Record
from ablation.running.parts.engine import ALIVE, Engine, JobState, State, waiting_words
from ablation.running.parts.log import BEGIN, END, FAILED, FINISHED, LogReader
from ablation.running.parts.part import Part
from ablation.running.parts.split import Split
from ablation.system import sealed

POLL = 15.0  # seconds between two questions to the engine
GRACE = 10.0  # seconds after a job's end until nothing more of it is expected in the log, which a network disk may show late
LATE = 6  # so much longer where a file is not seen that should be there: a network disk may know for a minute that there is none
TICK, LOOK = 0.5, 0.002  # seconds between two looks at the logs: the least, and how much more for each part
NOTHING: Mapping[str, float] = {}
MOST_SILENT = 2  # jobs in a row that end before their part begins
MOST_IDLE = 5  # times in a row that a part ends, with runs left, and nothing came of it, unless it was lost
MOST_REFUSED = 10  # times in a row that the engine takes no part again
LONGEST = 600.0  # seconds until what was in vain is tried again, at the most
REFUSED = 2  # an exit status
CANCELLED = "ablate cancel ended it"


def follow(
    plan: Plan,
    split: Split,
    engine: Engine,
    record: Record,
    view: Callable[[dict[str, Any]], None],
    *,
    should_stop: Callable[[], bool],
    failed: Mapping[str, float] = NOTHING,
    poll: float = POLL,
    grace: float = GRACE,
) -> Outcome:
    """Follow the parts until nothing is left of them; what has no job, or has lost it, is submitted.

    `failed` holds the runs that are recorded as failed, key -> when, in seconds since 1970: what a log tells of before is known.
    """
    return _Follower(plan, split, engine, record, view, failed, poll, grace).run(should_stop)


def submit(plan: Plan, split: Split, engine: Engine, failed: Mapping[str, float] = NOTHING) -> list[int]:
    """Submit the parts with runs that are left and that no job has, and follow nothing; their numbers."""
    follower = _Follower(plan, split, engine, _Nobody(), lambda event: None, failed, POLL, GRACE)
    follower.take_logs()
    return follower.begin()


class _Nobody:
    """A record of nothing."""

    def live(self, *_: Any) -> None: ...

    def finished(self, *_: Any) -> None: ...

    def failed(self, *_: Any) -> None: ...


class _Follower:
    def __init__(
        self,
        plan: Plan,
        split: Split,
        engine: Engine,
        record: Record,
        view: Callable[[dict[str, Any]], None],
        failed: Mapping[str, float],
        poll: float,
        grace: float,
    ) -> None:
        self.plan, self.split, self.engine, self.record, self.view = plan, split, engine, record, view
        self.failed, self.poll, self.grace = failed, poll, grace
        self.outcomes = Outcomes(plan, record, view)
        self.results = _results_folder(split)
        waiting: dict[str, list[Run]] = {}
        for run in plan.waiting:
            waiting.setdefault(run.key, []).append(run)
        self.parts = [
            Part(number, {key: waiting[key] for key in keys if key in waiting}, LogReader(split.folder, number))
            for number, keys in enumerate(split.shares, 1)
        ]
        self.history: dict[str, list[Mapping[str, Any]]] = {}
        self.asked_at = self.answered_at = 0.0
        self.is_stopping = False
        self.told = deque[str](maxlen=100)

    def run(self, should_stop: Callable[[], bool]) -> Outcome:
        self.take_logs()
        self.begin()
        while not all(part.is_over for part in self.parts):
            if should_stop() and not self.is_stopping:
                self.is_stopping = True
                self._stop()
            self.take_logs()
            if time.monotonic() - self.asked_at > self.poll:
                self._ask()
            for part in self.parts:
                self._look_after(part)
            self._submit_due()
            self.view({"kind": "tick"})
            time.sleep(TICK + len(self.parts) * LOOK)
        return self.outcomes.outcome

    def _stop(self) -> None:
        """Ask all parts to end at their epoch; the folder tells them too, if the engine does not."""
        if problem := self.split.ask_to_stop():
            self._tell(problem)
        try:
            self.engine.stop(self._jobs())
        except AblateError as error:
            self._tell(str(error))
        self.asked_at = -math.inf

    def _jobs(self) -> set[str]:
        return {part.job for part in self.parts if part.job and not part.is_over}

    # --- jobs ------------------------------------------------------------------------------------------------------------

    def begin(self) -> list[int]:
        """Find the jobs of earlier commands, and submit the parts that have none; their numbers."""
        self.split.go_on()
        for submitted in self.split.jobs.get("submitted", []):
            for part in self.parts:
                part.job = submitted["id"] if part.number in submitted["parts"] else part.job
        for part in self.parts:
            part.is_over = not part.left
        self._ask(must_answer=True)
        idle = [part for part in self.parts if not part.is_over and not part.is_alive]
        for part in idle:
            part.is_alone = part.state is not None and part.state.state is State.NO_MEMORY
        return self._submit(idle)

    def _ask(self, *, must_answer: bool = False) -> None:
        """Ask the engine for the state of all jobs at once."""
        self.asked_at = now = time.monotonic()
        states = self._states(must_answer=must_answer)
        if states is None:
            return
        self.answered_at = now
        if words := waiting_words(states):
            self._tell(words)
        for part in self.parts:
            part.state = states.get((part.job, part.number))
            if not part.is_alive:  # perhaps in a job whose submission could not be noted
                others = [job for (job, number), state in states.items() if number == part.number and state.state in ALIVE]
                part.job = others[-1] if others else part.job
                part.state = states.get((part.job, part.number))
            if part.is_alive:
                part.gone_since = part.due = None
            elif part.gone_since is None:
                part.gone_since = now

    def _states(self, *, must_answer: bool) -> Mapping[tuple[str, int], JobState] | None:
        """What the engine says, None if it does not answer; raises AblateError if it must."""
        try:
            states, why = self.engine.states(self._jobs()) if self.split.jobs else {}, "the queue does not answer"
        except AblateError as error:
            states, why = None, str(error)
        if states is None and must_answer:
            raise AblateError(f"{why}, so nobody knows whether parts are at work already; nothing was submitted")
        if states is None:
            self._tell(f"{why}; parts go on, and it is asked again")
        return states

    def _submit(self, parts: Sequence[Part]) -> list[int]:
        """Submit these parts, those with one run at once as a job of their own; their numbers."""
        for alone in (False, True):
            some = [part for part in parts if part.is_alone == alone]
            numbers = [part.number for part in some]
            if numbers:
                self.split.note_engine(self.engine.about)  # so that its jobs are found, even if this process is killed now
                job = self.engine.submit(numbers, alone=alone)
                self.split.note_job(self.engine.about, job, numbers)
                self._tell(f"submitted {counted(len(numbers), 'part')} ({ranges(numbers)}) as job {job}")
            for part in some:
                part.job, part.state, part.gone_since, part.due = job, JobState(State.WAITING), None, None
                part.has_begun, part.is_idle = False, True
        return [part.number for part in parts]

    def _submit_due(self) -> None:
        """Submit again what is due; what the engine refuses now it may take later."""
        due = [part for part in self.parts if not part.is_over and part.due is not None and part.due <= time.monotonic()]
        if due and self.split.is_stopped:
            for part in due:
                self._over(part, CANCELLED)
            return
        try:
            self._submit(due)
        except AblateError as error:
            for part in [part for part in due if part.due is not None]:
                part.num_refused += 1
                part.due = time.monotonic() + self._pause(part.num_refused)
                if part.num_refused >= MOST_REFUSED:
                    self._give_up(part, f"part {part.number} could not be submitted again: {error}")
            self._tell(f"{error}; it is tried again")

    def _pause(self, times: int) -> float:
        """Seconds until what was in vain so many times in a row is tried again; none at first."""
        return min(LONGEST, self.poll * 2 ** (times - 2)) if times > 1 else 0.0

    def _look_after(self, part: Part) -> None:
        """See to a part whose job has ended."""
        if part.is_over:
            return
        if not part.left:
            part.is_over = True
        elif self.is_stopping and (part.reader.ended or part.due is not None):
            self._over(part, "")
        elif part.due is None and self._is_gone(part):
            self._read(part)  # once more: it may have written until its job was found gone
            self._look_for_results(part)
            part.is_over = not part.left
            if part.left:
                self._ended(part)

    def _is_gone(self, part: Part) -> bool:
        """Whether its job has ended for good: the engine said so twice, the second time when all that it wrote can be seen."""
        state = part.state.state if part.state else State.ENDED
        is_told_late = part.unseen or (not part.has_begun and state is State.ENDED and not self.is_stopping)
        patience = self.grace * LATE if is_told_late else self.grace
        return part.gone_since is not None and self.answered_at - part.gone_since > patience

    def _look_for_results(self, part: Part) -> None:
        """Finish what is computed, though the part was lost before it could say so."""
        for key in [key for key in part.left if sealed.is_whole(self.results / key)]:
            self._finish(part, key)

    def _ended(self, part: Part) -> None:
        """Submit a part again whose job is gone, unless that was wanted or would be in vain."""
        state, ended = part.state.state if part.state else State.ENDED, part.reader.ended
        part.count(is_lost=state is State.LOST)
        if self.is_stopping:
            self._over(part, "")
        elif self.split.is_stopped:
            self._over(part, CANCELLED)
        elif part.has_begun and ended.get("status") == REFUSED:
            self._give_up(part, f"part {part.number} could not begin: {ended['why']}")
        elif state is State.CANCELLED:
            self._over(part, f"the job of part {part.number} was cancelled ({part.job})")
        elif state is State.NO_MEMORY and part.is_alone:
            self._out_of_memory(part)
        elif part.num_silent >= MOST_SILENT:
            self._give_up(part, f"part {part.number} did not begin: {_said(self.split, part.number)}")
        elif part.num_idle >= MOST_IDLE:
            said = ended.get("why") or _said(self.split, part.number)
            self._give_up(part, f"part {part.number} ended {MOST_IDLE} times and did nothing: {said}")
        else:
            part.is_alone = part.is_alone or state is State.NO_MEMORY
            self._due(part, ", with one run at once" if part.is_alone else "")

    def _due(self, part: Part, how: str) -> None:
        """Have a part submitted again, at once or, where that was in vain before, after a while."""
        pause = self._pause(part.num_vain)
        when = f" in {duration(pause)}" if pause else ""
        lost = self._lost_words(part)
        self._tell(f"part {part.number} {lost} and is submitted again{when}{how}; it goes on from its last checkpoints")
        self._stopped(part)
        part.due = time.monotonic() + pause

    def _lost_words(self, part: Part) -> str:
        """What happened to a part whose job is gone; of one that never began, what it printed says why."""
        if part.has_begun or (part.state is not None and part.state.state is State.LOST):
            return f"lost its job ({part.why_gone})"
        return f"ended before it began ({part.why_gone}: {_said(self.split, part.number)})"

    def _out_of_memory(self, part: Part) -> None:
        """Give up the runs of the stages that were under way when the engine ended a job for lack of memory once more."""
        lost = [run for runs in part.left.values() for run in runs if any(node.job.key in part.running for node in self.plan.lineage(run))]
        event = {"failure": "memory", "message": "the queue ended its job for lack of memory, with one run at once too", "log": ""}
        self.outcomes.fail(lost or [run for runs in part.left.values() for run in runs], event)
        for key in [key for key, runs in part.left.items() if not any(run in self.outcomes.left for run in runs)]:
            del part.left[key]
        self._over(part, f"part {part.number} lacked memory, with one run at once too; more of it per job may help")

    def _over(self, part: Part, why: str) -> None:
        part.is_over = True
        self._stopped(part)
        if why:
            self._tell(why)
            self.outcomes.why = self.outcomes.why or why

    def _give_up(self, part: Part, why: str) -> None:
        """Leave what is left of a part, as something must be mended first."""
        self.outcomes.is_given_up = True
        self._over(part, why)

    def _stopped(self, part: Part) -> None:
        """Nothing of the part is under way any more."""
        for key in sorted(part.running):
            self.view({"kind": "stopped", "stage": key, "device": ""})
        part.running.clear()

    def _tell(self, message: str) -> None:
        if message not in self.told:
            self.told.append(message)
            self.view({"kind": "told", "message": message})

    # --- logs ------------------------------------------------------------------------------------------------------------

    def take_logs(self) -> None:
        """Take note of what the parts have done since the last time."""
        for part in self.parts:
            if not part.is_over:
                self._read(part)

    def _read(self, part: Part) -> None:
        for line in part.reader.read():
            self._take(part, line)
        for key in sorted(part.unseen):
            self._finish(part, key)

    def _take(self, part: Part, line: dict[str, Any]) -> None:
        kind = line["kind"]
        if kind == BEGIN:
            if part.running:  # in an attempt that was lost
                self._tell(f"part {part.number} begins again on {line['host']}, from its last checkpoints; its earlier job was lost")
            part.has_begun, part.is_idle = True, True
            self._stopped(part)
        elif kind == END:
            self._stopped(part)
        elif kind == FINISHED:
            part.is_idle = part.is_idle and line["run"] not in part.left  # each attempt tells of all that is computed
            self._finish(part, line["run"])
        elif kind == FAILED:
            part.is_idle = part.is_idle and line["run"] not in part.left
            if line["run"] in part.left and not self._is_known(line):
                if not isinstance(self.record, _Nobody):
                    self.split.note_failure(line["run"], line["attempt"])
                self.outcomes.fail(part.left.pop(line["run"]), line)
        elif line.get("stage", "") in self.plan.nodes:
            self._take_event(part, line)
        elif kind == "told":
            self._tell(line["message"])

    def _is_known(self, line: Mapping[str, Any]) -> bool:
        """Whether a failure is the one that is recorded: by the attempt that was taken note of, or else by the time, where clocks agree."""
        recorded, attempt = self.failed.get(line["run"], 0.0), self.split.failures.get(line["run"], 0)
        return bool(recorded) and (line["attempt"] <= attempt if attempt else line["time"] <= recorded)

    def _take_event(self, part: Part, event: dict[str, Any]) -> None:
        """Show an event of a stage, and its epochs in the record."""
        key, kind = event["stage"], event["kind"]
        if kind == "started":
            part.running.add(key)
            self.history.pop(key, None)  # what is trained again is told again
        elif kind == "epoch":
            part.reach(key, event["epoch"])
            self.history.setdefault(key, []).append(event["row"])
            self.record.live(self.plan.nodes[key], self.history[key])
        elif kind in ("done", "stopped", "failed"):
            part.running.discard(key)
        self.view(event)

    def _finish(self, part: Part, key: str) -> None:
        """A run is finished once its results can be seen from here."""
        if not (self.results / key / sealed.RESULT).exists():
            part.unseen.add(key)
            return
        part.unseen.discard(key)
        for run in part.left.pop(key, []):
            self.outcomes.finish(run)


def _results_folder(split: Split) -> Path:
    """The folder of results beside that of the splits."""
    return split.folder.parents[2] / "results"


def _said(split: Split, part: int) -> str:
    """The last line that a part printed, or else a job that did not find its number."""
    for path in (split.output(part), split.folder / "part-.out"):
        with contextlib.suppress(OSError):
            lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
            if lines:
                return f"{lines[-1].strip()} ({path})"
    return f"it printed nothing ({split.output(part)})"
