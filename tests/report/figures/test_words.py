"""What figures say of their own marks: which intervals, which classes and which arms they show, and no zero with a sign."""

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from ablation.report.figures import (
    classes,
    cost,
    curves,
    differences,
    dots,
    matrices,
    ranking,
    recall,
    reliability,
    results,
    style,
    waterfall,
)
from ablation.report.metrics import metrics_of
from tests.report.figures.test_families import pages_of, swept
from tests.report.figures.test_figures import arms_of, points_of, rows_of, spending
from tests.report.studies import LADDER, arm

METRICS = metrics_of({})
ACCURACY = results.axis_of("accuracy", METRICS)
INTERVAL = "95 % interval of the difference"
ZERO = {"mean": -0.001, "low": -0.002, "high": -0.0001, "verdict": "inconclusive", "pairs": 2}
ROW = results.Row("a", "a", {0: 50.0, 1: 52.0}, 51.0, 1.4, "base", 51.0, ZERO)


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text().strip()]


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


# --- intervals -----------------------------------------------------------------------------------------------------------------


def test_legends_say_that_the_interval_is_of_the_difference():
    """It stands around a mean, of which it is not the interval."""
    pages, _ = pages_of()
    assert INTERVAL in legend_of(pages["ladder"].draw())
    assert f"arm, {INTERVAL}" in legend_of(pages["recall-cb"].draw())
    assert INTERVAL in legend_of(pages_of(arms=swept({"mix.alpha": ["0.1", "1.0"]}))[0]["sweep-s"].draw())


def test_intervals_of_recalls_beyond_the_panel_are_arrows():
    """In the colour of the class; those inside have none."""
    rows = [recall.ClassRecall(name, "few", 5, 50, after, low, high) for name, after, low, high in (("a", 52, -90, 90), ("b", 54, 2, 6))]
    with style.styled():
        axes = recall.recall_page(rows, "title", ["few"], style.BESIDE).axes[0]
    low, high = axes.get_xlim()
    arrows = {line.get_marker(): line for line in axes.lines if line.get_marker() in ("<", ">")}
    assert {marker: line.get_xydata().tolist() for marker, line in arrows.items()} == {"<": [[low, 0]], ">": [[high, 0]]}
    assert {line.get_color() for line in arrows.values()} == {style.darker(style.GROUPS["few"])}
    FigureCanvasAgg(axes.get_figure()).draw()
    assert max(label.get_window_extent().x1 for label in axes.get_yticklabels()) < arrows["<"].get_window_extent().x0
    spans = [path.vertices[:, 0].tolist() for drawn in axes.collections for path in drawn.get_paths()]
    assert spans == [[low, high], [52, 56]]


# --- zeros ---------------------------------------------------------------------------------------------------------------------


def test_no_zero_has_a_minus():
    """In words, beside dots and forests, at the steps of a ladder and at classes."""
    assert results.row_words(ROW, ACCURACY) == "a 51.00 (+0.00 to its parent, 95 % interval +0.00 to +0.00)"
    with style.styled():
        assert "+0.00" in texts_of(dots.page([ROW, replace(ROW, difference=None)], ACCURACY, style.BESIDE))
        part = [differences.Row("variants", "a", "base", {"parent": ZERO})]
        assert "+0.00 [+0.00, +0.00]" in texts_of(differences.forest_page(part, differences.Scale("points", 2, -2, 2, 0.0, "")))
        ladder = waterfall.Ladder("", ["baseline", "cb"], [50.0, 50.0], [ZERO], {})
        assert "+0.00" in texts_of(waterfall.waterfall_page([ladder], "accuracy", METRICS))
    pairs = {"a": (pd.Series({"cat": 50.0}), pd.Series({"cat": 50.0 - 1e-9}))}
    assert classes._slope_words(pairs)(["a"]).endswith(": a: cat +0.0 points.")


