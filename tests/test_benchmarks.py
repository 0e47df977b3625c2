"""The plain script trains what the arms of the study train, and the benchmarks' tables say what was measured."""

import json
import math
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import ablation
from ablation.study.resolving import load_study
from ablation.training.step import PlainStep, resolve_precision
from benchmarks import device_checks, faults, first_light, gpu, plain_script, run
from benchmarks.device_checks import Outcome, Part, compared_arms, json_lines, packed, shards, tolerance
from benchmarks.processes import Command, Ended, all_ended
from benchmarks.roofline import Peaks, Traffic, Work, compared, roofline, work_of

TINY = ["--data", "digits", "--model", "test_efficientnet", "--image-size", "16", "--epochs", "2", "--batch-size", "32", "--workers", "0"]
TINY += ["--largest", "30", "--smallest", "10", "--ema", "0.9", "--threads", "1", "--device", "cpu"]
ARMS = {
    "mixup": ["--mix", "mixup", "--sampler", "class_balanced", "--smoothing", "0.2", "--tta", "flips"],
    "cutmix": ["--mix", "cutmix", "--mix-only-tail", "--tta", "rotate", "--ema-warmup"],
    "decoupled": [
        "--head-epochs",
        "1",
        "--head-loss",
        "class_balanced_focal",
        "--head-sampler",
        "class_balanced",
        "--select",
        "best_on_test",
    ],
}


@pytest.mark.parametrize("arm", ARMS)
def test_the_plain_script_trains_an_arm(arm, capsys):
    """Its last line tells a finite loss for each epoch, accuracy and speed."""
    plain_script.main([*TINY, *ARMS[arm]])
    output = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(output["history"]) == 2
    assert all(0 < row["loss"] < 20 for row in output["history"])
    assert 0 <= output["balanced_accuracy"] <= 1
    assert output["images_per_second"] > 0


def test_both_sides_test_the_same_images(tmp_path, capsys):
    """The images that `ablate` splits, in a file, are what the plain script trains and tests on."""
    study = load_study(run.STUDY, "quick")
    file = run._images(study, tmp_path)
    with np.load(file) as options:
        sizes = {name: len(options[name]) for name in options}
        assert options["train_images"].dtype == np.uint8
    assert sizes["test_images"] == sizes["test_labels"] == 359
    assert sizes["train_images"] == sizes["train_labels"] == 1797 - 359
    plain_script.main([*TINY, "--data", "npz", "--root", str(file)])
    right = 359 * json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"]
    assert right == pytest.approx(round(right), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("cross_entropy", "cross_entropy"),
        ("weighted_cross_entropy", "weighted_cross_entropy"),
        ("balanced_softmax", "balanced_softmax"),
        ("focal", "focal"),
        ("class_balanced", {"name": "class_balanced", "beta": 0.9999}),
        ("class_balanced_focal", {"name": "class_balanced_focal", "beta": 0.9999}),
    ],
)
def test_its_losses_are_those_of_the_study(name, spec):
    """Under soft targets, to the digits of float32."""
    torch.manual_seed(0)
    logits_BC, targets_BC = torch.randn(16, 10), torch.rand(16, 10).softmax(1)
    counts_C = torch.linspace(500, 50, 10).round()
    ours = ablation.make("losses", spec)(logits_BC, targets_BC, counts_C)
    torch.testing.assert_close(plain_script.loss_of(name, logits_BC, targets_BC, counts_C), ours, rtol=1e-4, atol=1e-5)


def test_its_smoothing_is_the_study_s():
    """In both conventions."""
    targets_BC = torch.eye(10)
    for spread in ("others", "all"):
        ours = ablation.make("smoothing", {"epsilon": 0.2, "spread": spread})(targets_BC, torch.ones(10))
        torch.testing.assert_close(plain_script.smoothed(targets_BC, 0.2, spread), ours)


