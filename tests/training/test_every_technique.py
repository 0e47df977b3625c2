"""Every technique has an effect: through training and testing, an arm with it predicts differently than the arm without it.

The worst mistake in the code of this field is an arm that silently equals its baseline. N images, C classes, F features.
"""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize

from ablation.data import open_dataset, split
from ablation.errors import ConfigError
from ablation.study.resolving import load_study
from ablation.techniques.technique import family
from ablation.techniques.tta import IDENTITY
from ablation.training import checkpoints
from ablation.training.datasets import images_on_device
from ablation.training.images import image_pipeline
from ablation.training.loop import copy_into, extract_features
from ablation.training.states import untrained_model
from ablation.training.step import Precision
from tests.tiny import CPU, Planned, write

KEYS = {
    "losses": "loss",
    "samplers": "sampler",
    "mixing": "mix",
    "smoothing": "smoothing",
    "augmentations": "augment",
    "optimizers": "optimizer",
    "schedules": "schedule",
    "averages": "average",
    "tta": "tta",
    "posthoc": "posthoc",
    "class_weights": "loss.weights",
    "longtail": "data.longtail",
    "classifiers": "classifier",
}
HEAD = [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head"}]
LWS = {"train": "head", "classifier": "lws"}
# The settings with which a technique has an effect in two epochs on a few digits.
LAYERS = {
    "losses/ldam": {"loss": "ldam", "classifier": "cosine"},
    "losses/seesaw": {"loss": {"name": "seesaw", "p": 2.0}},
    "samplers/effective_number": {"sampler": {"name": "effective_number", "beta": 0.9}},
    "augmentations/affine": {"augment": [{"name": "affine", "degrees": 15.0}]},
    "mixing/remix": {"mix": {"name": "remix", "kappa": 1.2}},
    "mixing/cmo": {"mix": {"name": "cmo", "off_first": 0, "off_last": 0}},
    "augmentations/cutout": {"augment": [{"name": "cutout", "size": 6}]},
    "classifiers/lws": {"stages": [HEAD[0], HEAD[1] | {"classifier": "lws"}]},
    "posthoc/temperature": {"posthoc": {"name": "temperature", "temperature": 2.0}},
    "longtail/linear": {"data.longtail": {"name": "linear", "largest": 30, "smallest": 15}},
    "longtail/exponential": {"data.longtail": {"name": "exponential", "largest": 30, "imbalance": 3.0}},
    "longtail/step": {"data.longtail": {"name": "step", "largest": 30, "imbalance": 3.0}},
    "longtail/none": {"data.longtail": "none"},
    "schedules/multi_step": {"schedule": {"name": "multi_step", "milestones": ["1/2"]}},
    "optimizers/sgd": {"optimizer": {"name": "sgd", "lr": 0.01}},
}
DEFAULTS = {"samplers/shuffle", "schedules/cosine", "averages/none", "classifiers/linear", "augmentations/resize", "optimizers/adamw"}
# These are equal by definition.
EQUAL_PAIRS = {("losses/balanced_softmax", "losses/logit_adjusted"), ("samplers/square_root", "samplers/power")}


def arms():
    """An arm for every technique of every family but data and models, by family and name."""
    families = {family_name: family(family_name) for family_name in KEYS}
    names = [f"{key}/{name}" for key, family_ in families.items() for name in [*family_.techniques, *family_.short_forms]]
    without_effect = {name for name in names if name.endswith("/none") and not name.startswith("longtail")}
    return {name: layer(name) for name in names if name not in DEFAULTS | without_effect | {"losses/cross_entropy"}}


def layer(name):
    family_name, _, technique = name.partition("/")
    return LAYERS.get(name) or {KEYS[family_name]: [technique] if family_name == "augmentations" else technique}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small study with an arm for each technique, carried out."""
    folder = tmp_path_factory.mktemp("every")
    variants = {name.replace("/", "-").replace("_", "-"): layer for name, layer in arms().items()}
    planned = Planned(write(folder, variants=variants, base={"average": "none", "augment": []}), folder / "mlruns")
    planned.carry_out()
    return planned


def logits(planned, arm):
    table = pd.read_parquet(planned.result(arm) / "predictions.parquet")
    return table.filter(like="logit/").to_numpy()


@pytest.mark.parametrize("name", sorted(arms()))
def test_it_changes_the_result(study, name):
    """The arm's logits are finite and differ from the baseline's."""
    logits_NC = logits(study, name.replace("/", "-").replace("_", "-"))
    assert np.isfinite(logits_NC).all()
    assert not np.array_equal(logits_NC, logits(study, "baseline"))


def test_no_two_techniques_are_one(study):
    """Arms of one family also differ from each other, except those that are equal by definition."""
    by_family = {}
    for name in arms():
        by_family.setdefault(name.partition("/")[0], []).append(name)
    for names in by_family.values():
        for earlier, name in itertools.combinations(names, 2):
            if (earlier, name) not in EQUAL_PAIRS:
                pair = (logits(study, arm.replace("/", "-").replace("_", "-")) for arm in (name, earlier))
                assert not np.array_equal(*pair), (name, earlier)


# --- post-hoc, against scikit-learn and plain NumPy ----------------------------------------------------------------------------

VALIDATED = {"data": {"name": "digits", "validation": 0.3, "longtail": {"name": "linear", "largest": 60, "smallest": 12}}, "epochs": 3}
POSTHOC = {
    "tau": {"posthoc": {"name": "tau_norm", "tau": 0.7}},
    "ncm": {"posthoc": "ncm"},
    "adjusted": {"posthoc": {"name": "logit_adjustment", "tau": 1.5}},
    "warmed": {"posthoc": "temperature"},
    "both-views": {"tta": "hflip", "posthoc": {"name": "tau_norm", "tau": 0.7}},
}


@pytest.fixture(scope="module")
def adjusted(tmp_path_factory):
    """Post-hoc arms of one training, and what scikit-learn and NumPy need to compute the same: features, labels and the classifier."""
    folder = tmp_path_factory.mktemp("posthoc")
    planned = Planned(write(folder, variants=POSTHOC, base=VALIDATED | {"average": "none"}), folder / "mlruns")
    assert planned.carry_out() == 3  # one training serves them all
    job = planned.jobs()[0]
    settings = job.work.stage.settings
    model = untrained_model(job.work, 10, settings.classifier)
    copy_into(model, checkpoints.tensors_under("model", checkpoints.read(job.work.stages / job.key / checkpoints.FINAL).tensors))
    model.eval()
    pipeline, precision = image_pipeline(settings), Precision("fp32")
    splits = {name: images_on_device(job.work.dataset, settings.data, 0, name, CPU) for name in ("train", "validation", "test")}
    features = {name: extract_features(model, images, pipeline, precision, IDENTITY).numpy() for name, images in splits.items()}
    labels = {name: images.labels_N.numpy() for name, images in splits.items()}
    return planned, features, labels, model.classifier


def test_tau_normalisation_is_that_of_the_trained_layer(adjusted):
    """The scores are the features times the layer's vectors, each divided by its norm to the power of tau, without the bias."""
    planned, features, _, layer = adjusted
    weight_CF = layer.weight.detach().numpy().astype(np.float64)
    expected_NC = features["test"] @ (weight_CF / np.linalg.norm(weight_CF, axis=1, keepdims=True) ** 0.7).T
    np.testing.assert_allclose(logits(planned, "tau"), expected_NC, rtol=1e-4, atol=1e-5)


def test_nearest_class_mean_predicts_as_scikit_learn(adjusted):
    """On centred and normalised features of the training images, scikit-learn's nearest centroid gives the same classes."""
    planned, features, labels, _ = adjusted
    centre_F = features["train"].mean(0)
    reference = NearestCentroid().fit(normalize(features["train"] - centre_F), labels["train"])
    predicted_N = reference.predict(normalize(features["test"] - centre_F))
    table = pd.read_parquet(planned.result("ncm") / "predictions.parquet")
    assert (table["predicted"].to_numpy() == predicted_N).mean() > 0.995  # rounding may change a few


def test_logit_adjustment_subtracts_the_training_prior(adjusted):
    """The scores are the plain logits minus tau times the logarithm of the training shares."""
    planned, _, labels, _ = adjusted
    shares_C = np.bincount(labels["train"]) / len(labels["train"])
    np.testing.assert_allclose(logits(planned, "adjusted"), logits(planned, "baseline") - 1.5 * np.log(shares_C), rtol=1e-5, atol=1e-5)


def test_the_temperature_is_the_best_on_the_validation_images(adjusted):
    """It is recorded, divides the logits, and no other has a lower cross-entropy on the validation images."""
    planned, features, labels, layer = adjusted
    metrics = json.loads((planned.result("warmed") / "result.json").read_text())["metrics"]
    temperature = metrics["posthoc/temperature"]
    np.testing.assert_allclose(logits(planned, "warmed") * temperature, logits(planned, "baseline"), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        scores_NC = layer(torch.from_numpy(features["validation"])).double()
    losses = {factor: log_loss(labels["validation"], (scores_NC / (temperature * factor)).softmax(1)) for factor in (0.9, 1.0, 1.1)}
    assert losses[1.0] == min(losses.values())
    assert metrics["validation/nll"] == pytest.approx(losses[1.0], rel=1e-5)


def test_views_of_adjusted_scores_are_combined(adjusted):
    """With TTA the adjusted layer scores the features of every view."""
    planned, *_ = adjusted
    assert not np.allclose(logits(planned, "both-views"), logits(planned, "tau"))


def test_final_validation_metrics_are_those_of_the_validation_images(adjusted):
    """Accuracy on the validation images is recorded besides that of the test, and never per class."""
    planned, features, labels, layer = adjusted
    metrics = json.loads((planned.result("baseline") / "result.json").read_text())["metrics"]
    with torch.no_grad():
        predicted_N = layer(torch.from_numpy(features["validation"])).argmax(1).numpy()
    assert metrics["validation/accuracy"] == pytest.approx((predicted_N == labels["validation"]).mean())
    assert not any(name.startswith("validation/recall") for name in metrics)


# --- classifiers between stages --------------------------------------------------------------------------------------------------


def stage_tensors(planned, arm, position):
    saved = checkpoints.read(planned.workspace.stages / planned.run_of(arm).chain[position] / checkpoints.FINAL)
    return checkpoints.tensors_under("model", saved.tensors)


def test_weight_scaling_learns_scales_alone(tmp_path):
    """LWS continues from the trained linear layer, which is unchanged to the bit, as is the backbone; only the scales change."""
    stages = [HEAD[0], HEAD[1] | {"classifier": "lws", "sampler": "class_balanced"}]
    planned = Planned(write(tmp_path, ladder={"lws": {"stages": stages}}, base={"average": "none"}), tmp_path / "mlruns")
    planned.carry_out()
    before, after = (stage_tensors(planned, "lws", position) for position in (0, 1))
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert set(after) - set(before) == {"classifier.scale"}
    assert not torch.equal(after["classifier.scale"], torch.ones(10))


def test_a_new_head_may_be_another_classifier(tmp_path):
    """cRT may put a cosine classifier on the backbone of a linear one; the backbone is unchanged to the bit."""
    stages = [HEAD[0], HEAD[1] | {"head": "new", "classifier": "cosine"}]
    planned = Planned(write(tmp_path, ladder={"crt": {"stages": stages}}, base={"average": "none"}), tmp_path / "mlruns")
    planned.carry_out()
    before, after = (stage_tensors(planned, "crt", position) for position in (0, 1))
    assert {name for name in before if name not in after} == {"classifier.bias"}
    assert all(torch.equal(after[name], before[name]) for name in after if not name.startswith("classifier"))
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])


