"""What is written and changes nothing is refused; a neutral value is allowed where it is a control."""

from typing import Literal

import pytest

from ablation.errors import ConfigError
from ablation.study.groups import resolve
from ablation.study.resolving import load_study
from ablation.techniques import technique
from ablation.techniques.losses import CrossEntropy
from ablation.techniques.technique import FAMILIES, Technique, family
from tests.studies import BASE, study, write


def variant(**overrides):
    """A variant with these settings."""
    return {"variants": {"x": overrides}}


def with_base(**overrides):
    """A base with these settings."""
    return {"base": {**BASE, **overrides}}


WITHOUT_EFFECT = [
    variant(augment=[{"name": "hflip", "probability": 0}]),
    variant(augment=["affine"]),
    variant(augment=[{"name": "erase", "probability": 0}]),
    variant(augment=[{"name": "crop", "padding": 0}]),
    variant(augment=[{"name": "color_jitter", "brightness": 0, "contrast": 0, "saturation": 0}]),
    variant(mix={"name": "mixup", "lambda": 1}),
    variant(mix={"name": "cmo", "probability": 0, "off_first": 0, "off_last": 0}),
    variant(mix={"name": "switch", "probability": 1}),
    variant(smoothing={"epsilon": 0}),
    variant(loss={"name": "focal", "gamma": 0}),
    variant(loss={"name": "ldam", "max_margin": 0}, classifier="cosine"),
    variant(loss={"name": "logit_adjusted", "tau": 0}),
    variant(loss={"name": "vs", "gamma": 0, "tau": 0}),
    variant(loss={"name": "equalization", "gamma": 0}),
    variant(loss={"name": "seesaw", "p": 0, "q": 0}),
    variant(loss={"name": "class_balanced", "beta": 0}),
    variant(average={"name": "ema", "decay": 0}),
    variant(posthoc={"name": "logit_adjustment", "tau": 0}),
    variant(posthoc={"name": "temperature", "temperature": 1.0}),
    variant(schedule={"name": "exponential", "gamma": 1}),
    variant(schedule={"name": "multi_step", "milestones": []}),
    variant(schedule={"name": "multi_step", "milestones": [100, 150]}),
    variant(schedule={"name": "multi_step", "milestones": [3], "epochs": 2}),
    variant(**{"schedule.warmup_epochs": 40}),
    variant(**{"schedule.warmup_epochs": 6}),
    variant(schedule={"name": "cosine", "final_lr": 1.0}),
    variant(stages=[{"epochs": "1/2"}, {"epochs": "1/2", "train": "head", "schedule": {"name": "multi_step", "milestones": [4]}}]),
    variant(stages=[{"epochs": "1/2"}, {"epochs": "1/2", "train": "head", "schedule.warmup_epochs": 4}]),
    variant(schedule={"name": "constant", "warmup_epochs": 7}),
    variant(stages=[{"epochs": "1/2"}, {"epochs": "1/2", "loss": {"name": "focal", "gamma": 0}}]),
    with_base(smoothing={"epsilon": 0}),
    with_base(augment=["affine"]),
    {"sweeps": {"s": {"over": {"mix.alpha": [1.0]}, "of": "m"}}, "variants": {"m": {"mix": "mixup"}}},
    {"sweeps": {"s": {"over": {"smoothing": {"a": {"smoothing": {"epsilon": 0}}}}}}},
    {"conditions": {"c": {"average": {"name": "ema", "decay": 0}}}},
    {**with_base(epochs=1, data={"name": "digits", "validation": 0.1}, select="best_on_validation")},
    {"ladder": {"b": {}, "r": {"posthoc": {"name": "logit_adjustment", "tau": 0}}}},
]
WITH_EFFECT = [
    with_base(epochs=1, sampler="progressive"),
    variant(posthoc={"name": "tau_norm", "tau": 0}),
    variant(sampler={"name": "power", "power": 1}),
    variant(sampler={"name": "effective_number", "beta": 0}),
    variant(smoothing={"name": "label_aware", "head": 0.1, "tail": 0.1}),
    {**with_base(schedule={"name": "multi_step", "milestones": [4]}), **variant(stages=[{"epochs": 3}, {"epochs": 3, "train": "head"}])},
    {"variants": {"m": {"smoothing": {"epsilon": 0.1}}}, "sweeps": {"s": {"of": "m", "over": {"smoothing.epsilon": [0, 0.2, 0.4]}}}},
    {"variants": {"m": {"posthoc": "logit_adjustment"}}, "sweeps": {"s": {"of": "m", "over": {"posthoc.tau": [0, 0.5, 1]}}}},
    {**with_base(augment=["hflip", {"name": "erase"}]), "variants": {"no-erase": {"augment.1.probability": 0}}},
    {**with_base(smoothing={"epsilon": 0}), "ladder": {"b": {}, "ls": {"smoothing.epsilon": 0.1}}},
    variant(loss="class_balanced_sigmoid"),
    variant(**{"schedule.warmup_epochs": 5}),
    variant(**{"schedule.warmup_epochs": 1}),
    with_base(epochs=1, **{"schedule.warmup_epochs": 1}),
    variant(schedule="multi_step"),
    variant(schedule={"name": "constant", "warmup_epochs": 6}),
    variant(schedule={"name": "multi_step", "milestones": [3, 5]}),
    with_base(epochs=1, schedule="multi_step"),
    variant(schedule={"name": "cosine", "epochs": 100}),
    variant(stages=[{"epochs": "1/2"}, {"epochs": "1/2", "train": "head", "restart": ["optimizer"]}]),
    variant(mix={"name": "mixup", "lambda": 0.3}),
    variant(optimizer={"name": "sgd", "lr": 1e30}),
    {"sweeps": {"s": {"over": {"optimizer.lr": [1e-4, 1e-3]}}}},
    {
        "sweeps": {
            "s": {
                "over": {
                    "loss": {
                        "ce": {"loss": "cross_entropy"},
                        "f": {"loss": {"name": "focal", "gamma": 0}},
                        "g": {"loss": {"name": "focal", "gamma": 1}},
                    }
                }
            }
        }
    },
    {"sweeps": {"g": {"over": {"loss": [{"name": "focal"}, "ldam"]}, "classifier": "cosine"}}},
    variant(schedule={"name": "cosine", "final_lr": 1e-3}),
]
FROM_FILE = {**BASE["model"], "weights": "w.safetensors"}


