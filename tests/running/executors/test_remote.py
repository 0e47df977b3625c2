"""Jobs in the slots of a cluster that is made up: which begins where, what is lost and goes on, and what a machine must have in common."""

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablation.errors import ConfigError
from ablation.running.executors import node_facts, remote, start_executor
from ablation.running.executors.remote import Broken, Gone, Node, RemoteExecutor
from ablation.running.executors.remote_worker import AT_ONCE, RemoteWorker
from ablation.running.scheduler import execute
from ablation.running.worker import OTHER_CODE
from ablation.system import fencing
from tests.running.test_scheduler import Record, node, plan, run
from tests.tiny import Planned, write

ONE, TWO = Node("1", "one", 2), Node("2", "two", 1)


class Cluster:
    """Workers that do what a test has them do: what they were asked is noted, and their answers are written here."""

    def __init__(self, kind="cpu"):
        self.kind, self.dead, self.new, self.sentences, self.ended, self.closed = kind, set(), [], [], [], False
        self.workers, self.said = [], {}  # answer -> what it says

    def new_nodes(self):
        new, self.new, sentences, self.sentences = self.new, [], self.sentences, []
        return new, sentences

    def is_alive(self, node):
        return node.id not in self.dead

    def start(self, node):
        worker = SimpleNamespace(node=node, asked=[], answers=[])
        self.workers.append(worker)
        return worker

    def ask(self, worker, method, *words):
        worker.asked.append((method, *words))
        worker.answers.append(f"{self.workers.index(worker)}.{len(worker.asked)}")
        return worker.answers[-1]

    def say(self, number, *events, raised=None):
        """The worker's last answer."""
        self.said[self.workers[number].answers[-1]] = raised or json.dumps(events)

    def begin(self, *numbers, gpu=""):
        for number in numbers:
            self.said[self.workers[number].answers[-1]] = json.dumps({"gpu": gpu})

    def answered(self, answers, timeout):
        return [answer for answer in answers if answer in self.said]

    def take(self, answer):
        if isinstance(said := self.said.pop(answer), Exception):
            raise said
        return said

    def end(self, worker):
        self.ended.append(self.workers.index(worker))

    def close(self):
        self.closed = True


def executor(*nodes, kind="cpu", is_begun=True, **options):
    """An executor on these nodes, and its cluster."""
    cluster = Cluster(kind)
    made = RemoteExecutor(cluster, "ray/s", **({"stages": Path("none")} | options))
    made.add(nodes)
    if is_begun:
        cluster.begin(*range(len(cluster.workers)))
        made.events(0)
    return made, cluster


@pytest.fixture(autouse=True)
def plain_jobs(monkeypatch):
    """The engine reads no more of a job than its key."""
    monkeypatch.setattr(remote, "job_to_json", lambda job: job.key)


def job(key):
    return SimpleNamespace(key=key)


def orders(cluster):
    """worker -> the keys that it was given."""
    return {i: [json.loads(words[1])["job"] for words in worker.asked if words[0] == "work"] for i, worker in enumerate(cluster.workers)}


def test_jobs_are_held_until_a_worker_is_there():
    """As many as there are slots can be submitted at once; each begins with the first worker that is ready, wherever that is."""
    pool, cluster = executor(ONE, TWO, is_begun=False)
    assert (pool.num_slots, pool.num_free) == (3, 3)
    pool.submit(job("a"))
    pool.submit(job("b"))
    assert (pool.num_free, pool.num_idle) == (1, 0)
    assert pool.events(0) == []
    cluster.begin(2)
    pool.events(0)
    assert orders(cluster) == {0: [], 1: [], 2: ["a"]}
    cluster.say(2, {"kind": "started"}, {"kind": "done"})
    assert pool.events(0) == [{"kind": kind, "stage": "a", "device": "cpu of two"} for kind in ("started", "done")]
    assert orders(cluster)[2] == ["a", "b"]


