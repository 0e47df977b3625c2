"""The commands, each through its command line, within this process."""

import contextlib
import io
import json
import os
import re
import signal
import threading
import time
from types import SimpleNamespace

import pandas as pd
import pytest
from filelock import FileLock
from rich.console import Console

from ablation.commands import options as reading
from ablation.commands import run as run_command
from ablation.commands import running
from ablation.commands.options import Options
from ablation.commands.session import Session
from ablation.errors import ConfigError, DataError
from ablation.formatting import ranges
from ablation.running import scheduler
from ablation.running.messages import RunMessages
from ablation.running.outcomes import Failure, Outcome
from ablation.study.task import CheckpointInterval
from ablation.techniques import posthoc
from ablation.tracking.store import Store
from ablation.training import device_option as devices_module
from tests.tiny import CPU, write

DIGITS = {"name": "digits"}
BAD = {"optimizer": {"name": "sgd", "lr": 1e30}}


def study(ablate, **layers):
    return write(ablate.folder, **({"variants": {"cb": {"sampler": "class_balanced"}}} | layers))


def statuses(name="tiny"):
    """The status of every run, by arm and seed."""
    runs = [run for run in Store.open().runs_of(name) if run["tags"]["ablation.kind"] == "run"]
    return {(run["tags"]["ablation.arm"], int(run["tags"]["ablation.seed"])): run["status"] for run in reversed(runs)}


def accuracies(name="tiny", metric="test/accuracy"):
    return Store.open().recorded(name).runs.set_index(["arm", "seed"])[metric].sort_index()


# --- run ---------------------------------------------------------------------------------------------------------------------


def test_run_trains_once_and_prints_the_table(ablate):
    """The first run trains and prints a row per arm, status 0; the second trains nothing and prints the same table, as does the report."""
    file = study(ablate, seeds=[0, 1])
    first = ablate("run", file)
    assert (first.status, first.epochs) == (0, 8)
    tables = first.out.partition("\nLadder")[2].partition("\nLabels")[0]
    assert re.findall(r"^  (\w+)  ", tables, re.MULTILINE) == ["baseline", "cb"]
    assert ablate("report", file, "--format", "text").out == first.out
    assert "2 arms x 2 seeds = 4 runs (4 to do)" in first.err
    assert f"full report: ablate report {file}" in first.err
    second = ablate("run", file)
    assert (second.status, second.epochs, second.out) == (0, 0, first.out)
    assert "4 runs (4 recorded)" in second.err


def test_only_what_is_chosen_runs(ablate):
    """--arm takes globs and --seed numbers; what another command did is not done again."""
    file = study(ablate)
    assert ablate("run", file, "--arm", "c*", "--seed", 3, "--seed", 3).epochs == 2
    assert statuses() == {("cb", 3): "FINISHED"}
    assert ablate("run", file, "--seed", 3).epochs == 2
    assert ablate("run", file, "--arm", "cb", "--arm", "baseline", "--seed", 3).epochs == 0


def test_a_setting_over_everything(ablate):
    """--set changes every arm, so that its results are other ones."""
    file = study(ablate)
    plain = ablate("run", file, "--arm", "baseline")
    assert ablate("run", file, "--arm", "baseline", "--set", "optimizer.lr=1e-3").epochs == 2
    assert Store.open().client.get_run(Store.open().recorded("tiny").runs["run_id"][0]).data.params["optimizer.lr"] == "0.001"
    assert ablate("run", file, "--arm", "baseline").out == plain.out
    (run,) = json.loads(ablate("plan", file, "--arm", "baseline", "--set", "optimizer.lr=1e-2", "--json").out)["runs"]
    assert (run["state"], run["reason"]) == ("missing", "has changed: optimizer.lr 0.001 -> 0.01")


def test_one_failure_stops_nothing_else(ablate):
    """An arm whose loss is no number fails with status 1 and its reason; the others finish, and the next command tells it again."""
    file = study(ablate, variants={"bad": BAD, "cb": {"sampler": "class_balanced"}})
    first = ablate("run", file)
    assert first.status == 1
    assert "failed: bad seed 0: the training loss became" in first.err
    assert statuses() == {("bad", 0): "FAILED", ("baseline", 0): "FINISHED", ("cb", 0): "FINISHED"}
    second = ablate("run", file)
    assert (second.status, second.epochs) == (1, 0)
    assert "--rerun retry tries again" in second.err
    third = ablate("run", file, "--rerun", "retry")
    assert (third.status, third.epochs) == (1, 0)  # an epoch that fails is none
    assert "1 to do" in third.err


def test_failures_are_told_by_reason(ablate):
    """At the end there is a line for each reason, with its arms and seeds, and one with what to do; the status is 1."""
    file = study(ablate, variants={"bad": BAD, "worse": BAD | {"sampler": "class_balanced"}}, seeds=[0, 1, 2])
    result = ablate("run", file)
    assert result.status == 1
    index = next(i for i, line in enumerate(result.err.splitlines()) if line.startswith("failed: "))
    line, to_do = result.err.splitlines()[index : index + 2]
    assert line.startswith("failed: bad seeds 0-2, worse seeds 0-2: the training loss became ")
    assert to_do == "  to do: change a setting in the file, which makes another run; --rerun retry tries the same run again"
    assert result.err.count("\nfailed: ") == 1


