"""Which job begins when, what a budget holds, and what a failure stops."""

from types import SimpleNamespace

import pytest

from ablation.planning.plan import Plan, make_plan
from ablation.planning.states import RecordedState
from ablation.running import clock, scheduler
from ablation.running.scheduler import ATTEMPTS, execute
from ablation.study.task import load_task
from tests.studies import planner, study


def node(key, parent="", state="missing", requests=(), seconds=1.0):
    """A stage of the plan, as far as the scheduler looks at it."""
    job = SimpleNamespace(key=key, parent=parent, kind="kind", requests=tuple(requests), task="images")
    return SimpleNamespace(state=state, job=job, seconds=seconds, testing=0.0, remaining_epochs=1)


def run(arm, key, stage, seed=0):
    return SimpleNamespace(arm=arm, seed=seed, key=key, chain=(stage,), needed=True, choice=None, state="missing")


def plan(nodes, runs):
    by_key, of_images = {one.job.key: one for one in nodes}, SimpleNamespace(task=load_task())
    planned = SimpleNamespace(nodes=by_key, waiting=list(runs), runs=list(runs), study=of_images)
    planned.lineage = lambda run: Plan.lineage(planned, run)
    return planned


class Executor:
    """Takes jobs and ends them one at a time, as `ends` says: a list of how each attempt of a stage ends; by default it is done."""

    def __init__(self, num_slots=1, ends=None, results=None, ticks=1):
        self.num_slots, self.ends, self.results, self.ticks = num_slots, dict(ends or {}), results or {}, ticks
        self.running, self.log, self.most, self.asked = [], [], 0, False

    @property
    def num_free(self):
        return self.num_slots - len(self.running)

    def submit(self, job):
        assert self.num_free
        self.running.append(job.key)
        self.log.append(job.key)
        self.most = max(self.most, len(self.running))

    def events(self, timeout):
        if not self.running:
            return []
        key = self.running.pop(0)
        attempts = self.ends.get(key, [])
        end = attempts.pop(0) if attempts else "done"
        if end == "done":
            return [{"kind": "result", "stage": key, "run": one} for one in self.results.get(key, ())] + [{"kind": "done", "stage": key}]
        if end == "stopped":
            return [{"kind": "stopped", "stage": key}]
        return [{"kind": "failed", "stage": key, "failure": end, "message": f"{end}!", "log": ""}]

    def ask_to_stop(self):
        self.asked = True

    def close(self):
        pass


class Record:
    def __init__(self):
        self.told = []

    def live(self, node, history):
        self.told.append(("live", node.job.key, len(history)))

    def finished(self, run):
        self.told.append(("finished", run.arm))

    def failed(self, run, kind, reason, log):
        self.told.append(("failed", run.arm, kind, reason))


# first <- (middle <- last, other); alone stands by itself
NODES = [node("first"), node("middle", "first"), node("last", "middle"), node("other", "first"), node("alone")]
RUNS = [run(f"arm-{key}", f"run-{key}", key) for key in ("first", "middle", "last", "other", "alone")]
RESULTS = {key: [f"run-{key}"] for key in ("first", "middle", "last", "other", "alone")}


def carried_out(executor, nodes=NODES, runs=RUNS, should_stop=lambda: False, budget=0.0):
    record, seen = Record(), []
    outcome = execute(plan(nodes, runs), executor, record, seen.append, should_stop=should_stop, budget=budget)
    return outcome, record, [event for event in seen if event["kind"] != "tick"]


@pytest.mark.parametrize("num_slots", [1, 2, 8])
def test_children_begin_after_their_parents(num_slots):
    """Every stage is submitted once, none before its parent is done, never more at once than there are slots."""
    executor = Executor(num_slots, results=RESULTS)
    outcome, record, _ = carried_out(executor)
    assert sorted(executor.log) == sorted(RESULTS)
    for child, parent in (("middle", "first"), ("last", "middle"), ("other", "first")):
        assert executor.log.index(child) > executor.log.index(parent)
    assert executor.most <= num_slots
    assert [one.arm for one in outcome.finished] == [arm for _, arm in record.told]
    assert not outcome.left
    assert not outcome.failed


