"""Any batch system, by the commands of a site: scripts stand in for those of PBS and LSF, with what these print."""

import re
from pathlib import Path

import pytest
import yaml

from ablation.errors import AblateError
from ablation.running.executors.engines import end_jobs, engine_of_site, engine_of_split, is_alive
from ablation.running.executors.sites import find_site
from ablation.running.parts.engine import State
from tests import parts

DOCUMENT = Path(__file__).parents[3] / "docs" / "cluster.md"


@pytest.fixture
def split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", parts.command(tmp_path, "true", "exit 0"))
    return parts.split_of(tmp_path, [["r1"], ["r2"], ["r3"]])


def engine(split, name, **more):
    """The engine of a site as the documents give it."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    settings = next(yaml.safe_load(block)[name] for block in blocks if f"{name}:" in block and "kind: batch" in block)
    Path("executors.yaml").write_text(yaml.safe_dump({name: settings | more}))
    return engine_of_site(find_site(name, Path("study.yaml")), ["run", "tiny.yaml"], split)


def test_pbs(tmp_path, split):
    """One array; its id is what qsub prints, and qstat knows it until it has ended."""
    parts.command(tmp_path, "qsub", "echo '1234[].server'")
    pbs = engine(split, "pbs")
    assert pbs.submit([1, 2, 3]) == "1234[].server"
    (words,) = parts.words(tmp_path, "qsub")
    assert "-J 1-3" in words
    assert 'part="$PBS_ARRAY_INDEX"' in Path(words.split()[-1]).read_text()
    parts.command(tmp_path, "qstat", "echo '1234[].server  ablate-tiny  me  0 B gpu'")
    assert {key: one.state for key, one in pbs.states({"1234[].server"}).items()} == {
        ("1234[].server", part): State.RUNNING for part in (1, 2, 3)
    }
    for ended in (
        "Unknown Job Id 1234[].server",
        "1234[].server Job has finished, use -x",
        "Following jobs do not exist: 1234",
        "no such job",
    ):
        parts.command(tmp_path, "qstat", f"echo 'qstat: {ended}' >&2; exit 153")
        assert pbs.states({"1234[].server"}) == {}
    parts.command(tmp_path, "qstat", "echo 'Connection refused, qstat: cannot connect to server' >&2; exit 255")
    assert pbs.states({"1234[].server"}) is None
    parts.command(tmp_path, "qdel", "exit 0")
    pbs.cancel({"1234[].server"})
    assert parts.words(tmp_path, "qdel")[0].endswith("1234[].server")


def test_an_array_has_the_parts_that_were_submitted_with_it(tmp_path, split):
    """The others are in no job of it, whatever the queue lists."""
    parts.command(tmp_path, "qsub", "echo '12[].server'")
    parts.command(tmp_path, "qstat", "echo '12[].server  ablate-tiny  me  0 B gpu'")
    pbs = engine(split, "pbs")
    split.note_job(pbs.about, pbs.submit([3]), [3])
    assert set(pbs.states({"12[].server"})) == {("12[].server", 3)}


def test_lsf(tmp_path, split):
    """bsub prints a sentence; bjobs says DONE and EXIT of what has ended."""
    parts.command(tmp_path, "bsub", "echo 'Job <77> is submitted to default queue <gpu>.'")
    lsf = engine(split, "lsf")
    assert lsf.submit([1, 3]) == "77"
    (words,) = parts.words(tmp_path, "bsub")
    assert "ablate-tiny[1,3]" in words
    parts.command(tmp_path, "bjobs", "echo '77 me DONE gpu a b ablate-tiny[1]'; echo '77 me PEND gpu a - ablate-tiny[3]'")
    assert lsf.states({"77"})["77", 3].state is State.RUNNING
    parts.command(tmp_path, "bjobs", "echo '77 me DONE gpu'; echo '77 me EXIT gpu'; echo '177 me RUN gpu'")
    assert lsf.states({"77"}) == {}


def test_a_queue_without_arrays(tmp_path, split):
    """A job for each part, with the part in its script; all of them are one submission."""
    parts.command(tmp_path, "qsub", 'n=$(cat n 2>/dev/null); echo $((n + 1)) > n; echo "$((n + 1)).server"')
    parts.command(tmp_path, "qstat", 'case "$*" in *1.server) echo "1.server R" ;; *) exit 0 ;; esac')
    parts.command(tmp_path, "qdel", "exit 0")
    pbs = engine(split, "pbs", takes_many=False, submit="qsub -o {output} {script}")
    job = pbs.submit([1, 3])
    assert job == "1=1.server 3=2.server"
    scripts = [Path(words.split()[-1]).read_text() for words in parts.words(tmp_path, "qsub")]
    assert [f"export ABLATE_PART={part}\n" in text for part, text in zip((1, 3), scripts, strict=True)] == [True, True]
    assert set(pbs.states({job})) == {(job, 1)}
    split.note_job(pbs.about, job, [1, 3])
    engine_of_split(split).cancel({job})
    assert [words.split()[-1] for words in parts.words(tmp_path, "qdel")] == ["1.server", "2.server"]


def test_what_is_refused_is_told(tmp_path, split):
    """In the queue's words; a command that is not there by its field."""
    parts.command(tmp_path, "qsub", "echo 'qsub: Unknown queue' >&2; exit 1")
    with pytest.raises(AblateError, match="the queue refused the parts: qsub: Unknown queue"):
        engine(split, "pbs").submit([1])
    with pytest.raises(AblateError, match=r"found no command nosub here; expected the command that executors\.yaml names under submit"):
        engine(split, "pbs", submit="nosub {script}").submit([1])


