"""How settings, numbers and names read in a document."""

import math

import pytest

from ablation.report import words


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sampler.name": ["shuffle", "class_balanced"]}, ["sampler class_balanced"]),
        ({"tta": ["none", "hflip"]}, ["tta hflip"]),
        ({"mix.alpha": [None, 0.4], "mix.name": ["none", "mixup"]}, ["mix mixup", "mix.alpha 0.4"]),
        ({"mix.alpha": [0.4, None], "mix.name": ["mixup", "none"]}, ["mix none"]),
        ({"loss.weights.beta": [0.9, None], "loss.name": ["focal", "ldam"]}, ["loss ldam"]),
        ({"longer.name": ["a", "b"], "long.x": [1, None]}, ["longer b", "no long.x"]),
        ({"average.warmup": [False, True], "optimizer.lr": [0.1, 1e-4]}, ["average.warmup true", "optimizer.lr 0.0001"]),
        ({"augment": [[], ["hflip", "crop"]]}, ['augment ["hflip", "crop"]']),
        ({"posthoc.tau": [None, "the best of 0.5, 1.0 by val/nll"]}, ["posthoc.tau: the best of 0.5, 1.0 by val/nll"]),
        ({"mix.name": ["none", "the best of mixup, remix by val/nll"]}, ["mix: the best of mixup, remix by val/nll"]),
        ({}, []),
    ],
)
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
    assert words.points(mean, sd) == expected


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