def test_waterfalls_words_have_no_zero_with_a_minus():
    """As the figure beside them."""
    arms = pd.DataFrame({"arm": ["baseline", "cb"], "n": 2, "condition": "", "accuracy_mean": [0.5, 0.5]})
    steps = pd.DataFrame([{"arm": "cb", "role": "parent", "metric": "accuracy", **ZERO}])
    plan = {"arms": [{"name": name, "kind": "ladder"} for name in ("baseline", "cb")]}
    (page,) = waterfall.waterfall_pages(arms, steps, plan, "accuracy", METRICS)
    assert page.alt.endswith("from 50.00 to 50.00 by cb +0.00.")


# --- classes -------------------------------------------------------------------------------------------------------------------

MANY = tuple(f"class {number}" for number in range(14))


def areas_in(figure):
    """The areas in the legend of the panel with the classes."""
    return {text.get_text()[:-8]: float(text.get_text()[-6:-1]) for text in figure.axes[1].get_legend().get_texts()}


@pytest.mark.parametrize(
    ("few", "which"),
    [
        (MANY[2:], "10 of the 12 classes of few"),
        (MANY[12:], "the 2 classes of few"),
        (MANY[13:], "the 1 class of few"),
        ((), "10 of the 14 classes"),
    ],
)
@pytest.mark.parametrize("kind", ["roc", "precision-recall"])
def test_of_many_classes_those_with_the_lowest_areas_are_shown(kind, few, which):
    """Of the group with the fewest images, if it has any; the title and the words say how many there are."""
    pages, frames = pages_of(classes=MANY, groups={"many": [name for name in MANY if name not in few], "few": list(few)}, images=20)
    figure, pool = pages[kind].draw(), few or MANY
    shown = areas_in(figure)
    assert figure.axes[1].get_title(loc="left") == f"mixup: {which}"
    is_cut = len(pool) > 10
    assert f"of mixup by class, {which}{', those with the lowest areas' * is_cut}: " in pages[kind].alt
    done = frames.runs[(frames.runs["arm"] == "mixup") & (frames.runs["state"] == "done")]
    found = [ranking._ranking(frames.predictions, run_id) for run_id in done["run_id"]]
    areas = np.mean([one.auroc_C if kind == "roc" else one.average_precision_C for one in found], axis=0)
    of_pool = {name: area for name, area in zip(MANY, areas, strict=True) if name in pool}
    lowest = sorted(of_pool, key=of_pool.get)[:10]
    assert set(shown) == set(lowest)
    assert shown == pytest.approx({name: of_pool[name] for name in lowest}, abs=6e-4)


def test_ten_classes_are_all_shown():
    """Without a word about which."""
    pages, _ = pages_of(classes=MANY[:10], images=20)
    assert pages["roc"].draw().axes[1].get_title(loc="left") == "mixup, by class (AUROC)"
    assert list(areas_in(pages["roc"].draw())) == list(MANY[:10])
    assert "of mixup by class: class 0 " in pages["roc"].alt


@pytest.mark.parametrize("wide", [style.PAGE, style.COLUMN])
def test_without_classes_there_is_no_panel_of_them(wide):
    """Nor a sentence about them."""
    line = np.linspace(0, 1, len(ranking.ranking.GRID))
    found = ranking.Curves([ranking.Curve("cb", line, line, line, 0.5)], "cb", [])
    figure = ranking.ranking_page("roc", found, wide)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["every rung, mean over classes (AUROC)"]
    assert ranking._words("ROC", "AUROC", found) == "ROC, mean over classes and seeds, with the AUROC: cb 0.500."


@pytest.mark.parametrize("wide", [style.PAGE, style.COLUMN])
def test_the_title_of_the_classes_is_inside_the_page(wide):
    """Its arm is cut, and which classes it has is whole."""
    line = np.linspace(0, 1, len(ranking.ranking.GRID))
    found = [ranking.Curve("a-long-name-of-an-arm" * 3, line, line, line, 0.5)]
    with style.styled():
        figure = ranking.ranking_page("roc", ranking.Curves(found, found[0].name, found, "10 of the 33 classes of few"), wide)
        FigureCanvasAgg(figure).draw()
    title = figure.axes[1]._left_title
    assert title.get_text().endswith(": 10 of the 33 classes of few")
    assert title.get_window_extent().x1 <= figure.bbox.width