@pytest.mark.parametrize(
    ("broken", "lost"),
    [("first", {"first", "middle", "last", "other"}), ("middle", {"middle", "last"}), ("last", {"last"}), ("alone", {"alone"})],
)
def test_a_failure_stops_what_depends_on_it(broken, lost):
    """What is below a failed stage fails with its reason; everything else finishes."""
    outcome, record, _ = carried_out(Executor(2, ends={broken: ["nan"]}, results=RESULTS))
    assert {one.run.arm for one in outcome.failed} == {f"arm-{key}" for key in lost}
    assert {one.arm for one in outcome.finished} == {f"arm-{key}" for key in RESULTS if key not in lost}
    assert {(one.kind, one.reason) for one in outcome.failed} == {("nan", "nan!")}
    assert {events[1] for events in record.told if events[0] == "failed"} == {f"arm-{key}" for key in lost}


@pytest.mark.parametrize("num_slots", [1, 2])
def test_a_test_that_kills_its_process_takes_nothing_along(num_slots):
    """Of a stage that was trained before, what goes on from it finishes."""
    nodes = [node("first", state="done", requests=["run-first"]), *NODES[1:]]
    outcome, _, _ = carried_out(Executor(num_slots, ends={"first": ["killed"] * ATTEMPTS}, results=RESULTS), nodes)
    assert [one.run.arm for one in outcome.failed] == ["arm-first"]
    assert {one.arm for one in outcome.finished} == {f"arm-{key}" for key in RESULTS} - {"arm-first"}


def test_what_was_killed_takes_its_time_again(monkeypatch):
    """A stage that was killed late is begun again only if all of it fits into what is left of the budget."""
    now = [0.0]
    for module in (scheduler, clock):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Late(Executor):
        def events(self, timeout):
            now[0] += 3000.0
            return [{"kind": "started", "stage": "long"}, *super().events(timeout)] if self.running else []

    late = Late(ends={"long": ["killed"]}, results={"long": ["run-long"]})
    outcome, _, _ = carried_out(late, [node("long", seconds=3500.0)], [run("arm-long", "run-long", "long")], budget=3600.0)
    assert late.log == ["long"]
    assert [one.arm for one in outcome.left] == ["arm-long"]


def test_a_killed_process_is_tried_again():
    """A job whose process was killed is submitted again, and the view is not told of a failure."""
    executor = Executor(ends={"first": ["killed"]}, results=RESULTS)
    outcome, _, seen = carried_out(executor)
    assert executor.log.count("first") == ATTEMPTS
    assert not outcome.failed
    assert not [event for event in seen if event["kind"] == "failed"]


def test_a_process_that_is_always_killed_fails():
    """After the last attempt the runs fail as killed, children included, although the job was put behind them."""
    outcome, record, _ = carried_out(Executor(ends={"first": ["killed"] * ATTEMPTS}, results=RESULTS))
    assert {one.arm for one in outcome.finished} == {"arm-alone"}
    assert ("failed", "arm-last", "killed", "killed!") in record.told


def test_other_failures_are_not_tried_again():
    """A NaN would only come again."""
    executor = Executor(ends={"alone": ["nan", "done"]}, results=RESULTS)
    carried_out(executor)
    assert executor.log.count("alone") == 1


def test_what_is_done_is_only_tested():
    """A stage that is done begins at once where runs are to be tested on it, and not at all where none are."""
    nodes = [node("first", state="done"), node("middle", "first", state="done", requests=["run-middle"]), node("last", "middle")]
    executor = Executor(2, results=RESULTS)
    outcome, _, _ = carried_out(executor, nodes, [one for one in RUNS if one.arm in ("arm-middle", "arm-last")])
    assert sorted(executor.log) == ["last", "middle"]
    assert {one.arm for one in outcome.finished} == {"arm-middle", "arm-last"}


