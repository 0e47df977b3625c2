"""Work that runs share is done once, and each run has the bits that it would have alone. N images, C classes."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import balanced_accuracy_score

from ablation.data import open_dataset, split
from ablation.errors import TrainingError
from ablation.training import checkpoints
from ablation.training.loop import EpochEvaluator, State
from ablation.training.work import TrackedAverage
from tests.tiny import BASE, CPU, Planned, run_job, write

DECOUPLED = [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head", "sampler": "class_balanced"}]


def predictions(planned, arm, seed=0):
    return pd.read_parquet(planned.result(arm, seed) / "predictions.parquet")


def carried_out(folder, name, root, **layers):
    planned = Planned(write(folder, name, **layers), root)
    return planned, planned.carry_out()


def test_arms_that_share_a_stage_equal_arms_alone(tmp_path):
    """Decoupled arms train their first stage once, and each has the predictions of a study that has no other arm."""
    arms = {"plain": {}, "head": {"stages": DECOUPLED}, "focal": {"stages": [DECOUPLED[0], DECOUPLED[1] | {"loss": "focal"}]}}
    ladder = {"plain": {"schedule": "constant"}}
    together, epochs = carried_out(
        tmp_path, "together", tmp_path / "all", ladder=ladder, variants={name: arms[name] for name in ("head", "focal")}
    )
    assert epochs == 4  # two of plain, of which all share the first, and one of each head
    for name in ("head", "focal"):
        alone, epochs = carried_out(tmp_path, f"alone-{name}", tmp_path / name, base={"schedule": "constant"}, ladder={name: arms[name]})
        assert epochs == 2
        pd.testing.assert_frame_equal(predictions(together, name), predictions(alone, name), check_exact=True)
    assert not predictions(together, "head").equals(predictions(together, "plain"))


def test_watchers_train_nothing(tmp_path):
    """Arms that differ in views, average or selection share one training, and each tests something else."""
    watchers = {
        "vflip": {"tta": "vflip"},
        "slow": {"average": {"name": "ema", "decay": 0.99}},
        "none": {"average": "none"},
        "best": {"select": "best_on_test"},
    }
    planned, epochs = carried_out(tmp_path, "watching", tmp_path / "mlruns", base={"epochs": 3}, variants=watchers)
    assert epochs == 3
    assert len(planned.plan.nodes) == 1
    tables = [predictions(planned, name) for name in ("baseline", "vflip", "slow", "none")]
    assert all(not table["logit/0"].equals(earlier["logit/0"]) for i, table in enumerate(tables) for earlier in tables[:i])
    for name, layer in watchers.items():
        alone, _ = carried_out(tmp_path, f"alone-{name}", tmp_path / name, base={"epochs": 3} | layer)
        pd.testing.assert_frame_equal(predictions(planned, name), predictions(alone, "baseline"), check_exact=True)


def test_two_studies_share_equal_trainings(tmp_path):
    """A training with the same key in another study of the same folder is not done again."""
    first, epochs = carried_out(tmp_path, "first", tmp_path / "mlruns")
    assert epochs == 2
    second, epochs = carried_out(tmp_path, "second", tmp_path / "mlruns", variants={"cb": {"sampler": "class_balanced"}})
    assert epochs == 2
    assert second.run_of("baseline").key == first.run_of("baseline").key


def test_seeds_share_nothing(tmp_path):
    """Another seed is another subset, other weights and another order."""
    planned = Planned(write(tmp_path), tmp_path / "mlruns", seeds=(0, 1))
    assert planned.carry_out() == 4
    one, two = (predictions(planned, "baseline", seed) for seed in (0, 1))
    assert one["index"].equals(two["index"])  # all seeds have the same test images
    assert not one["logit/0"].equals(two["logit/0"])


def test_a_longer_training_continues_a_shorter_one(tmp_path):
    """With a schedule that does not depend on the length, two epochs are the beginning of four, to the bit."""
    constant = {"schedule": "constant"}
    both, epochs = carried_out(tmp_path, "both", tmp_path / "both", base=constant, variants={"long": {"epochs": 4}})
    assert epochs == 4
    alone, _ = carried_out(tmp_path, "alone", tmp_path / "alone", base=constant | {"epochs": 4})
    pd.testing.assert_frame_equal(predictions(both, "long"), predictions(alone, "baseline"), check_exact=True)
    shared, separate = (
        checkpoints.read(planned.last_stage(arm) / checkpoints.FINAL) for planned, arm in ((both, "long"), (alone, "baseline"))
    )
    assert all(torch.equal(shared.tensors[name], separate.tensors[name]) for name in separate.tensors)


DEFERRED = [{"epochs": 1}, {"epochs": 1, "loss": "balanced_softmax"}]
AVERAGED = {"average": {"name": "ema", "decay": 0.8}}


def test_a_stage_that_another_study_trains_anew_keeps_its_optimizer(tmp_path):
    """Two studies in one folder share a stage, of which one goes on with the optimizer and the other with the average, in turns."""
    ours, theirs = ({"deferred": {"stages": DEFERRED}}, {"decoupled": {"stages": DECOUPLED}})
    alone, _ = carried_out(tmp_path, "alone", tmp_path / "alone", ladder=ours)
    first = Planned(write(tmp_path, "first", ladder=ours), tmp_path / "both")
    second = Planned(write(tmp_path, "second", base=AVERAGED, ladder=theirs), tmp_path / "both")
    shared, *others = first.jobs()
    assert second.jobs()[0].key == shared.key
    for job in (shared, second.jobs()[0], *others):
        run_job(job, CPU, lambda event: None, lambda: False)
    pd.testing.assert_frame_equal(predictions(first, "deferred"), predictions(alone, "deferred"), check_exact=True)


@pytest.mark.parametrize(("removed", "stages"), [("optimizer", DEFERRED), ("average:", [{"epochs": 1}, {"epochs": 1, "mix": "mixup"}])])
def test_a_stage_without_what_the_next_one_goes_on_with_is_told(tmp_path, removed, stages):
    """It was trained anew meanwhile, for another study; the next plan trains it again with what is needed."""
    layers = {"base": AVERAGED, "ladder": {"staged": {"stages": stages}}}
    planned = Planned(write(tmp_path, **layers), tmp_path / "mlruns")
    first, second = planned.jobs()
    run_job(first, CPU, lambda event: None, lambda: False)
    path = planned.workspace.stages / first.key / checkpoints.FINAL
    saved = checkpoints.read(path)
    (lost,) = [name for name in saved.record["products"] if name.startswith(removed)]
    kept = {name: tensor for name, tensor in saved.tensors.items() if not name.startswith(removed.replace(":", "/"))}
    checkpoints.write(path, kept, {**saved.record, "products": [name for name in saved.record["products"] if name != lost]})
    with pytest.raises(TrainingError, match=f"was trained anew, without {lost}, by another study; run again"):
        run_job(second, CPU, lambda event: None, lambda: False)
    again = Planned(tmp_path / "tiny.yaml", tmp_path / "mlruns")
    assert [job.key for job in again.jobs()] == [first.key, second.key]
    assert again.carry_out() == 2


def test_the_best_epoch_on_test_keeps_its_weights(tmp_path):
    """`best_on_test` tests the weights of the first epoch with the highest watched balanced accuracy, which the predictions then have."""
    base = {"select": "best_on_test", "epochs": 4, "optimizer": {"name": "adamw", "lr": 3e-2}, "average": "none"}
    planned, _ = carried_out(tmp_path, "best", tmp_path / "mlruns", base=base)
    result = json.loads((planned.result("baseline") / "result.json").read_text())
    watched = [row["values"]["watched/test/balanced_accuracy|none"] for row in result["history"]]
    table = predictions(planned, "baseline")
    assert (table["label"] == table["predicted"]).groupby(table["label"]).mean().mean() == pytest.approx(max(watched))
    assert result["best"] == [max(watched), int(np.argmax(watched))]


def test_the_best_epoch_is_that_of_the_highest_balanced_accuracy(monkeypatch):
    """Of four validation images of one class and one of another; of two that are equally good, the first."""
    labels_N = torch.tensor([0, 0, 0, 0, 1])
    predicted_EN = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 1, 0, 1], [1, 1, 1, 1, 1]])
    of_epochs = iter(torch.nn.functional.one_hot(predicted_EN, 2).float())
    model = torch.nn.Linear(1, 1)
    setup = SimpleNamespace(
        tracked=[TrackedAverage("none", None, 0, ("validation",))], watched={"validation": SimpleNamespace(labels_N=labels_N)}
    )
    evaluator = EpochEvaluator(setup, model, None)
    monkeypatch.setattr(evaluator, "_logits", lambda *args: next(of_epochs))
    state = State(model, torch.optim.SGD(model.parameters(), lr=0.1), None)
    accuracies = [evaluator.evaluate(state, epoch)["val/accuracy|none"] for epoch in range(len(predicted_EN))]
    best = state.best["none|validation"]
    assert (best.epoch, best.balanced_accuracy) == (1, pytest.approx(balanced_accuracy_score(labels_N, predicted_EN[1])))
    assert accuracies == pytest.approx([0.8, 0.8, 0.8, 0.2])


@pytest.mark.parametrize("average", ["none", {"name": "ema", "decay": 0.8}])
def test_the_best_epoch_on_validation_keeps_its_weights(tmp_path, average):
    """The weights saved for `best_on_validation` have the curve's highest balanced accuracy, computed again from the file."""
    base = {"select": "best_on_validation", "epochs": 4, "average": average, "optimizer": {"name": "adamw", "lr": 3e-2}}
    base |= {"data": BASE["data"] | {"validation": 0.2}, "augment": [], "model": {"name": "test_efficientnet", "image_size": 8}}
    planned, _ = carried_out(tmp_path, "best", tmp_path / "mlruns", base=base)
    settings, source = planned.study.arms[0].settings, planned.preparation.source(planned.study.arms[0], 0)
    dataset = open_dataset(source.dataset)
    parts = split(dataset, settings.data, 0)
    assert len(parts.validation_N) == 40
    model = settings.model(10, 0).eval()
    model.load_state_dict(load_file(planned.result("baseline") / "model.safetensors"))
    images_NCHW = torch.from_numpy(dataset.images_NHWC[parts.validation_N]).permute(0, 3, 1, 2).float() / 255
    mean_C, std_C = (torch.tensor(model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        predicted_N = model(((images_NCHW - mean_C) / std_C).to(CPU)).argmax(1).numpy()
    history = json.loads((planned.result("baseline") / "result.json").read_text())["history"]
    (name,) = [name for name in history[0]["values"] if name.startswith("val/balanced_accuracy|")]
    best = max(row["values"][name] for row in history)
    assert balanced_accuracy_score(dataset.labels_N[parts.validation_N], predicted_N) == pytest.approx(best)
