"""A packed study is the study: the same frames and reports, from one file, whatever else may be wrong with a zip."""

import gc
import io
import json
import math
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ablation import report
from ablation.commands import export
from ablation.errors import AblateError, StoreError
from ablation.report.frames import packed
from ablation.report.frames.classes import read_confusion
from ablation.tracking.recorded import Point
from ablation.tracking.store import Store
from tests.recorded import record
from tests.report.studies import study as made_study

ARMS = {
    "ladder": {"baseline": {}, "cb": {"sampler": "class_balanced"}},
    "variants": {"same": {"sampler": "class_balanced"}, "broken": {"optimizer": {"name": "sgd", "lr": 1e30}}},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory, empty_database):
    """The folder of the recorded study, which no test changes, with the zip in it."""
    folder = tmp_path_factory.mktemp("packed")
    record(folder, empty_database, seeds=[0, 1], base={"epochs": 1}, **ARMS)
    return folder


@pytest.fixture
def looked(study, ablate, monkeypatch):
    """`ablate` in that folder."""
    monkeypatch.chdir(study)
    return ablate


@pytest.fixture(scope="module")
def zipped(study, tmp_path_factory):
    """The study's zip, which no test changes."""
    target = tmp_path_factory.mktemp("zip") / "study.zip"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(study)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert export.pack(target, None, None) == 0
    return target


@pytest.fixture
def both(looked, zipped):
    """The study in the store and in a zip."""
    return Store.open().recorded("tiny"), packed.read(zipped)


def test_everything_is_as_in_the_store(both):
    """Plan, runs, predictions, curves and files are what the store holds, order and types included."""
    stored, read = both
    assert (read.study, read.plan, list(read.superseded)) == (stored.study, stored.plan, stored.superseded)
    assert json.dumps(read.plan) == json.dumps(stored.plan)  # the order of its mappings too
    pd.testing.assert_frame_equal(read.runs, stored.runs)
    done = list(stored.runs[stored.runs["status"] == "FINISHED"]["run_id"])
    assert len(done) == 6
    pd.testing.assert_frame_equal(read.curves(done[::-1]), stored.curves(done[::-1]))
    for run_id in done:
        pd.testing.assert_frame_equal(read.predictions(run_id), stored.predictions(run_id))
        for name in packed.KEPT:
            assert read.artifact(run_id, name).read_bytes() == stored.artifact(run_id, name).read_bytes()


def test_frames_are_those_of_the_store(both):
    """Every tidy frame is the same."""
    stored, read = (report.tidy_frames(recorded) for recorded in both)
    for name, frame in vars(stored).items():
        if isinstance(frame, pd.DataFrame):
            pd.testing.assert_frame_equal(vars(read)[name], frame)
        elif isinstance(frame, dict):
            found = ({arm: np.asarray(values).tolist() for arm, values in vars(part)[name].items()} for part in (read, stored))
            assert next(found) == next(found)
        elif name == "predictions":
            run_id = stored.runs["run_id"].iloc[0]
            pd.testing.assert_frame_equal(read.predictions(run_id), frame(run_id))
        else:
            assert vars(read)[name] == frame


@pytest.mark.parametrize("form", report.FORMATS)
def test_the_report_is_the_same_byte_for_byte(both, form):
    """A document made from the zip is the one made from the store."""
    stored, read = both
    assert report.write(read, form) == report.write(stored, form)


