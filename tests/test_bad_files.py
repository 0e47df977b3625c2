"""Files that were damaged, cut, swapped or made to harm: refused in a sentence, or made anew to the same bits; never wrong numbers."""

import contextlib
import json
import random
import shutil
import struct
import time

import pandas as pd
import pytest
import torch
import yaml

from ablation.errors import AblateError, ConfigError, StoreError, TrainingError
from ablation.study.resolving import load_study
from ablation.system.sealed import is_whole
from ablation.tasks.images import preparation
from ablation.tracking.recorded import Recorded
from ablation.tracking.store import Store
from ablation.training import checkpoints
from tests.tiny import CPU, Planned, run_job, write

STUDY = {"study": "s", "seeds": [0], "base": {"data": "digits", "model": "test_efficientnet", "epochs": 2}, "ladder": {"a": {}}}


# --- study files -------------------------------------------------------------------------------------------------------------


def study_file(folder, content):
    path = folder / "study.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def bomb(levels=9, width=9):
    """A few lines that stand for `width` to the power of `levels` values."""
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels + 1))]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bomb(), "aliases are written out"),
        ("a: &a {x: *a}", "an anchor holds itself"),
        (f"study: {'[' * 3000}", "nested deeper"),
        ("a:\n" + "".join(f"{' ' * i}b:\n" for i in range(1, 900)), "nested deeper"),
        ("study: !!python/object/apply:os.system ['touch ran']", "expected plain YAML, without tags"),
        ("study: !!python/name:os.system", "expected plain YAML, without tags"),
        (yaml.dump(STUDY).encode("utf-16"), "not text in UTF-8"),
        (b"study: caf\xe9", "not text in UTF-8"),
        ("study: a\0b", "is not YAML"),
        ("# " + "x" * 10_000_000, "bytes; expected a study's file"),
        (" " * 999_999, "holds nothing"),
    ],
    ids=["bomb", "circle", "brackets", "indents", "call", "name", "utf-16", "latin-1", "nul", "ten megabytes", "blanks"],
)
def test_a_hostile_study_file_is_refused_at_once(tmp_path, monkeypatch, content, words):
    """It ends in one sentence within seconds, and nothing that it asks for is run."""
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    with pytest.raises(ConfigError, match=words) as error:
        load_study(study_file(tmp_path, content))
    assert time.monotonic() - began < 10
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_a_folder_is_no_study(tmp_path):
    """Naming a folder is told as that."""
    with pytest.raises(ConfigError, match="is a folder; expected a study's YAML file"):
        load_study(tmp_path)


def test_anchors_are_only_a_way_of_writing(tmp_path):
    """A study with anchors and merges has the arms of the same study written out."""
    short = "o: &o {name: sgd, lr: 0.1}\n"
    text = yaml.safe_dump({name: value for name, value in STUDY.items() if name != "ladder"})
    with pytest.raises(ConfigError, match="o"):  # a section of its own is unknown, so anchors stand where they are first used
        load_study(study_file(tmp_path, short + text))
    anchored = load_study(
        study_file(tmp_path, text + "ladder: {a: {optimizer: &o {name: sgd, lr: 0.1}}, b: {optimizer: {<<: *o, lr: 0.2}}}")
    )
    plain = load_study(study_file(tmp_path, text + "ladder: {a: {optimizer: {name: sgd, lr: 0.1}}, b: {optimizer: {name: sgd, lr: 0.2}}}"))
    assert anchored.arms == plain.arms


# --- checkpoints -------------------------------------------------------------------------------------------------------------

TENSORS = {
    "model/weight": torch.arange(12.0).reshape(3, 4),
    "model/mask": torch.tensor([True, False]),
    "average/a": torch.tensor(0.5, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3),
}
RECORD = {"key": "k", "epoch": 2, "products": [], "history": [{"loss": 0.1 + 0.2, "none": float("nan")}], "best": {"a": [1e-300, 0]}}


def test_any_flipped_bit_is_seen(tmp_path):
    """Of a file in which any one bit is another, nothing is read; unchanged, everything is."""
    path = tmp_path / "file.safetensors"
    checkpoints.write(path, TENSORS, RECORD)
    whole = path.read_bytes()
    places = [*range(16), *random.Random(0).sample(range(16, len(whole)), 150), *range(len(whole) - 40, len(whole))]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(damaged))
        saved = checkpoints.read(path)
        assert saved is None or is_same(saved), place  # white space in a header means nothing
    path.write_bytes(whole)
    assert is_same(checkpoints.read(path))


def is_same(saved):
    return (
        saved.tensors.keys() == TENSORS.keys()
        and all(torch.equal(saved.tensors[name], tensor) and saved.tensors[name].dtype == tensor.dtype for name, tensor in TENSORS.items())
        and json.dumps(saved.record) == json.dumps(RECORD)
    )


