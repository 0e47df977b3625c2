"""Faults while a study is recorded: a kill, a refusal or a lost answer at every write, a store that is away, other machines."""

import contextlib
import errno
import hashlib
import os
import random
import shutil
import socket
import sqlite3
import threading
import time
import warnings
from itertools import count
from types import SimpleNamespace

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool
from werkzeug.serving import make_server

from ablation.planning.workspace import Workspace
from ablation.running.recorder import registry, summaries, writer
from ablation.running.recorder.recorder import Recorder
from ablation.tracking import store as tracking
from ablation.tracking.database import PATIENCE
from ablation.tracking.store import Store
from benchmarks import faults
from tests.tiny import Planned, write

WRITES = ("create_experiment", "set_experiment_tag", "create_run", "log_batch", "set_terminated", "update_run", "delete_run", "log_inputs")
VOLATILE = {registry.TOKEN, registry.PLACE, summaries.SUMMARISED, summaries.WRITTEN, "mlflow.parentRunId"}
SILENCE = 60.0  # seconds for which a server says nothing at most
LAYERS = {"variants": {"cb": {"sampler": "class_balanced"}}, "base": {"epochs": 1}}


@pytest.fixture(autouse=True, scope="module")
def quick_commits():
    """SQLite does not wait for the disk: no test pulls the plug."""

    def hurry(connection, _):
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", hurry)
    yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which a study of two runs is trained, and nothing recorded."""
    folder = tmp_path_factory.mktemp("trained")
    Planned(write(folder, **LAYERS), folder / "mlruns").carry_out()
    return folder


@pytest.fixture
def fresh(trained, tmp_path, empty_database, monkeypatch):
    """A way to make copies of that folder, each with an empty store of its own."""
    plainly(monkeypatch)
    numbers = count()

    def make():
        folder = tmp_path / str(next(numbers))
        shutil.copytree(trained, folder, copy_function=os.link)
        shutil.copyfile(empty_database, folder / "mlruns" / "mlflow.db")
        return folder

    return make


def plainly(patch):
    """No waits, no figures: what these show is tested elsewhere."""
    patch.setattr(writer, "WAITS", (0.0, 0.0, 0.0))
    patch.setattr("ablation.report.figures.confusion_matrix_png", draw)
    patch.setattr("ablation.report.figures.class_distribution_png", draw)


def draw(*args):
    """A picture of one pixel, in place of a figure."""
    from PIL import Image

    Image.new("RGB", (1, 1)).save(next(one for one in args if hasattr(one, "suffix")))


def recording(folder):
    """A recorder as `ablate run` makes it once everything is trained, and the runs that it has to be told of."""
    store = Store.open(folder / "mlruns")
    known = store.runs_of("tiny")
    planned = Planned(folder / "tiny.yaml", folder / "mlruns", recorded=known)
    assert not planned.plan.waiting
    recorder = Recorder(store, planned.plan, planned.planner, Workspace(folder / "mlruns"), "ablate run")
    recorder.begin(known)
    wait_for(recorder)
    return recorder, [run for run in planned.plan.runs if run.state == "evaluated"]


def wait_for(made):
    """Until the recorder has tried what it was told so far."""
    for _ in range(2):  # once it takes the second it is through with all before
        made._writer.put(lambda: None, is_kept=False)
    while made._writer._thread.is_alive() and not made._writer._queue.empty():
        time.sleep(0.01)


def tell(made, runs):
    for run in runs:
        made.finished(run)


def record(folder):
    """What `ablate run` does once everything is trained: the problems that it would tell."""
    recorder, runs = recording(folder)
    tell(recorder, runs)
    recorder.close()
    return recorder.problems


def state(folder):
    """All that the store holds of each run, by what it is: a run that is there twice has two entries."""
    store = Store.open(folder / "mlruns")
    runs = store.runs_of("tiny")
    names = {run["run_id"]: run["name"] for run in runs}
    recorded = {}
    for run in runs:
        name = tuple(run["tags"].get(f"ablation.{tag}") for tag in ("kind", "arm", "seed"))
        tags = {tag: value for tag, value in run["tags"].items() if tag not in VOLATILE and value}
        about = [run["status"], names.get(run["tags"].get("mlflow.parentRunId")), tags, run["params"], run["digest"]]
        about += [timeless(run), store.curves(run["run_id"]), artifacts(store, run["run_id"])]
        recorded.setdefault(name, []).append(about)
    return recorded


def timeless(run):
    return {name: repr(value) for name, value in sorted(run["metrics"].items())}


def artifacts(store, run_id):
    """The run's files with their digests; of pictures of summaries, whose names hold the time, and of plans the names only."""
    recorded = {}
    for file in store.client.list_artifacts(run_id):
        if file.is_dir:
            recorded[file.path] = sorted(one.path.partition("+")[0] for one in store.client.list_artifacts(run_id, file.path))
        else:
            content = store.artifact(run_id, file.path).read_bytes()
            recorded[file.path] = "" if file.path.startswith("plan") else hashlib.sha256(content).hexdigest()
    return recorded