def test_runs_with_one_key_finish_together():
    """Arms that resolve alike are recorded each, from one result."""
    runs = [run("cb", "same", "alone"), run("reweight", "same", "alone")]
    outcome, record, _ = carried_out(Executor(results={"alone": ["same"]}), [node("alone")], runs)
    assert record.told == [("finished", "cb"), ("finished", "reweight")]
    assert len(outcome.finished) == 2


def test_asked_to_stop_nothing_begins():
    """After the user's word no job begins; those under way are asked to stop and their runs are left."""
    executor = Executor(1, ends={"alone": ["stopped"], "first": ["stopped"]}, results=RESULTS)
    asked = iter([False, True])
    outcome, record, _ = carried_out(executor, should_stop=lambda: next(asked, True))
    assert executor.asked
    assert executor.log == ["first"]
    assert len(outcome.left) == len(RUNS)
    assert record.told == []


def test_a_budget_ends_the_beginning():
    """Once the budget is used up no job begins, and those under way are asked to end."""
    executor = Executor(1, results=RESULTS)
    outcome, _, _ = carried_out(executor, budget=1e-9)
    assert len(executor.log) <= 1
    assert len(outcome.left) + len(outcome.finished) == len(RUNS)
    assert outcome.left
    assert executor.asked


# --- memory ------------------------------------------------------------------------------------------------------------------


class Crowded(Executor):
    """One device on which a job needs so much room as `needs` says (else 1) of `room`; what does not fit beside the others fails at once.

    `how` says what that looks like: `memory`, an error; `killed`, SIGKILL for which the system's counter tells the reason, `perhaps`,
    without such a counter, and `outside`, which it does not count; `untested`, a training that is done and cannot be tested.
    """

    def __init__(self, num_slots, room, needs=None, how="memory", results=RESULTS):
        super().__init__(num_slots, results=results)
        self.room, self.needs, self.how, self.alone, self.shrunk = room, needs or {}, how, "", []

    @property
    def num_free(self):
        return 0 if self.alone in self.running else self.num_slots - len(self.running)

    @property
    def num_idle(self):
        return int(not self.running)

    def submit(self, job, *, alone=False):
        super().submit(job)
        assert not alone or self.running == [job.key]
        self.alone = job.key if alone else ""

    def shrink(self, device):
        assert len(self.running) < self.num_slots
        self.num_slots -= 1
        self.shrunk.append(device)
        return self.num_slots

    def events(self, timeout):
        if sum(self.needs.get(key, 1) for key in self.running) <= self.room:
            return super().events(timeout)
        key = self.running.pop()
        about = {"stage": key, "message": "?", "log": "", "device": "cuda:0", "jobs": self.num_slots}
        if self.how == "untested":
            untested = [{"kind": "untested", "failure": "memory", "run": one, **about} for one in self.results[key]]
            return [*untested, {"kind": "done", "stage": key}]
        ended = {"memory": {}, "killed": {"exit": -9}, "perhaps": {"exit": -9, "may_lack_memory": True}}
        ended = {**ended, "outside": {"exit": -9, "may_lack_memory": False}}[self.how]
        return [{"kind": "failed", "failure": "killed" if self.how in ("perhaps", "outside") else "memory", **ended, **about}]


@pytest.mark.parametrize("how", ["memory", "killed", "perhaps", "untested"])
def test_what_does_not_fit_is_tried_alone_and_fewer_run(how):
    """What ran out of memory beside others is done alone, everything finishes, and the view is told of each job fewer and of no failure."""
    executor = Crowded(3, room=1, how=how)
    nodes = [node(key) for key in RESULTS]
    outcome, _, seen = carried_out(executor, nodes)
    assert not outcome.failed
    assert not outcome.left
    assert len(outcome.finished) == len(RUNS)
    assert executor.num_slots == 1
    events = [event for event in seen if event["kind"] == "memory"]
    assert [(event["device"], event["jobs"], event["slots"]) for event in events] == [("cuda:0", 2, 2), ("cuda:0", 1, 1)]
    assert not [event for event in seen if event["kind"] in ("failed", "untested") and how != "untested"]