def with_header(content, change):
    """The file with another header of the same tensors."""
    (size,) = struct.unpack("<Q", content[:8])
    header = change(json.loads(content[8 : 8 + size]))
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + content[8 + size :]


def swapped(header):
    """Two tensors of one size under one another's names."""
    header["a"], header["b"] = header["b"], header["a"]
    return header


def reshaped(header):
    header["a"]["shape"] = header["a"]["shape"][::-1]
    return header


def without_sum(header):
    record = json.loads(header["__metadata__"]["record"])
    del record[checkpoints.CHECKSUM]
    header["__metadata__"]["record"] = json.dumps(record)
    return header


def another_epoch(header):
    record = json.loads(header["__metadata__"]["record"])
    header["__metadata__"]["record"] = json.dumps(record | {"epoch": 1})
    return header


@pytest.mark.parametrize(
    "change", [swapped, reshaped, without_sum, another_epoch, lambda header: header | {"__metadata__": {"record": "[]"}}]
)
def test_a_header_that_tells_something_else_is_seen(tmp_path, change):
    """Names, shapes and the record are under the checksum too, and a file without one is not ours."""
    path = tmp_path / "file.safetensors"
    checkpoints.write(path, {"a": torch.ones(2, 3), "b": torch.zeros(2, 3)}, {"epoch": 2})
    path.write_bytes(with_header(path.read_bytes(), change))
    assert checkpoints.read(path) is None


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    path.write_bytes(bytes(content))


def files_of(planned):
    """What the plan's runs came to, the moments aside at which they did."""
    tables = {run.key: (planned.workspace.results / run.key / "predictions.parquet").read_bytes() for run in planned.plan.runs}
    return tables, [json.loads((planned.workspace.results / key / "result.json").read_text())["metrics"] for key in tables]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study's folder that was carried out, which no test changes, and what came out."""
    folder = tmp_path_factory.mktemp("trained")
    planned = Planned(write(folder), folder / "mlruns")
    assert planned.carry_out() == 2
    return folder, files_of(planned)


@pytest.fixture
def copied(tmp_path, trained):
    """A copy of it."""
    shutil.copytree(trained[0], tmp_path / "copy")
    return tmp_path / "copy"


def carried_out(folder):
    """The study again: its plan, and what was told."""
    planned, events = Planned(folder / "tiny.yaml", folder / "mlruns"), []
    for job in planned.jobs():
        run_job(job, CPU, events.append, lambda: False)
    return planned, events


def test_damaged_weights_are_trained_again_and_said(trained, copied):
    """A final state with one wrong byte tests nothing: the stage is trained again, to the same predictions, and that is told."""
    planned = Planned(copied / "tiny.yaml", copied / "mlruns")
    shutil.rmtree(copied / "mlruns" / "results")
    final = planned.last_stage("baseline") / checkpoints.FINAL
    flip_last_byte(final)
    again, events = carried_out(copied)
    assert [event["message"] for event in events if event["kind"] == "damaged"] == [
        f"{final} is damaged and was put aside; its stage is trained again"
    ]
    assert sum(event["kind"] == "epoch" for event in events) == 2
    assert files_of(again) == trained[1]


def test_a_damaged_parent_is_put_aside_so_that_the_next_run_trains_it(tmp_path):
    """What starts from a damaged stage fails with what to do, and the same command then does it."""
    stages = [{"epochs": 1}, {"epochs": 1, "train": "head"}]
    file = write(tmp_path, ladder={"baseline": {"stages": stages}})
    planned = Planned(file, tmp_path / "mlruns")
    parent, child = planned.jobs()
    run_job(parent, CPU, lambda event: None, lambda: False)
    flip_last_byte(planned.workspace.stages / parent.key / checkpoints.FINAL)
    with pytest.raises(TrainingError, match="is damaged; run again"):
        run_job(child, CPU, lambda event: None, lambda: False)
    again = Planned(file, tmp_path / "mlruns")
    assert [job.key for job in again.jobs()] == [parent.key, child.key]
    assert again.carry_out() == 2


def test_the_state_of_another_model_is_never_gone_on_from(copied):
    """A whole file of another architecture under a stage's name ends in a sentence, not in numbers."""
    planned = Planned(copied / "tiny.yaml", copied / "mlruns")
    shutil.rmtree(copied / "mlruns" / "results")
    final = planned.last_stage("baseline") / checkpoints.FINAL
    record = checkpoints.read_record(final)
    checkpoints.write(final, {"model/foreign": torch.ones(3), "average/foreign": torch.ones(3)}, record)
    events = carried_out(copied)[1]
    assert [event["kind"] for event in events] == ["untested"]
    assert not list((copied / "mlruns" / "results").glob("*/result.json"))


