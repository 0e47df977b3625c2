"""Whether a recorded run comes out again, and what is said of it."""

import math
import shutil
from dataclasses import replace

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from ablation.commands import verify as verifying
from ablation.tasks.images import retraining
from ablation.tracking.store import Store
from tests.recorded import record
from tests.tiny import CPU, write

ARMS = {
    "ladder": {"baseline": {}, "cb": {"sampler": "class_balanced", "mix": {"name": "cutmix", "only": "tail"}}},
    "variants": {"two": {"stages": [{"epochs": 1, "restart": ["optimizer"]}, {"epochs": 1, "train": "head", "loss": "focal"}]}},
    "sweeps": {"tilt": {"posthoc": "logit_adjustment", "over": {"posthoc.tau": [0.5, 2.0]}, "choose": "val/accuracy"}},
}
DATA = {"name": "digits", "validation": 0.2, "longtail": {"name": "linear", "largest": 30, "smallest": 10}}


@pytest.fixture(scope="module")
def study(tmp_path_factory, empty_database):
    """The folder of a recorded study, which no test changes."""
    folder = tmp_path_factory.mktemp("verified")
    record(folder, empty_database, seeds=[3], base={"data": DATA}, groups={"many": ">=20", "few": "<20"}, **ARMS)  # no class is medium
    return folder


@pytest.fixture
def verified(study, ablate, monkeypatch):
    """`ablate verify` in that folder."""
    monkeypatch.chdir(study)
    return lambda *words: ablate("verify", *words)


def files(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("arm", ["baseline", "cb", "two", "tilt/best"])
def test_what_was_recorded_comes_out_again(verified, study, arm):
    """The first epoch of a plain arm, a mixed one, one of two stages and a chosen one agree to the bit; no file is touched."""
    before = files(study)
    done = verified(arm, 3)
    assert done.status == 0, done.err
    assert done.out.startswith(f"tiny: {arm} seed 3: agrees: the first epoch's loss is ")
    assert "bit-exact, as the record allows on the same class of device (cpu" in done.out
    assert len(done.out.splitlines()) == 1
    assert done.err == ""
    assert files(study) == before


def test_without_a_file_paths_start_at_the_one_last_run(ablate):
    """And not at the current folder, where other images may lie."""
    for name, shade in (("study", 200), ("here", 30)):
        root = ablate.folder / (f"{name}/images" if name == "study" else "images")
        for label in ("a", "b"):
            (root / label).mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (8, 8), (shade, 10 * i, 100 * (label == "b"))).save(root / label / f"{i}.png")
    data = {"name": "folder", "root": "images", "test": 0.4}
    write(ablate.folder / "study", "tiny", base={"data": data, "batch_size": 4, "epochs": 1}, ladder={"baseline": {}})
    assert ablate("run", "study/tiny.yaml").status == 0
    done = ablate("verify", "baseline", 0)
    assert (done.status, done.err) == (0, "")


def test_the_tail_is_that_of_the_arm_s_own_images(ablate):
    """Another long tail than the first arm's has another group few, and mixes other pairs."""
    tail = {"mix": {"name": "cutmix", "only": "tail"}}
    mild = tail | {"data.longtail.largest": 60}
    write(ablate.folder, groups={"many": ">45", "few": "<25"}, ladder={"baseline": {}}, variants={"tail": tail, "mild": mild})
    assert ablate("run", "tiny.yaml").status == 0
    for arm in ("tail", "mild"):
        done = ablate("verify", arm, 0)
        assert (done.status, done.err) == (0, ""), (arm, done.out)


def test_other_weights_to_start_from_are_told(ablate):
    """Their file is another one now, which the loss alone would not tell from a run that does not repeat."""
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(timm.create_model("test_efficientnet", num_classes=10).state_dict(), ablate.folder / f"{seed}.safetensors")
    shutil.copyfile(ablate.folder / "0.safetensors", ablate.folder / "w.safetensors")
    model = {"name": "test_efficientnet", "image_size": 16, "weights": "w.safetensors"}
    write(ablate.folder, base={"model": model}, ladder={"baseline": {}})
    assert ablate("run", "tiny.yaml").status == 0
    assert ablate("verify", "baseline", 0).err == ""
    shutil.copyfile(ablate.folder / "1.safetensors", ablate.folder / "w.safetensors")
    done = ablate("verify", "baseline", 0)
    assert done.status == 1
    assert done.err == "the weights that the model starts from have changed since it was recorded: compared anyway\n"