@pytest.mark.parametrize("profile", [None, "quick", "laptop"])
def test_every_arm_has_its_flags(profile):
    """The script understands them, and arms that differ get different ones, but for what only the tables tell apart."""
    written = load_study(run.STUDY, profile)
    found = {arm.name: tuple(run.flags(written, arm, run.HERE)) for arm in written.arms}
    for options in found.values():
        plain_script.parser().parse_args(list(options))
    assert found["mixup"] != found["cb"]
    assert found["ls"] != found["mixup"]
    assert found["cb"] == found["reweight"]
    distinct = {arm.name for arm in written.arms if not arm.same_as}
    assert len(set(found.values())) == len(distinct)
    by_hand = plain_script.parser().parse_args(list(found["decoupling"]))
    assert (by_hand.head_epochs * 3, by_hand.mix, by_hand.smoothing, by_hand.tta) == (by_hand.epochs, "mixup", 0.2, "hflip")


def test_the_table_and_the_file_hold_what_was_measured(tmp_path, monkeypatch, capsys):
    """Each row with its unit; ratios where there are two sides."""
    rows = [{"what": "a (b)", "ablate": 10.0, "plain": 40.0, "ratio": 4.0, "unit": "s"}, {"what": "c", "ablate": 1.5, "unit": "s"}]
    monkeypatch.setitem(run.PARTS, "scaling", lambda root, quick: [dict(row) for row in rows])
    run.main(["--only", "scaling", "--output", str(tmp_path)])
    assert "| a (b) | 10 s | 40 s | 4.0 |\n| c | 1.5 s |  |  |" in capsys.readouterr().out
    (file,) = tmp_path.glob("run-*.json")
    kept = json.loads(file.read_text())
    assert [row["ablate"] for row in kept["rows"]] == [10.0, 1.5]
    assert kept["hardware"]
    assert file.with_suffix(".png").stat().st_size > 1000


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_injected_faults_come_at_every_write(monkeypatch):
    """The tests that inject them are run, told to leave none out; their status is the command's."""
    asked = []

    def ran(command, *, env, **_):
        asked.append((command[-1], env["ABLATE_FAULTS"]))
        return SimpleNamespace(returncode=3)

    monkeypatch.setattr(faults, "subprocess", SimpleNamespace(run=ran))
    assert faults.main(["--injected"]) == 3
    ((tests, which),) = asked
    assert (Path(tests).name, Path(tests).is_file(), which) == ("test_faults.py", True, "all")


def test_without_a_gpu_its_benchmark_says_so(tmp_path, capsys):
    """One sentence, and the status of a command that is wrong."""
    assert gpu.main(["--data-root", str(tmp_path)]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err
    assert str(gpu.HERE.parent) in sys.path


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--first-light", "--only", "step"], "--first-light takes no --only"),
        (["--first-light", "--data-root", "."], "--first-light takes no --only and no --data-root"),
        (["--first-light", "--part", "steps"], "--part: found steps; expected one of tests, matrix, step"),
        (["--first-light", "--budget", "0"], "--budget: found 0; expected seconds"),
        (["--first-light", "--budget", "nan"], "--budget: found nan; expected seconds"),
        (["--data-root", ".", "--budget", "7"], "expected --first-light"),
        (["--data-root", ".", "--part", "step"], "expected --first-light"),
        ([], "or --data-root DIR"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, problem, capsys):
    """In a sentence, with the status of a command that is wrong."""
    with pytest.raises(SystemExit) as ended:
        gpu.main(options)
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


# --- first light ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "elapsed", "budget", "begins"), [(120, 0, 450, True), (80, 370, 450, True), (80, 371, 450, False), (120, 0, 60, False)]
)
def test_a_part_begins_only_if_its_time_is_left(expected, elapsed, budget, begins):
    """To the second."""
    assert first_light.fits(expected, elapsed, budget) == begins


FINE, DIFFERENT = Outcome({"a": 1}), Outcome({"a": 1}, differs=("a is not b",))
FAILED, LATE = Outcome(failed=("x ended with status 1",)), Outcome(cut_short=("x",))


