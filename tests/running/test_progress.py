"""What the user sees meanwhile, and the time left."""

import io
import json
import math
from types import SimpleNamespace

import pytest
from rich.console import Console

from ablation.running import progress
from ablation.running.clock import Clock
from ablation.running.progress import MOST_RESULTS, LiveView, PlainView, ProgressState, Results, epoch_words, progress_display
from ablation.study.config import Choice
from ablation.study.task import OWN, load_task


def node(key, epochs, seconds, left=None, arms=("baseline",), testing=0.0):
    left = epochs if left is None else left
    return SimpleNamespace(
        job=SimpleNamespace(key=key), seed=0, end_epoch=epochs, remaining_epochs=left, seconds=seconds, arms=arms, owner=arms[0],
        testing=testing, state="missing" if left else "done",
    )  # fmt: skip


def run(arm, seed=0, state="missing", choice=None):
    return SimpleNamespace(arm=arm, seed=seed, key=f"{arm}-{seed}", state=state, choice=choice)


def plan(*nodes, runs=()):
    arms = [SimpleNamespace(name=arm, baseline="baseline" if arm != "baseline" else None) for arm in dict.fromkeys(one.arm for one in runs)]
    return SimpleNamespace(
        metric="",
        metric_reason="",
        nodes={one.job.key: one for one in nodes},
        runs=list(runs),
        study=SimpleNamespace(arms=arms, task=load_task(), margin=0.5),
    )


def results(folder, *runs, recorded=()):
    return Results(plan(runs=runs), folder, dict(recorded))


def result(folder, arm, seed, accuracy, **more):
    """The result that a worker leaves of a run."""
    path = folder / f"{arm}-{seed}" / "result.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"metrics": {"test/accuracy": accuracy} | more}))


def row_words(row):
    """Epoch, loss and speed of a training, as they are shown."""
    return epoch_words(row), row["shown"].get("loss", ""), row["shown"].get("images/s", "")


def epoch(key, seconds, number=1):
    row = {"seconds": seconds, "rate": 100.0, "values": {"train/loss": 1.2345, "time/images_per_second": 100.0}}
    return {"kind": "epoch", "stage": key, "epoch": number, "row": row}


# --- the clock ---------------------------------------------------------------------------------------------------------------


def test_what_nothing_is_known_of_takes_as_long_as_its_like(monkeypatch):
    """Before one such stage has ended nothing can be said; then the mean of those that have is what the others are expected to take."""
    now = [0.0]
    monkeypatch.setattr("ablation.running.clock.time.monotonic", lambda: now[0])
    clock = Clock(plan(node("a", 1, 0.0), node("b", 1, 0.0), node("c", 1, 0.0)), 1)
    assert clock.seconds_left == 0.0
    for key, seconds in (("a", 4.0), ("b", 8.0)):
        clock.see({"kind": "started", "stage": key})
        now[0] += seconds
        clock.see({"kind": "done", "stage": key})
    assert clock.seconds_left == pytest.approx(6.0)


def test_no_time_is_told_before_anything_is_known_of_all_stages():
    """Neither of a stage that has not begun, nor of one without epochs yet; its own epochs tell of one."""
    clock = Clock(plan(node("a", 4, 0.0), node("b", 4, 0.0)), 1)
    for key in ("a", "b"):
        assert not clock.is_known
        clock.see({"kind": "started", "stage": key})
        clock.see(epoch(key, 2.0))
    assert clock.is_known
    assert clock.seconds_left == pytest.approx(12.0)
    assert Clock(plan(node("a", 10, 10.0)), 1).is_known


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


