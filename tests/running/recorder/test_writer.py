"""The recorder's queue: what is written together, in which order, and what a failure does."""

import threading

import pytest

from ablation.running.recorder import writer
from ablation.running.recorder.writer import AT_ONCE, Writer


@pytest.fixture
def written():
    """What was written, in order."""
    return []


@pytest.fixture
def told():
    """What the user is told, in order."""
    return []


@pytest.fixture
def held(written, told, monkeypatch):
    """A writer that writes nothing until its gate is opened, and that gate."""
    monkeypatch.setattr(writer, "WAITS", (0.0,))
    gate = threading.Event()
    opened = Writer(lambda: gate.wait(30), lambda: written.append("last"), lambda: None, told.append)
    opened.put(lambda: None)
    yield opened, gate
    gate.set()
    opened.close()


def test_items_that_wait_are_written_together(held, written):
    """In their order, so many at once, and none together with what another function writes."""
    opened, gate = held

    def several(items):
        written.append(list(items))

    for item in range(AT_ONCE + 2):
        opened.put_item(several, item)
    opened.put(lambda: written.append("one"))
    opened.put_item(several, "a")
    opened.put_item(lambda items: written.append(("other", *items)), "b")
    opened.put_item(several, "c")
    gate.set()
    opened.close()
    assert written == [list(range(AT_ONCE)), [AT_ONCE, AT_ONCE + 1], "one", ["a"], ("other", "b"), ["c"], "last"]
    assert opened.problems == []


def test_one_item_that_fails_keeps_no_other(held, written):
    """Where items cannot be written together each is tried alone, and only the one that fails is a problem."""
    opened, gate = held

    def several(items):
        if "bad" in items:
            raise ValueError("no room for bad")
        written.extend(items)

    for item in ("a", "bad", "b", "c"):
        opened.put_item(several, item)
    gate.set()
    opened.close()
    assert sorted(written[:-1]) == ["a", "b", "c"]
    assert opened.problems == ["no room for bad"]


def test_a_store_that_is_away_gets_all_later(held, written, monkeypatch):
    """Nothing is lost while it is away, and nothing is written twice."""
    opened, gate = held
    is_away = [True]
    monkeypatch.setattr(writer, "PAUSE", 0.0)

    def several(items):
        if is_away[0]:
            raise OSError("away")
        written.extend(items)

    for item in range(5):
        opened.put_item(several, item)
    opened.put(lambda: is_away.__setitem__(0, False))
    gate.set()
    opened.close()
    assert written == [0, 1, 2, 3, 4, "last"]
    assert opened.problems == []


@pytest.mark.parametrize("pause", [0.0, 15.0])
def test_what_can_never_be_written_keeps_nothing_else(held, written, monkeypatch, pause):
    """However many there are of it, where the store answers."""
    opened, gate = held
    monkeypatch.setattr(writer, "PAUSE", pause)

    def several(items):
        if any(item < 5 for item in items):
            raise ValueError("out of range")
        written.extend(items)

    for item in (0, 1, 2, 3, 4, 5, 6):
        opened.put_item(several, item)
        opened.put(lambda: None)
    gate.set()
    opened.close()
    assert written == [5, 6, "last"]
    assert opened.problems == ["out of range"]


def test_a_store_is_reached_before_another_try(written, told, monkeypatch):
    """What cannot be reached is not written to, which might wait for minutes; what was written last is asked nothing."""
    monkeypatch.setattr(writer, "WAITS", (0.0,))
    tries, reached = [], []

    def fail_once():
        tries.append(len(reached))
        if len(tries) == 1:
            raise TimeoutError("nothing for 120 s")

    def reach():
        reached.append(True)
        if len(reached) == 1:
            raise TimeoutError("nothing for 20 s")

    opened = Writer(lambda: None, lambda: written.append("last"), reach, told.append)
    opened.put(fail_once)
    opened.put(lambda: written.append("one"))
    opened.close()
    assert tries == [0, 2]
    assert len(reached) == 2
    assert written == ["one", "last"]
    assert opened.problems == []
    assert told == ["not recorded for now: nothing for 20 s; nothing else waits for it, and it is tried again"]


def test_users_are_told_once_that_a_store_is_away(held, written, told, monkeypatch):
    """While it is away, and again when it goes away again; at the end what could not be written is the problem of the caller."""
    opened, gate = held
    monkeypatch.setattr(writer, "PAUSE", 0.0)
    for is_away in (True, True, False, True):
        opened.put(_failing if is_away else lambda: written.append("one"), is_kept=False)
    opened.put(_failing)
    gate.set()
    opened.close()
    assert told == ["not recorded for now: away; nothing else waits for it, and it is tried again"] * 2
    assert opened.problems == ["away"]


def _failing():
    raise OSError("away")
