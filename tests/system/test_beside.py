"""Work beside this process: its result comes back from another one, or else it is done here."""

import os
import threading

import pytest

from ablation.system import beside as module
from ablation.system.beside import beside


@pytest.fixture(autouse=True)
def _two_cores_and_no_thread(monkeypatch):
    """As in a command on two cores, whatever runs the tests."""
    monkeypatch.setattr(module, "free_cores", lambda: 2)
    monkeypatch.setattr(threading, "active_count", lambda: 1)


def test_the_result_is_of_another_process():
    """It sees what is in memory here, and is gone afterwards."""
    here = {"one": 1}
    assert beside(lambda: here)() == here
    assert beside(os.getpid)() != os.getpid()


@pytest.mark.parametrize("attribute", ["free_cores", "active_count"])
def test_one_process_does_it_where_it_must(monkeypatch, attribute):
    """On one core, and where another thread might hold a lock."""
    monkeypatch.setattr(*((module, attribute, lambda: 1) if attribute == "free_cores" else (threading, attribute, lambda: 2)))
    assert beside(os.getpid)() == os.getpid()


def test_what_dies_there_is_done_here():
    """A process that ends without a result costs time alone."""
    here = os.getpid()

    def work() -> int:
        if os.getpid() != here:
            os._exit(3)
        return 5

    assert beside(work)() == 5


def test_an_error_is_raised_here():
    """It is that of the work, with nothing else said."""
    with pytest.raises(ZeroDivisionError):
        beside(lambda: 1 // 0)()


def test_it_is_done_here_where_no_process_is_allowed(monkeypatch):
    """A limit on processes, say."""

    def refuse(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    assert beside(os.getpid)() == os.getpid()
