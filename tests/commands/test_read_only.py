"""The commands that look: which study they take, and what they print of two arms."""

import pytest

from ablation.commands.export import pack
from ablation.commands.recorded import done_row, open_recorded
from ablation.errors import AblateError, ConfigError
from ablation.report.frames.packed import Packed
from ablation.tracking.recorded import Recorded
from tests.recorded import record
from tests.tiny import write

ARMS = {"ladder": {"baseline": {}, "cb": {"sampler": "class_balanced"}}, "profiles": {"short": {"base": {"epochs": 1}}}}


@pytest.fixture(scope="module")
def study(tmp_path_factory, empty_database):
    """The folder of a recorded study and its profile, which no test changes; the profile was run last."""
    folder = tmp_path_factory.mktemp("looked")
    record(folder, empty_database, seeds=[0, 1], base={"epochs": 1}, **ARMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        pack(folder / "study.zip", folder / "tiny.yaml", None)
    return folder


@pytest.fixture
def looked(study, ablate, monkeypatch):
    """`ablate` in that folder."""
    monkeypatch.chdir(study)
    return ablate


def test_a_study_is_found_by_its_file_its_zip_or_its_date(looked, study):
    """Without a file the study that was run last is taken, with a zip the one in it."""
    for file in (None, study / "tiny.yaml"):
        recorded = open_recorded(file, None)
        assert isinstance(recorded, Recorded)
        assert recorded.study == "tiny"
    read = open_recorded(study / "study.zip", None)
    assert isinstance(read, Packed)
    assert read.study == "tiny"


@pytest.mark.parametrize(
    ("file", "profile", "problem"),
    [
        ("study.zip", "short", "a zip holds one study"),
        ("nowhere.zip", None, "there is no file nowhere.zip"),
        ("tiny.yaml", "shrt", "Did you mean 'short'"),
        ("tiny.yaml", "short", "has no study 'tiny.short'"),
        (None, "short", "has no study 'tiny.short'"),
    ],
)
def test_a_study_that_is_not_there_is_told(looked, study, file, profile, problem):
    """A zip with a profile, a missing file, an unknown profile and one that never ran are each one sentence."""
    from pathlib import Path

    with pytest.raises(AblateError) as error:
        open_recorded(Path(file) if file else None, profile)
    assert problem in str(error.value)


def test_an_empty_store_is_told(ablate):
    """Where nothing was run there is nothing to compare."""
    done = ablate("compare", "a", "b")
    assert done.status == 2
    assert "holds no study yet" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["report"],
        ["report", "--check", "report.md"],
        ["status"],
        ["log", "a", 0],
        ["show", "a"],
        ["compare", "a", "b"],
        ["verify", "a", 0],
        ["export", "a", "out"],
        ["pack", "s.zip"],
    ],
)
def test_looking_makes_nothing(ablate, tmp_path, monkeypatch, words):
    """Where nothing was run a command that only looks is status 2 with one sentence, and leaves the folder empty."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    done = ablate(*words)
    assert done.status == 2
    assert len(done.err.splitlines()) == 1
    assert not list(empty.iterdir())


def test_a_folder_without_a_store_is_clean(ablate, tmp_path, monkeypatch):
    """There is nothing to delete where nothing was run, and nothing is made for it."""
    monkeypatch.chdir(tmp_path / "mlruns")
    assert ablate("clean").status == 0
    assert not (tmp_path / "mlruns" / "mlruns").exists()


def test_compare_prints_every_part(looked, study):
    """Settings, results, classes, images and runs are printed as plain tables, from the store as from the zip."""
    done = looked("compare", "baseline", "cb")
    assert done.status == 0, done.err
    titles = ["Settings that differ", "Results, paired by seed", "Recall by class, paired by seed", "Test images gained and lost", "Runs"]
    places = [done.out.index(title) for title in ("tiny: from baseline to cb; each difference is cb minus baseline", *titles)]
    assert places == sorted(places)
    assert ["setting", "baseline", "cb"] in [line.split() for line in done.out.splitlines()]
    assert ["sampler.name", "shuffle", "class_balanced"] in [line.split() for line in done.out.splitlines()]
    assert "\x1b" not in done.out
    assert all(run_id in done.out for run_id in open_recorded(None, None).runs["run_id"])
    assert looked("compare", "baseline", "cb", "--file", study / "study.zip").out == done.out
    assert "Verdict on the mean recall of the classes few" in looked("compare", "cb", "baseline", "--metric", "few").out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("cbb", "baseline"), "Did you mean 'cb'"),
        (("cb", "baselines"), "Did you mean 'baseline'"),
        (("cb", "baseline", "--metric", "acuracy"), "Did you mean 'accuracy'"),
    ],
)
def test_unknown_names_end_in_one_message(looked, words, problem):
    """An unknown arm or metric ends in status 2 with the nearest name."""
    done = looked("compare", *words)
    assert done.status == 2
    assert problem in done.err


def test_weights_are_not_in_a_zip(looked, study):
    """A packed study has no model to export, and the message says so."""
    done = looked("export", "cb", "out", "--file", study / "study.zip")
    assert done.status == 2
    assert "a zip never has them" in done.err


def test_done_takes_the_first_seed_that_is_done(looked):
    """Without a seed the first is taken, and one that is not done is told with those that are."""
    recorded = open_recorded(None, None)
    assert done_row(recorded, "cb", None)["seed"] == 0
    assert done_row(recorded, "cb", 1)["seed"] == 1
    with pytest.raises(ConfigError, match="0, 1"):
        done_row(recorded, "cb", 2)


def test_an_arm_that_resolves_like_another_takes_its_runs(ablate):
    """An arm without runs of its own is compared and exported by those of the arm that it resolves like."""
    file = write(ablate.folder, ladder=ARMS["ladder"], variants={"same": {"sampler": "class_balanced"}}, base={"epochs": 1})
    assert ablate("run", file, "--arm", "baseline", "--arm", "cb").status == 0
    assert ablate("run", file).status == 0
    recorded = open_recorded(None, None)
    assert done_row(recorded, "same", None)["key"] == done_row(recorded, "cb", None)["key"]
    assert "one training under two names" in ablate("compare", "same", "cb").out