def test_what_is_killed_twice_is_tried_alone():
    """Also where the kernel counts no lack of memory, as a daemon may kill before it does; as many jobs as before run at once."""
    executor = Crowded(3, room=1, how="outside")
    outcome, _, _ = carried_out(executor, [node(key) for key in RESULTS])
    assert not outcome.failed
    assert len(outcome.finished) == len(RUNS)
    assert executor.shrunk == []
    alone, _, _ = carried_out(Crowded(3, room=4, needs={"other": 9}, how="outside"))
    assert {one.run.arm for one in alone.failed} == {"arm-other"}


@pytest.mark.parametrize("how", ["memory", "killed", "perhaps", "untested"])
@pytest.mark.parametrize("num_slots", [1, 3])
def test_what_does_not_fit_alone_fails(how, num_slots):
    """A job that is too large even by itself fails as `memory` with a sentence of its own; what does not depend on it finishes."""
    executor = Crowded(num_slots, room=4, needs={"other": 9}, how=how)
    outcome, _, _ = carried_out(executor)
    assert {one.run.arm for one in outcome.failed} == {"arm-other"}
    assert {one.arm for one in outcome.finished} == {"arm-first", "arm-middle", "arm-last", "arm-alone"}
    assert outcome.failed[0].kind == ("killed" if how == "perhaps" else "memory")
    assert "with no other job beside it" in outcome.failed[0].reason
    assert executor.num_slots == max(1, num_slots - 1)
    assert executor.log.count("other") == (1 if num_slots == 1 and how in ("memory", "untested") else 2)


class Full(Crowded):
    """Devices with one slot each; no process can begin on those in `full`, for lack of memory or by another failure."""

    def __init__(self, full, devices=("cuda:0", "cuda:1"), failure="memory"):
        super().__init__(len(devices), room=9)
        self.full, self.devices, self.at, self.failure = full, list(devices), {}, failure

    @property
    def num_idle(self):
        return len(set(self.devices) - set(self.at.values()))

    def submit(self, job, *, alone=False):
        super().submit(job, alone=alone)
        taken = list(self.at.values())
        self.at[job.key] = next(device for device in self.devices if taken.count(device) < self.devices.count(device))

    def shrink(self, device, *, is_full=False):
        if is_full and len(self.devices) > 1:
            self.devices.remove(device)
        self.num_slots = len(self.devices)
        return self.devices.count(device)

    def events(self, timeout):
        key = self.running[0]
        device = self.at.pop(key)
        if device not in self.full:
            return [event | {"device": device} for event in Executor.events(self, timeout)]
        self.running.remove(key)
        about = {"stage": key, "message": "?", "log": "", "device": device, "is_fresh": True, "has_begun": False}
        return [{"kind": "failed", "failure": self.failure, "jobs": self.devices.count(device), **about}]


def test_a_device_on_which_nothing_can_begin_leaves_the_work_to_the_others():
    """Whatever is wrong with it, which the view is told; with no other device left, the job fails with that."""
    executor = Full({"cuda:0"}, failure="bug")
    outcome, _, seen = carried_out(executor)
    assert len(outcome.finished) == len(RUNS)
    told = [(event["device"], event["jobs"], event["why"]) for event in seen if event["kind"] == "memory"]
    assert told == [("cuda:0", 0, "?")]
    outcome, _, _ = carried_out(Full({"cuda:0", "cuda:1"}, failure="bug"))
    assert {(failure.kind, failure.reason) for failure in outcome.failed} == {("bug", "?")}