def test_a_worker_is_asked_on_until_its_job_ends():
    """An answer without an end is followed by the next question; a failure tells how many share the device."""
    pool, cluster = executor(ONE)
    pool.submit(job("a"))
    cluster.say(0)
    assert pool.events(0) == []
    assert cluster.workers[0].asked[-1][0] == "events"
    cluster.say(0, {"kind": "failed", "failure": "nan", "message": "", "log": "", "jobs": 1})
    (event,) = pool.events(0)
    assert (event["jobs"], event["device"], pool.num_free) == (2, "cpu of one", 2)


def test_alone_means_nothing_else_on_the_device():
    """A job that goes alone takes an idle device, has the other processes there end, and keeps the others off until it ends."""
    pool, cluster = executor(ONE, TWO)
    pool.submit(job("a"))
    assert (pool.num_idle, pool.num_free) == (1, 2)
    pool.submit(job("big"), alone=True)
    assert orders(cluster) == {0: ["a"], 1: [], 2: ["big"]}
    cluster.say(0, {"kind": "done"})
    cluster.say(2, {"kind": "done"})
    pool.events(0)
    pool.submit(job("bigger"), alone=True)
    assert cluster.workers[1].asked[-1] == ("end",)
    assert (pool.num_free, pool.num_idle) == (1, 1)


def test_a_gpu_is_known_once_its_worker_has_it():
    """Slots on one GPU share its name; one job fewer ends an idle slot there, and the last one stays with a new process."""
    pool, cluster = executor(ONE, kind="cuda", is_begun=False)
    assert (pool.num_slots, pool.num_idle) == (2, 1)
    cluster.begin(0, 1, gpu="3")
    pool.events(0)
    assert [pool.shrink("cuda:3 of one"), cluster.ended] == [1, [0]]
    assert [pool.shrink("cuda:3 of one"), cluster.ended] == [1, [0]]
    assert cluster.workers[1].asked[-1] == ("end",)
    assert pool.resize("cuda:3 of one", 4) == 1


@pytest.mark.parametrize("how", ["gone", "silent"])
def test_what_is_lost_is_no_failure(how):
    """A worker that is gone, or silent for too long, is replaced, and its job begins again, however often; it is told once each time."""
    pool, cluster = executor(TWO, heartbeat=0.05)
    seen, record = [], Record()

    def watch(event):
        seen.append(event["kind"])
        last = len(cluster.workers) - 1
        worker = cluster.workers[last]
        if worker.asked[-1][0] == "begin":
            cluster.begin(last)
        elif worker.asked[-1][0] == "work" and last < 4 and how == "gone":
            cluster.say(last, raised=Gone("its node is gone"))
        elif last == 4:
            cluster.say(last, {"kind": "result", "run": "run"}, {"kind": "done"})
        time.sleep(0.01)

    outcome = execute(plan([node("a")], [run("arm", "run", "a")]), pool, record, watch, should_stop=lambda: False)
    assert record.told == [("finished", "arm")]
    assert not outcome.failed
    assert cluster.ended == [0, 1, 2, 3]
    asked = [json.loads(words[1]) for worker in cluster.workers for words in worker.asked if words[0] == "work"]
    assert {order["owner"] for order in asked} == {"ray/s/a"}
    attempts = [order["attempt"] for order in asked]
    assert attempts == sorted(set(attempts))
    assert [seen.count(kind) for kind in ("told", "stopped", "done")] == [4, 4, 1]


def test_lack_of_memory_is_what_the_engine_calls_so():
    """A worker that was ended for it counts as one that did not fit."""
    pool, cluster = executor(TWO)
    pool.submit(job("a"))
    cluster.say(0, raised=Gone("memory was full", for_memory=True))
    (event,) = pool.events(0)
    assert (event["failure"], event["message"], event["exit"], "is_lost" in event) == ("memory", "memory was full", -9, False)


def test_an_exception_in_a_worker_is_a_bug():
    """It is told with its traceback, and not tried for ever."""
    pool, cluster = executor(TWO)
    pool.submit(job("a"))
    cluster.say(0, raised=Broken("Traceback ...\nValueError: no"))
    (event,) = pool.events(0)
    assert (event["failure"], event["message"], "is_lost" in event) == ("bug", "ValueError: no", False)