def test_a_failure_of_each_kind_says_what_to_do():
    """Arms that failed alike share a line; those that failed otherwise have their own, and every kind has its word of advice."""
    first, second = SimpleNamespace(arm="a", seed=4), SimpleNamespace(arm="b", seed=0)
    failures = [Failure(first, "memory", "too large"), Failure(second, "store", "no space"), Failure(second, "memory", "too large")]
    lines = running.failure_lines([*failures, Failure(first, "", "failed before")])
    assert lines == [
        "failed: a seed 4, b seed 0: too large",
        f"  to do: {running.NEXT_STEPS['memory']}",
        "failed: b seed 0: no space",
        f"  to do: {running.NEXT_STEPS['store']}",
        "failed: a seed 4: failed before",
    ]
    assert set(running.NEXT_STEPS) == {"nan", "bug", "data", "memory", "store", "killed", "timeout"}


def test_fewer_at_once_is_told_once(ablate):
    """Where memory runs out the user is told how many go on at once, the first time on each device, and the time left goes by it."""
    session = Session(Options(study(ablate)), Console(file=io.StringIO(), width=1000))
    board = SimpleNamespace(clock=SimpleNamespace(num_slots=3), snapshot=dict)
    messages = RunMessages(SimpleNamespace(study=session.study), session.workspace, None, board, session.console)
    for jobs in (2, 1):
        messages({"kind": "memory", "device": "cuda:0", "jobs": jobs, "slots": jobs}, lambda _: None)
    output = session.console.file.getvalue()
    assert output.count("system does then): 2 at once from now on, and one fewer") == output.count("\n") == 1
    assert board.clock.num_slots == 1


def test_what_cannot_be_tested_takes_nothing_along(ablate, monkeypatch):
    """A post-hoc arm that cannot be fitted fails alone: siblings of the same training, and stages that go on from it, are finished."""

    def nothing_to_fit(*_):
        raise DataError("posthoc.temperature: found no best temperature")

    monkeypatch.setattr(posthoc, "fit_temperature", nothing_to_fit)
    data = {"name": "digits", "validation": 0.2}
    head = [{"epochs": "1/1"}, {"epochs": "1/2", "train": "head", "sampler": "class_balanced"}]
    arms = {
        "unfit": {"posthoc": "temperature"},
        "chosen-by": {"posthoc": "logit_adjustment"},
        "head": {"stages": head},
    }
    first = ablate("run", write(ablate.folder, base={"data": data}, variants=arms))
    assert first.status == 1
    assert statuses() == {("baseline", 0): "FINISHED", ("unfit", 0): "FAILED", ("chosen-by", 0): "FINISHED", ("head", 0): "FINISHED"}
    assert first.err.count("failed:") == 1
    assert "posthoc.temperature: found no best temperature" in first.err
    again = ablate("run", "tiny.yaml", "--rerun", "retry")
    assert (again.status, again.epochs) == (1, 0)


def test_a_head_that_cannot_be_normalised_is_found_before_training(ablate):
    """tau-normalisation needs a linear last layer, which this model has not."""
    base = {"model": {"name": "dpn48b", "image_size": 32}}
    done = ablate("run", write(ablate.folder, base=base, variants={"tau": {"posthoc": "tau_norm"}}))
    assert (done.status, done.epochs) == (2, 0)
    assert "expected a linear one, which tau_norm needs" in done.err


def test_a_failed_arm_can_be_mended(ablate):
    """Another value in the file makes another run; the failed one is superseded."""
    study(ablate, variants={"bad": BAD})
    assert ablate("run", "tiny.yaml").status == 1
    study(ablate, variants={"bad": {"optimizer": {"name": "sgd", "lr": 1e-2}}})
    mended = ablate("run", "tiny.yaml")
    assert (mended.status, mended.epochs) == (0, 2)
    assert Store.open().recorded("tiny").superseded == ["bad 0"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "nothing"], "--set: found 'nothing'; expected PATH=VALUE"),
        (["--set", "optimiser.lr=1"], "Did you mean 'optimizer.lr'?"),
        (["--set", "optimizer.lr=[1"], "--set"),
        (["--set", "epochs=0"], "epochs"),
        (["--device", "gpu"], "--device: found 'gpu'; expected auto, cpu, cuda"),
        (["--device", "cuda:x"], "--device: found 'cuda:x'"),
        (["--device", "cuda:99"], "--device: found "),
        (["--arm", "cbb"], "--arm"),
        (["--seed", "-1"], "--seed: found -1; expected numbers from 0"),
        (["--seed", str(2**63)], "--seed: found 9223372036854775808; expected numbers from 0 to 2**63 - 1"),
        (["--seed", "x"], "Invalid value for '--seed'"),
        (["--jobs", "0"], "Invalid value for '--jobs'"),
        (["--budget", ""], "--budget: found ''; expected a time such as 2h"),
        (["--budget", "soon"], "--budget: found 'soon'; expected a time such as 2h"),
        (["--budget", "0h"], "--budget: found '0h'"),
        (["--rerun", "all"], "Invalid value for '--rerun'"),
        (["--executor", "cloud"], "--executor: unknown executor 'cloud'; expected one of local, ray, slurm."),
        (["--profile", "quik"], "profile"),
        (["--nothing"], "No such option"),
    ],
)  # fmt: skip
def test_a_wrong_command_is_told(ablate, words, message):
    """Whatever is wrong with the command ends in status 2 and one message, before anything is trained or recorded."""
    for command in ("run", "plan"):
        result = ablate(command, study(ablate), *words)
        assert result.status == 2
        assert message in result.err
        assert result.out == ""
        assert "Traceback" not in result.err
    assert not (ablate.folder / "mlruns" / "stages").exists()
    assert statuses() == {}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"base": {"data": {"name": "folder", "root": "nowhere"}}}, "nowhere"),
        ({"base": {"select": "best_on_validation"}}, "data.validation is 0"),
        ({"base": {"precision": "fp16"}}, "precision: found fp16, which needs a CUDA device"),
        ({"base": {"batch_size": 1000}}, "batch_size is 1000, but there are 200 training images"),
        ({"base": {"model": {"name": "test_efficientnet", "weights": "w.safetensors", "image_size": 16}}}, "there is no file"),
        ({"base": {"data": DIGITS | {"longtail": {"name": "linear", "largest": 9000, "smallest": 10}}}}, "expected at least 9000"),
        ({"groups": {"many": ["eleven"]}}, "unknown class 'eleven'"),
        ({"groups": {"few": "<1"}, "base": {"mix": {"name": "mixup", "only": "tail"}}}, "mix"),
        ({"base": {"loss": "focla"}}, "Did you mean 'focal'?"),
        ({"ladder": {}}, "ladder: is empty"),
    ],
)  # fmt: skip
def test_a_wrong_study_is_told(ablate, layers, message):
    """Whatever is wrong with the file or the data ends in status 2 and one message, before anything is trained or recorded."""
    result = ablate("run", study(ablate, **layers))
    assert (result.status, result.epochs, result.out) == (2, 0, "")
    assert message in result.err
    assert result.err.startswith("error: ") or "\nerror: " in result.err
    assert not (ablate.folder / "mlruns" / "stages").exists()