def test_the_board_follows_the_events(tmp_path):
    """Started, epochs, results, failures and ends are told in numbers and in words; runs are counted as the plan counts them."""
    runs = [run("baseline"), run("tta"), run("cb"), run("there", state="done")]
    planned = plan(node("a", 2, 2.0, arms=("baseline", "tta")), node("b", 2, 2.0), runs=runs)
    board = ProgressState(planned, 1, Results(planned, tmp_path, {("there", 0): {"test/accuracy": 0.5}}))
    assert board.headline().startswith("1/4 runs · ")
    board.see({"kind": "started", "stage": "a"})
    assert board.snapshot()["running"][0]["name"] == "baseline (+1 arm) seed 0"
    board.see(epoch("a", 1.0))
    assert row_words(board.snapshot()["running"][0]) == ("1/2", "1.234", "100")
    board.see(epoch("a", 1.0, 2))
    assert row_words(board.snapshot()["running"][0])[0] == "testing"
    board.see({"kind": "result", "stage": "a", "run": "key"})
    for arm in ("baseline", "tta"):
        board.see({"kind": "finished", "arm": arm, "seed": 0})
    board.see({"kind": "done", "stage": "a"})
    board.see({"kind": "started", "stage": "b"})
    assert row_words(board.snapshot()["running"][0]) == ("starting", "", "")
    board.see({"kind": "given up", "arm": "cb", "seed": 0, "message": "no memory", "failure": "memory"})
    board.see({"kind": "failed", "stage": "b", "message": "no memory", "failure": "memory"})
    assert board.snapshot()["running"] == []
    assert board.headline().startswith("3/4 runs, 1 failed · ")
    assert board.snapshot()["failed"] == ["cb seed 0: no memory"]


def test_the_board_counts_the_runs_that_failed_and_tells_each_reason_once(tmp_path):
    """Runs of one stage fail alike and share a line; one whose test failed has its own; a test that is tried again has failed nothing."""
    runs = [run(arm, seed) for seed in range(2) for arm in ("baseline", "tta", "cb")]
    board = ProgressState(plan(node("a", 2, 2.0), runs=runs), 1, Results(plan(runs=runs), tmp_path, {}))
    board.see({"kind": "untested", "stage": "a", "run": "key", "message": "out of memory", "failure": "memory"})
    assert "failed" not in board.headline()
    for arm, seed, message in (("baseline", 0, "nan"), ("tta", 0, "nan"), ("cb", 0, "out of memory"), ("baseline", 1, "nan")):
        board.see({"kind": "given up", "arm": arm, "seed": seed, "message": message, "failure": "bug"})
    assert board.headline().startswith("0/6 runs, 4 failed · ")
    assert board.failed == ["baseline (+1 arm) seed 0: nan", "cb seed 0: out of memory", "baseline seed 1: nan"]


# --- results so far ------------------------------------------------------------------------------------------------------------


def test_results_are_means_and_paired_differences(tmp_path):
    """An arm's row is its mean in percent and its mean difference to the baseline over the seeds that both have, in points."""
    runs = [run(arm, seed) for seed in range(3) for arm in ("baseline", "cb")]
    outcomes = results(tmp_path, *runs, recorded={("baseline", 0): {"test/accuracy": 0.80}, ("gone", 0): {"test/accuracy": 0.1}})
    for arm, seed, accuracy in (("baseline", 1, 0.70), ("cb", 1, 0.72), ("cb", 2, 0.90)):
        result(tmp_path, arm, seed, accuracy)
        outcomes.take(arm, seed)
    assert outcomes.rows() == [["baseline", "2/3", "75.00", "–"], ["cb", "2/3", "81.00", "+2.00"]]


def test_a_choice_has_the_numbers_of_the_best(tmp_path):
    """An arm that chooses shows the test accuracy of what is best on the validation images; before these are there, none."""
    for lower, expected in ((False, 0.4), (True, 0.9)):
        choosing = run("best", choice=Choice("nll" if lower else "accuracy", ("a", "b"), is_lower_better=lower))
        outcomes = results(tmp_path, run("a"), run("b"), choosing)
        name = f"validation/{choosing.choice.metric}"
        for arm, accuracy, validation in (("a", 0.9, 0.1), ("b", 0.4, 0.2)):
            result(tmp_path, arm, 0, accuracy, **{name: validation})
            outcomes.take(arm, 0)
        outcomes.take("best", 0)
        assert outcomes.scores("best") == {0: expected}
    assert results(tmp_path, run("a"), run("b"), choosing).rows() == []


def test_computed_runs_count_from_the_start(tmp_path):
    """What an earlier command computed and this one only records is shown; a result that cannot be read leaves a dash."""
    result(tmp_path, "baseline", 0, 0.5)
    outcomes = results(tmp_path, run("baseline", state="evaluated"), run("cb"))
    assert outcomes.rows() == [["baseline", "1/1", "50.00", "–"]]
    outcomes.take("cb", 0)
    assert outcomes.rows()[1] == ["cb", "1/1", "–", "–"]
    assert math.isnan(outcomes.difference("cb"))


