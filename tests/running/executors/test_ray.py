"""A real Ray cluster of two nodes on this machine: the same results as here, and what is killed, frozen or taken away goes on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec

import psutil
import pytest

from ablation.errors import AblateError, ClusterError, ConfigError
from ablation.running.scheduler import execute
from ablation.tracking.store import Store
from benchmarks.campaign import problems
from tests import ladder
from tests.engines import slow
from tests.running.test_scheduler import Record
from tests.tiny import Planned, write

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read where Ray is imported: with it, it takes 127.0.0.1 for what it is
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  Ray's own spelling
pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (pip install '.[ray]')"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
LONG = {"epochs": 500}
HEARTBEAT = 10.0  # seconds; a machine with much to do is no frozen one
COMMAND = ("ablat", "--arm", "--seed")  # what the lines of a printed command have


@pytest.fixture(scope="module")
def cluster():
    """A head and a second node, each with one CPU."""
    import_module("ablation.running.executors.ray")  # sets what Ray reads where it is imported

    with contextlib.redirect_stdout(sys.stderr):
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.other = made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@contextlib.contextmanager
def executor(cluster, folder, **options):
    from ablation.running.executors.ray import RayExecutor

    (folder / "mlruns").mkdir(exist_ok=True)
    place = {"address": cluster.address, "study": "tiny", "folders": [str(folder / "mlruns")], "heartbeat": HEARTBEAT}
    pool = RayExecutor(["cpu"], 0, "images", **(place | options))
    try:
        yield pool
    finally:
        pool.close()


def actors():
    """The processes of our actors in this test's cluster."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += [process] if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::_Actor") else []
    return found


def none_within(seconds, look):
    """Whether `look` finds nothing any more within so many seconds."""
    until = time.monotonic() + seconds
    while look() and time.monotonic() < until:
        time.sleep(0.1)
    return not look()


def carried_out(planned, pool, watch=lambda events: None, should_stop=lambda: False):
    """The outcome, what was recorded, and all events; `watch` sees those so far."""
    record, events = Record(), []

    def view(event):
        if event["kind"] != "tick":
            events.append(event)
            watch(events)

    return execute(planned.plan, pool, record, view, should_stop=should_stop), record, events


def predictions(planned):
    return [(planned.workspace.results / run.key / "predictions.parquet").read_bytes() for run in planned.plan.runs]


def test_by_ray_as_by_this_machine(cluster, ladder_here, ablate):
    """The ladder's runs give the same bytes of predictions and the same record; nothing of Ray is on stdout, and no actor is left."""

    def told(printed):
        """What is printed, but for commands, which differ."""
        return [line for line in printed.splitlines() if not any(word in line for word in COMMAND)]

    done = ablate("run", *ladder.write(ablate.folder), "--device", "cpu", "--executor", "ray", "--ray-address", cluster.address)
    assert done.status == 0, done.err
    assert told(done.out) == told((ladder_here / ladder.PRINTED).read_text())
    assert problems(ladder_here, ablate.folder) == []
    assert none_within(10, actors)
    assert not list((ablate.folder / "mlruns").glob("seen-by-ray-*"))


def test_what_is_killed_or_frozen_goes_on(cluster, tmp_path, capsys):
    """An actor that is killed, and one that is frozen, are each replaced: the runs go on after their last epoch, to the same bits."""
    file = write(tmp_path, seeds=[0, 1], base={"epochs": 30})
    here, there = Planned(file, tmp_path / "here"), Planned(file, tmp_path / "mlruns")
    here.carry_out()
    struck = []

    def strike(events):
        """Kill the first actor that has trained an epoch, and freeze the other one that has."""
        seen = {event["device"] for event in events if event["kind"] == "epoch"}
        if len(seen) == 2 and not struck:
            for process, number in zip(actors(), (signal.SIGKILL, signal.SIGSTOP), strict=True):
                struck.append(process.pid)
                process.send_signal(number)

    with executor(cluster, tmp_path) as pool:
        assert pool.num_slots == 2
        outcome, record, events = carried_out(there, pool, strike)
        assert none_within(30, lambda: {process.pid for process in actors()} & set(struck))
    assert len(struck) == 2
    assert capsys.readouterr().out == ""  # where the table will stand
    assert sorted(record.told) == [("finished", "baseline")] * 2 + [told for told in sorted(record.told) if told[0] == "live"]
    assert not outcome.failed
    assert not outcome.left
    for key in there.plan.nodes:
        epochs = [event["epoch"] for event in events if event["kind"] == "epoch" and event["stage"] == key]
        assert epochs == sorted(set(epochs))
        assert [event["kind"] for event in events if event.get("stage") == key].count("started") == 2
    assert predictions(there) == predictions(here)
    assert none_within(10, actors)


@slow
def test_stopping_reaches_actors(cluster, tmp_path):
    """Jobs that were asked to stop end at their epoch, and are left; actors that are busy end when the executor is closed."""
    planned = Planned(write(tmp_path, seeds=[0, 1], base=LONG), tmp_path / "mlruns")
    epochs = []
    with executor(cluster, tmp_path) as pool:
        outcome, _, events = carried_out(
            planned, pool, lambda events: epochs.extend(events[-1:]), lambda: any(event["kind"] == "epoch" for event in epochs)
        )
        assert len(outcome.left) == 2
        assert [event["kind"] for event in events][-1] == "stopped"
        pool.submit(planned.jobs()[0])
        while not any(event["kind"] == "started" for event in pool.events(0.2)):
            pass
    assert none_within(10, actors)