def test_sigmoids_and_distances_are_marked():
    """In the diagram and in words, as in the table beside it; what is both has distances."""
    marks = {"sig": {"is_sigmoid": True}, "ncm": {"posthoc": "ncm"}, "both": {"is_sigmoid": True, "posthoc": "ncm"}}
    page = pages_of(arms=(LADDER[0], *(arm(name, "baseline", **more) for name, more in marks.items())))[0]["reliability-1"]
    panels = {axes.get_title().partition("\n")[0]: axes for axes in page.draw().axes if axes.get_title()}
    remarks = {name: " ".join(text.get_text() for text in axes.texts).replace("\n", " ") for name, axes in panels.items()}
    distances, sigmoids = reliability.DISTANCES, reliability.SIGMOIDS
    assert remarks == {"baseline": "", "sig": sigmoids, "ncm": distances, "both": distances}
    assert panels["sig"].get_title().startswith("sig\nECE ")
    assert f" %; {sigmoids})" in page.alt
    assert f"ncm ({distances})" in page.alt


# --- axes, names and the page --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[1e-6, 9.9e-5], [0.0, 3e-7], [1e-4, 9e-4], [0.2, 0.9], [0.90001, 0.90003], [3.0e6, 8e6]])
def test_ticks_are_whole_numbers(values):
    """Nothing stands above the axis, where the title is, and the numbers are those of the places."""
    with style.styled():
        figure = curves.curve_pages(points_of({"base": {0: values}}, "train/lr"), arms_of(["base"]), METRICS)[0].draw()
        FigureCanvasAgg(figure).draw()
    axis = figure.axes[0].yaxis
    assert axis.get_offset_text().get_text() == ""
    labels = [float(label.get_text()) for label in axis.get_ticklabels()]
    assert labels == pytest.approx(list(axis.get_ticklocs()))


def test_costs_say_how_many_arms_are_named():
    """The best, the baseline and the ladder first; where all are named nothing is said."""
    names = ["base", "rung", *(f"v{number}" for number in range(30))]
    shown = arms_of(names, rung="ladder")
    rows = rows_of(*((name, -9.0 if name == "rung" else number, number - 1, number + 1, "") for number, name in enumerate(names[1:])))
    spent = spending(**{name: 6 + (name == "v29") for name in names})
    (page,) = cost.cost_pages(spent, rows, shown, "accuracy", METRICS)
    figure = page.draw()
    named = {text.get_text() for text in figure.axes[0].texts}
    assert named == {"base", "rung", *(f"v{number}" for number in range(8, 30))}
    assert "24 of the 32 arms are named" in legend_of(figure)
    assert page.alt.endswith("; 24 of the 32 arms are named.")
    (few,) = cost.cost_pages(spent, rows[20:], shown, "accuracy", METRICS)
    assert "are named" not in few.alt + " ".join(legend_of(few.draw()))


@pytest.mark.parametrize("seed", range(4))
def test_the_page_is_white(tmp_path, seed):
    """Also where many pale colours share the few of the file."""
    generator = np.random.default_rng(seed)
    counts = {f"arm {number}": generator.integers(0, 50, (10, 10)) for number in range(12)}
    pairs = {name: (values, counts["arm 0"]) for name, values in counts.items()}
    with style.styled():
        figure = matrices.difference_page(pairs, [f"class {number}" for number in range(10)])
    pixels = np.asarray(Image.open(style.save(figure, tmp_path / "a.png")).convert("RGB"))
    assert [pixels[corner].tolist() for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1))] == [[255] * 3] * 4