def test_what_keeps_every_process_from_beginning_is_no_full_device():
    """Of several slots of one device none has begun anything: the job fails with the reason, at once."""
    executor = Full({"cuda:0"}, ["cuda:0", "cuda:0"], failure="bug")
    outcome, _, seen = carried_out(executor)
    assert len(outcome.failed) == len(RUNS)
    assert not [event for event in seen if event["kind"] == "memory"]
    assert executor.num_slots == 2


def test_a_device_that_begins_no_more_processes_leaves_the_others_their_number():
    """Memory is not what it lacks."""
    fewer = []
    packing = SimpleNamespace(jobs=1, reason="", see=lambda *_: None, fewer=fewer.append)
    executor = Full({"cuda:0"}, failure="bug")
    outcome = execute(plan(NODES, RUNS), executor, Record(), lambda _event: None, should_stop=lambda: False, packing=packing)
    assert len(outcome.finished) == len(RUNS)
    assert fewer == []
    execute(plan(NODES, RUNS), Full({"cuda:0"}), Record(), lambda _event: None, should_stop=lambda: False, packing=packing)
    assert fewer == [1]


def test_a_full_device_leaves_the_work_to_the_others():
    """Everything is done on the other device; the view is told that nothing runs on the full one."""
    executor = Full({"cuda:0"})
    outcome, _, seen = carried_out(executor)
    assert len(outcome.finished) == len(RUNS)
    assert [(event["device"], event["jobs"], event["slots"]) for event in seen if event["kind"] == "memory"] == [("cuda:0", 0, 1)]


def test_where_no_process_can_begin_it_is_tried_once_more():
    """With the only device full, a job is tried a second time, alone, and then fails with the reason."""
    executor = Full({"cuda:0"}, ["cuda:0"])
    outcome, _, seen = carried_out(executor)
    assert len(outcome.failed) == len(RUNS)
    assert executor.log.count("first") == executor.log.count("alone") == 2
    assert outcome.failed[0].kind == "memory"
    assert outcome.failed[0].reason.startswith("no process can begin on cuda:0, since its memory is full: other programs may hold it;")
    told = {event["message"] for event in seen if event["kind"] == "told"}
    assert told == {"out of memory on cuda:0, which other programs may hold: what did not fit is tried again in a new process"}


class Leaking(Executor):
    """A device with one slot whose process never lets go of memory: every job but the first of a process runs out of it."""

    num_idle = 1

    def __init__(self, how, results=RESULTS):
        super().__init__(results=results)
        self.how, self.begun = how, 0

    def submit(self, job, *, alone=False):
        super().submit(job)
        self.begun = 1 if alone else self.begun + 1

    def events(self, timeout):
        if self.begun == 1 or self.running == []:
            return super().events(timeout)
        key, self.begun = self.running.pop(), 0
        about = {"failure": "memory", "stage": key, "message": "?", "log": "", "device": "cuda:0", "jobs": 1, "is_fresh": False}
        if self.how == "failed":
            return [{"kind": "failed", **about}]
        return [{"kind": "untested", "run": one, **about} for one in self.results[key]] + [{"kind": "done", "stage": key}]


@pytest.mark.parametrize("how", ["failed", "untested"])
def test_memory_that_earlier_jobs_hold_fails_nothing(how):
    """With one slot, what does not fit after other jobs of its process is done in a new one; the number of slots stays."""
    outcome, _, seen = carried_out(Leaking(how), [node(key) for key in RESULTS])
    assert len(outcome.finished) == len(RUNS)
    assert not [event for event in seen if event["kind"] == "memory"]
    assert "earlier jobs of its process" in next(event["message"] for event in seen if event["kind"] == "told")


def test_a_kill_from_outside_is_no_lack_of_memory():
    """A job that scancel or a preemption killed is tried again beside the others as before; killed again it fails as killed."""
    for times, failed in ((1, []), (ATTEMPTS, ["arm-alone"])):
        executor = Executor(2, ends={"alone": ["killed"] * times}, results=RESULTS)
        outcome, _, seen = carried_out(executor)
        assert [one.run.arm for one in outcome.failed] == failed
        assert {one.kind for one in outcome.failed} <= {"killed"}
        assert (executor.num_slots, executor.most) == (2, 2)
        assert not [event for event in seen if event["kind"] == "memory"]