@pytest.mark.parametrize(
    ("outcome", "has_numbers", "state", "num_problems"),
    [
        (FINE, True, "agrees", 0),
        (FINE, False, "ran; no numbers", 0),
        (DIFFERENT, True, "differs", 1),
        (DIFFERENT, False, "ran; no numbers", 0),
        (FAILED, True, "differs", 1),
        (FAILED, False, "differs", 1),
        (LATE, True, "cut short", 0),
        (LATE, False, "cut short", 0),
    ],
)
def test_numbers_are_judged_where_there_are_any_and_failures_always(outcome, has_numbers, state, num_problems):
    """What is not judged is still told."""
    row = first_light.judged(outcome, 1.0, has_numbers=has_numbers)
    assert (row["state"], len(row["problems"])) == (state, num_problems)
    assert row.get("not_judged", []) == ([] if has_numbers else list(outcome.differs))
    assert first_light.is_right({"parts": {"x": row}}) == (num_problems == 0)


def first_light_of(parts, tmp_path, budget=100.0, has_numbers=True):
    """The record of these parts, and what lies in the file."""
    target = tmp_path / "out" / "first-light.json"
    record = first_light.measured(parts, budget, {"date": "today"}, target, has_numbers=has_numbers)
    assert json.loads(target.read_text()) == record
    return record


def test_the_file_is_written_anew_whenever_more_is_known(tmp_path):
    """A kill loses nothing: what is not begun is named from the start, and what was found stands there before the part is over."""
    seen = []

    def look(place):
        file = tmp_path / "out" / "first-light.json"
        seen.append(json.loads(file.read_text()))
        yield Outcome({"rate": math.nan, "all": [1.0, math.inf]})
        seen.append(json.loads(file.read_text()))
        yield Outcome({"rate": 2.0})

    record = first_light_of([Part("one", "it", 1, look), Part("two", "it", 1, lambda place: iter([FINE]))], tmp_path)
    assert [set(one["left_out"]) for one in seen] == [{"two"}, {"two"}]
    assert [one["parts"]["one"]["is_over"] for one in seen] == [False, False]
    assert seen[1]["parts"]["one"]["figures"] == {"rate": None, "all": [1.0, None]}
    assert record["parts"]["one"]["is_over"]
    assert (record["left_out"], record["agrees"], record["parts"]["one"]["figures"]) == ({}, True, {"rate": 2.0})


def test_what_does_not_fit_is_left_out_and_what_is_shorter_still_runs(tmp_path):
    """The file says why."""
    parts = [Part("long", "it", 101, lambda place: iter([FAILED])), Part("short", "it", 1, lambda place: iter([FINE]))]
    record = first_light_of(parts, tmp_path)
    assert record["left_out"] == {"long": "expected to take 101 s; 100 s were left"}
    assert (list(record["parts"]), record["agrees"]) == (["short"], True)


def test_an_error_of_a_part_takes_no_other_with_it(tmp_path):
    """It is a problem, also on a device without numbers; what the part had found stays."""

    def broken(place):
        yield FINE
        raise KeyError("step")

    record = first_light_of([Part("one", "it", 1, broken), Part("two", "it", 1, lambda place: iter([FINE]))], tmp_path, has_numbers=False)
    assert record["parts"]["one"]["problems"] == ["one: KeyError: 'step'"]
    assert record["parts"]["one"]["figures"] == {"a": 1}
    assert (record["agrees"], record["parts"]["two"]["state"]) == (False, "ran; no numbers")


@pytest.mark.parametrize(("budget", "agrees"), [(100.0, False), (0.3, True)])
def test_a_part_that_hangs_is_a_problem_and_the_end_of_the_budget_is_none(tmp_path, budget, agrees):
    """Twice its expected time ends a part."""

    def hanging(place):
        done = list(all_ended([Command("sleeping", ("sleep", "60"), place.folder / "x")], place.deadline))
        yield device_checks.outcome_of(done, {})

    record = first_light_of([Part("one", "it", 0.2, hanging)], tmp_path, budget)
    assert record["parts"]["one"]["cut_short"] == ["sleeping"]
    assert record["agrees"] == agrees