def test_the_folder_of_the_report_is_the_same(looked, zipped, tmp_path):
    """`ablate report FILE.zip --output DIR` writes the same files as from the store."""
    for words, target in (((), "stored"), ((zipped,), "read")):
        done = looked("report", *words, "--output", tmp_path / target)
        assert done.status == 0, done.err
    files = [sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.*")) for name in ("stored", "read")]
    assert files[0] == files[1]
    assert len(files[0]) > 4
    for path in files[0]:
        assert (tmp_path / "stored" / path).read_bytes() == (tmp_path / "read" / path).read_bytes(), path


def test_the_same_store_packs_into_the_same_bytes(looked, tmp_path):
    """Two packs of one store are equal files without weights, pictures or absolute names, and the size and the next command are told."""
    done = [looked("pack", tmp_path / name) for name in ("a.zip", "b.zip")]
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert "8 runs in" in done[0].err
    assert f"ablate report {tmp_path / 'a.zip'}" in done[0].err
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        assert archive.read("experiments.yaml").startswith(b"study: tiny")
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert names == sorted(names)
    assert {name.rpartition("/")[2] for name in names} == {"study.json", "curves.parquet", "experiments.yaml", *packed.KEPT}
    assert sorted(path.name for path in tmp_path.iterdir() if ".zip" in path.name) == ["a.zip", "b.zip"]


def test_without_predictions_the_tables_are_the_same(both, looked, tmp_path):
    """The zip has nothing of single images; the frames that need none are those of the store, and the report says what it lacks."""
    done = looked("pack", tmp_path / "small.zip", "--no-predictions")
    assert "without weights and predictions" in done.err
    with zipfile.ZipFile(tmp_path / "small.zip") as archive:
        kept = {name.rpartition("/")[2] for name in archive.namelist() if name.startswith("runs/")}
    assert kept == {"config.yaml", "class_distribution.csv", "confusion_matrix.csv"}
    whole, small = (report.tidy_frames(recorded) for recorded in (both[0], packed.read(tmp_path / "small.zip")))
    for name in (
        "runs",
        "arms",
        "per_class",
        "averages",
        "differences",
        "class_differences",
        "attribution",
        "conditions",
        "effects",
        "curves",
    ):
        pd.testing.assert_frame_equal(vars(small)[name], vars(whole)[name])
    for name in ("confusion", "recalls"):
        assert vars(small)[name].keys() == vars(whole)[name].keys() == {"baseline", "cb", "same"}
        assert all((np.asarray(vars(small)[name][arm]) == np.asarray(vars(whole)[name][arm])).all() for arm in ("baseline", "cb", "same"))
    assert len(small.image_differences) == len(small.calibration) == len(small.mcnemar) == 0 < len(whole.mcnemar)
    written = looked("report", tmp_path / "small.zip", "--output", tmp_path / "out")
    assert written.status == 0, written.err
    assert "what is made of predictions of single items" in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "figures" / "confusion-1.png").exists()
    assert looked("report", tmp_path / "small.zip", "--check", tmp_path / "out" / "report.md").status == 0


def test_two_arms_are_compared_by_class_without_predictions(looked, zipped, tmp_path):
    """`ablate compare` of the small zip says of the classes what that of the whole one says, and nothing of the test images."""
    looked("pack", tmp_path / "small.zip", "--no-predictions")
    whole, small = (looked("compare", "baseline", "cb", "--file", path).out for path in (zipped, tmp_path / "small.zip"))
    start, end = whole.index("Recall by class"), whole.index("Test images")
    assert whole[start:end] in small
    assert "Test images" not in small


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b",a,b\na,1.5,2\nb,0,3\n", b",a,b\na,1\nb,0,3\n", b",b,a\nb,1,2\na,0,3\n", b",a,b\na,-1,2\nb,0,3\n", b",a\na,1\n"],
)
def test_a_damaged_confusion_matrix_is_one_sentence(tmp_path, content):
    """Fractions, negative or too few counts and classes of another name or order are refused."""
    path = tmp_path / "confusion_matrix.csv"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"confusion_matrix\.csv is damaged; expected the counts of 2 true and 2 predicted classes"):
        read_confusion(path, ["a", "b"])
    path.write_text(",a,b\na,1,2\nb,0,3\n")
    assert read_confusion(path, ["a", "b"]).tolist() == [[1, 2], [0, 3]]


def test_failed_runs_are_packed(both, looked, zipped):
    """A failed run is in the zip with its reason, and `ablate log` tells the same of it from there."""
    _, read = both
    failed = read.runs[read.runs["status"] == "FAILED"]
    assert set(failed["arm"]) == {"broken"}
    assert all(failed["reason"].str.contains("nan|NaN"))
    for arm in ("broken", "cb"):
        stored, from_zip = looked("log", arm, 0), looked("log", arm, 0, "--file", zipped)
        assert stored.status == from_zip.status == 0
        assert stored.out == from_zip.out
        assert arm in stored.out


def test_files_are_asked_for_by_known_names(both):
    """A file that was asked for lies in a folder of its own under its name; other names are refused."""
    _, read = both
    run_id = read.runs[read.runs["status"] == "FINISHED"]["run_id"].iloc[0]
    path = read.artifact(run_id, "config.yaml")
    assert path.name == "config.yaml"
    assert path.exists()
    for run, name in ((run_id, "../../study.json"), (run_id, "model.safetensors"), ("../..", "config.yaml"), ("other", "config.yaml")):
        with pytest.raises(StoreError, match="has no"):
            read.artifact(run, name)


