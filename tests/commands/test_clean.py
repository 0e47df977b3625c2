"""`ablate clean`: what it would delete is told, asked for, and then deleted."""

import shutil

import pytest

from ablation.commands import clean as command
from ablation.tracking.recorded import SUPERSEDED
from ablation.tracking.store import Store
from tests import recorded
from tests.tiny import write


@pytest.fixture(scope="module")
def made_once(tmp_path_factory, empty_database):
    """A folder with a finished study and an unfinished one."""
    folder = tmp_path_factory.mktemp("two")
    recorded.record(folder, empty_database, seeds=[0])
    other = write(folder, "other", base={"epochs": 3, "batch_size": 16}, variants={"cb": {"sampler": "class_balanced"}})
    assert recorded.run(other, stop_after=4) == 130
    return folder


@pytest.fixture
def two_studies(ablate, made_once):
    """`ablate` in a copy of that folder."""
    recorded.copied(made_once, ablate.folder)
    return ablate


def folders(ablate, kind):
    return {path.name for path in (ablate.folder / "mlruns" / kind).glob("*")}


def test_it_says_what_it_would_delete_and_leaves_it_without_a_terminal(two_studies):
    """Where nobody can be asked it is told, with how much, of which study, and how to do it; status 2, and all stays."""
    before = folders(two_studies, "stages"), folders(two_studies, "results")
    told = two_studies("clean")
    assert told.status == 2
    lines = told.err.splitlines()
    assert lines[0].startswith(f"to delete in {two_studies.folder / 'mlruns'}, ")
    assert [line.split(",")[0] for line in lines[1:-1]] == [
        "  other: 1 trained stage and 1 computed result",
        "  tiny: 1 trained stage and 1 computed result",
    ]
    assert lines[-1] == "error: nothing was deleted, since there is no terminal to ask at; the same command with --yes deletes it"
    assert (folders(two_studies, "stages"), folders(two_studies, "results")) == before


@pytest.mark.parametrize("answer", [False, True])
def test_it_asks_at_a_terminal(two_studies, monkeypatch, answer):
    """The answer decides; what is unfinished stays in either case."""
    monkeypatch.setattr(command, "_is_confirmed", lambda console: answer)
    done = two_studies("clean")
    assert done.status == 0
    assert ("nothing was deleted" in done.err) == (not answer)
    assert len(folders(two_studies, "stages")) == (1 if answer else 3)
    assert two_studies("run", two_studies.folder / "other.yaml").epochs == 2


def test_only_what_was_shown_is_deleted(two_studies, monkeypatch):
    """What becomes deletable while the question stands stays, and what is gone by then is not counted."""
    results = two_studies.folder / "mlruns" / "results"
    shown = sorted(results.iterdir())

    def answer(console):
        shutil.rmtree(shown[0])
        (results / "late.part").mkdir()
        return True

    monkeypatch.setattr(command, "_is_confirmed", answer)
    done = two_studies("clean")
    assert done.status == 0
    assert "deleted 3 folders, " in done.err  # two stages, and one of two results
    assert folders(two_studies, "results") == {"late.part"}


def test_stages_that_a_study_elsewhere_may_need_stay(two_studies, monkeypatch):
    """One that ran here, and whose plan is in another store, is told; what it may need goes with --all."""
    before = folders(two_studies, "stages")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{two_studies.folder}/other.db")
    kept = two_studies("clean", "--yes")
    assert (kept.status, folders(two_studies, "stages")) == (0, before)
    told = "other and tiny ran here, and their newest plans are not in the store: stages that they may need stay; --all deletes them\n"
    assert kept.err.startswith(told)
    assert two_studies("clean", "--all", "--yes").status == 0
    assert folders(two_studies, "stages") == set()


def test_a_study_that_moved_to_a_server_is_not_judged_by_its_old_plan(two_studies, monkeypatch):
    """Its newest plan is in the store of the last run: in a shell without the address its stages stay, and --all deletes them."""
    server = f"sqlite:///{two_studies.folder}/server.db"
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server)
        assert two_studies("run", two_studies.folder / "tiny.yaml", "--set", "epochs=2").status == 0
    assert two_studies("run", two_studies.folder / "other.yaml").status == 0
    stages, results = folders(two_studies, "stages"), folders(two_studies, "results")
    told = "tiny ran here, and its newest plan is not in the store: stages that it may need stay; --all deletes them"
    for words in (("--file", "tiny.yaml"), ()):
        kept = two_studies("clean", *words, "--yes")
        assert (kept.status, told in kept.err) == (0, True)
    planned = {stage["key"] for stage in Store.open().recorded("other").plan["stages"]}
    assert folders(two_studies, "stages") == stages - planned
    assert len(results - folders(two_studies, "results")) == 2  # of the other study
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server)
        assert "tiny ran here" not in two_studies("clean").err
    assert two_studies("clean", "--all", "--yes").status == 0
    assert folders(two_studies, "stages") == set()