def test_another_end_than_sigkill_is_no_lack_of_memory():
    """A process that a broken library ended is tried again once, beside the others as before, and fails as killed."""
    executor = Executor(2, ends={"alone": ["killed"] * ATTEMPTS}, results=RESULTS)
    outcome, _, seen = carried_out(executor)
    assert [(one.run.arm, one.kind) for one in outcome.failed] == [("arm-alone", "killed")]
    assert executor.num_slots == 2
    assert not [event for event in seen if event["kind"] == "memory"]


class Edited(Executor):
    """Workers of which the second job's finds that the code was changed."""

    def events(self, timeout):
        events = super().events(timeout)
        return [{"kind": "stopped", "stage": "middle", "why": "edited"}] if events and events[0]["stage"] == "middle" else events


def test_other_code_ends_the_beginning_of_jobs():
    """What runs then is finished, nothing more is begun, and what is left has not failed."""
    executor = Edited(2, results=RESULTS)
    outcome, record, _ = carried_out(executor)
    assert outcome.why == "edited"
    assert not outcome.failed
    assert "last" not in executor.log
    assert {one.arm for one in outcome.left} == {f"arm-{key}" for key in RESULTS} - {arm for kind, arm, *_ in record.told}
    assert "arm-middle" in {one.arm for one in outcome.left}
    assert not executor.asked
    assert carried_out(Executor(2, results=RESULTS))[0].why == ""


# --- the order, and the budget -------------------------------------------------------------------------------------------------


class Clockwork:
    """An executor whose jobs take as many seconds as `takes` says, on a clock that only it moves; asked to stop, they end at once."""

    def __init__(self, takes, results, num_slots=1):
        self.takes, self.results, self.num_slots = takes, results, num_slots
        self.now, self.ends, self.log, self.asked = 0.0, {}, [], False

    @property
    def num_free(self):
        return self.num_slots - len(self.ends)

    def submit(self, job):
        self.ends[job.key] = self.now + self.takes[job.key]
        self.log.append(job.key)

    def events(self, timeout):
        if self.asked:
            stopped, self.ends = list(self.ends), {}
            return [{"kind": "stopped", "stage": key} for key in stopped]
        key = min(self.ends, key=self.ends.get)
        if self.ends[key] > self.now + timeout:
            self.now += timeout
            return []
        self.now = self.ends.pop(key)
        row = {"seconds": self.takes[key]}
        events = [{"kind": "epoch", "stage": key, "row": row}, *({"kind": "result", "stage": key, "run": one} for one in self.results[key])]
        return [*events, {"kind": "done", "stage": key}]

    def ask_to_stop(self):
        self.asked = True

    def close(self):
        pass


def carried_out_in(budget, nodes, runs, monkeypatch, takes=None, num_slots=1):
    """What a budget of so many seconds leads to; every stage takes what the plan says, or what `takes` says."""
    results = {one.job.key: [other.key for other in runs if other.chain[-1] == one.job.key] for one in nodes}
    executor = Clockwork({one.job.key: one.seconds for one in nodes} | (takes or {}), results, num_slots)
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: executor.now))
    outcome, _, _ = carried_out(executor, nodes, runs, budget=budget)
    return outcome, executor


def chains(seeds=3, arms=4, seconds=1.0):
    """For each seed and arm a training, and for the second arm one that goes on from it: `a0/1` is arm 1 with seed 0."""
    nodes, runs = [], []
    for seed in range(seeds):
        for arm in range(arms):
            key = f"s{seed}a{arm}"
            nodes += [node(key, seconds=seconds)] + ([node(f"{key}+", key, seconds=seconds)] if arm == 1 else [])
            runs.append(run(f"arm{arm}", f"run-{key}", f"{key}+" if arm == 1 else key, seed))
    return nodes, runs


