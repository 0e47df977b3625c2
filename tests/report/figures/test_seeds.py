"""Points that are joined or coloured are of the same seeds, and a mean is rounded as in the tables."""

import math

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from ablation.report import figures
from ablation.report.figures import results, style
from ablation.report.frames import tables
from ablation.report.metrics import metrics_of
from tests.report.figures.test_families import swept
from tests.report.studies import LADDER, arm, restricted, study

ALPHAS = {"mix.alpha": ["0.1", "0.2", "1.0"]}
CROSSED = {"mix.alpha": ["0.1", "1.0"], "loss": ["ce", "focal"]}


def page_of(arms, seeds=None, values=None, name="sweep-s"):
    """A page of a study of these arms, of which some have these of the seeds only; `values` has the accuracies by arm and seed."""
    recorded = restricted(study(arms), seeds or {})
    if values is not None:
        recorded.runs["test/accuracy"] = [values(arm, seed) for arm, seed in recorded.runs[["arm", "seed"]].itertuples(index=False)]
    frames = tables.tidy_frames(recorded)
    page = next(page for page in figures.pages(frames, recorded.plan, "test/accuracy") if page.name == name)
    return page, 100 * frames.runs.set_index(["arm", "seed"])["test/accuracy"], frames, recorded.plan


def mean_line(axes):
    return next(line for line in axes.lines if line.get_color() == style.UP and line.get_linewidth() == 1.4)


def texts_of(figure):
    return " ".join(text.get_text().replace("\n", " ") for text in figure.findobj(mpl.text.Text))


@pytest.mark.parametrize("wide", ["draw", "column"])
def test_a_curve_joins_means_over_the_seeds_that_all_points_have(wide):
    """The parent's line too; the dots of all seeds stay, and the figure and its words say which seeds the means are of."""
    page, values, *_ = page_of(swept(ALPHAS), {"s/0.1": [0, 2], "s/1.0": [0, 1, 2], "s/0.2": [2, 0]})
    figure = getattr(page, wide)()
    axes = figure.axes[0]
    means = {name: (values[name, 0] + values[name, 2]) / 2 for name in ("s/0.1", "s/0.2", "baseline", "s/1.0")}
    assert mean_line(axes).get_ydata() == pytest.approx(list(means.values()))
    dashed = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert dashed.get_ydata() == pytest.approx([means["baseline"]] * 2)
    dots = {round(float(y), 6) for line in axes.lines if line.get_color() == "0.45" for y in line.get_ydata()}
    assert {round(values["s/1.0", 1], 6), round(values["baseline", 1], 6)} <= dots
    words = "means over seeds 0 and 2, which all points and the parent have"
    assert words in texts_of(figure)
    assert f"with a dot per seed; {words}: s/0.1 (2 of 3 seeds) {means['s/0.1']:.2f} (" in page.alt
    assert page.alt.endswith(f"; the parent baseline has {means['baseline']:.2f}.")


def test_a_curve_has_the_intervals_of_its_seeds_only():
    """That of a difference over other seeds would stand around another mean."""
    page, values, *_ = page_of(swept(ALPHAS), {"s/0.1": [0, 2], "s/0.2": [0, 2]})
    assert "(2 of 3 seeds)" in page.alt
    drawn = [path.vertices for line in page.draw().axes[0].collections for path in line.get_paths() if len(path.vertices) == 2]
    assert sorted({round(float(place), 6) for ends in drawn for place in ends[:, 0]}) == [0.1, 0.2]
    assert f"s/1.0 {(values['s/1.0', 0] + values['s/1.0', 2]) / 2:.2f};" in page.alt


def test_cells_are_coloured_by_means_over_the_seeds_that_all_have():
    """One seed that all have is told as such."""
    page, values, *_ = page_of(swept(CROSSED), {"s/0.1/ce": [1], "s/0.1/focal": [1, 2]})
    figure = page.draw()
    cells = [[values[f"s/{alpha}/{loss}", 1] for loss in CROSSED["loss"]] for alpha in CROSSED["mix.alpha"]]
    assert np.asarray(figure.axes[0].images[0].get_array()) == pytest.approx(np.array(cells))
    assert "values of seed 1, which all points and the parent have" in texts_of(figure)
    assert "values of seed 1, which all points and the parent have: s/0.1/ce (1 of 3 seeds) " in page.alt
    assert "±" not in texts_of(figure)


