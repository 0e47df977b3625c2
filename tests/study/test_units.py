"""Units: a number in another unit than its setting's is refused, and the message has the number that may be meant."""

import re

import pytest

from ablation.errors import ConfigError
from ablation.report.frames.references import read
from tests.report.studies import arm
from tests.report.studies import study as recorded
from tests.studies import BASE, arms, study


def ladder(*published):
    """A ladder with these published figures."""
    rungs = [{}, {"sampler": "class_balanced"}, {"mix": "mixup"}]
    return {f"a{i}": rung | {"published": figures} for i, (rung, figures) in enumerate(zip(rungs, published, strict=False))}


@pytest.mark.parametrize(
    ("published", "place", "meant"),
    [
        ([{"A": 0.8422}], "ladder.a0.published.A", "84.22"),
        ([{"A": 84.22}, {"A": 0.8497}], "ladder.a1.published.A", "84.97"),
        ([{"A": 84.22, "B": 0.84}], "ladder.a0.published.B", "84"),
        ([{}, {"A": 1}], "ladder.a1.published.A", "100"),
        ([{"A": 0.05}, {"A": 0.07}], "ladder.a0.published.A", "5"),
    ],
)
def test_a_published_fraction_is_refused(tmp_path, published, place, meant):
    """Where percent is expected 0.8422 would be shown as 0.84 %."""
    with pytest.raises(ConfigError) as error:
        study(tmp_path, ladder=ladder(*published))
    assert error.value.path == place
    assert error.value.problem.endswith(f"expected percent, such as {meant}")


@pytest.mark.parametrize("value", ["84.22%", "84.22", -3, 100.5, 8422, float("nan"), float("inf"), True, None, [84.22]])
def test_what_is_no_percent_is_refused(tmp_path, value):
    """Only numbers from 0 to 100 are."""
    with pytest.raises(ConfigError, match="expected figures in percent") as error:
        study(tmp_path, ladder=ladder({"A": value}))
    assert error.value.path == "ladder.a0.published"


@pytest.mark.parametrize("published", [[{"A": 84.22}], [{"A": 0}], [{"A": 100}], [{"A": 62.1}, {"A": 0.1}], [{"A": 1.5}], [{}]])
def test_percent_is_percent(tmp_path, published):
    """Guessing among a thousand classes is 0.1 % right, beside 62.1."""
    assert [dict(arm.published) for arm in study(tmp_path, ladder=ladder(*published)).arms] == published


