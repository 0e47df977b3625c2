"""Every member of every family is held to the family's contracts, as a user's own technique is by `ablate check-technique`."""

import pytest

from ablation.errors import ConfigError
from ablation.techniques.contracts import CALLS, CONTRACTS, checks
from ablation.techniques.technique import FAMILIES, family, make

REQUIRED = {  # what has no default
    ("data", "csv"): {"file": "images.csv"},
    ("data", "folder"): {"root": "images"},
    ("data", "lists"): {"root": "images", "train_list": "train.txt"},
    ("data", "npz"): {"file": "images.npz"},
    ("longtail", "linear"): {"largest": 500, "smallest": 50},
}
MODELS = [{"name": "test_efficientnet", "image_size": 32}, {"name": "resnet20", "image_size": 32}]


def specs(family_name):
    """A YAML form of every member of a family."""
    if family_name == "models":
        return MODELS
    return [
        {"name": name, **REQUIRED[family_name, name]} if (family_name, name) in REQUIRED else name for name in family(family_name).names
    ]


MEMBERS = [(family_name, spec) for family_name in FAMILIES for spec in specs(family_name)]


def identity(value):
    return value["name"] if isinstance(value, dict) else str(getattr(value, "name", value)).split(",")[0]


@pytest.mark.parametrize(
    ("family_name", "spec", "contract"), [(*member, promise) for member in MEMBERS for promise in checks(member[0])], ids=identity
)
def test_keeps_its_contracts(family_name, spec, contract):
    """A member of a family keeps each of the family's promises."""
    contract.test(family_name, spec)


@pytest.mark.parametrize("family_name", FAMILIES)
def test_every_family_has_contracts(family_name):
    """Each family but `data`, whose members need files, has promises of its own beside the ones that all give."""
    own_promises = [promise for promise in checks(family_name) if len(promise.families) < len(CALLS)]
    assert (family_name == "data") == (not own_promises)


def test_contracts_are_told_apart():
    """Each promise is one sentence, and no two are the same."""
    names = [promise.name for promise in CONTRACTS]
    assert len(set(names)) == len(names)
    assert all(len(name) > 20 and "\n" not in name for name in names)


@pytest.mark.parametrize(
    ("family_name", "spec", "path"),
    [
        ("losses", {"name": "focal", "gamma": -1}, "at.gamma"),
        ("losses", {"name": "focal", "weights": "invers"}, "at.weights"),
        ("losses", {"name": "class_balanced", "beta": 1.0}, "at.weights.beta"),
        ("class_weights", {"name": "effective_number", "beta": -0.1}, "at.beta"),
        ("mixing", {"name": "mixup", "alpha": 0}, "at.alpha"),
        ("mixing", {"name": "mixup", "lambda": 1.5}, "at.lambda"),
        ("mixing", {"name": "mixup", "alpha": None}, "at"),
        ("mixing", {"name": "cutmix", "only": "head"}, "at.only"),
        ("smoothing", {"epsilon": 1.1}, "at.epsilon"),
        ("augmentations", {"name": "affine", "scale": [1.2, 0.8]}, "at.scale"),
        ("augmentations", {"name": "affine", "translate": [0.1, 2.0]}, "at.translate"),
        ("augmentations", {"name": "erase", "area": [0.3, 0.2]}, "at.area"),
        ("augmentations", {"name": "erase", "ratio": [0.0, 2.0]}, "at.ratio"),
        ("augmentations", {"name": "crop", "padding": 1.5}, "at.padding"),
        ("schedules", {"name": "cosine", "epochs": "stages"}, "at.epochs"),
        ("schedules", {"name": "multi_step", "milestones": [160, "3/2"]}, "at.milestones.1"),
        ("schedules", {"name": "multi_step", "milestones": [160.0]}, "at.milestones.0"),
        ("schedules", {"name": "multi_step", "milestones": ["1/0"]}, "at.milestones.0"),
        ("optimizers", {"name": "sgd", "momentum": 0.0, "nesterov": True}, "at.nesterov"),
        ("optimizers", {"name": "adamw", "lr": "fast"}, "at.lr"),
        ("averages", {"name": "ema", "decay": 1.0}, "at.decay"),
        ("classifiers", {"name": "cosine", "scale": 0.0}, "at.scale"),
        ("posthoc", {"name": "tau_norm", "tau": -1.0}, "at.tau"),
        ("posthoc", {"name": "temperature", "temperature": 0.0}, "at.temperature"),
        ("samplers", {"name": "power", "power": 1.5}, "at.power"),
        ("longtail", {"name": "exponential", "imbalance": 0.5}, "at.imbalance"),
        ("models", {"name": "test_efficientnet", "image_size": 4}, "at.image_size"),
        ("tta", {"name": "scale", "factors": [1.0, 1.1]}, "at.factors"),
        ("tta", {"name": "rotate", "degrees": 0.0}, "at.degrees"),
    ],
)
def test_a_value_out_of_range_is_an_error_with_its_place(family_name, spec, path):
    """A wrong value is told with its dotted path, what was found and what was expected."""
    with pytest.raises(ConfigError) as caught:
        make(family_name, spec, "at")
    assert caught.value.path == path
    assert "expected" in str(caught.value)