def test_our_own_sleep_is_nobody_else_s_silence(monkeypatch):
    """A coordinator that was frozen for a while gives up no worker for that."""
    pool, cluster = executor(TWO, heartbeat=10)
    pool.submit(job("a"))
    now = time.monotonic()
    monkeypatch.setattr(remote.time, "monotonic", lambda: now + 1000)
    assert pool.events(0) == []
    assert cluster.ended == []


def test_nodes_go_and_come():
    """A job waits where all nodes are gone, and begins on the next that comes; one that cannot be used is told."""
    pool, cluster = executor(TWO)
    pool.submit(job("a"))
    cluster.dead.add("2")
    cluster.say(0, raised=Gone("node died"))
    assert [event["kind"] for event in pool.events(0)] == ["told", "failed"]
    assert (pool.num_slots, pool.num_free, pool.num_idle) == (1, 1, 1)
    pool.submit(job("a"))
    assert pool.num_free == 0
    cluster.new, cluster.sentences = [Node("3", "three", 1)], ["four is other"]
    assert [event["message"] for event in pool.events(0)] == ["four is other"]
    cluster.begin(1)
    pool.events(0)
    assert orders(cluster)[1] == ["a"]


def test_a_cluster_on_which_nothing_begins_is_left():
    """After three attempts in a row on its only node, what waits ends with the reason."""
    pool, cluster = executor(TWO, is_begun=False)
    pool.submit(job("a"))
    events = []
    for number in range(3):
        cluster.say(number, raised=Gone("ModuleNotFoundError: ablation"))
        events += pool.events(0)
    assert [(event["kind"], event["why"]) for event in events] == [("stopped", "no worker can begin on two: ModuleNotFoundError: ablation")]


def test_waiting_for_room_is_said_once(monkeypatch):
    """Where all is taken by others, for as long as that lasts; what passed before there was a job to begin is no waiting."""
    pool, _ = executor(TWO, is_begun=False)
    now = time.monotonic()
    monkeypatch.setattr(remote.time, "monotonic", lambda: now + 1000)
    pool.submit(job("a"))
    assert pool.events(0) == []
    monkeypatch.setattr(remote.time, "monotonic", lambda: now + 1061)
    told = [event for _ in range(3) for event in pool.events(0)]
    assert [event["kind"] for event in told] == ["told"]


@pytest.mark.parametrize(("owner", "is_above"), [("ray/s/a", True), ("other", False)])
def test_an_attempt_follows_one_of_a_clock_that_was_ahead(owner, is_above, tmp_path):
    """A command that is given again on another host goes on, however far the clock of the first was ahead."""
    ahead = int(time.time() * 1000) + 10**7
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / fencing.TOKEN).write_text(json.dumps(asdict(replace(fencing.Token.new(), owner=owner, attempt=ahead))))
    pool, cluster = executor(TWO, stages=tmp_path)
    pool.submit(job("a"))
    assert (json.loads(cluster.workers[0].asked[-1][1])["attempt"] > ahead) == is_above


def test_stopping_reaches_what_runs_and_what_waits():
    """Workers are asked, what is held ends at once; closing ends all workers."""
    pool, cluster = executor(TWO, ONE)
    for key in "abcd":
        pool.submit(job(key))
    pool.ask_to_stop()
    assert [worker.asked[-1] for worker in cluster.workers] == [("ask_to_stop",)] * 3
    assert pool.events(0) == [{"kind": "stopped", "stage": "d", "device": ""}]
    pool.close()
    assert (sorted(cluster.ended), cluster.closed) == ([0, 1, 2], True)


def test_ray_that_is_not_installed_is_told(monkeypatch):
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ablation.running.executors.ray", raising=False)
    with pytest.raises(ConfigError, match=r"--executor: ray is not installed; expected it: pip install '\.\[ray\]' in the clone of ablate"):
        start_executor("ray", ["cpu"], 0, "images", study="s", folders=["mlruns"])


# --- the worker ------------------------------------------------------------------------------------------------------------------