def is_alive(pid):
    """Whether a process still runs; not if it only waits to be asked how it ended."""
    try:
        return Path("/proc", pid, "stat").read_text().split()[2] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_commands_end_as_they_end_and_at_the_deadline(tmp_path):
    """So many at once; one that runs too long ends with what it started, and one that waits is not begun."""
    shell = {"good": "echo fine", "bad": "echo wrong; exit 3", "long": "sleep 60 & echo $! > child; wait", "waiting": "touch begun"}
    commands = [Command(name, ("bash", "-c", text), tmp_path / name) for name, text in shell.items()]
    done = {one.name: one for one in all_ended(commands, time.monotonic() + 3, at_once=1)}
    assert {name: one.status for name, one in done.items()} == {"good": 0, "bad": 3, "long": None, "waiting": None}
    assert (done["good"].output, done["bad"].problem) == ("fine\n", "bad ended with status 3: wrong")
    assert not (tmp_path / "waiting").exists()
    child = (tmp_path / "long" / "child").read_text().strip()
    for _ in range(500):  # a killed process takes a moment to end
        if is_alive(child):
            time.sleep(0.01)
    assert not is_alive(child)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_command_is_stopped_once_it_has_a_checkpoint(tmp_path, number):
    """Not before, and by that signal, which a shell may have told what it starts in the background to ignore."""
    text = "import pathlib, signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); time.sleep(0.3); "
    text += "folder = pathlib.Path('mlruns/stages/k'); folder.mkdir(parents=True); "
    text += "(folder / 'checkpoint.safetensors').touch(); time.sleep(60)"
    (done,) = all_ended([Command("it", (sys.executable, "-c", text), tmp_path / "it", number)], time.monotonic() + 30)
    assert done.status == -number
    assert 0.3 <= done.seconds < 30


def test_tests_are_counted_by_their_names():
    """Failed ones and skipped ones have shown nothing; a process that ends without a word, or crashes, fails."""
    ids = ["tests/test_gpu.py::test_a[x y]", "tests/test_gpu.py::test_b", "tests/x/test_c.py::test_d", "tests/x/test_c.py::test_e"]
    assert shards(ids) == [ids[:1], ids[1:2], ids[2:]]
    texts = [
        "../tests/test_gpu.py::test_a[x y] PASSED [100%]",
        "tests/test_gpu.py::test_b FAILED [100%]\nFAILED tests/test_gpu.py::test_b - x",
    ]
    done = [
        Ended("a", 0, 1, texts[0]),
        Ended("b", 1, 1, texts[1]),
        Ended("c", -11, 1, f"{ids[2]} SKIPPED (no)\n{ids[3]} "),
        Ended("d", 1, 1, ""),
    ]
    found = device_checks.tested(ids, done)
    assert {name: found.figures[name] for name in ("collected", "passed", "failed", "skipped")} == {
        "collected": 4,
        "passed": 1,
        "failed": 1,
        "skipped": 1,
    }
    assert found.differs == (f"{ids[1]} failed", f"{ids[2]} skipped")
    assert [problem.split(":")[0] for problem in found.failed] == ["c ended with status -11", "d ended with status 1"]


def predictions(wrong, num_images=359):
    """A run that is wrong on these images."""
    labels_N = np.arange(num_images) % 10
    return pd.DataFrame(
        {"label": labels_N, "predicted": np.where(np.isin(np.arange(num_images), list(wrong)), (labels_N + 1) % 10, labels_N)}
    )


@pytest.mark.parametrize(
    ("cpu", "cuda", "agrees"),
    [
        (range(10), range(10), True),
        (range(10), range(20, 30), True),
        (range(10), range(5, 20), True),
        (range(10), range(40), False),
        (range(40), range(10), False),
        (range(20), range(20, 46), True),  # many differ both ways
        (range(0), range(323), False),
        (range(0), range(0), True),
    ],
)
def test_accuracies_of_two_devices_are_compared_by_arm(cpu, cuda, agrees):
    """Both seeds together, in percent."""
    sides = [{("a", seed): predictions(wrong) for seed in (0, 1)} for wrong in (cpu, cuda)]
    (row,) = compared_arms(*sides)
    assert row["agrees"] == agrees
    assert row["points"] == pytest.approx(100 * (len(cpu) - len(cuda)) / 359)
    assert row["cpu"] - row["cuda"] == pytest.approx(-row["points"])
    assert row["right_on_one_only"] == 2 * len(set(cpu) ^ set(cuda))
    assert row["same_predictions"] == pytest.approx(1 - len(set(cpu) ^ set(cuda)) / 359)