@pytest.mark.parametrize(
    ("arm", "problem"),
    [
        ({"loss": "ldam"}, r"variants\.arm\.loss: found classifier 'linear'; expected classifier \{name: cosine, scale: 30\.0\}"),
        ({"loss": "ldam", "classifier": {"name": "cosine", "scale": 16.0}}, r"variants\.arm\.loss\.scale: found 30\.0, and 16\.0"),
        ({"posthoc": "tau_norm", "classifier": "cosine"}, r"variants\.arm\.posthoc: found tau_norm with the classifier cosine"),
        ({"classifier": "lws"}, r"variants\.arm\.classifier: found 'lws', which needs a trained linear layer"),
        ({"stages": [HEAD[0], {"epochs": "1/2", "classifier": "cosine"}]}, r"stages\.1\.classifier: can change only where a stage begins"),
        ({"stages": [HEAD[0], HEAD[1] | {"classifier": "cosine"}]}, r"stages\.1\.classifier: found 'cosine', which cannot take over"),
        ({"stages": [HEAD[0], HEAD[1] | {"classifier": "lws", "head": "new"}]}, r"stages\.1\.classifier: found 'lws', which goes on from"),
        (
            {"epochs": 3, "stages": [{"epochs": 1}, {"epochs": 1, **LWS}, {"epochs": 1, "head": "new", **LWS}]},
            r"stages\.2\.classifier: found 'lws', which goes on from a trained linear layer; expected head: keep",
        ),
        (
            {"epochs": 9, "stages": [{"epochs": "2/3"}, {"epochs": "1/3", "train": "head", "mix": "cmo"}]},
            r"variants\.arm\.stages: cmo mixes in none of its 3 epochs",
        ),
        ({"mix": "cmo"}, r"variants\.arm\.mix: cmo mixes in none of its 2 epochs"),
    ],
)
def test_settings_that_do_not_fit_are_an_error_before_training(tmp_path, arm, problem):
    """If a technique does not fit the arm's other settings, the error names the setting."""
    with pytest.raises(ConfigError, match=problem):
        load_study(write(tmp_path, variants={"arm": arm}))