def test_many_results_are_shortened(tmp_path):
    """Of many arms the first and those with the newest results are shown, in the plan's order."""
    runs = [run("baseline"), *(run(f"arm{i}", seed) for seed in (0, 1) for i in range(30))]
    outcomes = results(tmp_path, *runs)
    for one in [*runs[:31], runs[31]]:
        result(tmp_path, one.arm, one.seed, 0.5)
        outcomes.take(one.arm, one.seed)
    assert [row[0] for row in outcomes.rows()] == ["baseline", "arm0", *(f"arm{i}" for i in range(32 - MOST_RESULTS, 30))]
    assert len(outcomes.rows()) == MOST_RESULTS


# --- views -------------------------------------------------------------------------------------------------------------------


def shown(kind, is_terminal, folder=None, runs=()):
    out = io.StringIO()
    planned = plan(node("a", 2, 2.0), node("b", 2, 2.0), runs=runs)
    return kind(ProgressState(planned, 1, Results(planned, folder, {})), Console(file=out, force_terminal=is_terminal, width=100)), out


@pytest.mark.parametrize(("is_terminal", "kind"), [(True, LiveView), (False, PlainView)])
def test_a_terminal_has_a_table_and_a_file_has_lines(is_terminal, kind):
    """The live table is drawn in a terminal only."""
    display, _ = shown(progress_display, is_terminal)
    assert isinstance(display.view, kind)
    display.close()


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_log_has_lines_whatever_the_environment_says(monkeypatch, variable):
    """Colours may be forced, as by a build server, but a file cannot be drawn on."""
    monkeypatch.setenv(variable, "1")
    display, _ = shown(progress_display, None)
    assert isinstance(display.view, PlainView)


@pytest.mark.parametrize(
    "error", [OSError(5, "I/O"), BrokenPipeError(), UnicodeEncodeError("ascii", "x", 0, 1, "no"), KeyError("x"), ValueError()]
)
@pytest.mark.parametrize("when", ["begin", "event", "close"])
def test_a_display_that_fails_ends_itself_alone(monkeypatch, error, when):
    """It is said once, and the state of the matrix is kept up without it."""

    class Failing(PlainView):
        def __init__(self, *args):
            super().__init__(*args)
            self.fail("begin")

        def __call__(self, event):
            self.fail("event")
            super().__call__(event)

        def close(self):
            self.fail("close")

        def fail(self, now):
            if now == when:
                raise error

    monkeypatch.setattr(progress, "PlainView", Failing)
    display, out = shown(progress_display, False)
    for epoch in (1, 2):
        display({"kind": "epoch", "stage": "a", "epoch": epoch, "row": {"epoch": epoch, "seconds": 1.0, "values": {}}})
    display.close()
    display.close()
    assert display.state.running["a"]["epoch"] == 2
    assert out.getvalue().count("the display ends here, the work goes on") == 1


def test_plain_lines_have_no_control_codes(monkeypatch, tmp_path):
    """One line now and then per stage, one for each run with its accuracy, and the reason of a failure; a log file stays readable."""
    monkeypatch.setattr(progress.time, "monotonic", lambda: 1000.0)
    lines, out = shown(PlainView, False, tmp_path, [run("baseline"), run("cb")])
    result(tmp_path, "baseline", 0, 0.8422)
    result(tmp_path, "cb", 0, 0.83)
    for event in ({"kind": "started", "stage": "a"}, epoch("a", 1.0), epoch("a", 1.0, 2), {"kind": "tick"}):
        lines(event)
    for arm in ("baseline", "cb"):
        lines({"kind": "finished", "arm": arm, "seed": 0})
    lines({"kind": "done", "stage": "a"})
    lines({"kind": "started", "stage": "b"})
    for arm in ("baseline", "cb"):
        lines({"kind": "given up", "arm": arm, "seed": 0, "message": "the [loss] became nan", "failure": "nan"})
    lines({"kind": "failed", "stage": "b", "message": "the [loss] became nan", "failure": "nan"})
    lines.close()
    messages = [line.partition(" | ")[2] for line in out.getvalue().splitlines()]
    assert messages == [
        "baseline seed 0: epoch 1/2, loss 1.234, 100 images/s",
        "baseline seed 0: finished, accuracy 84.22 %",
        "cb seed 0: finished, accuracy 83.00 %, -1.22 points to baseline so far",
        "baseline seed 0: failed (nan): the [loss] became nan",
    ]
    assert "\x1b" not in out.getvalue()