@pytest.mark.parametrize("overrides", [{"model.pretrained": True}, {"model": {**FROM_FILE, "pretrained": True}}])
def test_pretrained_beside_a_file_of_weights(tmp_path, overrides):
    """The file is read in any case; as the only change of an arm it is refused, and may stand anywhere else."""
    with pytest.raises(
        ConfigError, match=r"variants\.x\.model\.pretrained: changes nothing beside model\.weights, .*; expected no such arm"
    ):
        study(tmp_path, **with_base(model=FROM_FILE), **variant(**overrides))
    assert study(tmp_path, **with_base(model=FROM_FILE), **variant(**overrides, loss="focal")).arms[1].change["model.pretrained"]
    assert study(tmp_path, **with_base(model={**FROM_FILE, "pretrained": True}), **variant(**{"model.weights": "none"})).arms
    path = write(tmp_path, **variant(**{"model.pretrained": True}))
    assert load_study(path, sets=(("model.weights", "w.safetensors"),)).arms[1].settings.model.weights == "w.safetensors"


VALIDATED = {"name": "digits", "validation": 0.1}
WORDS = ("changes nothing", "never reached", "does not end", "none is left", "would rise")


@pytest.mark.parametrize("sections", WITHOUT_EFFECT)
def test_what_changes_nothing_is_refused(tmp_path, sections):
    """With its place, why it changes nothing, and what is expected instead."""
    with pytest.raises(ConfigError, match="; expected ") as error:
        study(tmp_path, **sections)
    assert any(words in error.value.problem for words in WORDS)
    assert error.value.path.partition(".")[0] in (*sections, "base")


@pytest.mark.parametrize("sections", WITH_EFFECT)
def test_what_acts_or_is_a_control_is_allowed(tmp_path, sections):
    """Neutral points of a sweep, a base that its rungs set in motion, an arm that switches off what its parent has."""
    assert len(study(tmp_path, **sections).arms) >= 1


def test_set_is_not_looked_at(tmp_path):
    """Who sets a length for a trial knows it: one epoch leaves nothing to choose among."""
    path = write(tmp_path, **with_base(data=VALIDATED, select="best_on_validation"))
    assert load_study(path, sets=(("epochs", 1),)).arms[0].stages[0].epochs == 1


