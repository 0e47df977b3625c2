"""Names that are too long for their place are cut so that no two look alike, and what is said behind them stays whole."""

import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ablation.report.figures import (
    classes,
    cost,
    curves,
    differences,
    dots,
    labels,
    matrices,
    ranking,
    recall,
    reliability,
    results,
    style,
    waterfall,
)
from ablation.report.figures.page import ArmsShown
from ablation.report.metrics import metrics_of

METRICS = metrics_of({})
LONG = [f"an-arm-with-one-and-the-same-very-long-beginning/{number}/and-one-and-the-same-very-long-end" for number in range(3)]
ACCURACY = results.axis_of("accuracy", METRICS)


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text().strip()]


def are_told_apart(shown):
    """Whether each of the long names is shown in a form of its own."""
    return len(shown) >= len(LONG) and len(set(shown)) == len(shown)


def test_names_that_fit_are_whole():
    """On one line."""
    assert labels.cut(["cat", "two\nlines", "x" * 12], 12) == ["cat", "two lines", "x" * 12]
    assert labels.fitted(["cat", "two\nlines"], 8, [1.0, 1.0]) == ["cat", "two lines"]


def test_one_long_name_is_cut_in_its_middle():
    """Its beginning and its end are read."""
    assert labels.cut(["abcdefghij"], 7) == ["abc…hij"]
    assert labels.fitted(["abcdefghij" * 3], 8, [0.8]) == [style.fitted("abcdefghij" * 3, 8, 0.8)]


@pytest.mark.parametrize("longest", [8, 12, 30])
@pytest.mark.parametrize(
    "names",
    [
        ["stage-two-lr/1e-05", "stage-two-lr/0.001", "stage-two-lr/0.01", "stage-two-lr/0.0001"],
        [f"{'a' * 20}{number}{'b' * 20}" for number in range(12)],
        LONG,
        ["cutmix/cb/all/drawn", "cutmix/cb/all/fixed", "cutmix/cb/tail/drawn", "cutmix/shuffled/tail/drawn"],
    ],
)
def test_no_two_names_are_alike(names, longest):
    """Whether they differ at their ends or inside only; and none is longer than it may be."""
    found = labels.cut(names, longest)
    assert len(set(found)) == len(names)
    assert max(map(len, found)) <= longest
    in_inches = labels.fitted(names, 8, [0.06 * longest] * len(names))
    assert len(set(in_inches)) == len(names)
    assert style.widest(in_inches, 8) <= 0.06 * longest


def test_what_is_left_could_be_of_no_other_name():
    """Also where the other one is whole."""
    first, second = labels.cut(["decoupled/balanced-softmax", "decoupled/softmax"], 17)
    assert second == "decoupled/softmax"
    assert not ("decoupled/softmax".startswith(first.split("…")[0]) and "decoupled/softmax".endswith(first.split("…")[1]))


@pytest.mark.parametrize("names", [["ox", "x", ""], ["abc", "abd"]])
def test_short_names_are_never_cut(names):
    """Whatever room there is: nothing would be shorter."""
    assert labels.fitted(names, 8, [0.01] * len(names)) == names


def test_equal_names_are_equal():
    """A parent that stands above two groups of arms has one name."""
    assert labels.cut(["x" * 30, "y" * 30, "x" * 30], 9) == ["xxxx…xxxx", "yyyy…yyyy", "xxxx…xxxx"]


@pytest.mark.parametrize("wide", [style.BESIDE, style.COLUMN])
def test_rows_of_dots_keep_their_numbers_of_seeds(wide):
    """The name alone is cut, the count behind it is whole, and nothing is beyond the page."""
    one = results.Row("a", "", {0: 50.0, 1: 52.0}, 51.0, 1.4, "", np.nan, None)
    rows = [replace(one, name=name, remark=" (2 of 3 seeds)") for name in LONG] + [replace(one, name=LONG[0], remark=", the parent")]
    with style.styled():
        figure = dots.page(rows, ACCURACY, wide)
        FigureCanvasAgg(figure).draw()
        boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert are_told_apart(shown[:3])
    assert all(label.endswith(" (2 of 3 seeds)") for label in shown[:3])
    assert shown[3].endswith(", the parent")
    assert min(box.x0 for box in boxes) >= 0


def test_rows_of_forests_are_told_apart():
    """Arms by their names, and partners by theirs."""
    row = {"mean": 1.0, "low": 0.5, "high": 1.5, "verdict": "better"}
    part = [differences.Row("variants", name, parent, {"parent": row}) for name, parent in zip(LONG, reversed(LONG), strict=True)]
    with style.styled():
        figure = differences.forest_page(part, differences.Scale("points", 2, -2, 2, 0.0, ""))
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()][1:]
    assert are_told_apart([label.partition(" (of ")[0] for label in shown])
    assert are_told_apart([label.partition(" (of ")[2] for label in shown])


def test_titles_of_matrices_are_told_apart():
    """And the classes beside them."""
    figure = matrices.confusion_page(dict.fromkeys(LONG, np.eye(3)), LONG)
    assert are_told_apart([axes.get_title() for axes in figure.axes if axes.images])
    beside = next(drawn.get_label().split() for drawn in figure.findobj(mpl.collections.PathCollection))
    assert are_told_apart(beside)