@pytest.mark.parametrize("content", [None, "study: [", "just words", "study: x\nstudy: y"])
def test_a_file_that_is_none_is_told(ablate, content):
    """A missing file, broken YAML, YAML without a mapping and repeated keys are status 2 with the file's name or place."""
    if content is not None:
        (ablate.folder / "broken.yaml").write_text(content)
    result = ablate("run", "broken.yaml")
    assert result.status == 2
    assert result.err.startswith("reading broken.yaml ...\nerror: ")
    assert len(result.err.splitlines()) <= 4


def test_a_store_that_cannot_be_used_is_told(ablate, monkeypatch):
    """A store that the shell names and MLflow does not take is status 2 and one message."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://x")
    for words in (["run", study(ablate)], ["plan", study(ablate)], ["report"], ["log", "baseline", 0], ["clean"]):
        result = ablate(*words)
        assert result.status == 2, words
        assert "error: the store at nonsense://x cannot be used" in result.err


# --- stopping ----------------------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_after_the_epoch_and_the_same_command_goes_on(ablate, tmp_path_factory, monkeypatch):
    """Status 130 and the command to go on; that command trains only what is left, to the bits of a run that nobody stopped."""
    layers = {"base": {"epochs": 3}, "variants": {"head": {"stages": [{"epochs": 2}, {"epochs": 1, "train": "head"}]}}}
    file = study(ablate, **layers)
    stopped = ablate("run", file, "--arm", "*", stop_after=4)
    assert (stopped.status, stopped.epochs) == (130, 4)
    assert f"stopped; 1 run is left. To go on: ablate run {file} --arm '*'" in stopped.err
    assert "RUNNING" not in statuses().values()
    again = ablate("run", file, "--arm", "*")
    assert (again.status, again.epochs) == (0, 2)
    assert set(statuses().values()) == {"FINISHED"}
    resumed = predictions(ablate.folder)
    undisturbed = tmp_path_factory.mktemp("undisturbed")
    monkeypatch.chdir(undisturbed)
    assert ablate("run", file).epochs == 6
    assert predictions(undisturbed) == resumed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_what_a_cluster_sends_stops_as_ctrl_c_does(ablate, number, monkeypatch):
    """SIGTERM and SIGUSR1 stop after the epoch, and the same command goes on from it; afterwards they do what they did before."""
    before = signal.getsignal(number)
    file = study(ablate)
    stopped = ablate("run", file, stop_after=1, number=number)
    assert (stopped.status, stopped.epochs) == (130, 1)
    assert "stopping after this epoch; once more to stop at once" in stopped.err
    assert f"To go on: ablate run {file}" in stopped.err
    assert signal.getsignal(number) == before
    assert ablate("run", file).epochs == 3
    monkeypatch.setattr(running, "ONE_SIGNAL", 0.0)
    twice = ablate("run", file, "--rerun", "force", stop_after=1, signals=2, number=number)
    assert twice.status == 130
    assert "stopped; to go on: ablate run" in twice.err


def test_stopped_at_once_what_was_forced_goes_on_without_the_word(ablate, monkeypatch):
    """Once the earlier results are discarded; before that nothing was, and the whole command is printed."""
    file = study(ablate)
    assert ablate("run", file).status == 0
    stopped = ablate("run", file, "--rerun", "force", stop_after=1, signals=2)
    assert (stopped.status, stopped.err.splitlines()[-1]) == (130, f"stopped; to go on: ablate run {file}")

    def interrupted(*words):
        raise KeyboardInterrupt

    monkeypatch.setattr("ablation.commands.session.Session.force", interrupted)
    stopped = ablate("run", file, "--rerun", "force")
    assert (stopped.status, stopped.err.splitlines()[-1]) == (130, f"stopped; to go on: ablate run {file} --rerun force")


@pytest.mark.parametrize(("number", "is_one"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_sigterm_may_come_twice_at_once(number, is_one):
    """`timeout 7m uv run ablate ...` sends it to the group, and `uv` passes its own on: the epoch is finished all the same."""
    console, display = Console(record=True, width=100), SimpleNamespace(close=lambda: None)
    with running.stop_on_signal(console, display, "stopping") as should_stop:
        os.kill(os.getpid(), number)
        with contextlib.nullcontext() if is_one else pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert should_stop()
    assert console.export_text().count("stopping") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_each_of_them_ends_what_is_starting(ablate, monkeypatch, number):
    """While data are looked at and workers are started, each is status 130 with the command to go on, even if a library swallows it."""

    def swallowed(_session):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(10)

    monkeypatch.setattr(Session, "check", swallowed)
    monkeypatch.setattr(run_command, "execute", lambda *_, **__: Outcome())
    file = study(ablate)
    ended = ablate("run", file)
    assert (ended.status, ended.epochs) == (130, 0)
    assert f"stopped; to go on: ablate run {file}" in ended.err


def test_how_often_checkpoints_are_written_changes_no_result(ablate):
    """--save-every is passed on to every training and is in no key: what it trained is not trained again without it."""
    file = study(ablate, base={"epochs": 4})
    stopped = ablate("run", file, "--save-every", 3, stop_after=1)
    assert (stopped.status, stopped.epochs) == (130, 1)
    assert f"To go on: ablate run {file} --save-every 3" in stopped.err
    assert ablate("run", file, "--save-every", "10m").epochs == 7
    assert ablate("run", file).epochs == 0


@pytest.mark.parametrize(
    ("text", "interval"),
    [("5", CheckpointInterval(epochs=5)), ("10m", CheckpointInterval(seconds=600)), ("1h30m", CheckpointInterval(seconds=5400))],
)
def test_an_interval_is_epochs_or_a_time(text, interval):
    """A bare number counts epochs; with units it is a time."""
    assert reading.parse_interval(text) == interval


@pytest.mark.parametrize("text", ["", "0", "-1", "often", "0m", "1.5"])
def test_a_wrong_interval_is_told(ablate, text):
    """Whatever is neither is status 2 with what was found and expected."""
    result = ablate("run", study(ablate), f"--save-every={text}")
    assert result.status == 2
    assert f"--save-every: found '{text}'; expected a count of epochs such as 5, or a time such as 10m" in result.err


def predictions(folder):
    return {path.parent.name: path.read_bytes() for path in folder.glob("mlruns/results/*/predictions.parquet")}


def test_a_second_ctrl_c_stops_at_once(ablate):
    """Status 130 without waiting for the epoch's end; no run stays RUNNING, and the same command goes on."""
    file = study(ablate)
    stopped = ablate("run", file, stop_after=3, signals=2)
    assert stopped.status == 130
    assert f"stopped; to go on: ablate run {file}" in stopped.err
    assert "RUNNING" not in statuses().values()
    assert ablate("run", file).status == 0
    assert set(statuses().values()) == {"FINISHED"}


