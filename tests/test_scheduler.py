"""Which job begins when, and what a failure stops."""

from types import SimpleNamespace

import pytest

from ablation.scheduler import ATTEMPTS, execute


def node(key, parent="", state="missing", evaluations=()):
    """A stage of the plan, as far as the scheduler looks at it."""
    return SimpleNamespace(state=state, job=SimpleNamespace(key=key, parent=parent, evaluations=tuple(evaluations)))


def run(arm, key, stage):
    return SimpleNamespace(arm=arm, seed=0, key=key, chain=(stage,), needed=True, choice=None, state="missing")


def plan(nodes, runs):
    return SimpleNamespace(nodes={one.job.key: one for one in nodes}, waiting=list(runs), runs=list(runs))


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
    assert {one.arm for one, _ in outcome.failed} == {f"arm-{key}" for key in lost}
    assert {one.arm for one in outcome.finished} == {f"arm-{key}" for key in RESULTS if key not in lost}
    assert {reason for _, reason in outcome.failed} == {"nan!"}
    assert {told[1] for told in record.told if told[0] == "failed"} == {f"arm-{key}" for key in lost}


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
    nodes = [node("first", state="done"), node("middle", "first", state="done", evaluations=["run-middle"]), node("last", "middle")]
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
