"""What every member of every family here has in common. Shapes: N or B images, C classes or channels, H height, W width."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from ablation.errors import ConfigError
from ablation.techniques.technique import family, make

FAMILIES = [
    "augmentations",
    "averages",
    "class_weights",
    "losses",
    "mixing",
    "optimizers",
    "posthoc",
    "samplers",
    "schedules",
    "smoothing",
    "tta",
]
MEMBERS = [(name, member) for name in FAMILIES for member in family(name).names]
each_member = pytest.mark.parametrize(("kind", "name"), MEMBERS)


def members_of(*kinds):
    return pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name in MEMBERS if kind in kinds])


def inputs(device="cpu"):
    """A batch of six images, three classes."""
    generator = torch.Generator().manual_seed(0)
    made = {
        "images_BCHW": torch.rand(6, 3, 8, 10, generator=generator),
        "logits_BC": torch.randn(6, 3, generator=generator),
        "targets_BC": torch.eye(3)[torch.tensor([0, 1, 2, 0, 0, 1])],
        "counts_C": torch.tensor([30, 20, 10]),
        "tail_C": torch.tensor([False, False, True]),
        "labels_N": torch.tensor([0, 0, 1, 2, 1]),
    }
    return {name: tensor.to(device) for name, tensor in made.items()}


def drawn(technique, *numbers):
    return technique.draw(torch.Generator().manual_seed(1), *numbers)


def augment(technique, given):
    if technique.works_on == "resize":
        return technique.resize(given["images_BCHW"], 16)
    return technique(given["images_BCHW"], {name: rows.to(given["images_BCHW"].device) for name, rows in drawn(technique, 6).items()})


def mix(technique, given):
    rows = {name: table[1].to(given["images_BCHW"].device) for name, table in drawn(technique, 4, 6).items()}
    return technique(given["images_BCHW"], given["targets_BC"], rows, given["tail_C"])


def look(technique, given):
    logits_VBC = torch.stack([given["logits_BC"]] * len(technique.views()))
    return technique.combine(logits_VBC), [view(given["images_BCHW"]) for view in technique.views()]


CALLS = {
    "augmentations": augment,
    "class_weights": lambda technique, given: technique(given["counts_C"]),
    "losses": lambda technique, given: technique(
        given["logits_BC"], given["targets_BC"], given["counts_C"], torch.ones_like(given["counts_C"])
    ),
    "mixing": mix,
    "posthoc": lambda technique, given: technique(given["logits_BC"], given["counts_C"]),
    "samplers": lambda technique, given: technique(given["labels_N"], 3, 0, 10, torch.Generator().manual_seed(1)),
    "smoothing": lambda technique, given: technique(given["targets_BC"], given["counts_C"]),
    "tta": look,
}


@each_member
def test_is_made_by_its_bare_name(kind, name):
    """A name alone makes a technique with its defaults."""
    assert make(kind, name) == make(kind, {"name": name})


@each_member
def test_is_frozen_and_hashable(kind, name):
    """A technique cannot be changed, and equal ones are one key."""
    technique = make(kind, name)
    with pytest.raises(ValidationError):
        technique.name = "other"
    assert {technique: 1}[make(kind, name)] == 1


@each_member
def test_an_unknown_field_is_an_error_with_its_place(kind, name):
    """A misspelt field is told with its dotted path."""
    with pytest.raises(ConfigError) as caught:
        make(kind, {"name": name, "gama": 1}, "base.thing")
    assert caught.value.path == "base.thing.gama"


@each_member
def test_its_settings_make_it_again(kind, name):
    """The dumped settings, tuples as lists too, make an equal technique."""
    technique = make(kind, name)
    assert make(kind, technique.model_dump(by_alias=True)) == technique
    assert make(kind, technique.model_dump(by_alias=True, mode="json")) == technique


@each_member
def test_has_a_schema(kind, name):
    """The settings can be described as JSON schema."""
    assert TypeAdapter(type(make(kind, name))).json_schema()["properties"]["name"]["const"] == make(kind, name).name


@members_of("augmentations", "class_weights", "losses", "mixing", "posthoc", "samplers", "smoothing", "tta")
def test_leaves_its_inputs_alone(kind, name):
    """No input tensor is changed."""
    given = inputs()
    CALLS[kind](make(kind, name), given)
    for key, before in inputs().items():
        assert torch.equal(given[key], before), key


@members_of("augmentations", "class_weights", "losses", "mixing", "posthoc", "smoothing", "tta")
def test_never_asks_the_device_for_a_value(kind, name):
    """The whole computation runs on a device that has shapes but no values, so that a GPU never has to wait for the host."""
    CALLS[kind](make(kind, name), inputs("meta"))


@members_of("augmentations", "mixing", "samplers")
def test_equal_generators_give_equal_results(kind, name):
    """The result is a function of the inputs and the generator."""
    first, again = (CALLS[kind](make(kind, name), inputs()) for _ in range(2))
    first, again = (result if isinstance(result, tuple) else (result,) for result in (first, again))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@members_of("augmentations")
def test_draws_one_row_per_image(kind, name):
    """Every table of an augmentation has a row for each image of the epoch."""
    draws = make(kind, name).draw(torch.Generator().manual_seed(0), 7)
    assert all(len(rows) == 7 for rows in draws.values())


@members_of("mixing")
def test_draws_one_row_per_batch(kind, name):
    """Every table of a mixing has a row for each batch of the epoch."""
    draws = make(kind, name).draw(torch.Generator().manual_seed(0), 5, 4)
    assert all(len(rows) == 5 for rows in draws.values())


@pytest.mark.parametrize(
    ("kind", "spec", "path"),
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
        ("tta", {"name": "scale", "factors": [1.0, 1.1]}, "at.factors"),
        ("tta", {"name": "rotate", "degrees": 0.0}, "at.degrees"),
    ],
)
def test_a_value_out_of_range_is_an_error_with_its_place(kind, spec, path):
    """A wrong value is told with its dotted path, what was found and what was expected."""
    with pytest.raises(ConfigError) as caught:
        make(kind, spec, "at")
    assert caught.value.path == path
    assert "expected" in str(caught.value)
