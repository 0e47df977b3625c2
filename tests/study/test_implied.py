"""A field of a technique that is none: in a sweep it means the one technique that has it."""

import pytest

from ablation.errors import ConfigError
from ablation.study.implied import having
from ablation.tasks.images.schema import SCHEMA
from tests.studies import BASE, arms, study

EPSILONS = {"over": {"smoothing.epsilon": [0.1, 0.3]}}


def smoothings(resolved):
    """name -> (technique, epsilon, spread) of the arms that smooth."""
    settings = {name: arm.settings.smoothing for name, arm in resolved.items()}
    return {name: (one.name, one.epsilon, one.spread) for name, one in settings.items() if one.name != "none"}


def test_a_sweep_over_a_field_of_none_means_its_technique(tmp_path):
    """Each point has the technique with its value and its defaults; the change names both."""
    resolved = arms(tmp_path, sweeps={"s": EPSILONS})
    assert smoothings(resolved) == {"s/0.1": ("label_smoothing", 0.1, "all"), "s/0.3": ("label_smoothing", 0.3, "all")}
    change = resolved["s/0.3"].change
    assert (change["smoothing.name"], change["smoothing.epsilon"]) == (("none", "label_smoothing"), (None, 0.3))
    assert resolved["s/0.3"].factors == {"smoothing.epsilon": "0.3"}


def test_a_technique_that_is_set_stays(tmp_path):
    """Over an arm that has the technique only the field changes."""
    ls = {"smoothing": {"epsilon": 0.2, "spread": "others"}}
    resolved = arms(tmp_path, ladder={"baseline": {}, "ls": ls}, sweeps={"s": {"of": "ls", **EPSILONS}})
    assert smoothings(resolved)["s/0.1"] == ("label_smoothing", 0.1, "others")
    assert set(resolved["s/0.1"].change) == {"smoothing.epsilon"}


@pytest.mark.parametrize("first", ["smoothing.spread", "smoothing.epsilon"])
def test_crossed_axes_of_one_technique(tmp_path, first):
    """Fields that only one technique has together mean that one, whichever axis is written first."""
    axes = {"smoothing.spread": ["all", "others"], "smoothing.epsilon": [0.1]}
    over = {first: axes[first], **axes}
    resolved = smoothings(arms(tmp_path, sweeps={"s": {"over": over}}))
    assert sorted(resolved.values()) == [("label_smoothing", 0.1, "all"), ("label_smoothing", 0.1, "others")]


def test_what_the_sweep_sets_beside_its_axes_counts_too(tmp_path):
    """A spread for all points, and an epsilon for each."""
    resolved = smoothings(arms(tmp_path, sweeps={"s": {"smoothing.spread": "others", **EPSILONS}}))
    assert resolved == {"s/0.1": ("label_smoothing", 0.1, "others"), "s/0.3": ("label_smoothing", 0.3, "others")}


def test_labelled_points(tmp_path):
    """A point that is a mapping means it as well, with all fields that it names."""
    over = {"loss": {"soft": {"smoothing.epsilon": 0.1, "smoothing.spread": "others"}, "focal": {"loss": "focal"}}}
    assert smoothings(arms(tmp_path, sweeps={"s": {"over": over}})) == {"s/soft": ("label_smoothing", 0.1, "others")}


def test_inner_techniques(tmp_path):
    """So does the field of a technique within another one: only one kind of class weights has a beta."""
    resolved = arms(tmp_path, sweeps={"s": {"over": {"loss.weights.beta": [0.9, 0.99]}}})
    weights = resolved["s/0.9"].settings.loss.weights
    assert (weights.name, weights.beta) == ("effective_number", 0.9)


def test_a_variant_of_a_point_has_its_technique(tmp_path):
    """What a point means holds for the arms that are of it."""
    resolved = arms(tmp_path, sweeps={"s": EPSILONS}, variants={"v": {"of": "s/0.3", "loss": "focal"}})
    assert smoothings(resolved)["v"] == ("label_smoothing", 0.3, "all")


@pytest.mark.parametrize(
    ("path", "names"), [("mix.alpha", "mixup, cutmix, remix and cmo"), ("posthoc.tau", "logit_adjustment and tau_norm")]
)
def test_a_field_of_several_techniques_is_told(tmp_path, path, names):
    """Nothing is guessed: one sentence names the techniques that have it."""
    with pytest.raises(ConfigError) as caught:
        study(tmp_path, sweeps={"s": {"over": {path: [0.5, 1.0]}}})
    assert caught.value.path == f"sweeps.s.over.{path}"
    owner, field = path.split(".")
    assert caught.value.problem == (
        f"{owner} is 'none', which has no field {field!r}; expected another {owner}, set as a whole beside or before it ({names} have it)"
    )


def test_only_a_sweep_means_it(tmp_path):
    """A rung or a variant says the whole technique: a rung without the one above it would otherwise be another technique."""
    for sections in ({"variants": {"v": {"smoothing.epsilon": 0.1}}}, {"ladder": {"baseline": {}, "v": {"smoothing.epsilon": 0.1}}}):
        with pytest.raises(ConfigError, match=r"\(label_smoothing has it\)"):
            study(tmp_path, **sections)


def test_a_field_that_nothing_has(tmp_path):
    """A misspelt field of none is told as before."""
    with pytest.raises(
        ConfigError, match=r"which has no field 'epsilom'; expected another smoothing, set as a whole beside or before it\."
    ):
        study(tmp_path, sweeps={"s": {"over": {"smoothing.epsilom": [0.5]}}})


def test_conditions_repeat_the_points(tmp_path):
    """Under another base a point has the same technique; one that unsets what the plain arm has is still an error."""
    resolved = smoothings(arms(tmp_path, sweeps={"s": EPSILONS}, conditions={"c": {"batch_size": 32}}))
    assert resolved["c/s/0.3"] == resolved["s/0.3"]
    smooth = {**BASE, "smoothing": {"epsilon": 0.2}}
    with pytest.raises(ConfigError, match="which has no field 'epsilon'"):
        arms(tmp_path, base=smooth, sweeps={"s": EPSILONS}, conditions={"c": {"smoothing": "none"}})


def test_a_condition_that_has_the_technique_keeps_the_rest_of_it(tmp_path):
    """Where the condition's base has the technique, the point changes its field there as anywhere."""
    conditions = {"c": {"smoothing": {"epsilon": 0.2, "spread": "others"}}}
    assert smoothings(arms(tmp_path, sweeps={"s": EPSILONS}, conditions=conditions))["c/s/0.1"] == ("label_smoothing", 0.1, "others")


def test_zero_obeys_the_rules_of_controls(tmp_path):
    """An epsilon of 0 is a control beside other points, and nothing where it is the only one."""
    resolved = arms(tmp_path, sweeps={"s": {"over": {"smoothing.epsilon": [0.0, 0.1]}}})
    assert resolved["s/0.0"].settings.smoothing.epsilon == 0
    with pytest.raises(ConfigError, match="changes nothing"):
        study(tmp_path, sweeps={"s": {"over": {"smoothing.epsilon": [0.0]}}})


def test_who_has_what():
    """Fields are known under their names in the file."""
    assert having("mix", ["lambda"], SCHEMA) == ["mixup", "cutmix"]
    assert having("average", ["decay", "warmup"], SCHEMA) == ["ema"]
    assert having("smoothing", ["epsilon", "head"], SCHEMA) == []