def test_a_worker_speaks_json(tmp_path, monkeypatch):
    """A job goes in as text and its events come out as text; what cannot be read is code that was changed."""
    monkeypatch.undo()
    (tiny,) = Planned(write(tmp_path), tmp_path / "mlruns").jobs()
    place = {"folder": str(tmp_path), "code": [], "device": "cpu", "task": "images"}
    monkeypatch.chdir(tmp_path)
    worker = RemoteWorker(json.dumps(place))
    try:
        order = {"key": tiny.key, "job": remote.job_to_json(tiny), "alone": False, "num_jobs": 3, "owner": "ray/s", "attempt": 7}
        told = json.loads(worker.work(json.dumps(order), 60))
        while told[-1]["kind"] not in remote.ENDS:
            told += json.loads(worker.events(60))
        assert [event["kind"] for event in told] == ["started", "epoch", "epoch", "result", "done"]
        token = json.loads((tmp_path / "mlruns" / "stages" / tiny.key / fencing.TOKEN).read_text())
        assert (token["owner"], token["attempt"]) == ("ray/s", 7)
        assert json.loads(worker.work(json.dumps(order | {"job": "{}"}), 60)) == [OTHER_CODE | {"stage": tiny.key, "device": "cpu"}]
    finally:
        worker.end()


def test_a_worker_answers_however_much_its_job_has_to_say():
    """One that never pauses is heard of all the same, in order."""
    worker = RemoteWorker(json.dumps({"folder": str(Path.cwd()), "code": [], "device": "cpu", "task": "images"}))
    worker.end()
    numbers = iter(range(10**6))
    worker._slot = SimpleNamespace(events=lambda _: [{"kind": "epoch", "epoch": next(numbers)}])
    first, second = (json.loads(worker.events(1)) for _ in range(2))
    assert [event["epoch"] for event in first + second] == list(range(2 * AT_ONCE))


# --- whether a machine computes the same -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({}, ""),
        ({"torch": "1.0"}, "has torch 1.0; expected 2.0, as on the machine that plans"),
        ({"ablate": "b"}, "has another version of ablate; expected the same code on all machines"),
        (
            {"unseen": ["/x"], "torch": "1.0"},
            "does not see /x; expected the same folder at the same path, on a disk that all machines share",
        ),
    ],
)
def test_a_machine_that_differs_is_told_in_a_sentence(there, words):
    """By the first thing that differs."""
    here = {"torch": "2.0", "ablate": "a", "unseen": []}
    assert node_facts.difference(here, here | there) == words


def test_a_machine_with_gpus_of_two_classes_differs(tmp_path, monkeypatch):
    """Though its first one is as expected: a run may get any of them."""
    names = {"cuda:0": "cuda A", "cuda:1": "cuda A", "cuda:2": "cuda B"}
    monkeypatch.setattr(node_facts, "load_task", lambda _: SimpleNamespace(device_class=names.__getitem__))
    (tmp_path / "seen").touch()
    asked = {"task": "images", "folders": [str(tmp_path)], "marker": "seen"}
    one, two, three = (node_facts.node_facts(asked | {"devices": list(names)[:number]}) for number in (1, 2, 3))
    assert node_facts.difference(one, two) == ""
    assert node_facts.difference(one, three) == "has device cuda A and cuda B; expected cuda A, as on the machine that plans"


def test_a_folder_is_seen_by_a_new_file_in_it(tmp_path, monkeypatch):
    """A folder of the same name on another disk lacks what was just written."""
    monkeypatch.setattr(node_facts, "PATIENCE", 0.0)
    asked = {"task": "images", "devices": ["cpu"], "folders": [str(tmp_path)], "marker": "seen"}
    assert node_facts.node_facts(asked)["unseen"] == [str(tmp_path)]
    (tmp_path / "seen").touch()
    facts = node_facts.node_facts(asked)
    assert (facts["unseen"], facts["device"].partition(" ")[0]) == ([], "cpu")
    assert node_facts.node_facts(asked | {"folders": [str(tmp_path / "none")]})["unseen"] == [str(tmp_path / "none")]