def test_classes_below_bars_are_told_apart():
    """The names of the classes of a data set often begin alike."""
    figure = classes.distribution_page({"train": [3, 2, 1]}, LONG, {})
    assert are_told_apart([label.get_text() for label in figure.axes[0].get_xticklabels()])


def test_legends_of_rankings_are_told_apart():
    """The rungs and the classes."""
    line = np.linspace(0, 1, len(ranking.ranking.GRID))
    found = [ranking.Curve(name, line, line, line, 0.5) for name in LONG]
    figure = ranking.ranking_page("roc", ranking.Curves(found, LONG[2], found), style.PAGE)
    for axes in figure.axes:
        assert are_told_apart([text.get_text() for text in axes.get_legend().get_texts()])


def test_legends_of_curves_are_told_apart():
    """Those of one training, too, which share a line."""
    curve = curves.Curve(np.array([1]), *[np.array([1.0])] * 3)
    strip = curves.Strip("variants", {"a": " = ".join(LONG[:2]), "b": LONG[2]}, "")
    figure = curves.curve_page([strip], {"a": {"train/loss": curve}, "b": {"train/loss": curve}}, {"train/loss": ""})
    shown = [line.removesuffix(" =") for text in figure.legends[0].get_texts() for line in text.get_text().split("\n")]
    assert are_told_apart(shown)


def test_reliability_diagrams_are_told_apart():
    """By their titles."""
    bins = pd.DataFrame({"bin": [3], "confidence": [0.2], "accuracy": [0.3], "share": [1.0]})
    figure = reliability.reliability_page([reliability.Reliability(name, bins, 0.1, False) for name in LONG])
    assert are_told_apart([axes.get_title() for axes in figure.axes if axes.get_title()])


def test_recalls_rungs_and_costs_are_told_apart():
    """The classes of a recall, the rungs of a waterfall and the arms beside costs."""
    recalls = [recall.ClassRecall(name, "", -1, 50, 60, np.nan, np.nan) for name in LONG]
    assert are_told_apart([label.get_text() for label in recall.recall_page(recalls, "t", [], style.COLUMN).axes[0].get_yticklabels()])
    ladder = waterfall.Ladder("", LONG, [1.0, 2.0, 3.0], [{"mean": 1.0, "low": np.nan, "high": np.nan}] * 2, {})
    shown = [label.get_text() for label in waterfall.waterfall_page([ladder], "accuracy", METRICS).axes[-1].get_xticklabels()]
    assert are_told_apart(shown)
    gains = [cost.Gain(name, place + 1, place, np.nan, np.nan) for place, name in enumerate(LONG)]
    assert are_told_apart([text.get_text() for text in cost.cost_page(gains, "accuracy", METRICS, style.COLUMN).axes[0].texts])


@pytest.mark.parametrize("wide", [style.WIDEST, style.COLUMN])
def test_titles_of_slopes_do_not_overlap(wide):
    """Each is cut to its panel and the names of classes beside it, and has its seeds in full."""
    before = pd.Series([50.0, 60, 70], index=["cat", "dog", "ox"])
    pairs = dict.fromkeys([*LONG, "cb"], (before, before + 5))
    with style.styled():
        figure = classes.slope_page(pairs, {}, wide, [", seeds 0-1", "", ", seeds 0-1", ""])
        FigureCanvasAgg(figure).draw()
        titles = [axes.title if axes.get_title() else axes._left_title for axes in figure.axes]
        boxes = [title.get_window_extent() for title in titles]
    assert not [(a, b) for place, a in enumerate(boxes) for b in boxes[:place] if a.overlaps(b)]
    assert max(box.x1 for box in boxes) <= figure.bbox.width
    shown = [title.get_text() for title in titles]
    assert are_told_apart([re.sub(", seeds 0-1$", "", text) for text in shown])
    assert [text.endswith(", seeds 0-1") for text in shown] == [True, False, True, False]


def test_slopes_of_a_study_name_the_seeds_whole():
    """An arm with a long name and fewer seeds than its baseline."""
    by_seed = {"base": pd.DataFrame({"a": [0.2, 0.4, 0.9]}), LONG[0]: pd.DataFrame({"a": [0.3, 0.5]})}
    per_class = pd.DataFrame([(arm, "a", frame["a"].mean()) for arm, frame in by_seed.items()], columns=["arm", "class", "recall"])
    names = {name: name for name in by_seed}
    shown = ArmsShown(names, names, {"base": "ladder", LONG[0]: "variant"}, {"base": "", LONG[0]: "base"})
    (page,) = classes.slope_pages(per_class, ["a"], {}, shown, by_seed)
    assert any("…" in text and text.endswith(", seeds 0-1") for text in texts_of(page.draw()))


def test_a_legend_with_one_long_label_has_two_columns():
    """Where columns of one width would leave one, two of their own widths are used if they fit; and the room above is that of its rows."""
    handles = [mpl.lines.Line2D([], [], label=label) for label in ("a", "b", "c", "d", "e", "f" * 24)]
    figure = style.Sheet(1, 1, width=style.COLUMN - 0.8, height=1).blank()
    assert style.legend(figure, handles) == style.legend_height(style.COLUMN, handles) == pytest.approx(0.12 + 3 * 1.4 * 7 / 72)
    assert figure.legends[0]._ncols == 2
    FigureCanvasAgg(figure).draw()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