# --- state that is kept between stages, and techniques that depend on the length ----------------------------------------------------


def test_the_state_of_a_loss_is_kept_between_stages(tmp_path):
    """Seesaw's counts are part of the state: in two stages they end as in a single one, and so do all bits."""
    whole = {"loss": "seesaw", "schedule": "constant", "average": "none", "epochs": 3}
    cut = {"stages": [{"epochs": "1/3"}, {"epochs": "2/3", "batch_size": 32}]}
    one = Planned(write(tmp_path, "one", base=whole), tmp_path / "one")
    two = Planned(write(tmp_path, "two", base=whole, ladder={"baseline": cut}), tmp_path / "two")
    one.carry_out(), two.carry_out()
    np.testing.assert_array_equal(logits(one, "baseline"), logits(two, "baseline"))
    saved = checkpoints.read(one.workspace.stages / one.run_of("baseline").chain[-1] / checkpoints.FINAL)
    num_seen = float(saved.tensors["loss/seen"].sum())
    assert num_seen == 3 * (200 // 32 * 32)


def seesaw_counts(planned, arm):
    saved = checkpoints.read(planned.workspace.stages / planned.run_of(arm).chain[-1] / checkpoints.FINAL)
    return saved.tensors["loss/seen"]


def test_deferred_weights_keep_the_state_of_a_loss(tmp_path):
    """Seesaw's counts continue if only its class weights change, and begin anew with another loss or a restarted optimizer."""
    changes = {
        "weights": {"loss.weights": "inverse"},
        "optimizer": {"restart": ["optimizer"]},
    }
    variants = {name: {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", **change}]} for name, change in changes.items()}
    variants["after-focal"] = {"stages": [{"epochs": "1/2", "loss": "focal"}, {"epochs": "1/2"}]}
    planned = Planned(write(tmp_path, base={"loss": "seesaw", "schedule": "constant"}, variants=variants), tmp_path / "mlruns")
    planned.carry_out()
    an_epoch = 200 // 32 * 32
    assert {name: float(seesaw_counts(planned, name).sum()) for name in variants} == {
        "weights": 2 * an_epoch,
        "optimizer": an_epoch,
        "after-focal": an_epoch,
    }


def test_a_loss_counts_images_before_smoothing(tmp_path):
    """Seesaw's counts are whole numbers, however the targets are smoothed."""
    smoothed = {"smoothing": {"epsilon": 0.3, "spread": "all"}}
    planned = Planned(write(tmp_path, base={"loss": "seesaw"}, variants={"smoothed": smoothed}), tmp_path / "mlruns")
    planned.carry_out()
    assert torch.equal(seesaw_counts(planned, "smoothed"), seesaw_counts(planned, "baseline"))
    assert torch.equal(seesaw_counts(planned, "smoothed"), seesaw_counts(planned, "smoothed").round())


@pytest.mark.parametrize("technique", [{"sampler": "progressive"}, {"mix": {"name": "cmo", "off_first": 0, "off_last": 1}}])
def test_a_shorter_training_shares_nothing_if_draws_depend_on_the_length(tmp_path, technique):
    """Progressive sampling and CMO depend on the length: two epochs are not the beginning of three."""
    base = {"schedule": "constant", "average": "none"} | technique
    arms = {"long": {"epochs": 3}, "parts": {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "loss": "focal"}]}}
    planned = Planned(write(tmp_path, base=base, variants=arms), tmp_path / "mlruns")
    assert planned.run_of("baseline").chain[0] != planned.run_of("long").chain[0]
    assert planned.carry_out() == 2 + 3 + 1
    alone = Planned(write(tmp_path, "alone", base=base | {"epochs": 3}), tmp_path / "alone")
    alone.carry_out()
    np.testing.assert_array_equal(logits(planned, "long"), logits(alone, "baseline"))


def test_progressive_shares_reach_both_ends(tmp_path):
    """In a training of any stages the first epoch draws by the class counts and the last one evenly."""
    sampler = {"sampler": "progressive", "schedule": "constant", "average": "none", "epochs": 4}
    cut = {"stages": [{"epochs": "3/4"}, {"epochs": "1/4", "loss": "focal"}]}
    study = load_study(write(tmp_path, base=sampler, variants={"cut": cut}))
    spans = {arm.name: [(stage.schedule_epoch, stage.span) for stage in arm.stages] for arm in study.arms}
    assert spans == {"baseline": [(0, 4)], "cut": [(0, 4), (3, 4)]}


def test_the_split_of_a_seed_has_validation_images_of_every_class(tmp_path):
    """The validation images, on which hyper-parameters are chosen, have every class."""
    planned = Planned(write(tmp_path, base=VALIDATED), tmp_path / "mlruns")
    job = planned.jobs()[0]
    dataset = open_dataset(job.work.dataset)
    parts = split(dataset, job.work.stage.settings.data, 0)
    assert set(dataset.labels_N[parts.validation_N]) == set(range(10))