class Killed(BaseException):
    """The end of a process, for the thread in which it comes."""


@contextlib.contextmanager
def fault_at(number, kind):
    """A fault at the write of that number, from 0; how many writes there were."""
    seen = []

    def faulty(real):
        def call(*args, **kwargs):
            seen.append(1)
            if len(seen) - 1 != number:
                return real(*args, **kwargs)
            if kind == "killed":
                raise Killed
            if kind == "answer lost":
                real(*args, **kwargs)
            raise MlflowException(f"{kind} at write {number}")

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)  # a process that is killed says nothing
        for name in ("link_or_copy", "insert_runs", "end_runs"):
            patch.setattr(tracking, name, faulty(getattr(tracking, name)))
        for name in WRITES:
            patch.setattr(MlflowClient, name, faulty(getattr(MlflowClient, name)))
        yield seen


EVERY_WRITE = os.environ.get("ABLATE_FAULTS") == "all"  # as benchmarks/faults.py --injected asks; else some of them, for time


@pytest.mark.parametrize(("kind", "step"), [("killed", 3), ("refused", 7), ("answer lost", 7)])
def test_a_fault_at_a_write_changes_nothing(fresh, kind, step):
    """Whichever write a command is killed at, or is refused or never answered, the record is whole in the end and nothing is doubled."""
    whole = fresh()
    with fault_at(-1, kind) as seen:
        assert record(whole) == []
    expected, num_writes = state(whole), len(seen)
    assert {name[0]: len(same) for name, same in expected.items()} == {"run": 1, "summary": 1, "plan": 1}
    assert num_writes > 40
    for number in range(0, num_writes, 1 if EVERY_WRITE else step):
        folder = fresh()
        with fault_at(number, kind) as seen:
            problems = record(folder)
        assert len(seen) > number
        if kind == "killed":
            problems = record(folder)
        assert problems == [], number
        assert state(folder) == expected, number
        shutil.rmtree(folder)