@pytest.mark.parametrize("name", ["result.json", "predictions.parquet", "confusion_matrix.csv", "classification_report.txt"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "empty"])
def test_a_damaged_result_is_tested_again(trained, copied, name, damage):
    """A result of which any file changed is not recorded but computed again from the weights, to the same numbers."""
    planned = Planned(copied / "tiny.yaml", copied / "mlruns")
    path = planned.result("baseline") / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"flip": flipped, "cut": content[:middle], "empty": b""}[damage])
    assert not is_whole(planned.result("baseline"))
    again, events = carried_out(copied)
    assert [event["kind"] for event in events] == ["damaged", "result"]
    assert files_of(again) == trained[1]
    assert is_whole(again.result("baseline"))


def test_what_is_whole_is_not_done_again(copied):
    """Undamaged, nothing is trained or tested."""
    planned, events = carried_out(copied)
    assert events == []
    assert [run.state for run in planned.plan.runs] == ["evaluated"]


def test_predictions_damaged_in_the_store_are_told(tmp_path, copied):
    """A page of the recorded table in which one bit flipped is an error that names the file, not another prediction."""
    planned = Planned(copied / "tiny.yaml", copied / "mlruns")
    path = planned.result("baseline") / "predictions.parquet"
    whole = pd.read_parquet(path)

    class Placed:
        def artifact(self, run_id, name):
            return path

    recorded = Recorded("tiny", {}, pd.DataFrame(), [], Placed())
    pd.testing.assert_frame_equal(recorded.predictions("r"), whole)
    content = path.read_bytes()
    for place in range(8, len(content), len(content) // 60):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        table = whole
        with contextlib.suppress(StoreError):
            table = recorded.predictions("r")
        pd.testing.assert_frame_equal(table.set_axis(whole.columns, axis=1), whole)  # some bytes say nothing of the values
    path.write_bytes(content[:4000])
    with pytest.raises(StoreError, match=r"predictions\.parquet cannot be read"):
        recorded.predictions("r")


def test_damaged_weights_are_not_exported(folder, ablate):
    """Recorded weights in which a byte changed are told instead of becoming another model."""
    write(folder)
    assert ablate("run", "tiny.yaml", "--device", "cpu").status == 0
    (weights,) = {path.stat().st_ino: path for path in (folder / "mlruns" / "artifacts").rglob("model.safetensors")}.values()
    flip_last_byte(weights)
    done = ablate("export", "baseline", "out", "--file", "tiny.yaml")
    assert done.status == 2
    assert "model.safetensors was changed since it was written" in " ".join(done.err.split())
    assert not (folder / "out" / "model.safetensors").exists()
    assert ablate("run", "tiny.yaml", "--device", "cpu", "--rerun", "force").status == 0
    assert ablate("export", "baseline", "out", "--file", "tiny.yaml").status == 0


# --- weights of the user's own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(50), struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 10) + b"{" * 10],
    ids=["empty", "pickle", "zip", "endless header", "no json"],
)
def test_weights_that_are_no_weights_are_told(tmp_path, content):
    """A `weights:` file that is none ends in a sentence before training."""
    (tmp_path / "own.safetensors").write_bytes(content)
    file = write(tmp_path, base={"model": {"name": "test_efficientnet", "image_size": 16, "weights": "own.safetensors"}})
    planned = Planned(file, tmp_path / "mlruns")
    with pytest.raises(AblateError, match=r"own\.safetensors") as error:
        planned.preparation.check_starts(planned.study.arms, 0)
    assert "\n" not in str(error.value)


def test_a_model_that_does_more_after_its_classifier_keeps_it(tmp_path, monkeypatch):
    """A post-hoc technique that replaces the classifier is refused before training."""
    monkeypatch.setattr(preparation, "ends_with_classifier", lambda *_: False)
    planned = Planned(write(tmp_path, base={"posthoc": "tau_norm"}), tmp_path / "mlruns")
    with pytest.raises(
        ConfigError, match="posthoc: found 'tau_norm', which replaces the classifier, but test_efficientnet does more after"
    ):
        planned.preparation.check_starts(planned.study.arms, 0)


def test_a_store_that_was_damaged_is_told(folder):
    """A database with a page of noise is a StoreError of one line, and stays as it was."""
    path = folder / "mlruns" / "mlflow.db"
    content = bytearray(path.read_bytes())
    content[:4096] = random.Random(0).randbytes(4096)
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError) as error:
        Store.open()
    assert "\n" not in str(error.value)
    assert path.read_bytes() == bytes(content)