@slow
def test_interrupted_twice_nothing_is_left(cluster, folder):
    """Ctrl-C twice ends the command at once: no actor, and no run that is said to run."""
    file = write(folder, base=LONG)
    words = [sys.executable, "-m", "ablation", "run", str(file), "--device", "cpu", "--executor", "ray", "--ray-address", cluster.address]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        said = ""
        while ": epoch " not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        assert len(actors()) == 2
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert none_within(15, actors)
    runs = Store.open().runs_of("tiny")
    assert runs
    assert not [run for run in runs if run["status"] == "RUNNING"]


@pytest.mark.parametrize(
    ("address", "words"),
    [("ray://x:1", "expected HOST:PORT"), ("127.0.0.1:1", "nobody answers at 127.0.0.1:1"), ("here", "expected HOST:PORT")],
)
def test_an_address_of_nothing_is_told(address, words, tmp_path):
    """In a sentence, and at once."""
    from ablation.running.executors.ray import RayExecutor

    with pytest.raises(ConfigError, match=words):
        RayExecutor(["cpu"], 0, "images", address=address, study="s", folders=[str(tmp_path)])


@pytest.mark.parametrize(
    ("left", "words"), [("127.0.0.1:1", "nobody answers at 127.0.0.1:1"), ("", "found auto, and no Ray cluster on this machine")]
)
def test_a_cluster_that_is_no_longer_there_is_told(left, words, monkeypatch):
    """`ray start` leaves an address behind where it was killed; Ray itself would try it for more than a minute."""
    from ablation.running.executors import ray as module

    def found(address):
        if not left:
            raise ConnectionError("Could not find any running Ray instance.")
        return left

    monkeypatch.setattr(module.ray._private.services, "canonicalize_bootstrap_address", found)
    with pytest.raises(ConfigError, match=words):
        module._check_address("auto")


def test_a_node_that_does_not_see_the_folder_is_told(cluster, tmp_path, monkeypatch):
    """Before anything starts; its name and the folder are in the sentence."""
    from ablation.running.executors import ray as module

    answers = module.ray.remote(num_cpus=0)(lambda asked: json.dumps(json.loads(asked)["here"] | {"unseen": ["/elsewhere"]}))
    asked = module._Cluster._asked.fget
    monkeypatch.setattr(module._Cluster, "_asked", property(lambda self: asked(self) | {"here": {}}))
    monkeypatch.setattr(module, "_facts", answers)
    with (
        pytest.raises(AblateError, match="does not see /elsewhere; expected the same folder at the same path"),
        executor(cluster, tmp_path),
    ):
        pass


def test_a_node_that_is_gone_loses_no_run(cluster, tmp_path):
    """Its job goes on on another one, or its process ends it as an orphan: with the same bits."""
    file = write(tmp_path, seeds=[0, 1], base={"epochs": 12})
    here, there = Planned(file, tmp_path / "here"), Planned(file, tmp_path / "mlruns")
    here.carry_out()
    removed = []

    def strike(events):
        if len({event["device"] for event in events if event["kind"] == "epoch"}) == 2 and not removed:
            removed.append(cluster.other)
            cluster.remove_node(cluster.other, allow_graceful=False)

    with executor(cluster, tmp_path) as pool:
        outcome, _, _ = carried_out(there, pool, strike)
    assert removed
    assert not outcome.failed
    assert not outcome.left
    assert predictions(there) == predictions(here)


def test_two_jobs_have_halves_of_a_gpu(tmp_path, monkeypatch):
    """On a cluster that is begun for the command: each of two GPUs is a device with two slots, even where Ray names it to no process."""
    from ablation.running.executors.ray import RayExecutor

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "1")
    pool = RayExecutor(["cuda:0", "cuda:1"], 2, "images", study="s", folders=[str(tmp_path)])
    with contextlib.closing(pool):
        assert (pool.num_slots, pool.num_free) == (4, 4)
        until = time.monotonic() + 120
        while not all(slot.device for slot in pool._slots) and time.monotonic() < until:
            pool.events(0.2)
        devices = [slot.device for slot in pool._slots]
        assert {device.partition(" ")[0]: devices.count(device) for device in devices} == {"cuda:0": 2, "cuda:1": 2}
        assert pool.num_idle == 2
        assert pool.shrink(devices[0]) == 1
        assert pool.num_slots == 3
    assert none_within(20, actors)


def test_a_head_that_says_nothing_is_given_up(monkeypatch):
    """In a sentence, and before Ray ends the command, which would leave runs that are said to run."""
    from ablation.running.executors import ray as module

    monkeypatch.setattr(module, "SILENCE", 0.1)
    monkeypatch.setattr(module.ray, "nodes", lambda: time.sleep(2))
    with pytest.raises(ClusterError, match=r"does not answer any more .* the same command goes on once it is back") as error:
        module._living()
    assert error.value.status == 1


def test_what_ray_says_is_one_line():
    """The first, or all where it only begins the sentence, as for versions that differ; of a traceback the last."""
    from ablation.running.executors.ray import _said

    versions = "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\nThis process was started with:\n    Ray: 2.56.0\n"
    words = "Version mismatch: The cluster was started with: Ray: 2.60.0 This process was started with: Ray: 2.56.0"
    assert [_said(RuntimeError(text)) for text in (versions, "one\ntwo", "Traceback:\n  x\nValueError: no", "")] == [
        words,
        "one",
        "ValueError: no",
        "RuntimeError",
    ]