@pytest.mark.parametrize(
    ("overrides", "place", "words"),
    [
        ({"data": {"name": "digits", "test": 20}}, "base.data.test", "such as 0.2 for 20 percent"),
        ({"data": {"name": "digits", "validation": 10}}, "base.data.validation", "such as 0.1 for 10 percent"),
        ({"data": {"name": "digits", "validation": -0.1}}, "base.data.validation", "found -0.1"),
        ({"data": {"name": "digits", "longtail": {"name": "step", "imbalance": 0.01}}}, "base.data.longtail.imbalance", "100 for 1 / 0.01"),
        ({"smoothing": {"epsilon": 10}}, "base.smoothing.epsilon", "such as 0.1 for 10 percent"),
        ({"average": {"name": "ema", "decay": 99.99}}, "base.average.decay", "such as 0.9999 for 99.99 percent"),
        ({"optimizer": {"name": "sgd", "momentum": 90}}, "base.optimizer.momentum", "such as 0.9 for 90 percent"),
        ({"optimizer": {"name": "sgd", "lr": -0.1}}, "base.optimizer.lr", "found -0.1"),
        ({"optimizer": {"name": "adamw", "eps": 1e8}}, "base.optimizer.eps", "less than or equal to 1"),
        ({"optimizer": {"name": "adamw", "eps": 1.5}}, "base.optimizer.eps", "less than or equal to 1$"),
        ({"sampler": {"name": "power", "power": 2}}, "base.sampler.power", "less than or equal to 1$"),
        ({"model": {**BASE["model"], "drop_path": 10}}, "base.model.drop_path", "such as 0.1 for 10 percent"),
        ({"augment": [{"name": "hflip", "probability": 50}]}, "base.augment.0.probability", "such as 0.5 for 50 percent"),
        ({"augment": [{"name": "affine", "degrees": 0.26}]}, "base.augment.0.degrees", "0.26 radians would be 14.9 degrees"),
        ({"augment": [{"name": "affine", "scale": [80, 120]}]}, "base.augment.0.scale", "such as [0.8, 1.2]"),
        ({"augment": [{"name": "affine", "translate": [10, 10]}]}, "base.augment.0.translate", "two shares between 0 and 1"),
        ({"augment": [{"name": "color_jitter", "brightness": 40}]}, "base.augment.0.brightness", "found 40"),
        ({"augment": [{"name": "erase", "area": [2, 20]}]}, "base.augment.0.area", "high <= 1"),
        ({"tta": {"name": "rotate", "degrees": 0.2}}, "base.tta.degrees", "0.2 radians would be 11.5 degrees"),
        ({"tta": {"name": "scale", "factors": [90, 110]}}, "base.tta.factors", "up to 10"),
    ],
)  # fmt: skip
def test_a_setting_in_another_unit(tmp_path, overrides, place, words):
    """Percent for a fraction, radians for degrees, and their like."""
    with pytest.raises(ConfigError) as error:
        study(tmp_path, base={**BASE, **overrides})
    assert words in f"{error.value}$"
    assert error.value.path == place


@pytest.mark.parametrize("margin", [0.001, 0.005, 0.009])
def test_a_margin_is_in_points(tmp_path, margin):
    """0.005 as a fraction would be half a point."""
    with pytest.raises(ConfigError, match=rf"margin: found {margin}; expected points, such as 0\.5"):
        study(tmp_path, margin=margin)
    assert study(tmp_path, margin=0.02).margin == 0.02


@pytest.mark.parametrize("groups", [{"many": ">0.5", "few": "<0.1"}, {"many": ">50%", "few": "<10"}, {"many": 100, "few": 20}])
def test_bounds_of_groups_are_counts(groups):
    """No share of the images is a bound."""
    from ablation.study.groups import resolve

    with pytest.raises(ConfigError, match="expected a bound on the training counts such as '>100'"):
        resolve(groups, [100, 10], ["a", "b"])


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("84.22", "a fraction between 0 and 1, such as 0.8422 for 84.22 percent"),
        ("84.22%", "such as 0.8422 for 84.22 percent"),
        ("0.84%", "such as 0.0084 for 0.84 percent"),
        ("-0.1", "a fraction between 0 and 1"),
        ("nan", "a fraction between 0 and 1"),
        ("inf", "a fraction between 0 and 1"),
        ("high", "a fraction between 0 and 1"),
        ("8422", "a fraction between 0 and 1"),
    ],
)
@pytest.mark.parametrize("before", ["0.5", "1"])
def test_percent_in_a_reference_file(tmp_path, cell, words, before):
    """Its figures are fractions, in every line."""
    path = tmp_path / "a.csv"
    path.write_text(f"report,arm,accuracy\nA,cb,{before}\nB,cb,{cell}\n")
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        read(path, recorded([arm("cb", None)], seeds=[0], classes=["cat", "dog"]).plan)
    assert str(error.value).startswith(f"{path}:3: found accuracy '{cell}'")


def test_valid_units_stay(tmp_path):
    """What the units allow is what it was."""
    base = {**BASE, "augment": [{"name": "affine", "degrees": 0.9, "scale": [0.5, 2]}], "smoothing": {"epsilon": 1}, "tta": "rotate"}
    assert arms(tmp_path, base=base)["baseline"].settings.augment[0].degrees == 0.9
