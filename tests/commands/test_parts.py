"""`ablate run --part`, `--executor` and `ablate cancel`, by their command lines; jobs of a real Slurm are in tests/engines."""

import json
import os
import re
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablation import cli
from ablation.commands import run_parts
from ablation.commands.options import Options, Part
from ablation.commands.run import print_outcome
from ablation.commands.run_parts import part_words
from ablation.running.executors.sites import SlurmSite
from ablation.running.outcomes import Outcome
from ablation.running.parts import pinning
from ablation.running.parts.log import PartLog
from ablation.running.parts.script import PART_SPLIT, RESTARTS
from ablation.running.parts.split import splits
from ablation.study.task import CheckpointInterval
from ablation.tracking.store import Store
from benchmarks.faults import compared
from tests import parts
from tests.tiny import write

DECOUPLED = {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head"}]}
LADDER = {"baseline": {}, "cb": {"sampler": "class_balanced"}, "decoupling": DECOUPLED}


def statuses():
    """The status of every run in the store, by arm and seed."""
    runs = [run for run in Store.open().runs_of("tiny") if run["tags"]["ablation.kind"] == "run"]
    return sorted((run["tags"]["ablation.arm"], int(run["tags"]["ablation.seed"]), run["status"]) for run in runs)


def splits_here():
    return splits(Path("mlruns/parts").resolve())


def test_two_parts_are_a_plain_run(ablate, tmp_path_factory, empty_database, monkeypatch):
    """The same bytes of predictions and the same record, nothing trained twice, and the folders of the parts are tidied away."""
    file, database = write(ablate.folder, ladder=LADDER), ablate.folder / "mlruns" / "mlflow.db"
    plain = tmp_path_factory.mktemp("plain")
    shutil.copytree(ablate.folder / "mlruns", plain / "mlruns")
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(plain)
        total = ablate("run", file).epochs
    database.unlink()
    first = ablate("run", file, "--part", "1/2")
    assert first.status == 0
    assert "tiny: part 1 of 2 has " in first.err
    assert "part 1 of 2 has ended; once all have, ablate run" in first.err
    assert f"ablate run {file} records them" in first.err
    second = ablate("run", file, "--part", "2/2")
    assert (second.status, first.epochs + second.epochs) == (0, total)
    assert len(splits_here()) == 1
    again = ablate("run", file, "--part", "1/2")
    assert (again.status, again.epochs) == (0, 0)
    assert "computed already); nothing is to be done" in again.err
    assert "also split" not in second.err + again.err
    beside = ablate("run", file, "--part", "1/1")
    assert "tiny: it is also split into 2 parts here, with other shares; name one number in all parts" in beside.err
    assert (beside.status, beside.epochs) == (0, 0)
    assert re.findall(r"^tiny\.part-(.)-of-2: not running", ablate("status").out, re.MULTILINE) == ["1", "2"]
    assert ablate("show", "cb").status == 0
    assert not database.exists()
    shutil.copyfile(empty_database, database)
    whole = ablate("run", file)
    assert (whole.status, whole.epochs) == (0, 0), whole.err
    assert "decoupling" in whole.out
    assert compared(plain, ablate.folder) == []
    assert not list(Path("mlruns/parts").glob("*"))
    assert splits_here() == []
    assert ablate("status").out.startswith("tiny: not running · 3/3 runs")


def test_a_part_that_is_stopped_goes_on(ablate):
    """Its log has a second attempt; the store has nothing, until a whole run records what is there and trains the rest."""
    file = write(ablate.folder, ladder=LADDER, base={"epochs": 3})
    stopped = ablate("run", file, "--part", "1/3", stop_after=1)
    assert stopped.status == 130
    assert "1 run of part 1 is left. To go on: ablate run" in stopped.err
    (split,) = splits_here()
    assert ablate("run", file, "--part", "1/3").status == 0
    ends = [json.loads(path.read_text().splitlines()[-1])["status"] for path in sorted(split.folder.glob("part-1.attempt-*.jsonl"))]
    assert ends == [130, 0]
    assert ablate("run", file, "--part", "1/3").status == 0
    told = [json.loads(line) for line in (split.folder / "part-1.attempt-3.jsonl").read_text().splitlines()]
    assert {line["run"] for line in told if line["kind"] == "run finished"} == set(split.shares[0])
    rest = ablate("run", file)
    assert rest.status == 0
    assert rest.epochs > 0
    assert {status for *_, status in statuses()} == {"FINISHED"}


def test_a_part_records_what_is_there_if_asked(ablate):
    """Whatever part has computed it."""
    file = write(ablate.folder, ladder={"baseline": {}, "cb": {"sampler": "class_balanced"}})
    assert ablate("run", file, "--part", "1/2").status == 0
    assert "1 of the 2 runs of tiny are recorded; once all parts" in ablate("run", file, "--part", "1/2", "--record").err
    second = ablate("run", file, "--part", "2/2", "--record")
    assert second.status == 0
    assert f"2 of the 2 runs of tiny are recorded; once all parts have ended, ablate run {file} records the rest" in second.err
    assert statuses() == [("baseline", 0, "FINISHED"), ("cb", 0, "FINISHED")]


def test_a_failure_of_a_part_is_no_record(ablate):
    """It is told, with status 1; the other arms of the part go on, and the whole run tries it again and records it."""
    file = write(ablate.folder, variants={"bad": {"optimizer": {"name": "sgd", "lr": 1e30}}})
    told = ablate("run", file, "--part", "1/1")
    assert told.status == 1
    assert "failed: bad seed 0: " in told.err
    assert ablate("run", file).status == 1
    assert statuses() == [("bad", 0, "FAILED"), ("baseline", 0, "FINISHED")]


def test_a_cancelled_split_does_not_stop_a_part_by_hand(ablate):
    """`ablate cancel` concerns jobs of a queue."""
    file = write(ablate.folder)
    assert ablate("run", file, "--part", "1/1", stop_after=1).status == 130
    splits_here()[0].ask_to_stop()
    assert ablate("run", file, "--part", "1/1").status == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--part", "0/3"], "error: --part: found '0/3'; expected one of so many parts, counted from 1, such as 3/8"),
        (["--part", "4/3"], "error: --part: found '4/3'; expected "),
        (["--part", "3"], "error: --part: found '3'; expected "),
        (["--part", ""], "error: --part: found ''; expected "),
        (["--part", "1/2", "--rerun", "force"], "error: --part: found --rerun force, which would delete what other parts have done"),
        (["--part", "1/2", "--executor", "slurm"], "error: --part: found it with --executor slurm"),
        (["--part", "1/2", "--detach"], "error: --detach: found it with --part"),
        (["--record"], "error: --record: found it without --part"),
        (["--detach"], "error: --detach: found it with --executor local, whose work ends with this command; expected slurm"),
        (["--executor", "slurm", "--budget", "1h"], "error: --budget: found it with jobs of a queue; expected their time limit"),
        (["--ray-address", "auto"], "error: --ray-address: found it with --executor local; expected --executor ray"),
        (["--part", "1/2", "--ray-address", "auto"], "error: --ray-address: found it with --executor local; expected --executor ray"),
        (["--executor", "slrm"], "error: --executor: unknown executor 'slrm'; expected one of local, ray, slurm. Did you mean 'slurm'?"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(ablate, words, expected):
    """Status 2, one line, and nothing is begun."""
    done = ablate("run", write(ablate.folder), *words)
    assert (done.status, done.epochs) == (2, 0)
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert line.startswith(expected)
    assert not (ablate.folder / "mlruns" / "stages").exists()


def test_a_plan_has_no_cluster_without_its_executor_either(ablate):
    """The same sentence as of `run`."""
    done = ablate("plan", write(ablate.folder), "--ray-address", "auto")
    assert (done.status, done.err) == (2, "error: --ray-address: found it with --executor local; expected --executor ray\n")


# --- jobs of a queue ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def queue(ablate, monkeypatch):
    """A Slurm of scripts, in which two jobs wait for ever; `ablate` has them on its PATH."""
    path = parts.command(ablate.folder, "sbatch", "echo 12")
    parts.command(ablate.folder, "squeue", "echo '12|1|RUNNING|None|ablate-tiny|x'; echo '12|2|PENDING|Resources|ablate-tiny|x'")
    parts.command(ablate.folder, "scancel", "exit 0")
    monkeypatch.setenv("PATH", path)
    write(ablate.folder, ladder=LADDER)
    (ablate.folder / "executors.yaml").write_text("lab: {kind: slurm, parts: 2, sbatch: {partition: gpu}}\n")
    return ablate


def test_detached_parts_are_shown_and_cancelled(queue):
    """Submitted once with the site's options; status says what runs and what waits; cancel ends the jobs."""
    first = queue("run", "tiny.yaml", "--device", "cpu", "--executor", "lab", "--detach")
    assert (first.status, first.epochs) == (0, 0)
    assert "2 parts of tiny submitted (job 12); ablate status shows them, ablate cancel ends them, and" in first.err
    assert "--partition=gpu" in parts.words(queue.folder, "sbatch")[0]
    again = queue("run", "tiny.yaml", "--device", "cpu", "--executor", "lab", "--detach")
    assert "all parts are at work already" in again.err
    assert len(parts.words(queue.folder, "sbatch")) == 1
    assert "tiny: job 12: 1 part (1) runs; 1 part (2) waits in the queue (Resources)" in queue("status").out
    parts.command(queue.folder, "scancel", "echo 'access denied' >&2; exit 1")
    refused = queue("cancel", "tiny.yaml")
    assert (refused.status, refused.out) == (2, "")
    assert "error: scancel did not end job 12: access denied" in refused.err
    (queue.folder / "scancel.words").unlink()
    parts.command(queue.folder, "scancel", "exit 0")
    assert "tiny: ended (job 12)" in queue("cancel", "tiny.yaml").out
    assert parts.words(queue.folder, "scancel") == ["12"]
    assert splits_here()[0].is_stopped
    parts.command(queue.folder, "squeue", "exit 0")
    assert "no job is waiting or running here" in queue("cancel").out
    shown = queue("status").out
    assert "tiny: its parts have ended (job 12), 0 of 3 runs computed; the same ablate run records what is there and goes on; " in shown


def test_jobs_compute_what_is_wanted_of_their_shares(queue, monkeypatch):
    """A later command that wants fewer runs, or for which some are recorded, uses the same split; what is at work stays wanted."""
    run = ("run", "tiny.yaml", "--device", "cpu", "--executor", "lab", "--detach")
    assert queue(*run).status == 0
    (split,) = splits_here()
    every = {key for keys in split.shares for key in keys}
    assert queue(*run, "--arm", "cb").status == 0
    assert split.wanted == every
    parts.command(queue.folder, "squeue", "exit 0")
    assert queue(*run, "--arm", "cb").status == 0
    assert splits_here() == [split]
    (script,) = split.folder.glob("job-*.sh")
    assert "--arm" not in script.read_text()
    (cb,) = split.wanted
    number = next(number for number, keys in enumerate(split.shares, 1) if cb in keys)
    monkeypatch.setenv(PART_SPLIT, str(split.folder))
    done = queue("run", "tiny.yaml", "--device", "cpu", "--part", f"{number}/2")
    assert (done.status, done.epochs) == (0, 2)
    assert [path.name for path in (queue.folder / "mlruns" / "results").iterdir()] == [cb]


def test_a_split_keeps_the_seeds_by_which_it_was_planned(queue):
    """Which its jobs are told, whichever command submits them."""
    run = ("run", "tiny.yaml", "--device", "cpu", "--executor", "lab", "--detach", "--seed", "5")
    assert queue(*run, "--seed", "6").status == 0
    parts.command(queue.folder, "squeue", "exit 0")
    (queue.folder / "sbatch.words").unlink()
    assert queue(*run).status == 0
    (split,) = splits_here()
    assert len(split.wanted) == len(LADDER)
    (script,) = split.folder.glob("job-*.sh")
    assert "--seed 5 --seed 6" in script.read_text()


def test_a_job_that_begins_again_and_again_in_vain_ends(queue, monkeypatch):
    """Its time limit comes before its first epoch, each time: it asks for itself no more, and whoever follows it is told why."""
    assert queue("run", "tiny.yaml", "--device", "cpu", "--executor", "lab", "--detach").status == 0
    (split,) = splits_here()
    for _ in range(5):
        log = PartLog(split.folder, 1)
        log.begin()
        log.end(130)
    monkeypatch.setenv(PART_SPLIT, str(split.folder))
    monkeypatch.setenv(RESTARTS, "5")
    refused = queue("run", "tiny.yaml", "--device", "cpu", "--part", "1/2")
    assert (refused.status, refused.epochs) == (2, 0)
    assert "error: part 1 was begun 5 times and had to end each time before anything new came of it; expected a longer time" in refused.err
    last = json.loads((split.folder / "part-1.attempt-6.jsonl").read_text().splitlines()[-1])
    assert last["status"] == 2
    assert "longer time limit" in last["why"]


def test_what_jobs_work_at_is_neither_deleted_nor_planned_anew(queue):
    """One sentence each: clean, --rerun force, a run here, another plan of the study; a queue that does not answer."""
    run = ("run", "tiny.yaml", "--device", "cpu", "--executor", "lab")
    assert queue(*run, "--detach").status == 0
    assert (
        "error: parts of tiny are at work (job 12), which ablate cancel ends; nothing was deleted" in queue("clean", "--all", "--yes").err
    )
    for words, why in (((*run, "--rerun", "force"), "would delete what they do"), (run[:4], "without --executor would train the same")):
        refused = queue(*words)
        assert (refused.status, refused.epochs) == (2, 0)
        assert f"error: parts of tiny are at work (job 12), and this command {why}; nothing was begun" in refused.err
    assert "error: parts of an earlier plan of tiny are at work (job 12), and nothing was submitted" in queue(*run, "--seed", "5").err
    parts.command(queue.folder, "squeue", "exit 1")
    for words in (("cancel",), run):
        assert "error: the queue does not answer, so nobody knows whether parts of tiny are at work (job 12)" in queue(*words).err
    assert "tiny: submitted as job 12; the queue does not answer" in queue("status").out
    assert len(parts.words(queue.folder, "sbatch")) == 1


def test_code_that_may_not_run_is_not_submitted(queue):
    """It is told here, and not by jobs once they begin; its program may be one that only the nodes have."""
    metrics = "metrics: {loss: {better: lower, from: 'loss {number}'}}"
    study = ["study: own", "task: {command: 'nowhere-here --seed {seed} {args}'}", metrics, "seeds: [0]", "base: {lr: 1}"]
    (queue.folder / "own.yaml").write_text("\n".join(study))
    (queue.folder / "model.py").write_text("")
    refused = queue("run", "own.yaml", "--executor", "lab", "--detach")
    assert refused.status == 2
    assert "error: task: runs code of its own" in refused.err
    assert not (queue.folder / "sbatch.words").exists()
    assert queue("run", "own.yaml", "--executor", "lab", "--detach", "--allow-code").status == 0


@pytest.mark.parametrize("interval", [CheckpointInterval(seconds=90.0), CheckpointInterval(epochs=5), CheckpointInterval()])
def test_a_part_is_given_what_the_command_was(tmp_path, interval):
    """All options that say what is computed and how, read back as they were; the site says what the command does not."""
    sets = (("optimizer.lr", 1e-3), ("mix", {"name": "mixup", "alpha": 0.4}), ("loss", "focal"), ("compile", True), ("average", None))
    options = Options(tmp_path / "a b.yaml", "quick", ("c*", "base"), (0, 3), sets, "cpu", 2, allow_code=True, checkpoint_interval=interval)
    words = part_words(options, SlurmSite(device="cuda", jobs=5))
    read = cli._options(cli.cli.commands["run"].make_context("run", [*words[1:], "--part", "2/3"]).params)
    assert read == replace(options, part=Part(2, 3))
    plain = part_words(Options(tmp_path / "a.yaml"), SlurmSite(device="cuda", jobs=5))
    assert plain[2:] == ["--device", "cuda", "--jobs", "5"]


def test_what_is_left_of_a_split_is_not_divided_anew(tmp_path, monkeypatch):
    """Its logs know who has failed; only where a new one would have more parts with something to do is it made."""
    monkeypatch.setattr(run_parts, "device_name", lambda device: "cpu")
    session = SimpleNamespace(devices=["cpu"], workspace=SimpleNamespace(parts=tmp_path / "parts"), options=Options(tmp_path / "a.yaml"))
    nodes = [parts.node(key) for key in "abcd"]
    runs = [parts.run(key, f"r{key}", key) for key in "abcd"]
    first = run_parts.split_of(parts.plan(nodes, runs), session, SlurmSite(parts=4))
    monkeypatch.setattr(run_parts, "is_alive", lambda split: False)
    assert run_parts.split_of(parts.plan(nodes, runs[:1]), session, SlurmSite(parts=4)) != first
    first.note_job({"kind": "slurm"}, "12", [1, 2, 3, 4])
    assert run_parts.split_of(parts.plan(nodes, runs[:1]), session, SlurmSite(parts=4)) == first
    few = run_parts.split_of(parts.plan(nodes, runs[:2]), session, SlurmSite(parts=1))
    assert few == first
    many = [*runs, parts.run("e", "re", "e")]
    assert run_parts.split_of(parts.plan([*nodes, parts.node("e")], many), session, SlurmSite(parts=4)) != first


def test_a_run_that_was_killed_is_recorded_as_failed():
    """The same command tries it again: what its part's log told of it before is known. The newest record counts."""
    tags = {"ablation.kind": "run", "ablation.key": "r1"}
    known = [{"status": status, "end": end, "tags": tags} for status, end in (("KILLED", 9000), ("FAILED", 4000))]
    assert run_parts.failed_before(known) == {"r1": 9.0}
    assert run_parts.failed_before([{**known[0], "status": "FINISHED"}]) == {}


@pytest.mark.parametrize(("is_given_up", "is_stopped", "status"), [(True, False, 1), (False, False, 130), (True, True, 130)])
def test_parts_that_are_given_up_are_a_failure(is_given_up, is_stopped, status):
    """Nobody interrupted them; both say how to go on."""
    plan = parts.three_runs()
    session, told = SimpleNamespace(task=plan.study.task), []
    session.tell = told.append
    outcome = Outcome(left=plan.runs, why="part 1 did not begin: no such module", is_given_up=is_given_up)
    plan.seeds = []
    assert print_outcome(plan, outcome, is_stopped, session, None) == status
    why = "stopped" if is_stopped else "part 1 did not begin: no such module"
    assert told[0].startswith(f"{why}; 3 runs are left. To go on: ")


def test_the_logs_of_what_is_computed_again_are_forgotten(tmp_path):
    """Else its epochs would count for none that are new; a split of other runs stays."""
    whole = parts.three_runs()
    one = parts.plan(list(whole.nodes.values()), whole.runs[2:])
    made = [pinning.pinned(tmp_path, plan, 2, "cpu") for plan in (one, whole)]
    run_parts.forget_splits(parts.plan(list(whole.nodes.values()), whole.runs[:1]), tmp_path)
    assert splits(tmp_path) == made[:1]


def test_the_plan_counts_the_parts_of_a_site(queue):
    """As many at once as its parts have together."""
    assert "with 6 at once" in queue("plan", "tiny.yaml", "--device", "cpu", "--executor", "lab", "--jobs", "3").out


def test_the_device_there_may_be_another_than_here(queue):
    """A login node has no GPU: keys and precision are those of the site's device."""
    site = 'far: {parts: 2, device_name: "cuda NVIDIA H100", capability: "9.0"}\n'
    (queue.folder / "executors.yaml").write_text(site)
    here = queue("plan", "tiny.yaml", "--device", "cpu", "--json")
    there = queue("plan", "tiny.yaml", "--executor", "far", "--json")
    keys = [{run["key"] for run in json.loads(plan.out)["runs"]} for plan in (here, there)]
    assert not keys[0] & keys[1]
    for device in ("cpu", "cuda:0", "nonsense"):
        told = f"--device: found {device!r}, but the site's device_name is 'cuda NVIDIA H100'; expected cuda or auto"
        assert (told in queue("plan", "tiny.yaml", "--executor", "far", "--device", device).err) == (device != "cuda:0")


@pytest.mark.parametrize(("age", "ahead", "is_shown"), [(5, 0, True), (5, 600, True), (300, 0, False), (300, 300, False)])
def test_a_part_on_another_host_is_running_while_it_says_so(ablate, age, ahead, is_shown):
    """Its lock cannot be seen here; what it wrote within a minute can, whatever its own clock says."""
    status = ablate.folder / "mlruns" / "status" / "tiny.part-1-of-2.json"
    status.parent.mkdir()
    about = {"state": "running", "pid": 7, "host": f"not-{socket.gethostname()}", "time": time.time() - age + ahead, "headline": "1/2 runs"}
    status.write_text(json.dumps(about))
    os.utime(status, (time.time() - age,) * 2)
    shown = ablate("status").out
    assert (f"tiny.part-1-of-2: running (pid 7 on not-{socket.gethostname()})" in shown) == is_shown
    refused = ablate("clean", "--all", "--yes").err
    assert ("tiny.part-1-of-2 is being run; nothing was deleted" in refused) == is_shown


def test_clean_deletes_splits_of_which_nothing_is_left(ablate):
    """Those of earlier plans; one with runs that are to be computed stays, unless all is to go."""
    file = write(ablate.folder, ladder=LADDER)
    assert ablate("run", file, stop_after=1).status == 130
    assert ablate("run", file, "--part", "1/2", stop_after=1).status == 130
    ablate("clean", "--yes")
    assert len(splits_here()) == 1
    ablate("clean", "--all", "--yes")
    assert splits_here() == []