@pytest.mark.parametrize("num_slots", [1, 2, 3])
def test_all_arms_of_a_seed_come_first(num_slots, monkeypatch):
    """Stages begin seed by seed; a child that becomes ready later still begins before the arms of the next seed that wait."""
    nodes, runs = chains()
    outcome, executor = carried_out_in(0, nodes, runs, monkeypatch, num_slots=num_slots)
    begun = [int(key[1]) for key in executor.log]
    inversions = [(i, j) for i, seed in enumerate(begun) for j in range(i + 1, len(begun)) if begun[j] < seed]
    assert all(j - i < num_slots for i, j in inversions)  # only what filled a slot while a parent was trained
    assert num_slots > 1 or not inversions
    assert not outcome.left


def test_the_plan_lists_stages_seed_by_seed(tmp_path):
    """Nodes are in seed-major order, whatever they share, so that walking them in order trains all arms of the first seed first."""
    head = [{"epochs": "2/3"}, {"epochs": "1/3", "train": "head"}]
    arms = {"cb": {"sampler": "class_balanced"}, "head": {"stages": head}, "cb-head": {"of": "cb", "stages": head}, "tta": {"tta": "hflip"}}
    three = study(tmp_path, variants=arms, seeds=(0, 1, 2))
    planned = make_plan(three, (2, 0, 1), ("tta", "baseline", "cb-head", "head"), planner(three), RecordedState())
    seeds = [one.seed for one in planned.nodes.values()]
    assert len(seeds) == 3 * 5  # the baseline's and cb's four epochs, the baseline's other two, and two heads
    assert seeds == sorted(seeds, key=(2, 0, 1).index)


def trainings(**seconds):
    """Trainings of so many seconds, one run each; `b__a` goes on from `a`."""
    nodes = [node(key, key.partition("__")[2], seconds=float(took)) for key, took in seconds.items()]
    return nodes, [run(f"arm-{key}", f"run-{key}", key) for key in seconds]


@pytest.mark.parametrize(
    ("seconds", "num_slots", "log", "end"),
    [
        ({"a": 2, "b": 2, "c": 2, "long": 6}, 2, ["long", "a", "b", "c"], 6),  # in the plan's order it would take 8
        ({"a": 2, "b": 2, "c": 2, "root": 3, "next__root": 3}, 2, ["root", "a", "b", "next__root", "c"], 6),
        ({"a": 2, "b": 2, "c": 2, "d": 2, "long": 4}, 2, ["a", "b", "long", "c", "d"], 6),  # no sooner than need be
        ({"a": 2, "b": 2, "c": 2, "long": 6}, 1, ["a", "b", "c", "long"], 12),
        ({"a": 2, "b": 2, "c": 2, "d": 2}, 2, ["a", "b", "c", "d"], 4),
        ({"a": 2, "b": 2, "c": 2, "long": 6}, 8, ["long", "a", "b", "c"], 6),
    ],
)
def test_the_longest_chain_begins_in_time(seconds, num_slots, log, end, monkeypatch):
    """A chain that would hold up the end goes before those in front of it once it is as long as the rest; nothing else changes places."""
    outcome, executor = carried_out_in(0, *trainings(**seconds), monkeypatch, num_slots=num_slots)
    assert (executor.log, executor.now) == (log, end)
    assert not outcome.left


def test_what_is_known_of_no_stage_changes_no_order(monkeypatch):
    """Where the plan knows no time of some stage, or there is a budget, the order is the plan's."""
    nodes, runs = trainings(a=2, b=2, c=2, long=6)
    assert carried_out_in(100, nodes, runs, monkeypatch, num_slots=2)[1].log == ["a", "b", "c", "long"]
    nodes[1].seconds = 0.0
    assert carried_out_in(0, nodes, runs, monkeypatch, takes={"b": 2.0}, num_slots=2)[1].log == ["a", "b", "c", "long"]