def test_steps_are_compared_with_themselves(verified):
    """With --steps two short trainings have equal weights; the hash goes by the number of steps."""
    one, two = verified("baseline", 3, "--steps", 1), verified("baseline", 3, "--steps", 2, "--file", "tiny.yaml")
    assert (one.status, two.status) == (0, 0)
    assert "agrees with itself: after 1 step two trainings have the same weights" in one.out
    assert "after 2 steps" in two.out
    assert one.out.split()[-2] != two.out.split()[-2]


def test_another_loss_is_told(verified, monkeypatch):
    """Where training gives another loss the status is 1, and both losses are named."""
    real = verifying.train
    monkeypatch.setattr(verifying, "train", lambda *args: replace(real(*args), loss=1.25))
    done = verified("baseline", 3)
    assert done.status == 1
    assert "does not agree: the first epoch's loss is 1.25, but" in done.out


def test_other_steps_are_told(verified, monkeypatch):
    """Where two trainings give other weights the status is 1 on a device that gives equal bits."""
    weights = iter([0.0, 1.0])
    monkeypatch.setattr(verifying, "train", lambda *_: retraining.Trained(math.nan, 2, {"w": torch.tensor([1.0, next(weights)])}))
    done = verified("baseline", 3, "--steps", 2)
    assert done.status == 1
    assert "does not agree with itself: after 2 steps two trainings have the weights" in done.out


def test_what_has_changed_since_is_said(verified, monkeypatch):
    """Other versions are told, and compared all the same; on another class of device the comparison is statistical."""
    monkeypatch.setattr(verifying.keys, "versions", lambda: {"torch": "0.1"})
    done = verified("baseline", 3)
    assert done.status == 0
    assert "code or versions have changed since it was recorded" in done.err
    monkeypatch.setattr(verifying, "device_name", lambda _: "cpu OTHER")
    done = verified("baseline", 3)
    assert done.status == 0
    assert "trained again on cpu OTHER: compared anyway" in done.err
    assert "statistical: another class of device rounds differently" in done.out


def test_settings_are_those_of_the_record(verified, study):
    """A file that was changed since, and --set, do not matter: it is the recorded run that is trained again."""
    text = (study / "tiny.yaml").read_text()
    try:
        write(study, base={"data": DATA, "optimizer": {"name": "sgd", "lr": 0.5}}, **ARMS)
        assert verified("baseline", 3, "--file", "tiny.yaml").status == 0
    finally:
        (study / "tiny.yaml").write_text(text)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["cbb", 3], "Did you mean 'cb'?"),
        (["cb", 4], "SEED: found 4; expected one of the finished seeds of cb: 3"),
        (["cb", 3, "--file", "study.zip"], "a zip holds no images"),
        (["cb", 3, "--file", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_is_not_recorded_is_told(verified, words, problem):
    """An unknown arm, a seed that was not run, a zip and a missing file are status 2 with one sentence."""
    done = verified(*words)
    assert done.status == 2
    assert problem in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("recorded", "first", "second", "agrees"),
    [
        (2.0, 2.0, 2.0, True),
        (2.019, 2.0, 2.0, True),
        (2.03, 2.0, 2.0, False),
        (2.2, 2.0, 2.1, True),
        (2.4, 2.0, 2.1, False),
        (1.0, math.nan, 2.0, False),
    ],
)
def test_what_cannot_be_exact_has_a_margin(recorded, first, second, agrees):
    """A hundredth of the loss, or three times what two trainings differ by, is allowed; no number agrees with nothing."""
    result, message = verifying.compare_statistically(recorded, first, second, "why")
    assert result == agrees
    assert message.startswith("agrees: " if agrees else "does not agree: ")


def test_training_again_leaves_torch_as_it_was(study, monkeypatch):
    """The number of threads and the choice of algorithms are set for the training alone, as the settings ask for."""
    monkeypatch.chdir(study)
    store = Store.open(make=False)
    recorded = store.recorded("tiny")
    recorded_study = verifying._recorded_study(recorded, verifying._recorded_run(recorded, "baseline", 3), study)
    job = verifying.first_epoch(
        recorded_study, 3, verifying.ImagePreparation(recorded_study, verifying.Workspace(store.root), CPU, lambda *_: None)
    )
    settings = job.stage.settings.model_copy(update={"deterministic": True})
    seen = []
    monkeypatch.setattr(retraining, "train_epochs", lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    assert math.isnan(verifying.train(replace(job, stage=replace(job.stage, settings=settings)), CPU).loss)
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()