def test_a_budget_ends_what_begins(ablate):
    """Once the time is used up nothing begins, the status is 130 with the command to go on, and no run is left RUNNING."""
    file = study(ablate)
    result = ablate("run", file, "--budget", "0.000000001s")
    assert (result.status, result.epochs) == (130, 0)
    assert f"the budget is used up; 2 runs are left. To go on: ablate run {file} --budget 0.000000001s" in result.err
    assert ablate("run", file, "--budget", "1h30m").status == 0


@pytest.mark.parametrize(
    "layers", [{}, {"sweeps": {"tilt": {"posthoc": "logit_adjustment", "over": {"posthoc.tau": [0.5, 2.0]}, "choose": "val/accuracy"}}}]
)
def test_what_was_forced_goes_on_without_the_word(ablate, layers):
    """Stopped while everything is done again, the printed command does again exactly what was not, and then nothing more."""
    base = {"data": DIGITS | {"validation": 0.2, "longtail": {"name": "linear", "largest": 30, "smallest": 10}}}
    file = study(ablate, base=base, seeds=[0, 1], **layers)
    assert ablate("run", file).epochs == 8
    old = finished()

    def states(*words):
        return {run["state"] for run in json.loads(ablate("plan", file, "--json", *words).out)["runs"]}

    stopped = ablate("run", file, "--rerun", "force", stop_after=3)
    assert (stopped.status, stopped.epochs) == (130, 3)
    assert f"To go on: ablate run {file}\n" in stopped.err
    again = finished() - old
    assert len(old) > len(again) > 0
    assert ablate("run", file, "--arm", "baseline", "--seed", 0).epochs == 0  # it was done again first
    assert states("--rerun", "keep") == {"done"}
    assert states() > {"done"}
    rest = ablate("run", file)
    assert (rest.status, rest.epochs) == (0, 5)
    assert len(finished() - old) == len(old)
    assert again < finished()
    assert ablate("run", file).epochs == 0