# --- a store that is held, full or away --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(trained, tmp_path_factory, empty_database):
    """What a record holds that nothing disturbed."""
    folder = tmp_path_factory.mktemp("reference") / "whole"
    shutil.copytree(trained, folder, copy_function=os.link)
    shutil.copyfile(empty_database, folder / "mlruns" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        plainly(patch)
        assert record(folder) == []
    return state(folder)


def test_a_database_that_another_process_holds_is_waited_for(fresh, reference):
    """While another connection has the database for itself nothing is lost and nothing fails: the record comes later."""
    folder, released = fresh(), []
    other = sqlite3.connect(folder / "mlruns" / "mlflow.db", check_same_thread=False, isolation_level=None)

    def release():
        released.append(time.monotonic())
        other.execute("COMMIT")
        other.close()

    recorder, runs = recording(folder)
    other.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    tell(recorder, runs)
    assert time.monotonic() - began < PATIENCE / 2  # whoever trains does not wait for what is released only afterwards
    threading.Timer(1, release).start()
    recorder.close()
    assert time.monotonic() > released[0]
    assert recorder.problems == []
    assert state(folder) == reference


@pytest.fixture
def disk(monkeypatch):
    """A disk without room for the database nor for artifacts while `is_full` says so."""
    limited = SimpleNamespace(is_full=lambda: False)
    place = tracking.link_or_copy

    def limit(connection, *_):
        size = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {size if limited.is_full() else 2**30}")

    def place_or_fail(source, target):
        if limited.is_full():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        place(source, target)

    monkeypatch.setattr(tracking, "link_or_copy", place_or_fail)
    event.listen(Pool, "checkout", limit)
    yield limited
    event.remove(Pool, "checkout", limit)


@pytest.mark.parametrize("writes", [5, 30])
def test_a_full_disk_loses_nothing(fresh, reference, disk, writes):
    """A disk that is full from some write on is told in one line, and once there is room the same command completes the record."""
    folder = fresh()
    with fault_at(-1, "") as seen:
        disk.is_full = lambda: len(seen) >= writes
        (problem,) = record(folder)
    assert "No space left" in problem or "disk is full" in problem
    disk.is_full = lambda: False
    assert record(folder) == []
    assert state(folder) == reference


class Server:
    """MLflow's own REST server in a thread, whose answers may be late or lost."""

    def __init__(self, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what starlette says of the module that MLflow imports for each search
            from mlflow.server import app

            with contextlib.suppress(ImportError):
                import mlflow.server.auth  # noqa: F401

        self.app, self.delay, self.lost, self.seen, self.stop_at = app.wsgi_app, 0.0, "nothing", [], -1
        self.back_after = None  # seconds
        self.answers = threading.Event()
        self.answers.set()
        self.folder, self.port = folder, 0
        self.start()

    def start(self):
        self.server = make_server("127.0.0.1", self.port, self.answer, threaded=True)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, environ, start_response):
        self.seen.append(environ["PATH_INFO"])
        if len(self.seen) == self.stop_at:
            self.stop()
            if self.back_after is not None:
                threading.Timer(self.back_after, self.start).start()
        self.answers.wait(SILENCE)
        time.sleep(self.delay)
        with contextlib.closing(self.app(environ, start_response)) as parts:
            recorded = list(parts)
        if environ["PATH_INFO"].endswith(self.lost) and self.seen.count(environ["PATH_INFO"]) % 2:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)  # it was done, and nobody hears of it
        return recorded