def test_without_a_common_seed_nothing_is_joined_or_coloured():
    """And that is said."""
    words = "no seed is common to all points and the parent, so that each mean is over other seeds"
    page, values, *_ = page_of(swept(ALPHAS), {"s/0.1": [0], "s/0.2": [1, 2]})
    figure = page.draw()
    assert mean_line(figure.axes[0]).get_linestyle() == "None"
    assert mean_line(figure.axes[0]).get_ydata()[1] == pytest.approx((values["s/0.2", 1] + values["s/0.2", 2]) / 2)
    assert words in texts_of(figure)
    assert f"; {words}: s/0.1" in page.alt
    heat, *_ = page_of(swept(CROSSED), {"s/0.1/ce": [0], "s/0.1/focal": [1, 2]})
    (image,) = heat.draw().axes[0].images
    assert {tuple(colour) for colour in image.cmap(image.norm(image.get_array())).reshape(-1, 4)} == {to_rgba("0.92")}
    assert words in texts_of(heat.draw())


@pytest.mark.parametrize("axes", [ALPHAS, CROSSED])
@pytest.mark.parametrize("seeds", [(0, 1, 2), (1,)])
def test_where_all_have_the_same_seeds_nothing_is_said(axes, seeds):
    """Also where these are fewer than planned."""
    page, *_ = page_of(swept(axes), {one["name"]: list(seeds) for one in swept(axes)})
    assert "which all points" not in page.alt + texts_of(page.draw())
    assert "no seed" not in page.alt


@pytest.mark.parametrize("wide", ["draw", "column"])
def test_notes_are_inside_the_page(wide):
    """Below all else, on as many lines as they need."""
    arms, seeds = swept({"mix.alpha": [str(number / 10) for number in range(1, 6)]}), {"s/0.1": [0], "s/0.2": [1, 2]}
    figure = getattr(page_of(arms, seeds)[0], wide)()
    mpl.backends.backend_agg.FigureCanvasAgg(figure).draw()
    (note,) = figure.texts
    box, others = note.get_window_extent(), figure.axes[0].xaxis.label.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert 0 <= box.y0 < box.y1 <= others.y0


def unlike():
    """Two accuracies whose mean in percent differs in its last digit from the mean of the percents."""
    for first in range(1, 1000):
        values = [first / 10000, (first + 4001) / 10000]
        if f"{100 * (sum(values) / 2):.2f}" != f"{sum(100 * value for value in values) / 2:.2f}":
            return values
    raise AssertionError("no such numbers")


def test_means_are_rounded_as_in_the_tables():
    """A figure, its words and a sweep say the very number that the frame's mean gives."""
    pair = unlike()
    arms = (LADDER[0], arm("cb", "baseline"))
    for seeds in ({}, {"baseline": [0, 1], "cb": [0, 1]}):
        page, _, frames, plan = page_of(
            arms, seeds, lambda name, seed: 0.5 if name == "baseline" else [*pair, sum(pair) / 2][seed], "ladder"
        )
        mean = frames.arms.set_index("arm")["accuracy_mean"]["cb"]
        told = metrics_of(plan).value("accuracy", mean)
        assert f"cb{' (2 of 3 seeds)' if seeds else ''} {told} (" in page.alt
        assert told in {text.get_text() for text in page.draw().axes[0].texts}
    assert told == f"{100 * (sum(pair) / 2):.2f}"
    page, *_ = page_of(swept(ALPHAS), {"s/0.1": [0, 1]}, lambda name, seed: [*pair, 0.3][seed] if name == "s/0.1" else 0.5)
    assert f"s/0.1 (2 of 3 seeds) {told} (" in page.alt


def test_an_infinite_value_is_no_part_of_a_mean():
    """The finite ones have one, and a remark that says how many they are."""
    values = {"baseline": [0.5, 0.5, 0.5], "cb": [0.25, math.inf, 0.75], "mixup": [math.inf] * 3}
    arms = (LADDER[0], arm("cb", "baseline"), arm("mixup", "cb"))
    _, _, frames, plan = page_of(arms, None, lambda name, seed: values[name][seed], "ladder")
    found = results.results_of(frames.runs, frames.differences, plan, "accuracy", metrics_of(plan))
    assert (found.row("cb").mean, found.row("cb").label) == (50.0, "cb (2 of 3 seeds)")
    assert found.row("cb").sd == pytest.approx(100 * np.std([0.25, 0.75], ddof=1))
    assert math.isnan(found.row("mixup").mean)
    assert not found.has_values("mixup")