def test_a_run_that_one_device_lacks_disagrees():
    """Also a whole arm."""
    cpu = {("a", 0): predictions([]), ("a", 1): predictions([]), ("b", 0): predictions([])}
    rows = compared_arms(cpu, {("a", 0): predictions([])})
    assert [(row["arm"], row["agrees"]) for row in rows] == [("a", False), ("b", False)]


def test_the_tolerance_is_that_of_an_exact_test():
    """A difference that is called one has by the exact sign test a chance of under 1 % for all arms; one of twice that size is one."""
    for num_differing in (5, 20, 60, 200):
        allowed = tolerance(num_differing, 718, 9) * 718 / 100
        found = [lost for lost in range(num_differing + 1) if num_differing - 2 * lost > allowed]
        chances = [stats.binomtest(lost, num_differing).pvalue for lost in range(num_differing + 1)]
        assert all(chances[lost] < 0.01 / 9 for lost in found)
        assert all(chances[lost] > 1e-5 for lost in range(num_differing // 2) if lost not in found)
    assert tolerance(20, 718, 9) < tolerance(20, 718, 70) < tolerance(40, 718, 70)


def test_packing_counts_from_the_first_epoch_to_the_last_result():
    """And says how many ran at once in the end, and why."""
    results = [{"history": [{"time": 2000, "seconds": 1.0}], "finished": end, "tags": {"step": "captured"}} for end in (3000, 31000)]
    text = "2 at once on cuda:0 from now on: one took 1 GB\nx\n1 at once on cuda:0 from now on: together 2 were slower\n"
    row = packed("auto", Ended("it", 0, 40.0, text), results)
    assert (row["seconds"], row["runs_per_minute"], row["chose"], len(row["why"])) == (30.0, 4.0, 1, 2)
    assert "chose" not in packed("2", Ended("it", 0, 40.0, ""), results)


def test_lines_that_were_cut_off_are_none():
    """Whole JSON objects count."""
    assert json_lines('words\n{"a": 1}\n{"b": {"c": 1}\n{"d": 2}') == [{"a": 1}, {"d": 2}]


@pytest.mark.parametrize(
    ("operations", "num_bytes", "expected"),
    [(6e14, 1e9, (1.0, "operations")), (6e12, 3e12, (1.0, "memory")), (6e14, 6e12, (2.0, "memory"))],
)
def test_the_roofline_is_the_longer_of_two_times(operations, num_bytes, expected):
    """Operations at the rate of products, bytes at the rate of copies."""
    assert roofline(operations, num_bytes, Peaks(6e14, 3e12)) == expected


def test_a_step_is_told_as_a_share_of_its_roofline():
    """Of the fused one, and of what the plain step's operators move."""
    row = compared(4.0, Work(6e14, 1e9, 6e12), Peaks(6e14, 3e12))
    assert (row["fraction_of_roofline"], row["fraction_of_unfused_roofline"], row["bound"]) == (0.25, 0.5, "operations")
    assert (row["step_milliseconds"], row["attained_teraflops"]) == (4000.0, 150.0)


def test_operations_and_bytes_are_those_counted_by_hand():
    """A depthwise convolution and a linear layer, one step of gradient descent."""
    model = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), torch.nn.Flatten(), torch.nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    precision, loss = resolve_precision("fp32", torch.device("cpu")), ablation.make("losses", "cross_entropy")
    plain = PlainStep(model, optimizer, scaler, precision, loss, torch.ones(10), {})
    work = work_of(plain, (torch.randn(2, 8, 4, 4), torch.eye(10)[:2], torch.ones(10)))
    assert work.operations == 3 * 2 * 2 * (8 * 16 * 9 + 128 * 10)
    assert 0 < work.product_bytes < work.operator_bytes


def test_traffic_counts_what_operators_read_and_write_and_no_views():
    """A product of 2x3 and 3x4 numbers moves 6 + 12 + 8 of them, and doubling the result 8 + 8."""
    left, right = torch.ones(2, 3), torch.ones(3, 4)
    with Traffic() as traffic:
        (left @ right).view(8).mul(2)
    assert (traffic.products, traffic.operators) == (4 * 26, 4 * (26 + 16))