def test_a_budget_and_force_go_on_together(ablate, monkeypatch):
    """Under a budget of one training each, forced runs are done again one after the other by the commands that are printed."""
    results = ablate.folder / "mlruns" / "results"
    file = study(ablate)
    ablate("run", file)
    old = finished()
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: 10.0 * len(list(results.glob("*/result.json")))))
    first = ablate("run", file, "--rerun", "force", "--budget", "5s")
    assert (first.status, first.epochs) == (130, 2)
    assert f"To go on: ablate run {file} --budget 5s\n" in first.err
    planned_runs = json.loads(ablate("plan", file, "--json").out)["runs"]
    assert [(run["arm"], run["reason"]) for run in planned_runs] == [("baseline", "recorded"), ("cb", "was forced")]
    second = ablate("run", file, "--budget", "5s")
    assert (second.status, second.epochs) == (0, 2)
    assert len(finished() - old) == 2
    assert ablate("run", file, "--budget", "5s").epochs == 0


def finished():
    """The ids of the finished runs of the store."""
    runs = Store.open().runs_of("tiny")
    return {run["run_id"] for run in runs if run["tags"]["ablation.kind"] == "run" and run["status"] == "FINISHED"}


def test_what_a_budget_leaves_is_balanced(ablate, monkeypatch):
    """A study that a budget cut has every arm of the first seeds before any of the next; the same command goes on seed by seed."""
    results = ablate.folder / "mlruns" / "results"
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: 10.0 * len(list(results.glob("*/result.json")))))
    head = [{"epochs": 1}, {"epochs": 1, "train": "head"}]
    arms = {"head": {"stages": head}, "tta": {"tta": "vflip"}, "cb": {"sampler": "class_balanced"}, "cb-head": {"of": "cb", "stages": head}}
    file = study(ablate, variants=arms, seeds=[2, 0, 1])
    done_before = []
    for complete in ("seed 2", "seeds 0, 2"):
        cut = ablate("run", file, "--budget", "55s")
        done = [arm_and_seed for arm_and_seed, status in statuses().items() if status == "FINISHED"]
        assert cut.status == 130
        assert f"{15 - len(done)} runs are left (all arms have {complete}). To go on: ablate run {file} --budget 55s" in cut.err
        counts = [sum(done_seed == seed for _, done_seed in done) for seed in (2, 0, 1)]
        assert counts == [min(5, max(0, len(done) - before)) for before in (0, 5, 10)]
        assert len(done_before) < len(done) < 15
        done_before = done
    assert ablate("run", file).status == 0
    assert set(statuses().values()) == {"FINISHED"}


@pytest.mark.parametrize(
    ("numbers", "words"), [([], ""), ([3], "3"), ([0, 1, 2], "0-2"), ([5, 0, 2, 1], "0-2, 5"), ([0, 2, 4, 5], "0, 2, 4-5")]
)
def test_numbers_that_follow_each_other_are_a_range(numbers, words):
    """Seeds are told shortly, whatever their order."""
    assert ranges(numbers) == words


def test_each_run_is_told_with_its_balanced_accuracy(ablate):
    """Where stderr is no terminal there is a line for each run that finishes, with the counts of the plan, recorded ones included.

    The digits' classes have 35 to 37 test images.
    """
    file = study(ablate, variants={"cb": {"sampler": "class_balanced"}, "reweight": {"sampler": "class_balanced"}})
    ablate("run", file, "--arm", "baseline")
    lines = [line for line in ablate("run", file).err.splitlines() if "finished, balanced accuracy" in line]
    accuracy_by_arm = {arm: 100 * value for (arm, _), value in accuracies(metric="test/balanced_accuracy").items()}
    assert [line.split(" runs")[0] for line in lines] == ["2/3", "3/3"]
    for arm, line in zip(("cb", "reweight"), lines, strict=True):
        value, difference = accuracy_by_arm[arm], accuracy_by_arm[arm] - accuracy_by_arm["baseline"]
        assert line.endswith(f"{arm} seed 0: finished, balanced accuracy {value:.2f} %, {difference:+.2f} points to baseline so far")


def test_what_takes_days_needs_a_word(ablate, monkeypatch):
    """A study of days on the CPU is not started without --yes, --budget or a smaller choice."""
    monkeypatch.setattr(run_command, "wall_seconds", lambda *_: 3.2 * 24 * 3600)
    file = study(ablate)
    result = ablate("run", file)
    assert (result.status, result.epochs) == (2, 0)
    assert "this would take about 3.2 days on the CPU, and nothing was started; --yes starts it" in result.err
    assert ablate("run", file, "--yes").status == 0


def test_a_second_command_waits_for_the_first(ablate, monkeypatch):
    """While another command is at the study a run says so and waits, and `clean` refuses; then it does what is left."""
    held, free = threading.Event(), threading.Event()

    class Awaited(FileLock):
        """Is given back by the other command once somebody waits for it."""

        def acquire(self, timeout=None, **options):
            if timeout is None:
                free.set()
            return super().acquire(timeout, **options)

    def other_command():
        with FileLock(ablate.folder / "mlruns" / "locks" / "tiny.lock"):
            held.set()
            free.wait(60)

    (ablate.folder / "mlruns" / "locks").mkdir()
    threading.Thread(target=other_command).start()
    held.wait(60)
    refused = ablate("clean", "--yes")
    assert (refused.status, "error: tiny is being run; nothing was deleted" in refused.err) == (2, True)
    monkeypatch.setattr("ablation.commands.running.FileLock", Awaited)
    result = ablate("run", study(ablate))
    assert result.status == 0
    assert "another `ablate run` is working on the study 'tiny'; waiting for it to end" in result.err