def test_the_commands_of_a_folder_that_somebody_sent_are_not_carried_out(tmp_path, split):
    """Only those with which this user has submitted something, from whatever folder."""
    parts.command(tmp_path, "evil", "exit 0")
    split.note_job({"kind": "batch", "list": "evil {job}", "cancel": "evil {job}"}, "12", [1])
    for look in (is_alive, end_jobs):
        with pytest.raises(AblateError, match=r"a queue that you have not used yet \(evil \{job\}\), and none of them was carried out"):
            look(split)
    assert parts.words(tmp_path, "evil") == []
    engine(split, "pbs", list="evil {job}", cancel="evil {job}")
    assert not is_alive(split)
    assert len(parts.words(tmp_path, "evil")) == 1


def test_what_cannot_be_submitted_leaves_nothing_behind(tmp_path, split):
    """The second of two jobs is refused: the first, which no folder names yet, is ended."""
    parts.command(tmp_path, "qsub", 'case "$*" in *part-1*) echo 1.server ;; *) echo "no such queue" >&2; exit 1 ;; esac')
    parts.command(tmp_path, "qdel", "exit 0")
    with pytest.raises(AblateError, match="the queue refused the parts: no such queue"):
        engine(split, "pbs", takes_many=False, submit="qsub -o {output} {script}").submit([1, 2])
    assert [words.split()[-1] for words in parts.words(tmp_path, "qdel")] == ["1.server"]


def test_a_job_without_an_id_is_told(tmp_path, split):
    """It may be there, and nobody could ask for it."""
    parts.command(tmp_path, "qsub", "exit 0")
    with pytest.raises(AblateError, match="submit printed no id"):
        engine(split, "pbs").submit([1, 2])


def test_a_program_that_is_not_there_is_no_answer(tmp_path, split):
    """As through ssh where the PATH lacks it: no job is taken for ended, and none for cancelled."""
    pbs = engine(split, "pbs")
    for line in ("echo 'bash: qstat: command not found' >&2; exit 127", "echo 'bash: line 1: qstat: command not found' >&2; exit 1"):
        parts.command(tmp_path, "qstat", line)
        assert pbs.states({"12"}) is None
    parts.command(tmp_path, "qstat", "echo 'qstat: 12 not found' >&2; exit 153")
    assert pbs.states({"12"}) == {}
    parts.command(tmp_path, "qdel", "echo 'bash: qdel: command not found' >&2; exit 127")
    with pytest.raises(AblateError, match="the queue did not end job 12"):
        pbs.cancel({"12"})