def test_what_is_recorded_is_not_looked_at(tmp_path):
    """A control that was recorded, such as a sweep's neutral point, is loaded alone to be verified."""
    path = write(tmp_path, **with_base(posthoc={"name": "logit_adjustment", "tau": 0}))
    assert load_study(path, is_recorded=True).arms[0].name == "baseline"


NEUTRAL = [one for name in FAMILIES for one in family(name).techniques.values() if "why_neutral" in vars(one)]


@pytest.mark.parametrize("one", NEUTRAL)
def test_defaults_act(one):
    """But for affine's, which are all at rest."""
    assert bool(one().why_neutral) == (one.__name__ == "Affine")


class Mine(CrossEntropy):
    """A loss of the user's own, under the name of a built-in and without its settings."""

    name: Literal["focal"] = "focal"
    strength: float = 1.0

    @property
    def why_neutral(self) -> str:
        """Where it has no strength."""
        return "strength 0 is no loss; expected more" if self.strength == 0 else ""


def test_a_class_of_the_users_own_is_asked_itself(tmp_path, monkeypatch):
    """Nothing is known by its name, whatever it is called; without a word of its own it acts."""
    monkeypatch.setattr(technique._PERMISSION, "is_given", True)
    loss = f"{__name__}:Mine"
    assert study(tmp_path, **variant(loss=loss)).arms[1].name == "x"
    with pytest.raises(ConfigError, match="strength 0 is no loss"):
        study(tmp_path, **variant(loss={"name": loss, "strength": 0.0}))
    assert Technique().why_neutral == ""


LATE = {"schedule": {"name": "multi_step", "milestones": [2, 4]}}


@pytest.mark.parametrize(
    ("sections", "place"),
    [
        ({"conditions": {"c": {"loss": {"name": "focal", "gamma": 0}}}}, "conditions.c.loss"),
        ({"conditions": {"c": {"epochs": 3}}, **with_base(**LATE)}, "conditions.c.epochs"),
        (with_base(**LATE, epochs=3), "base.schedule"),
        ({**with_base(**LATE), **variant(epochs=3)}, "variants.x.epochs"),
        ({**with_base(schedule={"name": "cosine", "final_lr": 1e-3}), **variant(**{"optimizer.lr": 1e-4})}, "variants.x.optimizer"),
        ({**with_base(loss={"name": "focal", "gamma": 0}), "ladder": {"b": {}, "r": {"epochs": 7}}}, "base.loss"),
    ],
)
def test_the_place_is_where_it_is_set(tmp_path, sections, place):
    """In a condition, an arm or the base, whichever sets it last."""
    with pytest.raises(ConfigError) as error:
        study(tmp_path, **sections)
    assert error.value.path == place


@pytest.mark.parametrize(
    "base", [LATE, {"schedule": {"name": "cosine", "warmup_epochs": 4}}, {"data": VALIDATED, "select": "best_on_validation"}]
)
def test_a_profile_or_set_may_shorten(tmp_path, base):
    """What then never acts is for the whole study."""
    shortened = {**with_base(**base), "profiles": {"quick": {"base": {"epochs": 1}}, "short": {"base": {"epochs": 2}}}}
    for profile in ("quick", "short"):
        assert study(tmp_path, profile, **shortened).arms
    assert load_study(write(tmp_path, **shortened), sets=(("epochs", 2),)).arms


@pytest.mark.parametrize("base", [{"epochs": 6}, {"optimizer.lr": 1e-3}, {"sampler": "shuffle", "batch_size": 128}])
def test_a_profile_that_is_the_base(tmp_path, base):
    """What it sets, the base has already; other seeds or groups are a profile."""
    with pytest.raises(ConfigError, match=r"profiles\.p: changes nothing against the base"):
        study(tmp_path, "p", profiles={"p": {"base": base}})
    assert study(tmp_path, "p", profiles={"p": {"base": base, "seeds": [7]}}).seeds == (7,)


def test_an_empty_group_is_not_written():
    """A list without classes would make a group that no table shows."""
    with pytest.raises(ConfigError, match=r"groups\.few: found an empty list; expected at least one class"):
        resolve({"few": []}, [100, 10], ["a", "b"])