# --- again -------------------------------------------------------------------------------------------------------------------


def test_results_of_other_code_stop_the_run(ablate, monkeypatch):
    """With another version of torch nothing is started; keep uses the old results and says so, cached does them again."""
    file = study(ablate)
    before = ablate("run", file)
    monkeypatch.setattr("ablation.tasks.images.keys.versions", lambda: {"torch": "99"})
    stale = ablate("run", file)
    assert (stale.status, stale.epochs) == (2, 0)
    assert "error: 2 of 2 results were made by other code, versions or on another device (torch " in stale.err
    assert " -> 99), and nothing was started; --rerun keep uses them" in stale.err
    kept = ablate("run", file, "--rerun", "keep")
    assert (kept.status, kept.epochs) == (0, 0)
    told = [
        [line for line in done.out.splitlines() if not line.startswith("  ablate run") and "--seed" not in line] for done in (before, kept)
    ]
    assert told[0] == told[1]
    assert "--rerun keep" in kept.out
    (note,) = Store.open().recorded("tiny").plan["notes"]
    assert note.startswith("kept, though code, versions or device have changed")
    (reason,) = {run["reason"] for run in Store.open().recorded("tiny").plan["runs"]}
    assert reason.startswith("kept, though this has changed since it was recorded: torch ")
    assert note.endswith("baseline seed 0, cb seed 0")
    again = ablate("run", file, "--rerun", "cached")
    assert (again.status, again.epochs, again.out) == (0, 4, before.out)
    assert ablate("run", file).epochs == 0


def test_force_deletes_nothing_that_another_study_may_share(ablate):
    """While another study runs in the same folder, --rerun force says so and leaves everything as it was."""
    file = study(ablate)
    first = ablate("run", file)
    with FileLock(ablate.folder / "mlruns" / "locks" / "other.lock"):
        refused = ablate("run", file, "--rerun", "force")
        assert (refused.status, refused.epochs) == (2, 0)
        expected = "error: --rerun force would delete trainings that other, which runs now, may share; nothing was deleted; run the"
        assert expected in refused.err
        again = ablate("run", file)
        assert (again.status, again.epochs, again.out) == (0, 0, first.out)
    assert ablate("run", file, "--rerun", "force").epochs == 4


def test_force_does_all_again(ablate):
    """--rerun force trains what was trained, into runs of its own, to the same numbers; curves are not doubled."""
    file = study(ablate)
    first = ablate("run", file)
    ids = set(Store.open().recorded("tiny").runs["run_id"])
    again = ablate("run", file, "--rerun", "force")
    assert (again.status, again.epochs, again.out) == (0, 4, first.out)
    store = Store.open()
    new = set(store.recorded("tiny").runs["run_id"])
    assert not ids & new
    for run_id in ids | new:
        assert [point.step for point in store.curves(run_id) if point.name == "train/loss"] == [0, 1]
    assert ablate("run", file).epochs == 0


def test_only_what_changed_is_trained(ablate):
    """Arms, seeds and views that are added train nothing that is there, and one that only watches trains nothing at all."""
    study(ablate)
    assert ablate("run", "tiny.yaml").epochs == 4
    study(ablate, variants={"cb": {"sampler": "class_balanced"}, "tta": {"tta": "vflip"}, "focal": {"loss": "focal"}})
    assert ablate("run", "tiny.yaml").epochs == 2
    study(ablate, seeds=[0, 1])
    assert ablate("run", "tiny.yaml").epochs == 4


# --- plan, show --------------------------------------------------------------------------------------------------------------


def test_plan_trains_and_records_nothing(ablate):
    """The plan is told in words on stdout: on a screen what, how much and why, and with --stages every arm, run and stage."""
    file = study(ablate, variants={"same": {"sampler": "class_balanced"}, "cb": {"sampler": "class_balanced"}})
    result, at_length = ablate("plan", file), ablate("plan", file, "--stages")
    assert (result.status, result.epochs, at_length.status) == (0, 0, 0)
    for words in ("3 arms x 1 seed = 3 runs (3 to do)", "one training under two names: cb = same", "  3 runs  new"):
        assert words in result.out
    assert "\nArms\n" not in result.out
    listed = at_length.out.partition("\nArms\n")[2]
    for words in ("same training as same", "sampler class_balanced", "Stages (arms in one line share it)"):
        assert words in listed
    assert statuses() == {}


def test_plan_says_whether_a_budget_is_enough(ablate):
    """It takes what `run` takes, and tells what a budget comes to."""
    file = write(ablate.folder)
    assert ablate("plan", file, "--budget", "9h").out.endswith("\nwith --budget 9 h 00 min: all of it would be done\n")
    cut = ablate("plan", file, "--set", "epochs=9000", "--budget", "1m").out
    assert cut.endswith(": run begins what would end within it, and the same command goes on\n")