@pytest.mark.parametrize("budget", [1, 4.5, 5, 7.9, 11, 14])
def test_what_a_budget_leaves_is_balanced(budget, monkeypatch):
    """With one slot, the finished runs are a prefix of the plan's, and whatever would not end in time was not begun."""
    nodes, runs = chains()
    outcome, executor = carried_out_in(budget, nodes, runs, monkeypatch)
    assert outcome.finished == runs[: len(outcome.finished)]
    assert outcome.finished + outcome.left == runs
    assert len(executor.log) == int(budget)
    assert executor.now <= budget
    assert not executor.asked


def test_nothing_overtakes_what_does_not_fit(monkeypatch):
    """A stage that would not end in time keeps those after it from beginning, short as they may be."""
    nodes = [node("first", seconds=3.0), node("long", seconds=5.0), node("short", seconds=1.0)]
    runs = [run(f"arm-{one.job.key}", f"run-{one.job.key}", one.job.key) for one in nodes]
    _, executor = carried_out_in(7, nodes, runs, monkeypatch)
    assert executor.log == ["first"]
    _, executor = carried_out_in(7, nodes, runs, monkeypatch, num_slots=2)
    assert executor.log == ["first", "long", "short"]


def test_a_child_that_would_not_end_lets_nothing_overtake(monkeypatch):
    """While a parent is trained, the other slot takes nothing from behind a child that cannot end in what is left."""
    nodes = [node("first", seconds=3.0), node("child", "first", seconds=3.0), node("other", seconds=1.0)]
    runs = [run(f"arm-{one.job.key}", f"run-{one.job.key}", one.job.key) for one in nodes]
    assert carried_out_in(6.5, nodes, runs, monkeypatch, num_slots=2)[1].log == ["first", "other", "child"]
    assert carried_out_in(5.9, nodes, runs, monkeypatch, num_slots=2)[1].log == ["first", "other"]  # no such budget holds first and child
    later = [node("begin", seconds=2.0), node("beside", seconds=2.5), *nodes]
    assert carried_out_in(6.5, later, runs, monkeypatch, num_slots=2)[1].log == ["begin", "beside", "first"]  # at 2.5 s, 5.5 s are to go


def test_expectations_are_corrected_by_what_was_measured(monkeypatch):
    """Where trainings take three times what the plan says, the budget holds a third of them, and all the same nothing is stopped."""
    nodes, runs = chains(arms=1, seeds=9)
    outcome, executor = carried_out_in(10, nodes, runs, monkeypatch, takes={one.job.key: 3.0 for one in nodes})
    assert len(outcome.finished) == 3
    assert not executor.asked


@pytest.mark.parametrize("num_slots", [1, 2])
def test_what_is_longer_than_the_budget_begins_all_the_same(num_slots, monkeypatch):
    """A stage that no such budget could hold begins when nothing beside it would end, and is asked to stop when time is up."""
    nodes = [node("short", seconds=1.0), node("long", seconds=50.0), node("longer", seconds=60.0)]
    runs = [run(f"arm-{one.job.key}", f"run-{one.job.key}", one.job.key) for one in nodes]
    outcome, executor = carried_out_in(10, nodes, runs, monkeypatch, num_slots=num_slots)
    assert executor.log == ["short", "long", "longer"][: 1 + num_slots]
    assert executor.asked
    assert [one.arm for one in outcome.left] == ["arm-long", "arm-longer"]


def test_finished_runs_are_told_to_the_view():
    """The view hears of every run that is finished, those of one training each."""
    runs = [run("cb", "same", "alone"), run("reweight", "same", "alone")]
    _, _, seen = carried_out(Executor(results={"alone": ["same"]}), [node("alone")], runs)
    assert [(event["arm"], event["seed"]) for event in seen if event["kind"] == "finished"] == [("cb", 0), ("reweight", 0)]
