"""A folder is one process's at a time: whoever lives keeps it from others, and a later attempt at the same work takes it."""

import os
import sys
import threading
import time

import pytest

from ablation.errors import ConfigError
from ablation.system import fencing, files, identity
from ablation.system.fencing import Fenced, Interrupted, Token
from tests.fenced import NoLock, Orphan, contents, freeze
from tests.tasks.own.runs import until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which processes live"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def nobody(monkeypatch):
    """No test leaves this process an owner."""
    monkeypatch.setattr(fencing, "_identity", [])


@pytest.fixture(params=["locks", "no locks"])
def locks(request, monkeypatch):
    """Locks that work, and such that keep nobody off."""
    if request.param == "no locks":
        monkeypatch.setattr("filelock.FileLock", NoLock)
    return request.param


def never():
    return False


def after(seconds):
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline


def frozen_holder(folder, owner="owner", attempt=1):
    """A process that freezes while it holds the folder, and then says whether it still may write."""

    def hold():
        try:
            with fencing.held(folder, never):
                freeze()
                fencing.check()
        except Fenced:
            return "fenced"
        return "held"

    return Orphan(owner, attempt, hold)


def test_a_later_attempt_takes_over(tmp_path, locks):
    """From an orphan that is frozen while it holds the folder; let go, it may write nothing, nor give the folder back."""
    with frozen_holder(tmp_path) as orphan:
        fencing.become("owner", 2)
        with fencing.held(tmp_path, after(10)) as fence:
            assert fence.left.attempt == 1
            fencing.check()
            before = contents(tmp_path)
            assert orphan.let_go() == "fenced"
            assert contents(tmp_path) == before
            fencing.check()
        assert Token.read(tmp_path).is_released


def test_a_third_waits_for_the_one_that_took_over(tmp_path, locks):
    """The lock that it made anew keeps others off, too."""
    with frozen_holder(tmp_path) as orphan:
        with frozen_holder(tmp_path, attempt=2) as second:
            with pytest.raises(Interrupted), fencing.held(tmp_path, after(0.3)):
                pass
            assert second.let_go() == "held"
        assert orphan.let_go() == "fenced"


@pytest.mark.parametrize(("owner", "attempt"), [("another", 9), ("owner", 1)])
def test_others_wait(tmp_path, locks, owner, attempt):
    """Another owner, and another process of the same attempt, until they are asked to stop or the folder is given back."""
    with frozen_holder(tmp_path) as holder:
        fencing.become(owner, attempt)
        with pytest.raises(Interrupted), fencing.held(tmp_path, after(0.3)):
            pass
        assert holder.let_go() == "held"
        with fencing.held(tmp_path, never) as fence:
            assert fence.left is None


def test_the_dead_hold_nothing(tmp_path, locks):
    """Whoever owned the folder: it is taken at once from a process that was killed."""
    with frozen_holder(tmp_path) as holder:
        os.kill(holder.process.pid, 9)
        until(lambda: not identity.start_of(holder.process.pid))  # it is a zombie now
        with fencing.held(tmp_path, never) as fence:
            assert fence.left is None


def test_an_earlier_attempt_does_not_begin(tmp_path, locks):
    """Neither while a later one is there nor afterwards."""
    fencing.become("owner", 2)
    with fencing.held(tmp_path, never):
        fencing.become("owner", 1)
        with pytest.raises(Fenced), fencing.held(tmp_path, never):
            pass
    with pytest.raises(Fenced), fencing.held(tmp_path, never):
        pass
    fencing.become("another", 0)
    with fencing.held(tmp_path, never):
        pass


def test_the_newest_claim_wins_where_locks_keep_nobody_off(tmp_path, monkeypatch):
    """A process on another host, of which nothing is known, loses the folder; what fails then is no failure."""
    monkeypatch.setattr("filelock.FileLock", NoLock)
    with pytest.raises(Fenced) as error, fencing.held(tmp_path, never):  # noqa: PT012
        with monkeypatch.context() as patch:
            patch.setattr(fencing, "place", lambda: "elsewhere")
            patch.setattr(fencing, "process_name", lambda: "another")
            with fencing.held(tmp_path, never):
                pass
        raise OSError("no such file")
    assert isinstance(error.value.__context__, OSError)
    fencing.check()  # what this process held counts no more


def test_a_thread_waits_for_another(tmp_path, locks):
    """Claims are of threads, too: each checks its own folders."""
    order = []

    def work():
        with fencing.held(tmp_path, never):
            order.append("second")
            fencing.check()

    with fencing.held(tmp_path, never):
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.2)
        order.append("first")
        fencing.check()
    thread.join(10)
    assert order == ["first", "second"]


def test_a_claim_clears_what_was_half_written(tmp_path):
    """Under the name of any process, on any host."""
    part = files.part_of(tmp_path / "state")
    part.write_text("half")
    with fencing.held(tmp_path, never):
        assert not part.exists()


def test_a_token_that_cannot_be_read_is_none(tmp_path):
    """Nor can one be kept whose folder was deleted."""
    (tmp_path / fencing.TOKEN).write_text('{"owner": "another"}')
    with fencing.held(tmp_path, never) as fence:
        fence.check()
        (tmp_path / fencing.TOKEN).unlink()
        with pytest.raises(Fenced):
            fence.check()


def test_a_full_disk_gives_the_folder_back(tmp_path, monkeypatch):
    """The token is deleted then, or others would wait for this process to end."""

    def fail(*_args, **_options):
        raise OSError("no space left")

    with monkeypatch.context() as patch, fencing.held(tmp_path, never):
        patch.setattr(fencing, "write_json", fail)
    assert Token.read(tmp_path) is None
    with monkeypatch.context() as patch, fencing.held(tmp_path, never) as fence:
        patch.setattr(fencing, "write_json", fail)
        patch.setattr("pathlib.Path.unlink", fail)
    assert Token.read(tmp_path) == fence.token
    with fencing.held(tmp_path, never):  # this process does not wait for itself
        pass


def test_the_environment_names_owner_and_attempt(monkeypatch):
    """Else each process is one of its own; `become` counts more."""
    assert fencing.identity() == (identity.process_name(), 0)
    assert not fencing.is_named()
    monkeypatch.setenv("ABLATE_OWNER", "quick-1f3a/part-3")
    assert fencing.identity() == ("quick-1f3a/part-3", 0)
    monkeypatch.setenv("ABLATE_ATTEMPT", "4")
    assert fencing.identity() == ("quick-1f3a/part-3", 4)
    assert fencing.is_named()
    monkeypatch.setenv("ABLATE_ATTEMPT", "two")
    with pytest.raises(ConfigError, match="ABLATE_ATTEMPT: found 'two'; expected a whole number"):
        fencing.identity()
    fencing.become("other", 1)
    assert fencing.identity() == ("other", 1)


def test_names_of_processes_are_unique(tmp_path):
    """Also those of a forked process, which has its parent's memory."""
    here = identity.process_name()
    with Orphan("owner", 1, lambda: (freeze(), identity.process_name())[1]) as other:
        there = other.let_go()
    assert here == identity.process_name() != there
    assert here.startswith(f"{identity.host()}-{os.getpid()}-")
    assert there.startswith(f"{identity.host()}-{other.process.pid}-")