def test_an_option_of_plan_without_effect_is_refused(ablate):
    """JSON lists every stage, so that --stages beside it is a mistake."""
    refused = ablate("plan", write(ablate.folder), "--json", "--stages")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == (
        "error: --stages: found it beside --json; expected only one of them, since the JSON lists every run and stage anyway\n"
    )


def test_plan_as_json_is_the_contracts(ablate):
    """Arms, runs and stages with their fields, on stdout alone, before and after the run."""
    file = study(
        ablate,
        variants={"head": {"stages": [{"epochs": 1}, {"epochs": 1, "train": "head"}]}},
        ladder={"baseline": {"schedule": "constant"}},
    )
    before = json.loads(ablate("plan", file, "--json").out)
    assert [{"name", "parent", "change", "labels"} <= arm.keys() for arm in before["arms"]] == [True, True]
    assert [(run["arm"], run["seed"], run["state"], run["reason"]) for run in before["runs"]] == [
        ("baseline", 0, "missing", "new"),
        ("head", 0, "missing", "new"),
    ]
    assert all({"key", "parent", "arms", "epochs", "state", "seconds"} <= stage.keys() for stage in before["stages"])
    assert sum(stage["epochs"] for stage in before["stages"]) == 3  # the first epoch is shared
    assert all(stage["seconds"] > 0 for stage in before["stages"])
    by_key = {stage["key"]: stage for stage in before["stages"]}
    assert all(stage["parent"] is None or stage["parent"] in by_key for stage in before["stages"])
    ablate("run", file)
    after = json.loads(ablate("plan", file, "--json").out)
    assert {(run["state"], run["reason"]) for run in after["runs"]} == {("done", "recorded")}
    assert {stage["state"] for stage in after["stages"]} == {"done"}
    assert {stage["seconds"] for stage in after["stages"]} == {0}


def test_show_prints_one_arm(ablate):
    """An arm's parent, change, settings and stages; an unknown one is told with the nearest."""
    file = study(ablate)
    result = ablate("show", "cb", "--file", file, "--set", "optimizer.lr=0.5")
    assert result.status == 0
    for words in ("against: baseline", "sampler.name: shuffle -> class_balanced", "optimizer.lr: 0.5", "0: 2 epochs, trains all"):
        assert words in result.out
    unknown = ablate("show", "cbb", "--file", file)
    assert unknown.status == 2
    assert "ARM: unknown arm 'cbb'; expected one of baseline, cb. Did you mean 'cb'?" in unknown.err


# --- looking -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["status"], ["report"], ["log", "baseline", 0]])
def test_nothing_to_look_at_is_told(ablate, words):
    """Before the first run each of these says how to begin."""
    result = ablate(*words)
    assert result.status == 2
    assert "ablate run FILE" in result.err


def test_log_tells_epochs_and_failures(ablate):
    """A line per epoch with loss and rate, the reason of a failure, and what an unknown arm or seed should have been."""
    ablate("run", study(ablate, variants={"bad": BAD}))
    good = ablate("log", "baseline", 0)
    assert good.status == 0
    assert good.out.startswith("tiny: baseline seed 0: finished (key ")
    assert [line.split("epoch")[1].split()[0] for line in good.out.splitlines() if "  epoch " in line] == ["1", "2"]
    assert "loss" in good.out
    assert "lr" in good.out
    assert "reason: the training loss became" in ablate("log", "bad", 0, "--file", "tiny.yaml").out
    assert "unknown arm 'bda'; expected one of bad, baseline. Did you mean 'bad'?" in ablate("log", "bda", 0).err
    assert "SEED: found 7; expected one of the seeds of bad in the newest plan of tiny: 0" in ablate("log", "bad", 7).err
    assert ablate("log", "bad", 7).status == 2


def test_a_bug_is_logged_with_its_traceback(ablate, monkeypatch):
    """A failure that is our own is a failed run of the kind bug; `log` has the traceback, the screen has one line."""

    def broken(*_args):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("ablation.tasks.images.run.train_epochs", broken)
    result = ablate("run", study(ablate), "--arm", "baseline")
    assert result.status == 1
    assert "failed: baseline seed 0: ZeroDivisionError: a bug" in result.err
    assert "Traceback" not in result.err
    assert "Traceback (most recent call last)" in ablate("log", "baseline", 0).out


def test_status_tells_how_it_stands(ablate):
    """After a run: that nothing runs, and the last headline; while one is held: that it runs."""
    ablate("run", study(ablate))
    result = ablate("status")
    assert result.status == 0
    assert result.out.startswith("tiny: not running · ")
    assert "2/2 runs" in result.out
    with FileLock(ablate.folder / "mlruns" / "locks" / "tiny.lock"):
        assert ablate("status").out.startswith("tiny: running (pid ")


def test_report_goes_to_stdout_or_into_a_folder(ablate):
    """The document is all that stdout gets; with --output it lies in the folder, with figures and tables beside."""
    ablate("run", study(ablate))
    result = ablate("report")
    assert result.status == 0
    first, second = [line for line in result.out.splitlines() if line][:2]
    assert first.startswith("<!-- ablate report {")  # by which --check knows what was asked for
    assert second.startswith("# ")
    assert "cb" in result.out
    assert ablate("report", "tiny.yaml").out == result.out
    written = ablate("report", "--output", "out/report")
    assert (written.status, written.out) == (0, "")
    assert "written to out/report" in written.err
    assert {".md", ".csv", ".png"} <= {path.suffix for path in (ablate.folder / "out" / "report").rglob("*.*")}
    frame = json.loads(ablate("report", "--format", "json").out)
    assert frame
    assert ablate("report", "--arm", "nothing").status == 2
    assert ablate("report", "--metric", "test/nothing").status == 2
    assert ablate("report", "--profile", "x").status == 2


