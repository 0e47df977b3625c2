"""How settings, numbers and names read in a document."""

import math

import pytest

from ablation import formatting as words


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sampler.name": ["shuffle", "class_balanced"]}, ["sampler class_balanced"]),
        ({"tta": ["none", "hflip"]}, ["tta hflip"]),
        ({"mix.alpha": [None, 0.4], "mix.name": ["none", "mixup"]}, ["mix mixup (alpha 0.4)"]),
        ({"mix.alpha": [0.4, None], "mix.name": ["mixup", "none"]}, ["mix none"]),
        ({"loss.weights.beta": [0.9, None], "loss.name": ["focal", "ldam"]}, ["loss ldam"]),
        ({"longer.name": ["a", "b"], "long.x": [1, None]}, ["longer b", "no long.x"]),
        ({"average.warmup": [False, True], "optimizer.lr": [0.1, 1e-4]}, ["average.warmup true", "optimizer.lr 0.0001"]),
        ({"augment": [[], ["hflip", "crop"]]}, ['augment ["hflip", "crop"]']),
        ({"posthoc.tau": [None, "the best of 0.5, 1.0 by val/nll"]}, ["posthoc.tau: the best of 0.5, 1.0 by val/nll"]),
        ({"mix.name": ["none", "the best of mixup, remix by val/nll"]}, ["mix: the best of mixup, remix by val/nll"]),
        ({}, []),
        # fields at their defaults are not told, those of techniques within either
        ({"mix.name": ["none", "cutmix"], "mix.alpha": [None, 1.0], "mix.only": [None, "all"]}, ["mix cutmix"]),
        ({"mix.name": ["none", "cutmix"], "mix.alpha": [None, 1.0], "mix.only": [None, "tail"]}, ["mix cutmix (only tail)"]),
        ({"tta.name": ["none", "scale"], "tta.factors": [None, [0.9, 1.1]], "tta.average": [None, "logits"]}, ["tta scale"]),
        ({"loss.name": ["cross_entropy", "focal"], "loss.gamma": [None, 2.0], "loss.form": [None, "softmax"]}, ["loss focal"]),
        (
            {"loss.name": ["cross_entropy", "focal"], "loss.gamma": [None, 1.0], "loss.weights.name": ["none", "effective_number"],
             "loss.weights.beta": [None, 0.9999]},
            ["loss focal (gamma 1, weights effective_number)"],
        ),
        ({"loss.weights.name": ["none", "effective_number"], "loss.weights.beta": [None, 0.9]},
         ["loss.weights effective_number (beta 0.9)"]),
        ({"loss.name": ["cross_entropy", "mine:Loss"], "loss.scale": [None, 2.0]}, ["loss mine:Loss (scale 2)"]),
        # stages: each in one piece, its own options first
        (
            {"stages.0.epochs": [6, 4], "stages.1.epochs": [None, 2], "stages.1.sampler.name": ["shuffle", "class_balanced"],
             "stages.1.train": ["all", "head"], "stages.1.head": ["keep", "new"], "stages.1.backbone": ["train", "eval"]},
            ["stages.0: epochs 4", "stages.1: epochs 2, train head, head new, sampler class_balanced"],
        ),
        ({"stages.1.backbone": ["train", "eval"]}, ["stages.1: backbone eval"]),
        ({"stages.10.epochs": [None, 1], "stages.9.epochs": [None, 1]}, ["stages.9: epochs 1", "stages.10: epochs 1"]),
        # a list of techniques: from what to what
        ({"augment": [[], None], "augment.0.name": [None, "hflip"]}, ["augment: none → hflip"]),
        ({"augment": [None, []], "augment.0.name": ["hflip", None], "augment.1.name": ["vflip", None]}, ["augment: hflip, vflip → none"]),
        (
            {"augment.1.name": ["affine", "erase"], "augment.1.degrees": [10.0, None], "augment.1.probability": [None, 0.1]},
            ["augment: …, affine (degrees 10) → …, erase (probability 0.1)"],
        ),
        ({"augment.1.degrees": [10.0, 20.0]}, ["augment.1.degrees 20"]),
    ],
)  # fmt: skip
def test_a_change_is_told_shortly(change, expected):
    """A technique by its name, a field by its path; fields that left with their technique are not told."""
    assert words.change_words(change) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a|b", r"a\|b"), ("<i>", "&lt;i&gt;"), ("R&D", "R&amp;D"), ("two\r\nlines", "two lines"), ("class_balanced", "class_balanced"),
     ("_x_ *y*", r"\_x\_ \*y\*"), ("[a](b)", r"\[a\](b)"), ("back\\|", r"back\\\|"), ("`x`", r"\`x\`")],
)  # fmt: skip
def test_names_cannot_break_a_table(text, expected):
    """Pipes, tags, line breaks and marks come out as themselves."""
    assert words.escaped(text) == expected


@pytest.mark.parametrize(
    ("mean", "sd", "expected"),
    [(0.8422, 0.0031, "84.22 ± 0.31"), (0.8422, math.nan, "84.22"), (math.nan, math.nan, "–"), (0.0, 0.0, "0.00 ± 0.00")],
)
def test_percent(mean, sd, expected):
    """Two decimals, no ± without a deviation, a dash without a number."""
    assert words.percent(mean, sd) == expected


@pytest.mark.parametrize(("mean", "sd", "expected"), [(0.754, 0.1, "+0.75 ± 0.10"), (-0.001, math.nan, "+0.00"), (math.nan, math.nan, "–")])
def test_points(mean, sd, expected):
    """Always with a sign, and never a negative zero."""
    assert words.change(mean, sd) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(4.2, "4.2 s"), (59.99, "60.0 s"), (200, "3 min 20 s"), (3599.7, "1 h 00 min"), (7500, "2 h 05 min"), (math.nan, "–")],
)
def test_duration(seconds, expected):
    """Seconds, then minutes, then hours."""
    assert words.duration(seconds) == expected


@pytest.mark.parametrize(("items", "expected"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_listed(items, expected):
    """Commas, and `and` before the last."""
    assert words.listed(items) == expected


@pytest.mark.parametrize(
    ("mean", "low", "high", "expected"),
    [(0.754, -0.1, 1.6, "+0.75 [-0.10, +1.60]"), (-0.001, math.nan, math.nan, "+0.00"), (math.nan, math.nan, math.nan, "–")],
)
def test_interval(mean, low, high, expected):
    """The difference, its interval if there is one, a dash without a number."""
    assert words.interval(mean, low, high) == expected


@pytest.mark.parametrize(("p", "expected"), [(0.03125, "0.031"), (0.0004, "<0.001"), (1.0, "1.000"), (math.nan, "–")])
def test_p_value(p, expected):
    """Three decimals, never a zero."""
    assert words.p_value(p) == expected


def test_counted_and_shortened():
    """One thing, several things, and the beginning of many."""
    assert (words.counted(1, "class", "classes"), words.counted(2, "class", "classes"), words.counted(3, "arm")) == (
        "1 class",
        "2 classes",
        "3 arms",
    )
    assert words.shortened(["a", "b", "c", "d"], most=2) == "a, b and 2 more"
    assert words.shortened(["a", "b"], most=2) == "a and b"
