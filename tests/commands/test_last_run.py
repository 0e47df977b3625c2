"""Which file is meant where a command needs one and is given none."""

import json
import shutil
from pathlib import Path

import pytest

from ablation.commands.last_run import folder_of, last_run, last_stores, note_last_run, store_here, study_file
from ablation.commands.recorded import study_name
from ablation.errors import AblateError, ConfigError
from ablation.tracking.store import Store
from tests.tiny import write


def test_the_study_last_run_here(folder):
    """The file and the profile that a run noted; a given file or profile comes first."""
    file = write(folder / "mlruns", "tiny")
    note_last_run(folder / "mlruns", file, "quick", "tiny.quick")
    assert last_run() == (file, "quick")
    assert study_file(None, None) == (file, "quick")
    assert study_file(None, "other") == (file, "other")
    assert study_file(Path("x.yaml"), None) == (Path("x.yaml"), None)


def test_a_copy_of_the_folder_has_its_own_file(folder, tmp_path_factory, monkeypatch):
    """The file is noted as it lies from the folder of the store; what earlier versions noted, by its whole path, is read as it is."""
    file = write(folder, "tiny")
    note_last_run(folder / "mlruns", file, None, "tiny")
    copy = tmp_path_factory.mktemp("copies") / "copy"
    shutil.copytree(folder, copy)
    monkeypatch.chdir(copy)
    assert last_run() == (copy / "tiny.yaml", None)
    assert folder_of("tiny", None) == copy
    (copy / "mlruns" / "last-run.json").write_text(json.dumps({"file": str(file), "profile": None, "study": "tiny"}))
    assert last_run() == (file, None)


def test_which_store_each_study_was_last_run_with(folder, monkeypatch):
    """The folder's own database, however it is named, or another, without what is secret in its address."""
    root, file = folder / "mlruns", write(folder, "tiny")
    note_last_run(root, file, None, "tiny")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    note_last_run(root, file, "quick", "tiny.quick")
    assert last_stores() == {"tiny": "", "tiny.quick": ""}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:first@server:5000")
    note_last_run(root, file, None, "tiny")
    server = last_stores()["tiny"]
    assert last_stores() == {"tiny": server, "tiny.quick": ""}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:second@server:5000/")
    assert store_here(root) == server != ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other:5000")
    assert store_here(root) != server
    (root / "last-run.json").write_text(json.dumps({"file": str(file), "stores": [1]}))
    assert last_stores() == {}


def test_a_file_that_is_gone_is_not_meant(folder):
    """Where the file is gone, or the note was damaged, experiments.yaml is meant; without one it is told how to name one."""
    note_last_run(folder / "mlruns", folder / "gone.yaml", None, "gone")
    assert last_run() is None
    (folder / "mlruns" / "last-run.json").write_text("[1]")
    assert last_run() is None
    with pytest.raises(AblateError, match=r"no study was run here, and there is no experiments.yaml; --file names .* ablate init"):
        study_file(None, None)
    write(folder, "experiments")
    assert study_file(None, None) == (Path("experiments.yaml"), None)


def test_a_profile_alone_is_of_the_file_last_run(folder):
    """Commands that read the record take it as those do that read the file; where nothing was run it needs its file."""
    store = Store.open()
    with pytest.raises(ConfigError, match="--profile: needs the study's file beside it"):
        study_name(None, "quick", store)
    note_last_run(folder / "mlruns", write(folder, "tiny", profiles={"quick": {"base": {"epochs": 1}}}), None, "tiny")
    assert study_name(None, "quick", store) == "tiny.quick"


def test_paths_of_every_profile_start_at_the_file_last_run(folder):
    """Whichever profile of it was run last; those of another study start at the current folder, and a file that is given comes first."""
    (folder / "sub").mkdir()
    file = write(folder / "sub", "tiny", profiles={"quick": {"base": {"epochs": 1}}})
    for profile, study in ((None, "tiny"), ("quick", "tiny.quick")):
        note_last_run(folder / "mlruns", file, profile, study)
        assert {folder_of(name, None) for name in ("tiny", "tiny.quick", "tiny.full")} == {folder / "sub"}
        assert {folder_of(name, None) for name in ("other", "tinyer.quick")} == {folder}
        assert folder_of("tiny.quick", folder / "other.yaml") == folder


def test_show_takes_the_study_last_run(ablate):
    """Without a file `show` shows an arm of the study last run, in the profile that was run, and says so."""
    file = write(ablate.folder, profiles={"quick": {"base": {"epochs": 1}}}, variants={"cb": {"sampler": "class_balanced"}})
    note_last_run(ablate.folder / "mlruns", file, "quick", "tiny.quick")
    done = ablate("show", "cb")
    assert (done.status, done.err.splitlines()[0]) == (0, "the study of tiny.yaml with --profile quick; --file names another")
    assert "\nepochs: 1\n" in done.out.replace("  epochs", "epochs")
    assert ablate("show", "cb", "--file", file).err == ""
    assert "unknown profile ''; expected one of quick" in ablate("show", "cb", "--profile", "").err
    refused = ablate("show", "cb", "--file", "s.zip")
    assert (refused.status, "--file: found s.zip; expected the study's file" in refused.err) == (2, True)


def test_the_record_is_that_of_the_study_last_run_here(ablate, tmp_path_factory, monkeypatch):
    """Not that of another folder which shares the store, or that was recorded last; where it is not recorded yet, that is said."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{ablate.folder}/mlruns/mlflow.db")
    for name, folder in (("mine", ablate.folder), ("theirs", elsewhere)):
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            assert ablate("run", write(folder, name, base={"epochs": 1}, ladder={"baseline": {}})).status == 0
    assert Store.open(make=False).studies()[0][0] == "theirs"
    assert "mine: baseline seed 0" in ablate("log", "baseline", "0").out
    assert ablate("export", "baseline", "model").err.startswith("written to model: mine, baseline seed 0")
    assert ablate("run", write(ablate.folder, "other", base={"epochs": 1}), "--part", "1/2").status == 0
    refused = ablate("report")
    assert (
        refused.status,
        "other, the study last run here, is not in the store yet; expected the file of another: theirs, mine" in refused.err,
    ) == (2, True)


def test_a_profile_without_a_file_ends_the_jobs_of_that_study_alone(ablate, monkeypatch):
    """Of the file last run here; where none was run, its file is asked for."""
    assert "--profile: needs the study's file beside it" in ablate("cancel", "--profile", "quick").err
    note_last_run(ablate.folder / "mlruns", write(ablate.folder, profiles={"quick": {"base": {"epochs": 1}}}), None, "tiny")
    asked = []
    monkeypatch.setattr("ablation.commands.cancel.splits", lambda parts, study: asked.append(study) or [])
    assert ablate("cancel", "--profile", "quick").status == 0
    assert ablate("cancel", "--profile", "").status == 2
    assert asked == ["tiny.quick"]
