"""What is asked of Slurm, by its commands: scripts of those names stand in for them here; tests/engines has the real ones."""

from dataclasses import replace

import pytest

from ablation.errors import AblateError
from ablation.running.executors.engines import end_jobs, engine_of_site, engine_of_split, is_alive, job_ids
from ablation.running.executors.sites import SlurmSite
from ablation.running.executors.slurm import SlurmEngine
from ablation.running.parts.engine import State
from ablation.running.parts.script import begin_of_scripts
from tests import parts


@pytest.fixture
def split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", parts.command(tmp_path, "sbatch", "echo '12;cluster'"))
    parts.command(tmp_path, "scancel", "exit 0")
    return parts.split_of(tmp_path, [["r1"], ["r2"], ["r3"]])


def script_of(split):
    """The path of a script, as squeue prints it."""
    return f"{split.folder}/{begin_of_scripts(split)}0a1b2c3d.sh"


def engine(split, **sbatch):
    return engine_of_site(SlurmSite(sbatch=sbatch), ["run", "tiny.yaml"], split)


def test_parts_are_one_array(tmp_path, split):
    """With the site's options over ours, in Slurm's spelling; the id is without the cluster."""
    options = {"partition": "gpu", "gres": "gpu:1", "exclusive": True, "requeue": False, "cpus_per_task": 4}
    assert engine(split, **options).submit([1, 2, 3]) == "12"
    (words,) = parts.words(tmp_path, "sbatch")
    assert words.startswith("--parsable --job-name=ablate-tiny ")
    expected = ["--partition=gpu", "--gres=gpu:1", "--exclusive", "--cpus-per-task=4", "--signal=B:USR1@60", "--open-mode=append"]
    assert all(f" {one} " in words for one in expected)
    assert "--requeue" not in words
    assert f" --output={split.folder}/part-%a.out " in words
    assert words.split()[-2] == "--array=1-3"
    text = (split.folder / words.split()[-1]).read_text()
    assert '-m ablation run tiny.yaml --part "$part/3" &' in text
    assert 'part="$SLURM_ARRAY_TASK_ID"' in text
    assert 'export ABLATE_RESTARTS="${SLURM_RESTART_COUNT:-0}"' in text


def test_some_parts_alone(tmp_path, split):
    """Those that lacked memory, with one run at once."""
    engine(split).submit([1, 3], alone=True)
    (words,) = parts.words(tmp_path, "sbatch")
    assert words.split()[-2] == "--array=1,3"
    assert '-m ablation run tiny.yaml --jobs 1 --part "$part/3" &' in (split.folder / words.split()[-1]).read_text()


def test_what_is_refused_is_told(tmp_path, split, monkeypatch):
    """In Slurm's words."""
    parts.command(tmp_path, "sbatch", "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    with pytest.raises(AblateError, match="sbatch refused the parts, and nothing was submitted: sbatch: error: invalid partition"):
        engine(split).submit([1])
    parts.command(tmp_path, "sbatch", "echo 'sbatch: error: Batch job submission failed: Invalid job array specification' >&2; exit 1")
    with pytest.raises(AblateError, match=r"Invalid job array specification; MaxArraySize of scontrol show config is how many parts"):
        engine(split).submit([1])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AblateError, match="found no command sbatch here; expected Slurm's commands, as on a cluster's login node"):
        engine(split).submit([1])


def test_states_of_all_jobs_by_one_question(tmp_path, split):
    """Only of jobs that are ours; what is lost is told from what was cancelled, and from what ended for lack of memory."""
    script = f"ablate-tiny|{script_of(split)}"
    rows = [
        "12|1|RUNNING|None",
        "12|2|PENDING|Resources",
        "12|3|PENDING|None",
        "13|1|NODE_FAIL|None",
        "13|2|CANCELLED|None",
        "13|3|OUT_OF_MEMORY|OutOfMemory",
        "14|1|FAILED|NonZeroExitCode",
        "14|2|TIMEOUT|TimeLimit",
        "16|N/A|RUNNING|None",
    ]
    other = replace(split, folder=split.folder.parent / "def-2")
    others = [f"15|1|RUNNING|None|ablate-tiny|{script_of(other)}", "12|4|RUNNING|None|mine|/home/me/train.sh"]
    parts.command(tmp_path, "squeue", "\n".join(f"echo '{row}'" for row in [*(f"{row}|{script}" for row in rows), *others]))
    states = engine(split).states({"12", "13", "14", "16"})
    assert {key: (one.state, one.reason) for key, one in states.items()} == {
        ("12", 1): (State.RUNNING, ""),
        ("12", 2): (State.WAITING, "Resources"),
        ("12", 3): (State.WAITING, ""),
        ("13", 1): (State.LOST, "node fail"),
        ("13", 2): (State.CANCELLED, "cancelled"),
        ("13", 3): (State.NO_MEMORY, "out of memory"),
        ("14", 1): (State.ENDED, "failed"),
        ("14", 2): (State.ENDED, "timeout"),
    }
    assert parts.words(tmp_path, "squeue") == ["--me --noheader --array --states=all --format=%F|%K|%T|%r|%j|%o"]


