"""What the user sees meanwhile, and the time left."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from ablation import progress
from ablation.progress import Board, Clock, LiveView, PlainView, row_words, view


def node(key, epochs, seconds, left=None, arms=("baseline",), testing=0.0):
    left = epochs if left is None else left
    return SimpleNamespace(
        job=SimpleNamespace(key=key, seed=0, until=epochs), left=left, seconds=seconds, arms=arms, owner=arms[0], testing=testing,
        state="missing" if left else "done",
    )  # fmt: skip


def plan(*nodes, runs=()):
    return SimpleNamespace(nodes={one.job.key: one for one in nodes}, waiting=list(runs))


def epoch(key, seconds, number=1):
    row = {"seconds": seconds, "images_per_second": 100.0, "loss": 1.2345}
    return {"kind": "epoch", "stage": key, "epoch": number, "row": row}


# --- the clock ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_slots", "expected"),
    [(1, 16.0), (2, 10.0), (4, 10.0)],  # 10 s and 6 s: one after another; at once, but never below the longest
)
def test_the_estimate_is_the_plans(num_slots, expected):
    """Before anything is known, the time left is the plan's, spread over the slots but not below the longest stage."""
    assert Clock(plan(node("a", 10, 10.0), node("b", 6, 6.0)), num_slots).seconds_left == pytest.approx(expected)


def test_what_is_known_corrects_the_rest():
    """A stage under way is extrapolated from its own epochs, others from the plan's estimate times how wrong it was so far."""
    clock = Clock(plan(node("a", 10, 10.0), node("b", 6, 6.0), node("c", 5, 10.0)), 1)
    for _ in range(4):
        clock.see(epoch("a", 3.0))
    assert clock.seconds_left == pytest.approx(6 * 3.0 + 3.0 * (6.0 + 10.0))
    clock.see(epoch("b", 1.0))
    factor = (4 * 3.0 + 1.0) / (4 * 1.0 + 1.0)
    assert clock.seconds_left == pytest.approx(6 * 3.0 + 5 * 1.0 + factor * 10.0)


def test_what_ended_takes_no_time():
    """Done and failed stages are left out, done ones of the plan from the start; a stage that is only asked to stop is not."""
    clock = Clock(plan(node("a", 10, 10.0), node("b", 6, 6.0), node("c", 5, 0.0, left=0)), 1)
    clock.see({"kind": "done", "stage": "a"})
    assert clock.seconds_left == pytest.approx(6.0)
    clock.see({"kind": "stopped", "stage": "b"})
    assert clock.seconds_left == pytest.approx(6.0)
    clock.see({"kind": "failed", "stage": "b"})
    assert clock.seconds_left == 0


def test_a_stage_that_goes_on_counts_what_is_left():
    """Epochs of an earlier command are no part of the time left."""
    clock = Clock(plan(node("a", 10, 4.0, left=4)), 1)
    clock.see(epoch("a", 2.0, 7))
    assert clock.seconds_left == pytest.approx(3 * 2.0)


# --- the board ---------------------------------------------------------------------------------------------------------------


def test_the_board_follows_the_events():
    """Started, epochs, results, failures and ends are told in numbers and in words."""
    runs = [SimpleNamespace(key=key, choice=None) for key in ("r1", "r2", "r2")]
    board = Board(plan(node("a", 2, 2.0, arms=("baseline", "tta")), node("b", 2, 2.0), runs=runs), 1)
    assert board.headline().startswith("0/2 runs · ")
    board.see({"kind": "started", "stage": "a"})
    assert board.snapshot()["running"][0]["name"] == "baseline (+1 arm) seed 0"
    board.see(epoch("a", 1.0))
    assert row_words(board.snapshot()["running"][0]) == ("1/2", "1.234", "100")
    board.see(epoch("a", 1.0, 2))
    assert row_words(board.snapshot()["running"][0])[0] == "testing"
    board.see({"kind": "result", "stage": "a", "run": "r1"})
    board.see({"kind": "done", "stage": "a"})
    board.see({"kind": "started", "stage": "b"})
    assert row_words(board.snapshot()["running"][0]) == ("starting", "", "")
    board.see({"kind": "failed", "stage": "b", "message": "no memory", "failure": "memory"})
    assert board.snapshot()["running"] == []
    assert board.headline().startswith("1/2 runs, 1 failed · ")
    assert board.snapshot()["failed"] == ["baseline seed 0: no memory"]


# --- views -------------------------------------------------------------------------------------------------------------------


def shown(kind, is_terminal):
    out = io.StringIO()
    return kind(plan(node("a", 2, 2.0), node("b", 2, 2.0)), 1, Console(file=out, force_terminal=is_terminal, width=100)), out


@pytest.mark.parametrize(("is_terminal", "kind"), [(True, LiveView), (False, PlainView)])
def test_a_terminal_has_a_table_and_a_file_has_lines(is_terminal, kind):
    """The live table is drawn in a terminal only."""
    made, _ = shown(view, is_terminal)
    made.close()
    assert isinstance(made, kind)


def test_plain_lines_have_no_control_codes(monkeypatch):
    """One line now and then per stage, one for each end, and the reason of a failure; a log file stays readable."""
    monkeypatch.setattr(progress.time, "monotonic", lambda: 1000.0)
    lines, out = shown(PlainView, False)
    for event in ({"kind": "started", "stage": "a"}, epoch("a", 1.0), epoch("a", 1.0, 2), {"kind": "tick"}, {"kind": "done", "stage": "a"}):
        lines(event)
    lines({"kind": "started", "stage": "b"})
    lines({"kind": "failed", "stage": "b", "message": "the [loss] became nan", "failure": "nan"})
    lines.close()
    told = [line.partition(" | ")[2] for line in out.getvalue().splitlines()]
    assert told == [
        "baseline seed 0: epoch 1/2, loss 1.234, 100 images/s",
        "baseline seed 0: done",
        "baseline seed 0: failed (nan): the [loss] became nan",
    ]
    assert "\x1b" not in out.getvalue()


def test_the_live_table_shows_what_runs():
    """Names, epochs and speed are drawn, and the terminal is left as it was."""
    table, out = shown(LiveView, True)
    table({"kind": "started", "stage": "a"})
    table.drawn = 0.0
    table(epoch("a", 1.0))
    table.close()
    assert "baseline seed 0" in out.getvalue()
    assert "stages waiting" in out.getvalue()
    assert out.getvalue().rstrip("\n").endswith(("\x1b[?25h", "\x1b[2K"))
