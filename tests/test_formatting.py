"""How numbers, settings and names read wherever they are shown."""

import math

import pytest

from ablation import formatting


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a|b", r"a\|b"), ("<i>", "&lt;i&gt;"), ("R&D", "R&amp;D"), ("two\r\nlines", "two lines"), ("class_balanced", "class_balanced"),
     ("_x_ *y*", r"\_x\_ \*y\*"), ("[a](b)", r"\[a\](b)"), ("back\\|", r"back\\\|"), ("`x`", r"\`x\`")],
)  # fmt: skip
def test_names_cannot_break_a_table(text, expected):
    """Pipes, tags, line breaks and marks come out as themselves."""
    assert formatting.escaped(text) == expected


@pytest.mark.parametrize(
    ("num_bytes", "expected"),
    [(0, "0 kB"), (1, "1 kB"), (206_501, "207 kB"), (999_400, "999 kB"), (1_000_000, "1 MB"), (120e6, "120 MB"), (3.24e9, "3.2 GB")],
)
def test_size(num_bytes, expected):
    """In the unit that leaves few digits; what is not empty is not nothing."""
    assert formatting.size(num_bytes) == expected


@pytest.mark.parametrize(
    ("mean", "sd", "expected"),
    [(0.8422, 0.0031, "84.22 ± 0.31"), (0.8422, math.nan, "84.22"), (math.nan, math.nan, "–"), (0.0, 0.0, "0.00 ± 0.00")],
)
def test_percent(mean, sd, expected):
    """Two decimals, no ± without a deviation, a dash without a number."""
    assert formatting.percent(mean, sd) == expected


@pytest.mark.parametrize(("mean", "sd", "expected"), [(0.754, 0.1, "+0.75 ± 0.10"), (-0.001, math.nan, "+0.00"), (math.nan, math.nan, "–")])
def test_points(mean, sd, expected):
    """Always with a sign, and never a negative zero."""
    assert formatting.change(mean, sd) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(4.2, "4.2 s"), (59.99, "60.0 s"), (200, "3 min 20 s"), (3599.7, "1 h 00 min"), (7500, "2 h 05 min"), (math.nan, "–")],
)
def test_duration(seconds, expected):
    """Seconds, then minutes, then hours."""
    assert formatting.duration(seconds) == expected


@pytest.mark.parametrize(("items", "expected"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_listed(items, expected):
    """Commas, and `and` before the last."""
    assert formatting.listed(items) == expected


@pytest.mark.parametrize(
    ("mean", "low", "high", "expected"),
    [(0.754, -0.1, 1.6, "+0.75 [-0.10, +1.60]"), (-0.001, math.nan, math.nan, "+0.00"), (math.nan, math.nan, math.nan, "–")],
)
def test_interval(mean, low, high, expected):
    """The difference, its interval if there is one, a dash without a number."""
    assert formatting.interval(mean, low, high) == expected


@pytest.mark.parametrize(
    ("count", "name", "expected"),
    [(301, "patient", "301 patients"), (1, "patient", "1 patient"), (1301, "study", "1,301 studies"), (2, "day", "2 days"),
     (2, "box", "2 boxes"), (2, "patients", "2 patients"), (2, "FOV", "2 FOVs"), (301, "患者", "301 values of 患者"),
     (1, "grid 2", "1 value of grid 2"),
     (3, "class", "3 classes"), (3, "series", "3 series"), (3, "mouse", "3 values of mouse"), (3, "axis", "3 values of axis"),
     (3, "virus", "3 values of virus"), (3, "human", "3 humans")],
)  # fmt: skip
def test_counted_groups(count, name, expected):
    """The plural of an English word, and what is true of any other name."""
    assert formatting.counted_groups(count, name) == expected


def test_cluster_words():
    """All groups of all splits, and how many are in more than one."""
    clusters = {"name": "patient", "train": 210, "validation": 31, "test": 60, "shared": 0}
    assert formatting.cluster_words(clusters) == "301 patients, none in two splits"
    assert formatting.cluster_words({**clusters, "shared": 2}) == "299 patients, 2 in two splits"
    assert formatting.cluster_words({**clusters, "shared": 2, "all": 298}) == "298 patients, 2 in two splits"
    assert formatting.cluster_words({}) == ""


@pytest.mark.parametrize(("p", "expected"), [(0.03125, "0.031"), (0.0004, "<0.001"), (1.0, "1.000"), (math.nan, "–")])
def test_p_value(p, expected):
    """Three decimals, never a zero."""
    assert formatting.p_value(p) == expected


def test_counted_and_shortened():
    """One thing, several things, and the beginning of many."""
    assert (formatting.counted(1, "class", "classes"), formatting.counted(2, "class", "classes"), formatting.counted(3, "arm")) == (
        "1 class",
        "2 classes",
        "3 arms",
    )
    assert formatting.shortened(["a", "b", "c", "d"], most=2) == "a, b and 2 more"
    assert formatting.shortened(["a", "b"], most=2) == "a and b"


def test_lines_are_wrapped_and_cut():
    """No line is longer than 100 letters; those after the first are indented, and more than are wanted end in [...]."""
    lines = formatting.wrapped("word " * 60 + "x" * 130, 4)
    assert [len(line) <= formatting.WIDTH for line in lines] == [True] * len(lines)
    assert [line.startswith("    ") for line in lines] == [False] + [True] * (len(lines) - 1)
    cut = formatting.wrapped("word " * 60, 4, most=2)
    assert (len(cut), cut[-1].endswith(" [...]"), len(cut[-1]) <= formatting.WIDTH) == (2, True, True)
    assert formatting.wrapped("word " * 3, most=2) == ["word word word"]