def test_a_profile_is_a_study_of_its_own(ablate):
    """A profile is run and reported under its own name, and an unknown one is told."""
    file = study(ablate, profiles={"quick": {"base": {"epochs": 1}}})
    assert ablate("run", file, "--profile", "quick").epochs == 2
    assert [name for name, _ in Store.open().studies()] == ["tiny.quick"]
    assert ablate("report", file, "--profile", "quick").status == 0
    assert "unknown profile 'quik'; expected one of quick. Did you mean 'quick'?" in ablate("report", file, "--profile", "quik").err


def test_clean_deletes_only_what_is_recorded(ablate):
    """Stages and results of recorded runs go; those of unfinished ones stay, and the next run trains no epoch twice."""
    layers = {"variants": {"head": {"stages": [{"epochs": 1}, {"epochs": 2, "train": "head"}]}}, "base": {"schedule": {"name": "constant"}}}
    file = study(ablate, **layers)
    assert ablate("run", file, stop_after=3).status == 130
    before = accuracies()
    assert ablate("clean", "--yes").status == 0
    again = ablate("run", file)
    assert (again.status, again.epochs) == (0, 1)
    assert accuracies()[before.index].equals(before)
    ablate("clean", "--yes")
    assert not list((ablate.folder / "mlruns" / "stages").glob("*/*.safetensors"))
    assert ablate("run", file).epochs == 0  # the record is enough
    assert list((ablate.folder / "mlruns").rglob("predictions.parquet"))
    assert list((ablate.folder / "mlruns" / "data").iterdir())
    ablate("clean", "--all", "--yes")
    assert not (ablate.folder / "mlruns" / "data").exists()


def test_what_is_cleaned_is_still_recorded(ablate):
    """Artifacts do not depend on the folders that `clean` deletes."""
    file = study(ablate)
    ablate("run", file)
    ablate("clean", "--all", "--yes")
    recorded = Store.open().recorded("tiny")
    for run_id in recorded.runs["run_id"]:
        assert isinstance(recorded.predictions(run_id), pd.DataFrame)
        assert recorded.store.artifact(run_id, "model.safetensors").exists()
    assert ablate("report").status == 0


# --- words of the command line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("300s", 300), ("0.5h", 1800), (" 1m30s ", 90)]
)
def test_budgets_are_times(text, seconds):
    """Hours, minutes and seconds, alone or together."""
    assert reading.parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "2", "h", "-1h", "1h2h", "30m1h", "inf", "1d"])
def test_other_budgets_are_refused(text):
    """What is no time is told with what is."""
    with pytest.raises(ConfigError, match=r"--budget: found .*; expected a time such as 2h"):
        reading.parse_budget(text)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("optimizer.lr=1e-3", "optimizer.lr", 1e-3),
        ("loss=focal", "loss", "focal"),
        ("mix={name: mixup, alpha: 0.4}", "mix", {"name": "mixup", "alpha": 0.4}),
        ("a=b=c", "a", "b=c"),
        ("drop_last=false", "drop_last", False),
    ],
)
def test_settings_are_read_as_yaml(text, path, value):
    """PATH=VALUE, the value as the file would have it."""
    assert reading.parse_set(text) == (path, value)


@pytest.mark.parametrize(("choice", "expected"), [("cpu", [CPU])])
def test_devices_are_named(choice, expected):
    """The CPU is always there."""
    assert devices_module.devices(choice) == expected


def test_cuda_devices_are_counted(monkeypatch):
    """cuda is all of them, cuda:0,1 those, each once; one that is not there is told with how many there are."""
    monkeypatch.setattr(devices_module.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices_module.torch.cuda, "device_count", lambda: 3)
    names = {choice: [str(one) for one in devices_module.devices(choice)] for choice in ("auto", "cuda", "cuda:0,2", "cuda:1,1")}
    every = ["cuda:0", "cuda:1", "cuda:2"]
    assert names == {"auto": every, "cuda": every, "cuda:0,2": ["cuda:0", "cuda:2"], "cuda:1,1": ["cuda:1"]}
    with pytest.raises(ConfigError, match="found cuda:3, but there are 3 CUDA devices"):
        devices_module.devices("cuda:1,3")


@pytest.mark.parametrize(("size", "base", "status"), [(8, ["hflip"], 2), (16, ["hflip"], 0), (8, ["hflip", "crop"], 0)])
def test_a_resize_of_images_that_have_the_size_is_no_arm(ablate, size, base, status):
    """It would be trained to show a difference of exactly nothing; one that takes the place of another augmentation does not."""
    model = {"name": "test_efficientnet", "image_size": size}
    arms = {"nearest": {"augment": ["hflip", {"name": "resize", "interpolation": "nearest"}]}}
    file = write(ablate.folder, base={"model": model, "augment": base}, variants=arms)
    done = ablate("plan", file)
    assert done.status == status, done.err
    if status:
        assert "augment.1: resize changes nothing in 'nearest': images of digits have the model's size, 8 x 8; expected no such" in done.err