def test_the_live_table_shows_what_runs_and_what_came_out(tmp_path):
    """Names, epochs, speed and the results so far are drawn, and the terminal is left as it was."""
    table, out = shown(LiveView, True, tmp_path, [run("baseline"), run("[cb]")])
    table({"kind": "started", "stage": "a"})
    table.drawn = 0.0
    table(epoch("a", 1.0))
    assert "result so far" not in out.getvalue()
    result(tmp_path, "baseline", 0, 0.8)
    result(tmp_path, "[cb]", 0, 0.82)
    for arm in ("baseline", "[cb]"):
        table.drawn = 0.0
        table({"kind": "finished", "arm": arm, "seed": 0})
    table.close()
    assert "baseline seed 0" in out.getvalue()
    assert "stages waiting" in out.getvalue()
    last = out.getvalue().rpartition("result so far")[2]
    assert [word for line in last.splitlines() if "[cb]" in line for word in line.split()][:4] == ["[cb]", "1/1", "82.00", "+2.00"]
    assert out.getvalue().rstrip("\n").endswith(("\x1b[?25h", "\x1b[2K"))


# --- one's own training code ---------------------------------------------------------------------------------------------------


@pytest.fixture
def own_work(tmp_path, monkeypatch):
    """A state of two runs of one's own code, of which one is expected to take ten seconds; and the time, which a test moves."""
    now = [1000.0]
    monkeypatch.setattr("ablation.running.clock.time.monotonic", lambda: now[0])
    planned = plan(node("a", 1, 10.0, testing=10.0), node("b", 1, 10.0, testing=10.0), runs=[run("deep"), run("wide")])
    planned.study.task = load_task(OWN)
    return planned, Results(planned, tmp_path, {}), now


def step(number, **values):
    """What a run told at a step."""
    return {"kind": "epoch", "stage": "a", "epoch": number, "row": {"epoch": number, "seconds": 1.0, "values": values}}


def test_own_code_has_steps_without_a_total(own_work):
    """The last step and its first numbers, by their own names; runs are waiting, not stages."""
    planned, results, _ = own_work
    state = ProgressState(planned, 1, results)
    state.see({"kind": "started", "stage": "a"})
    (row,) = state.snapshot()["running"]
    assert epoch_words(row) == "running"
    state.see(step(3, **{"val/loss": 0.41234, "loss": 2.0, "lr": 0.001, "more": 5.0}))
    (row,) = json.loads(json.dumps(state.snapshot()))["running"]
    assert (epoch_words(row), row["shown"]) == ("step 3", {"val/loss": "0.4123", "loss": "2", "lr": "0.001"})
    lines, table = io.StringIO(), io.StringIO()
    PlainView(ProgressState(planned, 1, results), Console(file=lines, width=100))(step(3, **{"val/loss": 0.41}))
    assert lines.getvalue().partition(" | ")[2] == "baseline seed 0: step 3, val/loss 0.41\n"
    live = LiveView(ProgressState(planned, 1, results), Console(file=table, force_terminal=True, width=100))
    live.drawn = 0.0
    live(step(3, **{"val/loss": 0.41}))
    live.close()
    assert "step 3" in table.getvalue()
    assert "val/loss 0.41" in table.getvalue()
    assert "1 runs waiting" in table.getvalue()
    assert not {"epoch", "stages", "training"} & {*table.getvalue().split()}


def test_the_time_left_of_own_code_passes_with_its_runs(own_work):
    """Whatever it tells of its steps; a run that took twice as long corrects the rest."""
    planned, _, now = own_work
    clock = Clock(planned, 1)
    clock.see({"kind": "started", "stage": "a"})
    now[0] += 4.0
    clock.see(step(1))
    assert clock.seconds_left == pytest.approx(16.0)
    now[0] += 16.0
    assert clock.seconds_of("a") == 0.0
    clock.see({"kind": "done", "stage": "a"})
    assert clock.seconds_left == pytest.approx(20.0)