def test_a_job_is_known_by_its_script(tmp_path, split):
    """Of whatever id and name, in a folder of any name; by its id only if it has our name too: a controller may give ids anew."""
    rows = [
        f"21|1|RUNNING|None|named|/other/mount/a|b/{split.folder.name}{script_of(split).partition('/parts')[2]}",
        "12|2|RUNNING|None|ablate-tiny|/var/spool/copy",
        "12|3|RUNNING|None|train|/home/me/train.sh",
        "22|2|RUNNING|None|ablate-tiny|/var/spool/copy",
    ]
    parts.command(tmp_path, "squeue", "\n".join(f"echo '{row}'" for row in rows))
    states = engine(split).states({"12"})
    assert states is not None
    assert set(states) == {("21", 1), ("12", 2)}


def test_jobs_of_another_copy_of_the_project_are_not_ours(tmp_path, split):
    """It has the same runs, so that its split has the same name; a split that was begun anew is told from the old one alike."""
    copy = replace(split, folder=tmp_path / "copy" / split.folder.relative_to(tmp_path), created=1.0)
    copy.folder.mkdir(parents=True)
    engine(copy).submit([1])
    path = parts.words(tmp_path, "sbatch")[0].split()[-1]
    parts.command(tmp_path, "squeue", f"echo '22|1|RUNNING|None|ablate-tiny|{path}'")
    assert set(engine(copy).states({"22"})) == {("22", 1)}
    assert engine(split).states({"12"}) == {}


def test_the_id_stands_on_a_line_of_its_own(tmp_path, split):
    """Whatever else a site's own sbatch prints; without any id it is told."""
    parts.command(tmp_path, "sbatch", "echo '--> Welcome 2024'; echo '34;hpc'; echo")
    assert engine(split).submit([1]) == "34"
    parts.command(tmp_path, "sbatch", "echo 'thank you'")
    with pytest.raises(AblateError, match="sbatch printed no job's id, but: thank you; squeue shows whether it has a job ablate-tiny"):
        engine(split).submit([1])


def test_a_folder_with_a_percent_sign(tmp_path, split):
    """Slurm takes `%j` in the name of the output for a number."""
    folder = tmp_path / "100%j" / "mlruns"
    moved = replace(split, folder=folder / "parts" / "tiny" / "abc-2")
    moved.folder.mkdir(parents=True)
    engine(moved).submit([1])
    assert f" --output={tmp_path}/100%%j/mlruns/parts/tiny/abc-2/part-%a.out " in parts.words(tmp_path, "sbatch")[0]


def test_a_queue_that_fails_does_not_answer(tmp_path, split, monkeypatch):
    """Nor does one that hangs."""
    parts.command(tmp_path, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert engine(split).states({"12"}) is None
    parts.command(tmp_path, "squeue", "exec sleep 20")
    monkeypatch.setattr("ablation.running.executors.queue_commands.PATIENCE", 0.2)
    assert engine(split).states({"12"}) is None
    split.note_job(engine(split).about, "12", [1])
    with pytest.raises(AblateError, match=r"the queue does not answer, so nobody knows whether parts of tiny are at work \(job 12\)"):
        is_alive(split)


def test_to_stop_and_to_cancel(tmp_path, split):
    """What runs is warned, what waits is taken out; or all ends at once."""
    engine(split).stop({"12"})
    engine(split).cancel({"12", "13"})
    engine(split).cancel(())
    assert parts.words(tmp_path, "scancel") == ["--state=PENDING 12", "--batch --signal=USR1 12", "12 13"]


def test_another_process_finds_the_engine(tmp_path, split):
    """By the folder alone: it can look on and end, on any host that has Slurm's commands."""
    assert engine_of_split(split) is None
    assert not is_alive(split)
    split.note_job(engine(split).about, "12", [1, 2])
    split.note_job(engine(split).about, "15", [2])
    assert job_ids(split) == {"12", "15"}
    found = engine_of_split(split)
    assert isinstance(found, SlurmEngine)
    for word, is_it in (("COMPLETED", False), ("RUNNING", True)):
        parts.command(tmp_path, "squeue", f"echo '12|1|{word}|None|ablate-tiny|{script_of(split)}'")
        assert is_alive(split) == is_it
    assert end_jobs(split) == {"12"}
    assert parts.words(tmp_path, "scancel") == ["12"]
    parts.command(tmp_path, "scancel", "echo 'scancel: error: Access denied' >&2; exit 1")
    with pytest.raises(AblateError, match="scancel did not end job 12: scancel: error: Access denied"):
        end_jobs(split)


def test_jobs_are_ended_where_the_folder_cannot_be_written(tmp_path, split, monkeypatch):
    """As with a quota that is used up; without a job that could be ended it is told."""
    monkeypatch.setattr("pathlib.Path.touch", lambda *_, **__: (_ for _ in ()).throw(OSError(122, "Disk quota exceeded")))
    split.note_job(engine(split).about, "12", [1, 2])
    parts.command(tmp_path, "squeue", f"echo '12|1|RUNNING|None|ablate-tiny|{script_of(split)}'")
    assert end_jobs(split) == {"12"}
    assert parts.words(tmp_path, "scancel") == ["12"]
    parts.command(tmp_path, "squeue", "exit 0")
    with pytest.raises(AblateError, match=r"stop could not be written: "):
        end_jobs(split)