def test_a_missing_file_names_its_run(study, tmp_path, ablate, monkeypatch):
    """A run whose file was deleted stops the packing, by its name; nothing half-written is left."""
    shutil.copytree(study, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    stored = Store.open().recorded("tiny")
    run = stored.runs[stored.runs["status"] == "FINISHED"].iloc[0]
    stored.artifact(run["run_id"], "confusion_matrix.csv").unlink()
    done = ablate("pack", "out.zip")
    assert done.status == 2
    assert f"{run['arm']} seed {run['seed']} cannot be packed" in done.err
    assert "confusion_matrix.csv" in done.err
    assert not [path for path in (tmp_path / "copy").iterdir() if ".zip" in path.name]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("out.tar",), "ends in .zip"),
        (("out.zip", "--file", "x.zip"), "already packed"),
        (("nowhere/out.zip",), "cannot be written"),
        (("out.zip", "--file", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_mistakes_end_in_one_message(looked, words, problem):
    """A wrong name, a zip to be packed and a missing folder end in status 2 and a sentence."""
    done = looked("pack", *words)
    assert done.status == 2
    assert problem in done.err


# --- zips of other kinds -----------------------------------------------------------------------------------------------------


class FakeStore:
    """A store with one point for each run."""

    def curves(self, run_id):
        return [Point("train/loss", 0.5, 1000, 0)]


def fake(folder, recorded):
    """A hand-made study as `write` takes it, its artifacts in a folder."""

    def artifact(run_id, name):
        path = folder / f"{run_id.replace('/', '-')}-{name}"
        if name == "predictions.parquet":
            recorded.predictions(run_id).to_parquet(path, index=False)
        else:
            path.write_text(name, encoding="utf-8")
        return path

    return SimpleNamespace(
        study=recorded.study, plan=recorded.plan, runs=recorded.runs, superseded=recorded.superseded, store=FakeStore(), artifact=artifact
    )


def pack(folder, recorded):
    made = fake(folder, recorded)
    packed.write(made, packed.stored_points(made), b"study: demo", folder / "study.zip")
    return folder / "study.zip"


def test_only_an_earlier_zip_of_the_study_is_replaced(tmp_path):
    """Any other file of that name stays as it is: text, another zip, and the zip of another study."""
    target, recorded = tmp_path / "study.zip", made_study()
    pack(tmp_path, recorded)
    recorded.runs = recorded.runs.iloc[:1]
    assert len(packed.read(pack(tmp_path, recorded)).runs) == 1
    other = pack(tmp_path, recorded).read_bytes()
    recorded.study = recorded.plan["study"] = "another"
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("photo.jpg", b"1")
    for content in (b"precious", (tmp_path / "plain.zip").read_bytes(), other):
        target.write_bytes(content)
        with pytest.raises(AblateError) as error:
            pack(tmp_path, recorded)
        told = f"{target} is there already, and is no packed study another; expected another name, or an earlier zip of the study"
        assert (str(error.value), target.read_bytes()) == (told, content)
    assert sorted(path.name for path in tmp_path.glob("*.zip*")) == ["plain.zip", "study.zip"]


def test_numbers_that_are_none_come_back(tmp_path):
    """NaN, infinities, texts that are missing and whole numbers of 19 digits are read as they were written."""
    recorded = made_study()
    recorded.runs["test/nll"] = [math.inf, -math.inf, math.nan, 0.1 + 0.2, *[1.0] * (len(recorded.runs) - 4)]
    recorded.runs["start"] = 2**62 + 1
    recorded.runs["reason"] = [None, "a", *[""] * (len(recorded.runs) - 2)]
    read = packed.read(pack(tmp_path, recorded)).runs
    assert read["test/nll"].tolist()[:2] == [math.inf, -math.inf]
    assert math.isnan(read["test/nll"].iloc[2])
    assert read["test/nll"].iloc[3] == 0.1 + 0.2
    assert read["start"].tolist() == [2**62 + 1] * len(read)
    assert pd.isna(read["reason"].iloc[0])
    assert read["reason"].iloc[1] == "a"
    pd.testing.assert_frame_equal(read, recorded.runs)


def test_a_study_without_runs_is_packed(tmp_path):
    """A plan of which nothing has begun is a study too."""
    recorded = made_study()
    recorded.runs = recorded.runs.iloc[:0]
    read = packed.read(pack(tmp_path, recorded))
    assert len(read.runs) == 0
    assert list(read.runs.columns) == list(recorded.runs.columns)
    assert read.curves([]).empty


def test_lists_of_logits_come_back(tmp_path):
    """Above a hundred classes, where the logits are one column of lists, predictions are read as they were."""
    recorded = made_study()
    first = recorded.runs["run_id"].iloc[0]
    table = pd.DataFrame({"index": [4, 7], "label": [0, 1], "predicted": [1, 1], "logits": list(np.eye(2, 101, dtype=np.float32))})
    recorded.tables[first] = table
    read = packed.read(pack(tmp_path, recorded)).predictions(first)
    np.testing.assert_array_equal(np.stack(read["logits"]), np.stack(table["logits"]))
    pd.testing.assert_frame_equal(read.drop(columns="logits"), table.drop(columns="logits"))


def rewritten(path, change=None, **how):
    """The zip with other members: `change` maps names to bytes, None leaving one out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members |= change or {}
    with zipfile.ZipFile(path, "w", how.get("compression", zipfile.ZIP_DEFLATED)) as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)


def about(path, **words):
    with zipfile.ZipFile(path) as archive:
        description = json.loads(archive.read("study.json")) | words
    rewritten(path, {"study.json": json.dumps({name: value for name, value in description.items() if value is not None})})


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path):
    """One bit of the description, within the compressed stream."""
    content = bytearray(path.read_bytes())
    place = content.index(b"study.json") + 200
    content[place] ^= 16
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.unlink(), "there is no file"),
        (lambda path: path.write_text("no zip"), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (cut, "cannot be read"),
        (flipped, "cannot be read"),
        (lambda path: rewritten(path, {"study.json": None}), "no packed study"),
        (lambda path: rewritten(path, {"study.json": b"{"}), "damaged"),
        (lambda path: rewritten(path, {"study.json": b"[1]"}), "no packed study"),
        (lambda path: rewritten(path, {"study.json": b"[" * 100_000}), "damaged"),
        (lambda path: rewritten(path, compression=zipfile.ZIP_LZMA), "compressed in another way"),
        (lambda path: rewritten(path, {"study.json": b" " * 2**25}), "far more memory"),
        (lambda path: about(path, what="something else"), "no packed study"),
        (lambda path: about(path, format=2), "newer"),
        (lambda path: about(path, plan={"arms": []}), "has no study, seeds"),
        (lambda path: about(path, plan=None), "damaged"),
        (lambda path: about(path, plan={word: [{}] for word in packed.PLAN_WORDS}), "name, parent, labels"),
        (lambda path: about(path, runs={"order": ["arm"]}), "damaged"),
        (lambda path: about(path, runs={"order": [], "types": {}, "values": {}}), "has no arm, seed"),
        (lambda path: about(path, superseded=None), "has no superseded"),
    ],
)
def test_what_is_no_packed_study_is_one_sentence(tmp_path, damage, problem):
    """A zip that is missing, cut, foreign, newer or made to fill the memory is told, and nothing of it is used."""
    path = pack(tmp_path, made_study())
    damage(path)
    with pytest.raises(AblateError) as error:
        packed.read(path)
    assert problem in str(error.value)
    assert str(path) in str(error.value)


def wide_table():
    """A small file that would become a huge frame."""
    target = io.BytesIO()
    pd.DataFrame({"index": np.zeros(2 * 10**6, dtype=np.int64)}).to_parquet(target)
    return target.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("predictions.parquet", None, "has no predictions.parquet"),
        ("predictions.parquet", b"PAR1nonsense", "damaged"),
        ("predictions.parquet", wide_table(), "far more memory"),
    ],
)
def test_damaged_predictions_are_one_sentence(tmp_path, monkeypatch, name, content, problem):
    """A member that is missing, nonsense or larger than it may be is told where it is read."""
    monkeypatch.setattr(packed, "MOST_NUMBERS", 10**6)
    path = pack(tmp_path, made_study())
    first = made_study().runs["run_id"].iloc[0]
    rewritten(path, {f"runs/{first}/{name}": content})
    with pytest.raises(AblateError, match=problem):
        packed.read(path).predictions(first)


@pytest.mark.parametrize("content", [None, b"nonsense", pd.DataFrame({"run_id": ["a"]}).to_parquet()])
def test_damaged_curves_are_one_sentence(tmp_path, content):
    """The same of the curves."""
    path = pack(tmp_path, made_study())
    rewritten(path, {"curves.parquet": content})
    with pytest.raises(AblateError, match=r"curves\.parquet"):
        packed.read(path).curves(["a"])


def test_nothing_is_written_by_a_members_name(tmp_path):
    """Members that are named as places outside stay unread, and reading leaves no files behind."""
    path = pack(tmp_path, made_study())
    rewritten(path, {"../evil.txt": b"x", "/tmp/evil.txt": b"x", "runs/../../evil.txt": b"x"})
    before = set(tmp_path.rglob("*")) | set(tmp_path.parent.glob("*"))
    read = packed.read(path)
    file = read.artifact(read.runs["run_id"].iloc[0], "config.yaml")
    assert file.read_text(encoding="utf-8") == "config.yaml"
    assert set(tmp_path.rglob("*")) | set(tmp_path.parent.glob("*")) == before
    del read
    gc.collect()
    assert not file.parent.exists()