def test_what_cannot_be_deleted_is_told(two_studies, monkeypatch):
    """Such as folders of another user: how many are left, and the first of them; status 1."""
    rmtree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda path, **options: rmtree(path, **options) if path.parent.name == "results" else None)
    stages = folders(two_studies, "stages")
    done = two_studies("clean", "--yes")
    first = two_studies.folder / "mlruns" / "stages"
    assert done.status == 1
    assert "deleted 2 folders, " in done.err
    assert f"2 folders could not be deleted, the first {first}/" in done.err
    assert folders(two_studies, "stages") == stages


def test_the_last_copy_of_a_result_stays(two_studies):
    """Where the files of recorded runs are gone from the store, which are recorded again from what lies here."""
    results = folders(two_studies, "results")
    for path in list((two_studies.folder / "mlruns" / "artifacts").rglob("config.yaml")):
        shutil.rmtree(path.parent)
    assert two_studies("clean", "--yes").status == 0
    assert folders(two_studies, "results") == results


def test_a_result_that_another_arm_has_not_recorded_yet_stays(ablate):
    """Two arms that are one training have one result; what is killed between the records finds it."""
    assert ablate("run", write(ablate.folder, base={"epochs": 1}, variants={"same": {"precision": "fp32"}})).status == 0
    (key,), store = folders(ablate, "results"), Store.open()
    second = next(run for run in store.runs_of("tiny") if run["tags"].get("ablation.arm") == "same")
    for status, left in (("KILLED", {key}), ("FINISHED", set())):
        store.client.set_terminated(second["run_id"], status)
        assert ablate("clean", "--yes").status == 0
        assert folders(ablate, "results") == left


@pytest.mark.parametrize("words", [(), ("--file", "first.yaml"), ("--file", "first.yaml", "--all")])
def test_a_result_that_another_study_has_not_recorded_yet_stays(ablate, words):
    """Studies that train the same share the results; that of one which is recorded goes once the other has recorded it too."""
    for name in ("first", "second"):
        assert ablate("run", write(ablate.folder, name, base={"epochs": 1})).status == 0
    (key,), store = folders(ablate, "results"), Store.open()
    (second,) = [run for run in store.runs_of("second") if run["tags"]["ablation.kind"] == "run"]
    for status, left in (("KILLED", {key}), ("FINISHED", set())):
        store.client.set_terminated(second["run_id"], status)
        assert ablate("clean", *words, "--yes").status == 0
        assert folders(ablate, "results") == left


def test_a_result_of_a_part_that_is_not_recorded_yet_stays(ablate):
    """Of a study that the store does not know yet, the shares of its parts tell what is theirs, whoever has recorded it too."""
    assert ablate("run", write(ablate.folder, "other", base={"epochs": 1}), "--part", "1/1").epochs == 1
    assert ablate("run", write(ablate.folder, base={"epochs": 1})).epochs == 0
    results = folders(ablate, "results")
    assert ablate("clean", "--yes").status == 0
    assert folders(ablate, "results") == results


def test_only_one_study(two_studies):
    """With a file only that study's folders go, and with --all its unfinished ones too; another's and the decoded data stay."""
    stages = folders(two_studies, "stages")
    assert two_studies("clean", "--file", "other.yaml", "--yes").status == 0
    assert len(stages - folders(two_studies, "stages")) == 1
    assert two_studies("clean", "--file", "other.yaml", "--all", "--yes").status == 0
    assert len(folders(two_studies, "stages")) == 1
    assert folders(two_studies, "data")
    assert two_studies("clean", "--file", "other.yaml", "--all", "--yes").err == "nothing to delete\n"
    assert len(folders(two_studies, "results")) == 1


def test_all_of_all_studies(two_studies):
    """Without a file --all deletes unfinished work and decoded data, and names them."""
    done = two_studies("clean", "--all", "--yes")
    assert "  decoded data, which all studies share: " in done.err
    assert [folders(two_studies, kind) for kind in ("stages", "results", "data")] == [set(), set(), set()]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--file", "s.zip"], "--file: found s.zip; expected the study's file, since a zip has no folders to clean"),
        (["--file", "nowhere.yaml"], "nowhere.yaml"),
        (["--file", "tiny.yaml", "--profile", "x"], "unknown profile 'x'"),
    ],
)
def test_a_study_that_is_not_there(two_studies, words, problem):
    """Which study is meant is told as by every command."""
    refused = two_studies("clean", *words)
    assert (refused.status, problem in refused.err) == (2, True)


def test_what_was_forced_and_is_not_recorded_yet_stays(two_studies):
    """Its earlier record counts no more: what lies in the folders is all that there is of it."""
    store = Store.open()
    forced = [run for run in store.runs_of("tiny") if run["tags"]["ablation.kind"] == "run"]
    for run in forced:
        store.write(run["run_id"], tags={SUPERSEDED: "yes"})
    keys = {run["tags"]["ablation.key"] for run in forced}
    before = folders(two_studies, "stages")
    assert keys <= folders(two_studies, "results")
    assert two_studies("clean", "--yes").status == 0
    assert keys <= folders(two_studies, "results")
    assert folders(two_studies, "stages") >= {stage["key"] for stage in store.recorded("tiny").plan["stages"]} & before
