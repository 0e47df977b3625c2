"""The table that is shown again when the record changes."""

import json
import os
import pty
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from ablation import report
from ablation.commands import report_watch as watching
from ablation.errors import ConfigError, StoreError
from ablation.tracking.recorded import Recorded
from ablation.tracking.store import Store
from tests.report.studies import study as made_by_hand

OPTIONS = SimpleNamespace(
    document_format=None, output=None, arms=(), metric="test/accuracy", sort=None, only_changed=False, reference=None, columns=None
)


def options(**more):
    return SimpleNamespace(**{**vars(OPTIONS), **more})


@pytest.fixture
def recorded(folder, monkeypatch):
    """A study whose record changes when the test says so, beside a run that says how it stands; how often it was opened."""
    changes, opened = [0], []
    (folder / "mlruns" / "locks").mkdir()
    (folder / "mlruns" / "status").mkdir()
    (folder / "mlruns" / "status" / "demo.json").write_text('{"headline": "2/21 runs"}')
    monkeypatch.setattr(watching, "_last_change", lambda recorded: changes[0])

    def open_recorded():
        opened.append(1)
        return made_by_hand()

    open_recorded.times, open_recorded.touch = opened, lambda: changes.append(changes.pop() + 1)
    return open_recorded


def lock():
    """What a run holds; taken."""
    held = FileLock("mlruns/locks/demo.lock", thread_local=False)
    held.acquire()
    return held


def meanwhile(monkeypatch, *acts):
    """While somebody watches, these things happen, one at each pause."""
    left = list(acts)
    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=lambda _: left.pop(0)(), monotonic=lambda: 0.0))


def nothing():
    pass


def test_where_nothing_runs_it_shows_once(recorded, capsys):
    """Without a run under way the table is printed once, status 0, and the store is read once."""
    assert watching.watch(recorded, OPTIONS) == 0
    out = capsys.readouterr().out
    assert out.startswith("demo: not running\n")
    assert out.count("\n  baseline  ") == out.count("\n  cb  ") == 1
    assert len(recorded.times) == 1


def test_it_shows_each_change_once_until_the_run_ends(recorded, capsys, monkeypatch):
    """While the study's lock is held the table comes again at each change of the record, not between, and the last one is seen."""
    held = lock()

    def end():
        recorded.touch()
        held.release()

    meanwhile(monkeypatch, nothing, recorded.touch, nothing, nothing, recorded.touch, nothing, end)
    assert watching.watch(recorded, OPTIONS) == 0
    out = capsys.readouterr().out
    assert out.count("demo: running · 2/21 runs") == 3
    assert out.count("demo: not running") == 1
    assert out.count("\n  baseline  ") == 4


def test_parts_and_runs_on_other_hosts_are_under_way(recorded, capsys, monkeypatch):
    """What `status` shows as running is: a part by its lock, and what says so from another host, where no lock of it may be seen."""
    part = FileLock("mlruns/locks/demo.part-1-of-2.lock")
    part.acquire()
    there = Path("mlruns/status/demo.json")

    def goes_on_there():
        part.release()
        there.write_text(json.dumps({"state": "running", "host": f"not-{socket.gethostname()}", "headline": "3/21 runs"}))
        recorded.touch()

    def ends():
        there.unlink()
        recorded.touch()

    meanwhile(monkeypatch, nothing, goes_on_there, ends)
    assert watching.watch(recorded, OPTIONS) == 0
    headlines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("demo: ")]
    assert headlines == ["demo: running · 1 part", "demo: running · 3/21 runs", "demo: not running"]


def test_a_run_that_has_just_begun_is_waited_for(recorded, capsys, monkeypatch):
    """Nothing recorded yet is told once and waited for while something is run here; else, or with a wrong word, it is an error."""
    answers = [StoreError("the store holds no study 'demo'")] * 3

    def open_recorded():
        if answers:
            raise answers.pop()
        return recorded()

    held = lock()
    meanwhile(monkeypatch, nothing, nothing, nothing, held.release)
    assert watching.watch(open_recorded, OPTIONS) == 0
    output = capsys.readouterr()
    assert output.err == "waiting: the store holds no study 'demo'\n"
    assert output.out.count("\n  baseline  ") == 1
    answers[:] = [StoreError("the store holds no study 'demo'")]
    with pytest.raises(StoreError):
        watching.watch(open_recorded, OPTIONS)
    answers[:] = [ConfigError("--profile", "nobody knows it")]
    with FileLock("mlruns/locks/demo.lock"), pytest.raises(ConfigError):
        watching.watch(open_recorded, OPTIONS)


def test_ctrl_c_ends_the_watching(recorded, monkeypatch, capsys):
    """Ctrl-C is how one leaves a run that goes on: status 0, no traceback."""

    def interrupt():
        raise KeyboardInterrupt

    meanwhile(monkeypatch, interrupt)
    with FileLock("mlruns/locks/demo.lock"):
        assert watching.watch(recorded, OPTIONS) == 0
    assert capsys.readouterr().out.count("\n  baseline  ") == 1


def test_the_report_is_written_at_each_change(recorded, tmp_path, monkeypatch):
    """With a folder the whole report is written there anew, with the same options as without --watch."""
    calls = []
    monkeypatch.setattr(report, "write", lambda recorded, *words, **more: calls.append((recorded.study, *words, more)))
    held = lock()
    meanwhile(monkeypatch, nothing, recorded.touch, held.release)
    assert watching.watch(recorded, options(document_format="html", output=tmp_path, arms=("c*",), sort="arm", only_changed=True)) == 0
    more = {"references": None, "sort": "arm", "only_changed": True, "notes": (), "content": "", "columns": ()}
    assert calls == [("demo", "html", tmp_path, "test/accuracy", ("c*",), more)] * 2


def test_only_the_chosen_arms_are_shown(recorded, capsys):
    """--arm holds for the short table too."""
    watching.watch(recorded, options(arms=("c*",)))
    out = capsys.readouterr().out
    assert "\n  cb  " in out
    assert "\n  baseline  " not in out


def test_what_changes_is_the_store(folder, monkeypatch):
    """A study in the store has the time of its last change; one from elsewhere, such as a zip, never changes."""
    store = Store.open()
    experiment = store.experiment("demo")
    in_store = Recorded("demo", {}, made_by_hand().runs, [], store)
    assert watching._last_change(in_store) == 0
    store.touch(experiment)
    assert watching._last_change(in_store) == dict(store.studies())["demo"] > 0
    assert watching._last_change(made_by_hand()) == 0


def test_a_terminal_is_drawn_anew(recorded, monkeypatch):
    """In a terminal the table is replaced in its place, under how the run stands."""
    ours, theirs = pty.openpty()
    held = lock()
    meanwhile(monkeypatch, nothing, recorded.touch, held.release)
    drawn = []
    reader = threading.Thread(target=lambda: drawn.extend(iter(lambda: _read(ours), b"")))
    reader.start()
    with os.fdopen(theirs, "w") as terminal:
        console = watching.Console(file=terminal, force_terminal=True, width=120)
        monkeypatch.setattr(watching, "Console", lambda: console)
        assert watching.watch(recorded, OPTIONS) == 0
    reader.join(10)
    os.close(ours)
    text = b"".join(drawn).decode()
    assert "demo: running · 2/21 runs" in text
    assert "demo: not running" in text
    assert "\x1b[2K" in text  # lines are wiped, not printed below each other
    assert "  baseline  " in text


def _read(place):
    try:
        return os.read(place, 65536)
    except OSError:  # the other end was closed
        return b""
