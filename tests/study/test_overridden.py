"""What is written for a whole arm and replaced in each of its stages is refused, and so is a length that no stage asks for."""

import pytest

from ablation.errors import ConfigError
from ablation.study.resolving import load_study
from tests.studies import BASE, arms, study, write

SAMPLERS = [{"epochs": "2/3", "sampler": "shuffle"}, {"epochs": "1/3", "train": "head", "sampler": "class_balanced"}]
COUNTS = [{"epochs": 4}, {"epochs": 2, "train": "head"}]
STAGED = {"baseline": {"stages": SAMPLERS}}
LATER = {"baseline": {}, "staged": {"stages": SAMPLERS, "label": "staged"}}
SET_BY_ALL = {"baseline": {"sampler": "shuffle"}, "cb": {"sampler": "class_balanced"}}


def point(**overrides):
    """A sweep of one point over the loss with these settings."""
    return {"s": {"over": {"loss": {"p": {"loss": "focal", **overrides}}}}}


DROPPED = [
    ({"ladder": STAGED, "variants": {"v": {"sampler": "square_root", "loss": "focal"}}}, "variants.v.sampler"),
    ({"ladder": LATER, "variants": {"v": {"of": "staged", "sampler": "square_root", "loss": "focal"}}}, "variants.v.sampler"),
    ({"ladder": {**LATER, "r": {"sampler": "square_root", "loss": "focal"}}}, "ladder.r.sampler"),
    (
        {"ladder": {"baseline": {"mix": "mixup", "stages": [{"epochs": 1, "mix": "none"}, {"epochs": 5, "mix": "none"}]}}},
        "ladder.baseline.mix",
    ),
    (
        {"variants": {"v": {"mix": "mixup", "stages": [{"epochs": 1, "mix": "none"}, {"epochs": 5, "mix": "none", "train": "head"}]}}},
        "variants.v.mix",
    ),
    ({"ladder": STAGED, "sweeps": point(sampler="square_root")}, "sweeps.s.over.loss.p.sampler"),
    ({"ladder": STAGED, "conditions": {"c": {"sampler": "square_root", "loss": "focal"}}}, "conditions.c.sampler"),
    ({"ladder": SET_BY_ALL, "conditions": {"c": {"sampler": "square_root", "loss": "focal"}}}, "conditions.c.sampler"),
    ({"variants": {"v": {"epochs": 9, "stages": COUNTS, "loss": "focal"}}}, "variants.v.epochs"),
    ({"ladder": {"b": {"stages": COUNTS}}, "conditions": {"c": {"epochs": 9, "loss": "focal"}}}, "conditions.c.epochs"),
]
KEPT = [
    {"ladder": STAGED, "variants": {"v": {"sampler": "class_balanced", "loss": "focal"}}},
    {"ladder": {**STAGED, "r": {"stages": [{"epochs": "1/2", "sampler": "square_root"}, {"epochs": "1/2", "train": "head"}]}}},
    {
        "ladder": {
            "b": {"sampler": "square_root", "stages": SAMPLERS},
            "r": {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head"}]},
        }
    },
    {"variants": {"v": {"loss": "focal", "stages": [{"epochs": "1/2", "loss.gamma": 1.0}, {"epochs": "1/2", "loss.gamma": 3.0}]}}},
    {"variants": {"v": {"tta": "hflip", "stages": COUNTS}}},
    {"variants": {"v": {"epochs": 6, "stages": COUNTS}}},
    {"base": {**BASE, "sampler": "square_root"}, "ladder": STAGED},
    {"ladder": {**SET_BY_ALL, "r": {"loss": "focal"}}, "conditions": {"c": {"sampler": "class_balanced", "tta": "hflip"}}},
    {"ladder": {"b": {}, "cb": {"sampler": "class_balanced"}}, "conditions": {"c": {"sampler": "square_root", "loss": "focal"}}},
    {"ladder": {"b": {}, "f": {"smoothing": {"epsilon": 0.2}}}, "conditions": {"c": {"smoothing": {"epsilon": 0.1, "spread": "others"}}}},
    {"base": {**BASE, "stages": SAMPLERS}, "conditions": {"c": {"stages.0.sampler": "square_root"}}},
    {"variants": {"v": {"stages": COUNTS}}, "conditions": {"c": {"epochs": 3}}},
]


@pytest.mark.parametrize(("sections", "path"), DROPPED)
def test_what_every_stage_replaces_is_refused(tmp_path, sections, path):
    """It would stand in the file, and no run would have it."""
    with pytest.raises(ConfigError, match="; expected ") as error:
        study(tmp_path, **sections)
    assert error.value.path == path


def test_the_message_says_where_to_write_it(tmp_path):
    """With the value, the arm, and a place where it acts."""
    words = r"found square_root, but each of the 2 stages of 'v' sets its own; expected it in a stage, such as stages.0.sampler, or no such"
    with pytest.raises(ConfigError, match=words):
        study(tmp_path, ladder=STAGED, variants={"v": {"sampler": {"name": "square_root"}, "loss": "focal"}})


@pytest.mark.parametrize("sections", KEPT)
def test_what_a_stage_has_is_allowed(tmp_path, sections):
    """As it is or with another field; in the first rung, what any arm below it has; in a condition, what any of its arms has."""
    assert study(tmp_path, **sections).arms


def test_what_is_recorded_is_not_looked_at(tmp_path):
    """An arm that was run with an earlier version is still loaded."""
    path = write(tmp_path, ladder=STAGED, variants={"v": {"sampler": "square_root", "loss": "focal"}})
    assert load_study(path, is_recorded=True).arms[1].name == "v"


@pytest.mark.parametrize("sets", [[("epochs", 2)], [("stages.1.epochs", 3), ("epochs", 2)]])
def test_a_length_that_no_stage_asks_for(tmp_path, sets):
    """--set epochs is refused where every stage of every arm has a count, and so is a profile's."""
    with pytest.raises(ConfigError, match=r"--set\.epochs: changes nothing, because every stage of every arm has its length as a count"):
        study(tmp_path, ladder={"b": {"stages": COUNTS}}, sets=sets)
    with pytest.raises(ConfigError, match=r"profiles\.p\.base\.epochs: found 2, but every stage"):
        study(tmp_path, "p", ladder={"b": {"stages": COUNTS}}, profiles={"p": {"seeds": [3], "base": {"epochs": 2}}})


def test_a_length_that_a_stage_asks_for(tmp_path):
    """In some arm, or by another --set; a profile may say how long they are together."""
    assert study(tmp_path, "p", ladder={"b": {"stages": COUNTS}}, profiles={"p": {"seeds": [3], "base": {"epochs": 6}}}).arms
    by_name = arms(tmp_path, variants={"v": {"stages": COUNTS}}, sets=[("epochs", 2)])
    assert [sum(stage.epochs for stage in arm.stages) for arm in by_name.values()] == [2, 6]
    sets = [("epochs", 2), ("stages.0.epochs", "1/2")]
    assert [stage.epochs for stage in arms(tmp_path, ladder={"b": {"stages": COUNTS}}, sets=sets)["b"].stages] == [1, 2]