@pytest.fixture
def server(fresh, empty_database, tmp_path, monkeypatch):
    """A server of MLflow on this machine, which the shell names as the store."""
    from mlflow.server import handlers

    shutil.copyfile(empty_database, tmp_path / "served.db")
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{tmp_path}/served.db")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(tmp_path / "served"))
    monkeypatch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setattr(handlers.utils, "set_tracking_uri", lambda _: None)  # a server has a process of its own
    monkeypatch.setattr(handlers, "_tracking_store", None)
    monkeypatch.setattr(handlers, "_artifact_repo", None)
    running = Server(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{running.port}")
    yield running
    running.stop()


def once(folder):
    """The states of the study's runs, by what they are; there may be one of each only."""
    recorded = state(folder)
    assert {len(same) for same in recorded.values()} == {1}, recorded
    return {name: same[0][0] for name, same in recorded.items()}


ARMS = ("baseline", "cb")
ALL = [("plan", None, None), *(("run", arm, "0") for arm in ARMS), *(("summary", arm, None) for arm in ARMS)]
FINISHED = dict.fromkeys(ALL, "FINISHED")


LEAVES_OPEN = pytest.mark.filterwarnings("ignore:.*unclosed", "ignore::pytest.PytestUnraisableExceptionWarning")  # MLflow's server does


@LEAVES_OPEN
@pytest.mark.parametrize(("path", "retries"), [("/runs/create", 2), ("/runs/create", 0), ("/log-batch", 1), ("/runs/update", 1)])
def test_answers_that_a_server_loses_double_nothing(fresh, server, monkeypatch, path, retries):
    """Every other request is done but never answered: asked again, by MLflow's client or by the recorder, all is there once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(retries))
    server.lost, folder = path, fresh()
    assert record(folder) == []
    server.lost = "nothing"
    assert once(folder) == FINISHED


@LEAVES_OPEN
def test_a_slow_server_holds_nobody_up(fresh, server):
    """A server that takes its time delays the record, not the trainings."""
    folder = fresh()
    recorder, runs = recording(folder)
    server.delay = 0.02
    server.answers.clear()
    began = time.monotonic()
    tell(recorder, runs)
    assert time.monotonic() - began < SILENCE / 2
    server.answers.set()
    assert recorder.close() > 20 * server.delay
    assert recorder.problems == []
    server.delay = 0.0
    assert once(folder) == FINISHED


@LEAVES_OPEN
@pytest.mark.parametrize("after", [30])
def test_a_server_that_restarts_in_the_middle_loses_nothing(fresh, server, monkeypatch, after):
    """What could not be written while it was away is written by the same command once it is back."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(writer, "WAITS", (0.2, 0.5, 3.0))
    folder = fresh()
    recorder, runs = recording(folder)
    server.stop_at, server.back_after = len(server.seen) + after, 1.0
    tell(recorder, runs)
    recorder.close()
    assert len(server.seen) > server.stop_at
    assert recorder.problems == []
    assert once(folder) == FINISHED


@LEAVES_OPEN
def test_a_server_that_stays_away_is_caught_up_with(fresh, server, monkeypatch):
    """A server that went away and is absent to the end is told once, and the same command, given when it is back, records all."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = fresh()
    recorder, runs = recording(folder)
    server.stop_at = len(server.seen) + 12
    tell(recorder, runs)
    recorder.close()
    assert len(recorder.problems) == 1
    server.start()
    assert record(folder) == []
    assert once(folder) == FINISHED


# --- two machines, and one that moves ----------------------------------------------------------------------------------------


@pytest.fixture
def machines(fresh, empty_database, tmp_path, monkeypatch):
    """Two folders with the same study, each trained for itself, that share one store."""
    shutil.copyfile(empty_database, tmp_path / "shared.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared.db")
    return fresh(), fresh()


def test_two_machines_record_each_run_once(machines):
    """Both began before either had finished a run: who comes second takes what is there, and no run, summary or plan is doubled."""
    (first, runs), (second, _) = (recording(folder) for folder in machines)
    for run in runs:
        for recorder in (first, second):
            recorder.finished(run)
            wait_for(recorder)
    for recorder in (second, first):
        recorder.close()
        assert recorder.problems == []
    assert once(machines[0]) == FINISHED


def test_a_failure_here_leaves_what_another_machine_has_finished(machines):
    """Both were at the same run: one finishes it, the other fails, and the record is that of the one that finished."""
    (first, runs), (second, _) = (recording(folder) for folder in machines)
    for run in runs:
        second.live(second.plan.nodes[run.chain[-1]], [])
        first.finished(run)
        wait_for(first)
        second.failed(run, "memory", "out of memory", "")
        wait_for(second)
    for recorder in (second, first):
        recorder.close()
        assert recorder.problems == []
    assert once(machines[0]) == FINISHED


def test_a_distribution_that_could_not_be_drawn_is_drawn_again(fresh, monkeypatch):
    """A full disk in the middle of the figure that runs share leaves none of them without it."""
    from ablation.report import figures

    draw, calls = figures.class_distribution_png, []

    def fails_once(counts, classes, path):
        calls.append(path)
        if len(calls) == 1:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return draw(counts, classes, path)

    monkeypatch.setattr(figures, "class_distribution_png", fails_once)
    folder = fresh()
    assert record(folder) == []
    store = Store.open(folder / "mlruns")
    for run in store.runs_of("tiny"):
        if run["tags"]["ablation.kind"] == "run":
            assert store.artifact(run["run_id"], "class_distribution.csv").stat().st_size > 0
            assert store.artifact(run["run_id"], "class_distribution.png").read_bytes()[:4] == b"\x89PNG"


def test_the_recorded_file_is_the_one_that_was_read(fresh):
    """Editing or deleting the study's file while it runs changes nothing in the record."""
    folder = fresh()
    before = (folder / "tiny.yaml").read_bytes()
    recorder, runs = recording(folder)
    (folder / "tiny.yaml").unlink()
    tell(recorder, runs)
    recorder.close()
    assert recorder.problems == []
    store = Store.open(folder / "mlruns")
    (plan,) = [run for run in store.runs_of("tiny") if run["tags"]["ablation.kind"] == "plan"]
    assert store.artifact(plan["run_id"], "experiments.yaml").read_bytes() == before


def test_a_run_of_another_machine_is_not_closed(machines):
    """What is RUNNING elsewhere stays so, unless this command has finished the same; what was left here is closed."""
    store = Store.open(machines[1] / "mlruns")
    experiment = store.experiment("tiny")
    planned = Planned(machines[1] / "tiny.yaml", machines[1] / "mlruns").plan.runs[0]
    same = registry.identity(planned)
    gone = same | {"ablation.arm": "gone", "ablation.key": "old"}
    here, there = {registry.PLACE: registry.place(machines[0] / "mlruns")}, {registry.PLACE: "another:/mlruns"}
    ids = [store.create(experiment, "left", tags, 1) for tags in (same | there, gone | there, gone | here)]
    assert record(machines[0]) == []
    recorded = {run["run_id"]: run["status"] for run in store.runs_of("tiny")}
    assert [recorded[run_id] for run_id in ids] == ["FINISHED", "RUNNING", "KILLED"]
    assert list(recorded.values()).count("FINISHED") == len(FINISHED)


def test_a_folder_that_moved_holds_the_same(fresh, reference, tmp_path):
    """After the project was moved the whole record reads as before, and the same command has nothing to add."""
    folder = fresh()
    assert record(folder) == []
    moved = folder.rename(tmp_path / "elsewhere")
    assert state(moved) == reference
    assert record(moved) == []
    assert state(moved) == reference


# --- killed at random --------------------------------------------------------------------------------------------------------

SMALLER = """
study: small
seeds: [0]
base:
  data: {name: digits, longtail: {name: linear, largest: 30, smallest: 10}}
  model: {name: test_efficientnet, image_size: 16, drop_path: 0.1}
  epochs: 3
  batch_size: 32
ladder: {baseline: {}, cb: {sampler: class_balanced}}
variants: {head: {stages: [{epochs: 2}, {epochs: 1, train: head}]}}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory, empty_database):
    """The folder of a small study that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faults, "SMALL", SMALLER)
        faults.undisturbed(folder, "small")
    return folder


