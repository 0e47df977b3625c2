"""Parts that an engine carries out, followed by their logs: what is lost, refused, cancelled or in vain, and who comes in the middle."""

import shutil
import time
from types import SimpleNamespace

import pytest

from ablation.errors import AblateError
from ablation.running.parts import following
from ablation.running.parts.engine import JobState, State, waiting_words
from ablation.running.parts.following import follow, submit
from ablation.running.parts.log import PartLog, log_file
from tests import parts
from tests.parts import RUNNING, WAITING, Engine, Record

ENDED, LOST = JobState(State.ENDED, "failed"), JobState(State.LOST, "node fail")
ROW = {"epoch": 1, "values": {}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No time between two looks."""
    monkeypatch.setattr(following, "TICK", 0.001)
    monkeypatch.setattr(following, "LOOK", 0.0)


class Study:
    """A study of two parts, followed with a fake engine; a test writes what the parts do."""

    def __init__(self, folder):
        self.folder, self.plan = folder, parts.three_runs()
        self.split = parts.split_of(folder, [["r1", "r2"], ["r3"]])
        self.logs, self.record, self.events = {}, Record(), []

    def begin(self, part):
        self.logs[part] = PartLog(self.split.folder, part)
        self.logs[part].begin()

    def epoch(self, part, stage):
        self.logs[part]({"kind": "started", "stage": stage, "device": "cpu"})
        self.logs[part]({"kind": "epoch", "stage": stage, "device": "cpu", "epoch": 1, "row": ROW})

    def finish(self, part, *keys):
        for run in [one for one in self.plan.runs if one.key in keys]:
            parts.result(self.folder, run.key)
            self.logs[part].finished(run)

    def fail(self, part, key, kind="nan"):
        run = next(one for one in self.plan.runs if one.key == key)
        self.logs[part].failed(run, kind, "it became nan", "")

    def whole(self, part, *keys):
        """An attempt from its begin to its end."""
        self.begin(part)
        self.finish(part, *keys)
        self.logs[part].end(0)

    def follow(self, engine, *, should_stop=lambda: False, grace=0.0, **options):
        options = {"poll": 0.0, "grace": grace, "should_stop": should_stop, **options}
        return follow(self.plan, self.split, engine, self.record, self.events.append, **options)

    @property
    def told(self):
        return [event["message"] for event in self.events if event["kind"] == "told"]


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


def of_both(one, other, job="j1"):
    """What the engine says of the two parts of a job; None: that it does not know it."""
    return {(job, part): state for part, state in ((1, one), (2, other)) if state}


# --- what ends ---------------------------------------------------------------------------------------------------------------


def test_all_parts_end(study):
    """One job of both; each run is told once, each epoch with those before it; what waits is said."""

    def all_done():
        study.begin(1)
        study.epoch(1, "s1")
        study.finish(1, "r1", "r2")
        study.whole(2, "r3")
        return of_both(RUNNING, RUNNING)

    engine = Engine(of_both(WAITING, WAITING), all_done, {})
    outcome = study.follow(engine)
    assert engine.submitted == [[1, 2]]
    assert sorted(study.record.ends) == [("base", "finished"), ("head", "finished"), ("other", "finished")]
    assert study.record.rows == [("s1", 1)]
    assert (outcome.left, outcome.failed, outcome.why) == ([], [], "")
    assert "2 parts (1-2) wait in the queue (Resources)" in study.told


def test_a_run_counts_once_its_results_can_be_seen(study):
    """A network disk may show them after the log."""
    study.split.note_job({"kind": "fake"}, "j1", [1, 2])
    study.begin(1)
    study.logs[1].finished(study.plan.runs[0])

    def shown():
        assert ("base", "finished") not in study.record.ends
        parts.result(study.folder, "r1")
        study.finish(1, "r2")
        study.whole(2, "r3")
        return of_both(RUNNING, RUNNING)

    assert study.follow(Engine(of_both(RUNNING, RUNNING), shown, of_both(RUNNING, RUNNING))).left == []


def test_failures_end_what_they_concern(study):
    """The run is given up, and what chooses among it; its part is not begun again for its sake."""
    choosing = parts.run("best", "r9", "s1", choice=SimpleNamespace(among=("base", "other")))
    study.plan.runs.append(choosing)
    study.plan.waiting.append(choosing)

    def failed():
        study.begin(1)
        study.fail(1, "r1")
        study.finish(1, "r2")
        study.logs[1].end(1)
        study.whole(2, "r3")
        return of_both(ENDED, ENDED)

    engine = Engine(failed, of_both(ENDED, ENDED))
    outcome = study.follow(engine)
    assert sorted(study.record.ends) == [
        ("base", "nan: it became nan"),
        ("best", "nan: base, among which it chooses, failed: it became nan"),
        ("head", "finished"),
        ("other", "finished"),
    ]
    assert len(engine.submitted) == 1
    assert not outcome.left


def test_a_choice_follows_from_runs_of_several_parts(study):
    """It is finished once the last of those among which it chooses is."""
    choosing = parts.run("best", "r9", "s1", choice=SimpleNamespace(among=("base", "other")))
    study.plan.runs.append(choosing)
    study.plan.waiting.append(choosing)

    def all_done():
        study.whole(1, "r1", "r2")
        study.whole(2, "r3")
        return of_both(RUNNING, RUNNING)

    assert study.follow(Engine(all_done)).left == []
    assert study.record.ends[-1] == ("best", "finished")


# --- what is lost ------------------------------------------------------------------------------------------------------------


def test_a_lost_job_is_submitted_again_without_limit(study):
    """Lost a dozen times, before its part begins or before anything came of it: it is no failure."""
    study.split.note_job({"kind": "fake"}, "j0", [2])
    answers = [{("j0", 2): RUNNING}]
    for number in range(1, 13):
        answers.append(lambda number=number: study.begin(1) or {(f"j{number}", 1): LOST, ("j0", 2): RUNNING})
        answers.append({(f"j{number}", 1): LOST, ("j0", 2): RUNNING})

    def at_last():
        study.whole(1, "r1", "r2")
        study.whole(2, "r3")
        return {}

    engine = Engine(*answers, at_last)
    assert study.follow(engine).left == []
    assert engine.submitted[:3] == [[1], [1], [1]]
    assert len(engine.submitted) > 6
    assert any(told.startswith("part 1 lost its job (node fail) and is submitted again") for told in study.told)


def test_a_part_that_its_engine_begins_again_goes_on(study):
    """What was under way is no longer shown, and its epochs are told again from the start."""

    def lost():
        study.begin(1)
        study.epoch(1, "s1")
        return of_both(RUNNING, RUNNING)

    def again():
        study.begin(1)
        study.epoch(1, "s1")
        study.finish(1, "r1", "r2")
        study.whole(2, "r3")
        return of_both(RUNNING, RUNNING)

    engine = Engine(lost, of_both(WAITING, RUNNING), again)
    assert study.follow(engine).left == []
    assert engine.submitted == [[1, 2]]
    assert study.record.rows == [("s1", 1), ("s1", 1)]
    assert [event["kind"] for event in study.events if event.get("stage") == "s1"][:4] == ["started", "epoch", "stopped", "started"]
    assert any("part 1 begins again on" in told for told in study.told)


def test_a_queue_that_does_not_answer_ends_nothing(study):
    """It is said once, and asked again; parts are not taken for lost."""

    def all_done():
        study.whole(1, "r1", "r2")
        study.whole(2, "r3")
        return of_both(RUNNING, RUNNING)

    def has_gone():
        raise AblateError("found no command squeue here")

    engine = Engine(of_both(RUNNING, RUNNING), None, has_gone, None, None, all_done)
    assert study.follow(engine).left == []
    assert study.told.count("the queue does not answer; parts go on, and it is asked again") == 1
    assert study.told.count("found no command squeue here; parts go on, and it is asked again") == 1
    assert len(engine.submitted) == 1


def test_what_has_just_left_the_queue_is_waited_for(study):
    """Its last lines may come late."""
    study.split.note_job({"kind": "fake"}, "j1", [1, 2])

    def late():
        study.whole(1, "r1", "r2")
        study.whole(2, "r3")
        return {}

    engine = Engine(of_both(RUNNING, RUNNING), {}, {}, {}, late)
    assert study.follow(engine, grace=30.0).left == []
    assert engine.submitted == []


def test_what_was_computed_by_a_part_that_could_not_say_so_is_found(study):
    """Lost between a result and the line that tells of it: nothing is submitted for its sake."""
    study.split.note_job({"kind": "fake"}, "j1", [1, 2])
    study.begin(1)
    study.finish(1, "r1")
    study.whole(2, "r3")

    def lost():
        parts.result(study.folder, "r2")
        return of_both(LOST, None)

    engine = Engine(of_both(RUNNING, RUNNING), lost, of_both(LOST, None))
    assert study.follow(engine).left == []
    assert engine.submitted == []
    assert len(study.record.ends) == 3


def test_a_job_that_the_queue_forgets_for_a_moment_is_not_lost(study):
    """As a controller does that begins again: only what it does not know twice is gone."""

    def all_done():
        study.whole(1, "r1", "r2")
        study.whole(2, "r3")
        return {}

    engine = Engine(of_both(RUNNING, RUNNING), {}, of_both(WAITING, RUNNING), {}, of_both(RUNNING, RUNNING), all_done)
    assert study.follow(engine).left == []
    assert engine.submitted == [[1, 2]]


def test_a_result_that_a_network_disk_shows_late_is_waited_for(study):
    """Longer than for a line of the log: nothing is submitted for its sake."""
    study.split.note_job({"kind": "fake"}, "j1", [1, 2])
    study.whole(2, "r3")
    study.begin(1)
    study.finish(1, "r1")
    study.logs[1].finished(study.plan.runs[1])
    asked = []

    def late():
        asked.append(time.monotonic())
        if asked[-1] - asked[0] > 0.1:
            parts.result(study.folder, "r2")
        return {}

    engine = Engine(of_both(RUNNING, RUNNING), late)
    assert study.follow(engine, grace=0.05).left == []
    assert engine.submitted == []


def test_what_the_engine_refuses_for_a_while_is_submitted_later(study):
    """A queue that is full or does not answer ends nobody's following; the other part goes on meanwhile."""
    study.split.note_job({"kind": "fake"}, "j0", [1, 2])

    def all_done():
        study.whole(1, "r1", "r2")
        study.whole(2, "r3")
        return {}

    lost = {("j0", 1): LOST, ("j0", 2): RUNNING}
    engine = Engine({("j0", 1): RUNNING, ("j0", 2): RUNNING}, *[lost] * 5, all_done)
    refusals = ["the queue is full", "no answer"]
    engine.refusals = [*refusals]
    assert study.follow(engine).left == []
    assert engine.submitted == [[1]]
    assert [told for told in study.told if "tried again" in told] == [
        "the queue is full; it is tried again",
        "no answer; it is tried again",
    ]


def test_what_the_engine_refuses_for_ever_is_given_up(study):
    """With its reason; another part that is at work ends as it would."""
    study.split.note_job({"kind": "fake"}, "j0", [1, 2])
    study.whole(2, "r3")
    engine = Engine({("j0", 1): RUNNING}, {})
    engine.refusals = ["the account has expired"] * 20
    outcome = study.follow(engine)
    assert outcome.why == "part 1 could not be submitted again: the account has expired"
    assert len(engine.refusals) == 10


def test_a_job_that_could_not_be_noted_is_found(study):
    """Its submission was the last that a process did; it is followed, not submitted again."""
    study.split.note_engine({"kind": "fake"})

    def all_done():
        study.whole(1, "r1", "r2")
        study.whole(2, "r3")
        return of_both(RUNNING, RUNNING, "j9")

    engine = Engine(of_both(WAITING, WAITING, "j9"), all_done)
    assert study.follow(engine).left == []
    assert engine.submitted == []


def test_a_part_that_is_lost_at_once_again_and_again_is_submitted_ever_later(study):
    """A machine that ends every job at once has not all of them; what came of a part lets it begin at once again."""
    follower = following._Follower(study.plan, study.split, Engine({}), study.record, study.events.append, {}, 15.0, 10.0)
    assert [follower._pause(times) for times in (0, 1, 2, 3, 4, 50)] == [0.0, 0.0, 15.0, 30.0, 60.0, 600.0]
    (part, _), vain = follower.parts, []
    for is_idle in (True, True, True, False, True):
        part.is_idle = is_idle
        part.count(is_lost=True)
        vain.append(part.num_vain)
    assert vain == [1, 2, 3, 0, 1]
    assert (part.num_silent, part.num_idle) == (0, 0)


def test_a_log_that_a_network_disk_shows_late_is_waited_for(study):
    """A part that ended soon has begun, though nothing of it is seen for a while after its job is gone."""
    study.split.note_job({"kind": "fake"}, "j1", [1, 2])
    study.whole(2, "r3")
    asked = []

    def late():
        asked.append(time.monotonic())
        if asked[-1] - asked[0] > 0.1:
            study.whole(1, "r1", "r2")
        return of_both(ENDED, ENDED)

    engine = Engine(of_both(RUNNING, ENDED), late)
    assert study.follow(engine, grace=0.05).left == []
    assert engine.submitted == []


@pytest.mark.parametrize("num_bytes", [*range(0, 700, 23)])
def test_a_part_may_be_lost_at_any_byte_of_its_log(study, num_bytes):
    """Whatever of it is there: the next attempt does the rest, and each run is told once."""
    study.whole(2, "r3")
    study.begin(1)
    study.epoch(1, "s1")
    study.finish(1, "r1")
    study.epoch(1, "h1")
    study.finish(1, "r2")
    study.logs[1].end(0)
    log = log_file(study.split.folder, 1, 1)
    log.write_bytes(log.read_bytes()[:num_bytes])
    results = study.folder / "mlruns" / "results"
    for key in ("r1", "r2"):
        if key.encode() not in log.read_bytes():
            shutil.rmtree(results / key)

    def again():
        study.whole(1, "r1", "r2")
        return {("j1", 1): RUNNING}

    study.split.note_job({"kind": "fake"}, "j0", [1, 2])
    assert study.follow(Engine({("j0", 1): LOST}, again)).left == []
    assert sorted(study.record.ends) == [("base", "finished"), ("head", "finished"), ("other", "finished")]


# --- what is in vain ---------------------------------------------------------------------------------------------------------


def test_a_cancelled_part_is_not_begun_again(study):
    """Its runs are left, with the reason; the other part ends as it would."""
    study.whole(2, "r3")
    outcome = study.follow(Engine(of_both(JobState(State.CANCELLED), None), of_both(JobState(State.CANCELLED), None)))
    assert [run.key for run in outcome.left] == ["r1", "r2"]
    assert outcome.why == "the job of part 1 was cancelled (j1)"
    assert not outcome.is_given_up


def test_a_part_that_is_refused_is_told_and_not_begun_again(study):
    """Such as one whose files are others there."""

    def refused():
        study.begin(1)
        study.logs[1].end(2, "the code is another there")
        study.whole(2, "r3")
        return of_both(ENDED, ENDED)

    engine = Engine(refused, of_both(ENDED, ENDED))
    outcome = study.follow(engine)
    assert outcome.why == "part 1 could not begin: the code is another there"
    assert outcome.is_given_up
    assert len(engine.submitted) == 1


def test_a_job_that_found_no_number_of_a_part_is_heard(study):
    """What it printed is in no part's file."""
    (study.split.folder / "part-.out").write_text("PBS_ARRAY_INDEX is empty in the job\n")
    study.whole(2, "r3")
    outcome = study.follow(Engine({}, *[{(f"j{number}", 1): ENDED} for number in (1, 1, 2, 2, 3)]))
    assert outcome.why == f"part 1 did not begin: PBS_ARRAY_INDEX is empty in the job ({study.split.folder / 'part-.out'})"


def test_a_part_that_never_begins_is_given_up_with_what_it_printed(study):
    """After the second time: the interpreter there, or a line before the part, is wrong."""
    study.split.output(1).write_text("module: command not found\n\n")
    study.whole(2, "r3")
    engine = Engine({}, *[{(f"j{number}", 1): ENDED} for number in (1, 1, 2, 2, 3)])
    outcome = study.follow(engine)
    assert outcome.why == f"part 1 did not begin: module: command not found ({study.split.output(1)})"
    assert outcome.is_given_up
    said = f"module: command not found ({study.split.output(1)})"
    assert any(told.startswith("part 1 ended before it began (") and f": {said}) and is submitted again" in told for told in study.told)
    assert engine.submitted == [[1], [1]]


@pytest.mark.parametrize("says_why", [True, False])
def test_a_part_that_ends_again_and_again_is_given_up(study, says_why):
    """It begins and nothing comes of it, whether it ends in order or its process dies."""
    study.whole(2, "r3")

    def attempt():
        study.begin(1)
        if says_why:
            study.logs[1].end(1, "no room is left")
        return {(f"j{len(engine.submitted)}", 1): ENDED}

    engine = Engine(attempt)
    outcome = study.follow(engine)
    assert outcome.why.startswith("part 1 ended 5 times and did nothing: " + ("no room is left" if says_why else "it printed nothing"))
    assert len(engine.submitted) == 5


def test_a_part_that_only_repeats_what_it_did_is_given_up(study):
    """Its time is too short for the next epoch: what is computed, and an epoch that it cannot save, are told each time anew."""
    study.whole(2, "r3")

    def attempt():
        study.begin(1)
        study.finish(1, "r1")
        study.epoch(1, "h1")
        return {(f"j{len(engine.submitted)}", 1): JobState(State.ENDED, "timeout")}

    engine = Engine(attempt)
    outcome = study.follow(engine)
    assert [run.key for run in outcome.left] == ["r2"]
    assert outcome.why.startswith("part 1 ended 5 times and did nothing")


def test_a_part_that_begins_only_now_and_then_is_given_up(study):
    """Jobs that end before it begins, and such of which nothing comes, by turns."""
    study.whole(2, "r3")

    def attempt():
        if len(engine.submitted) % 2:
            study.begin(1)
        return {(f"j{len(engine.submitted)}", 1): ENDED}

    engine = Engine(attempt)
    assert study.follow(engine).why.startswith("part 1 ended 5 times and did nothing")
    assert len(engine.submitted) < 12


def test_for_lack_of_memory_a_part_begins_again_with_one_run_at_once(study):
    """If that is too little as well, what was under way has failed."""
    study.whole(2, "r3")
    no_memory = JobState(State.NO_MEMORY)

    def attempt():
        study.begin(1)
        study.epoch(1, "h1")
        return {(f"j{len(engine.submitted)}", 1): no_memory}

    engine = Engine(attempt)
    outcome = study.follow(engine)
    assert engine.alone == [False, True]
    assert [(failure.run.key, failure.kind) for failure in outcome.failed] == [("r2", "memory")]
    assert [run.key for run in outcome.left] == ["r1"]
    assert "more of it per job may help" in outcome.why


# --- users -------------------------------------------------------------------------------------------------------------------


def test_a_stop_ends_all_parts_at_their_epoch(study):
    """The parts are told by the engine and by a file; nothing is submitted again, and all is left as it is."""
    asked = []

    def stopped():
        assert study.split.is_stopped
        study.begin(1)
        study.logs[1].end(130)
        return of_both(None, JobState(State.CANCELLED))

    engine = Engine(of_both(RUNNING, WAITING), lambda: asked.append(1) or of_both(RUNNING, WAITING), stopped, {})
    outcome = study.follow(engine, should_stop=lambda: bool(asked))
    assert engine.stopped == [["j1"]]
    assert len(outcome.left) == 3
    assert outcome.why == ""
    assert len(engine.submitted) == 1


def test_who_begins_in_the_middle_finds_the_jobs(study):
    """Another process, on any host: what has a job goes on, what lost it is submitted, and what is computed is told."""
    study.split.note_job({"kind": "fake"}, "j7", [1, 2])
    study.begin(1)
    study.epoch(1, "s1")
    study.finish(1, "r1")

    def rest():
        study.finish(1, "r2")
        study.whole(2, "r3")
        return {("j7", 1): RUNNING, ("j1", 2): RUNNING}

    engine = Engine({("j7", 1): RUNNING, ("j7", 2): LOST}, rest)
    assert study.follow(engine).left == []
    assert engine.submitted == [[2]]
    assert [job["id"] for job in study.split.jobs["submitted"]] == ["j7", "j1"]


def test_detached_parts_are_collected(study):
    """What was submitted and left to the queue is recorded later; nothing is submitted twice."""
    engine = Engine(of_both(WAITING, WAITING))
    assert submit(study.plan, study.split, engine) == [1, 2]
    assert submit(study.plan, study.split, engine) == []
    study.whole(1, "r1", "r2")
    study.whole(2, "r3")
    assert study.follow(Engine({})).left == []
    assert len(study.record.ends) == 3


def test_nothing_is_submitted_while_nobody_knows_what_runs(study):
    """The queue does not answer, and parts were submitted."""
    study.split.note_job({"kind": "fake"}, "j1", [1, 2])
    with pytest.raises(AblateError, match=r"the queue does not answer, .* nothing was submitted"):
        study.follow(Engine(None))
    (study.split.folder / "jobs.json").write_text('{"kind')
    with pytest.raises(AblateError, match=r"found no jobs of tiny in .*; delete the file once the queue has no job of this study"):
        study.follow(Engine({}))


def test_cancel_elsewhere_ends_the_following(study):
    """It is no loss."""
    engine = Engine(of_both(RUNNING, RUNNING), lambda: study.split.ask_to_stop() or {}, {})
    outcome = study.follow(engine)
    assert outcome.why == "ablate cancel ended it"
    assert len(engine.submitted) == 1


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_failure_that_is_recorded_is_tried_again(study, is_recorded):
    """One that only the log tells is recorded; one that is recorded, and still has to be computed, is to be tried again."""
    study.begin(1)
    study.fail(1, "r1", kind="killed")
    study.finish(1, "r2")
    study.logs[1].end(1)
    study.whole(2, "r3")
    engine = Engine(lambda: study.whole(1, "r1") or {}) if is_recorded else Engine({})
    outcome = study.follow(engine, failed={"r1": time.time() + 1} if is_recorded else {})
    assert [failure.run.key for failure in outcome.failed] == ([] if is_recorded else ["r1"])
    assert engine.submitted == ([[1]] if is_recorded else [])


@pytest.mark.parametrize("ahead", [-600, 600])
def test_clocks_that_differ_hide_no_failure_and_bring_none_back(study, monkeypatch, ahead):
    """A run that failed is tried again though its host's clock is ahead; that it failed again is recorded though that clock is behind."""
    real = time.time
    monkeypatch.setattr("ablation.running.parts.log.time.time", lambda: real() + ahead)
    study.begin(1)
    study.finish(1, "r2")
    study.fail(1, "r1")
    study.whole(2, "r3")
    assert [failure.run.key for failure in study.follow(Engine({})).failed] == ["r1"]

    def again():
        study.begin(1)
        study.fail(1, "r1")
        return {}

    engine = Engine(again, {})
    outcome = study.follow(engine, failed={"r1": real() + (ahead < 0)})
    assert engine.submitted == [[1]]
    assert [failure.run.key for failure in outcome.failed] == ["r1"]


def test_what_waits_in_words():
    """A part or several, with the reasons of the queue."""
    assert waiting_words({("j", 3): JobState(State.WAITING)}) == "1 part (3) waits in the queue"
    many = {("j", part): JobState(State.WAITING, reason) for part, reason in ((3, "Priority"), (4, "Priority"), (6, "Resources"))}
    assert waiting_words(many) == "3 parts (3-4, 6) wait in the queue (Priority, Resources)"
    assert waiting_words({("j", 1): RUNNING}) == ""
