"""What every test has: one thread, no store but its own, and a database whose tables are made already."""

import os
import shutil
import signal
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock

from ablation.training import planned_device

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each command that a test starts compiles everything anew
torch.set_num_threads(1)
MOST_FIGURES = 2
# Files that take long begin first, in this order: those that mostly wait between those that compute, and none is left for the end.
LONGEST = (
    "tests/engines/test_ladder.py",
    "tests/test_faults.py",
    "tests/fake_cuda/test_techniques.py",
    "tests/test_quick.py",
    "tests/running/executors/test_ray.py",
    "tests/test_cli.py",
    "tests/engines/test_store.py",
    "tests/fake_cuda/test_commands.py",
    "tests/report/documents/test_check.py",
    "tests/commands/test_commands.py",
    "tests/test_platforms.py",
    "tests/tasks/own/test_examples.py",
)


def pytest_collection_modifyitems(items):
    """Have the longest files begin first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """No test reads or writes what commands keep in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATE_CACHE", str(of_all_processes(tmp_path_factory) / "cache"))
        yield


@pytest.fixture(autouse=True)
def own_store(monkeypatch):
    """No test writes into the store that the shell names, nor is an attempt at anybody's work, nor leaves the next one to be."""
    monkeypatch.setenv("ABLATE_OWNER", "")
    monkeypatch.setenv("ABLATE_ATTEMPT", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)  # by which a command says how it was started


@pytest.fixture(autouse=True)
def own_device():
    """No test leaves the next one to plan for another machine's device."""
    yield
    planned_device.plan_for_here()


def of_all_processes(tmp_path_factory):
    """The folder that the processes of this session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def empty_database(own_cache):
    """The database without runs that is kept, whose migrations take seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what SQLAlchemy says of MLflow's tables when they are first described
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

        from ablation.tracking.new_database import empty_database

    return empty_database()


@pytest.fixture(scope="session")
def ladder_here(tmp_path_factory, empty_database):
    """The folder in which this machine carried out the quick matrix's ladder, made once for all processes."""
    from tests import ladder

    folder = of_all_processes(tmp_path_factory) / "ladder"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / ladder.PRINTED).exists():
            folder.mkdir()
            ladder.carry_out(folder, empty_database)
    return folder


@pytest.fixture
def few_figures(monkeypatch):
    """Only the first figures are drawn: for tests that ask how they are linked or written, not what is on them."""
    from ablation.report import figures

    pages = figures.pages
    monkeypatch.setattr(figures, "pages", lambda *args: pages(*args)[:MOST_FIGURES])


@pytest.fixture
def folder(tmp_path, empty_database, monkeypatch):
    """The working directory of a test, with an empty store in mlruns/."""
    (tmp_path / "mlruns").mkdir()
    shutil.copyfile(empty_database, tmp_path / "mlruns" / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ablate(folder, monkeypatch):
    """`ablate` with these words: exit status, stdout, stderr, and how many epochs were trained; trainings run in this process."""
    from ablation import cli
    from tests.tiny import InlineExecutor

    def call(*words, stop_after=0, signals=1, number=signal.SIGINT):
        executors = []

        class Kept(InlineExecutor):
            def __init__(self, *args):
                super().__init__(*args)
                self.stop_after, self.signals, self.number = stop_after, signals, number
                executors.append(self)

        monkeypatch.setattr("ablation.running.executors.local.LocalExecutor", Kept)
        monkeypatch.setattr(sys, "argv", ["ablate", *map(str, words)])
        result = CliRunner().invoke(cli.cli, list(map(str, words)))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return SimpleNamespace(status=result.exit_code, out=result.stdout, err=result.stderr, epochs=sum(one.trained for one in executors))

    call.folder = folder
    return call


@pytest.fixture
def own(ablate, monkeypatch):
    """`ablate` as in a process of its own: what a call imports of the study's code is forgotten. Runs are processes, one by one."""
    from tests.own import imports_undone

    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # or a file that is edited twice within a second is imported as it was

    def call(*words, **options):
        with imports_undone():
            return ablate(*words, **options)

    call.folder = ablate.folder
    return call