def test_killed_at_random_it_comes_out_the_same(tmp_path, whole, monkeypatch):
    """Up to two kills of any process of the tree leave no run doubled, lacking, running or different in a bit."""
    monkeypatch.setattr(faults, "SMALL", SMALLER)
    kills = faults.disturbed(tmp_path, "small", 2, random.Random(2), longest_wait=4)
    assert kills.total() > 0
    assert faults.differences(tmp_path, whole) == []


def test_differences_are_found(tmp_path, whole):
    """The comparison tells of a run that is left running, of one that is there twice, and of predictions that are others."""
    folder = tmp_path / "other"
    shutil.copytree(whole, folder)
    assert faults.differences(folder, whole) == []
    assert faults.compared(whole, folder) == []
    store = Store.open(folder / "mlruns")
    row = store.recorded("small").runs.iloc[0]
    path = store.artifact(row["run_id"], "predictions.parquet")
    table = pd.read_parquet(path)
    path.unlink()
    table.assign(**{"logit/0": table["logit/0"] + 1}).to_parquet(path, index=False)
    tags = {"ablation.kind": "run", "ablation.arm": row["arm"], "ablation.seed": "0", "ablation.key": row["key"]}
    store.finish(store.create(store.experiment("small"), "left", tags, 1), "RUNNING", 0)
    store.finish(store.create(store.experiment("small"), "twice", tags, 1), "FINISHED", 2)
    problems = faults.differences(folder, whole)
    for words in ("left is RUNNING", "is there 2 times", "predictions differ"):
        assert any(words in one for one in problems), words
    assert any("the bytes of predictions.parquet differ" in problem for problem in faults.compared(whole, folder))
