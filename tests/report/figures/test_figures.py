"""The figures show the numbers, on scales that can be compared, and are files that anyone can read."""

import hashlib
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from ablation.report import figures
from ablation.report.figures import classes, cost, curves, differences, matrices, page, reliability, style, waterfall
from ablation.report.frames import tables
from ablation.report.metrics import metrics_of
from tests.report.studies import LADDER, arm, study

METRICS = metrics_of({})
NAMES = ["plane", "a $\\bad math_", "two\nlines", "狗"]
FAMILIES = {"family/ladder", "family/variants", "family/condition no-lag"}
ALONE = {"confusion", "confusion-of-one", "classes", "curves", "reliability", "roc", "precision-recall"}
WHATS = FAMILIES | ALONE | {"differences", "waterfall", "slopes", "recall", "confusion-difference"}
# Of the numbers drawn, not of pixels: they change when other numbers are drawn, and with nothing else.
HASHES = {
    "ladder": "86e95c9a228b",
    "variants": "e5f5abeca7a2",
    "condition-no-lag": "32f46e486bea",
    "differences-1": "1876fcfce75d",
    "waterfall-1": "8ae6499b90b0",
    "slopes-1": "0345940ed050",
    "recall-mixup": "07ca2484e67f",
    "recall-cb": "94b77109b2f9",
    "roc": "620356e25234",
    "precision-recall": "95386584bae1",
    "confusion-1": "75867b659900",
    "confusion-difference-1": "b87dffc780ab",
    "classes-1": "4c48290b4740",
    "curves-1": "0a36819eee95",
    "reliability-1": "67c2f57ff66e",
}


def frames_of(**options):
    """The frames and the plan of a study made by hand."""
    recorded = study(**options)
    return tables.tidy_frames(recorded), recorded.plan


def pages_of(metric="test/accuracy", **options):
    return {drawn_page.name: drawn_page for drawn_page in figures.pages(*frames_of(**options), metric)}


def counts_of(count, num_classes=4):
    """Random counts of that many arms."""
    generator = np.random.default_rng(0)
    return {f"arm {number}": generator.integers(0, 50, (num_classes, num_classes)) for number in range(count)}


def arms_of(names, **kinds):
    """Arms to draw, each on its own, compared with the first."""
    first, *rest = names
    kind = {name: kinds.get(name, "ladder" if name == first else "variant") for name in names}
    return page.ArmsShown({name: name for name in names}, {name: name for name in names}, kind, {first: "", **dict.fromkeys(rest, first)})


def drawn(figure):
    """Every number that a figure draws: lines, bars, images, markers and intervals of each panel."""
    numbers = []
    for axes in figure.axes:
        numbers += [np.column_stack(line.get_data()) for line in axes.lines]
        numbers += [patch.get_path().transformed(patch.get_patch_transform()).vertices for patch in axes.patches]
        numbers += [np.ma.filled(image.get_array().astype(float), np.nan) for image in axes.images]
        numbers += [path.vertices for collection in axes.collections for path in collection.get_paths()]
    return numbers


def fingerprint(figure):
    numbers = "|".join(np.array2string(np.round(values, 4) + 0.0, threshold=10**6, precision=4) for values in drawn(figure))
    return hashlib.sha256(numbers.encode()).hexdigest()[:12]


@pytest.fixture(scope="module")
def whole():
    """The pages of the study made by hand."""
    return pages_of()


def test_every_kind_of_figure_has_a_page(whole):
    """Names, titles and words are known before anything is drawn."""
    assert {shown.what for shown in whole.values()} == WHATS
    assert all(name == shown.name and shown.title and shown.alt.endswith(".") for name, shown in whole.items())
    assert list(whole)[:3] == ["ladder", "variants", "condition-no-lag"]
    assert {"recall-cb", "recall-mixup", "roc", "precision-recall", "confusion/no-lag-cb"} <= set(whole)


def test_the_numbers_drawn_are_the_known_ones(whole):
    """Each figure of the fixed study draws the very numbers that it drew when it was looked at."""
    assert {name: fingerprint(shown.draw()) for name, shown in whole.items() if shown.what != "confusion-of-one"} == HASHES


def test_letters_are_large_enough_and_inside_the_page(whole):
    """No text is smaller than six points or cut at the edge."""
    drawing = [(shown, draw) for shown in whole.values() for draw in (shown.draw, shown.column)]
    for shown, draw in drawing:
        if draw is None:
            continue
        figure = draw()
        canvas = FigureCanvasAgg(figure)
        with style.styled():
            canvas.draw()
            extent = figure.get_tightbbox(canvas.get_renderer())
        assert min(text.get_fontsize() for text in figure.findobj(mpl.text.Text) if text.get_text().strip()) >= 6
        assert (extent.min >= 0).all(), shown.name
        assert (extent.max <= figure.get_size_inches()).all(), shown.name


@pytest.mark.parametrize("upright", [False, True])
def test_names_stand_where_they_end(upright):
    """Each name ends at its place, is centred beside it, and lies on the page's other side of it; one of spaces draws nothing."""
    figure = style.Sheet(1, 1, width=2, height=2, left=1, bottom=1).blank()
    places = [(0.4, 0.5), (0.5, 0.4), (0.6, 0.3)]
    longest = style.names(figure, places, ["ox", "a long name", " "], 7, upright=upright)
    (drawn,) = figure.findobj(mpl.collections.PathCollection)
    *boxes, nothing = [path.get_extents() for path in drawn.get_paths()]
    assert tuple(nothing.size) == (0, 0)
    assert np.array_equal(drawn.get_offsets(), places)
    for box in boxes:
        along, across = (box.intervaly, box.intervalx) if upright else (box.intervalx, box.intervaly)
        assert along[1] == pytest.approx(0, abs=1e-6)
        assert abs(across.sum()) < 7
        assert -longest - 1e-6 <= along[0] < 0
    assert longest == pytest.approx(-min(box.y0 if upright else box.x0 for box in boxes))
    FigureCanvasAgg(figure).draw()


def files_in(folder):
    """path -> bytes of every file below the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_files_a_page_and_equal_bytes(tmp_path):
    """Each page is a PNG and an SVG, the matrix of one arm an SVG; the same frames make the same files, whatever letters the font lacks."""
    written = list(pages_of(classes=tuple(NAMES)).values())
    for folder in ("a", "b"):
        assert figures.write(written, tmp_path / folder) == written
    expected = {f"{shown.name}.svg" for shown in written} | {f"{shown.name}.png" for shown in written if shown.what != "confusion-of-one"}
    expected |= {f"column/{shown.name}.pdf" for shown in written if shown.column is not None}
    assert set(files_in(tmp_path / "a")) == expected
    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")
    assert imread(tmp_path / "a" / "confusion-1.png").ndim == 3


def test_hundred_classes_stay_small(tmp_path):
    """Matrices lie in the SVG as images of one pixel a cell."""
    names = tuple(f"class {number}" for number in range(100))
    written = [shown for shown in pages_of(classes=names, images=4).values() if shown.what.startswith("confusion")]
    figures.write(written, tmp_path)
    assert all(len(body) < 300_000 for body in files_in(tmp_path).values())


@pytest.mark.parametrize("options", [{"classes": ("a", "b")}, {"classes": tuple(map(str, range(150))), "images": 2}, {"seeds": (0,)}])
def test_any_number_of_classes_and_seeds(tmp_path, options):
    """Two or 150 classes and a single seed are drawn without a warning."""
    pages = list(pages_of(**options).values())
    assert figures.write(pages, tmp_path) == pages
    assert (tmp_path / "reliability-1.svg").exists()


def test_one_class():
    """A single class is a matrix of one cell and a single bar."""
    assert figures_image(matrices.confusion_page({"a": [[3]]}, ["x"]))[0].tolist() == [[1.0]]
    assert len(classes.distribution_page({"train": [3]}, ["x"], {"x": "many"}).axes[0].patches) == 1


def test_one_arm_has_nothing_to_be_compared_with():
    """A study of one arm has its matrix, its classes, its curves, its ranking and its reliability, and no page of differences."""
    assert {shown.what for shown in pages_of(arms=(LADDER[0],)).values()} == ALONE


def test_failed_arms_are_absent():
    """An arm without a finished run is on no page."""
    broken = [("cutmix", seed) for seed in range(3)]
    for shown in pages_of(broken=broken).values():
        texts = [text.get_text() for text in shown.draw().findobj(mpl.text.Text)]
        assert not any("cutmix" in text for text in texts), shown.name


def test_nothing_finished_leaves_the_classes():
    """Without any result only the images per class are drawn."""
    broken = [(shown["name"], seed) for shown in LADDER for seed in range(3)]
    assert {shown.what for shown in pages_of(broken=broken).values()} == {"classes"}


def test_drawing_leaves_the_users_style_alone(tmp_path):
    """No setting of matplotlib differs afterwards."""
    before = dict(mpl.rcParams)
    figures.write(list(pages_of().values())[:2], tmp_path)
    figures.confusion_matrix_png(counts_of(1)["arm 0"], NAMES, tmp_path / "m.png", "cb")
    assert dict(mpl.rcParams) == before


def seen_by_deuteranopes(colour):
    """Lab coordinates of a colour after Machado, Oliveira and Fernandes (2009), severity 1.0, from linear sRGB."""
    matrix = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    values = np.array(to_rgb(colour))
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(np.maximum(to_xyz @ np.clip(matrix @ linear, 0, 1) / [0.9505, 1, 1.089], 1e-6))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(
    "colours", [[*style.line_colours(), style.GREY], list(style.GROUPS.values()), [style.UP, style.DOWN]], ids=["lines", "groups", "signs"]
)
def test_colours_differ_for_colour_blind_eyes(colours):
    """Any two colours of a set are well apart (a distance of 2.3 is just noticeable) under deuteranopia."""
    apart = [np.linalg.norm(seen_by_deuteranopes(a) - seen_by_deuteranopes(b)) for a, b in itertools.combinations(colours, 2)]
    assert min(apart) > 15


def figures_image(figure):
    """The images of a figure's panels, NaN where there is nothing, without the bar's."""
    return [np.ma.filled(axes.images[0].get_array().astype(float), np.nan) for axes in figure.axes if axes.images]


def norms(figure):
    return {(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in figure.axes if axes.images}


def test_plotted_matrices_are_the_rows_shares_on_one_scale():
    """Every panel shows its matrix divided by the row's sum, from 0 to 1, and an empty row is blank."""
    confusion = counts_of(3)
    confusion["arm 1"][2] = 0
    figure = matrices.confusion_page(confusion, NAMES)
    assert [axes.get_title() for axes in figure.axes if axes.images] == list(confusion)
    for image, counts in zip(figures_image(figure), confusion.values(), strict=True):
        expected = [[value / sum(row) if sum(row) else np.nan for value in row] for row in counts.tolist()]
        assert image == pytest.approx(np.array(expected), nan_ok=True)
    assert norms(figure) == {(0, 1)}


@pytest.mark.parametrize(("count", "expected"), [(1, [1]), (12, [12]), (13, [12, 1])])
def test_twelve_matrices_a_page(count, expected):
    """A page holds at most twelve arms."""
    confusion = counts_of(count)
    pages = [page for page in matrices.confusion_pages(confusion, NAMES, arms_of(list(confusion))) if page.what == "confusion"]
    assert [len(figures_image(shown.draw())) for shown in pages] == expected


def test_differences_of_matrices_are_symmetric_points():
    """Each panel is the arm's shares minus the baseline's in points, on one scale as far below as above zero."""
    confusion = counts_of(3)
    (shown,) = matrices.difference_pages(confusion, NAMES, arms_of(list(confusion)))
    figure = shown.draw()
    shares = [np.array([[value / sum(row) for value in row] for row in counts.tolist()]) for counts in confusion.values()]
    expected = [100 * (shares[number] - shares[0]) for number in (1, 2)]
    for image, points in zip(figures_image(figure), expected, strict=True):
        assert image == pytest.approx(points)
    limit = np.ceil(max(abs(points).max() for points in expected))
    assert norms(figure) == {(-limit, limit)}
    bar = next(axes for axes in figure.axes if axes.get_label() == "bar")
    assert [float(label.get_text()) for label in bar.get_yticklabels()] == [-limit, -limit / 2, 0, limit / 2, limit]


def test_only_what_is_not_zero_is_annotated():
    """What rounds to no percent, and to no point, has no number, and none is a zero with a sign."""
    assert matrices.share_texts(np.array([[0.996, 0.004], [np.nan, 0.5]])) == [["100", ""], ["", "50"]]
    assert matrices.point_texts(np.array([[0.4, -0.6], [np.nan, 12.3]])) == [["", "-1"], ["", "+12"]]
    assert matrices.share_texts(np.array([[0.005, 0.0051]])) == [["", "1"]]
    assert matrices.point_texts(np.array([[-0.5, 0.5], [-0.51, 1.5]])) == [["", ""], ["-1", "+2"]]


@pytest.mark.parametrize(("num_classes", "is_annotated"), [(15, True), (16, False)])
def test_few_classes_are_annotated(num_classes, is_annotated):
    """Up to 15 classes every cell has its number."""
    figure = matrices.confusion_page(counts_of(1, num_classes), [f"class {number}" for number in range(num_classes)])
    names = 2  # down the side and along the bottom
    assert (len(figure.findobj(mpl.collections.PathCollection)) > names) == is_annotated


def test_the_matrix_of_one_arm_has_its_shares():
    """The picture is the matrix divided by the rows' sums, an empty row is blank, and each class is named on both sides."""
    counts = np.array([[3, 1, 0, 0], [0, 0, 0, 0], [0, 0, 5, 0], [1, 0, 0, 1]])
    figure = matrices.one_matrix(counts, NAMES, "cb", wide=4.2)
    (picture,) = figure.findobj(mpl.image.BboxImage)
    expected = np.array([[0.75, 0.25, 0, 0], [np.nan] * 4, [0, 0, 1, 0], [0.5, 0, 0, 0.5]])
    assert np.ma.filled(picture.get_array(), np.nan) == pytest.approx(expected, nan_ok=True)
    assert (picture.norm.vmin, picture.norm.vmax) == (0, 1)
    assert [text.get_text() for text in figure.texts] == ["cb", "predicted", "true"]
    labels = [drawn.get_label() for drawn in figure.findobj(mpl.collections.PathCollection)]
    names = " ".join(" ".join(NAMES).split())
    assert labels == [names, names, "75 25 100 50"]


@pytest.mark.parametrize("num_classes", [2, 16, 100])
def test_one_runs_matrix_is_drawn_for_any_number_of_classes(tmp_path, num_classes):
    """Few classes are annotated, many only coloured."""
    names = [f"class {number}" for number in range(num_classes)]
    path = figures.confusion_matrix_png(counts_of(1, num_classes)["arm 0"], names, tmp_path / "a" / "m.png", "cb")
    assert min(imread(path).shape[:2]) > 350


def test_one_runs_class_distribution_is_drawn(tmp_path):
    """One outline per split."""
    path = figures.class_distribution_png({"train": [30, 20, 10, 5], "test": [10] * 4}, NAMES, tmp_path / "classes.png")
    assert imread(path).shape == (320, 600, 4)


def test_bars_are_the_images_of_each_class_in_its_groups_colour():
    """A panel per split, a bar per class."""
    groups = {"plane": "many", "two\nlines": "few"}
    figure = classes.distribution_page({"train": [30, 20, 10, 5], "test": [7] * 4}, NAMES, groups)
    assert [[bar.get_height() for bar in axes.patches] for axes in figure.axes] == [[30, 20, 10, 5], [7] * 4]
    colours = [bar.get_facecolor() for bar in figure.axes[0].patches]
    assert colours[0] != colours[2]
    assert colours[1] == colours[3] not in (colours[0], colours[2])


def recalls(num_classes):
    """Two series by class: rising by its number."""
    names = [f"c{number}" for number in range(num_classes)]
    before = pd.Series(np.linspace(20, 80, num_classes), index=names)
    return before, before + np.arange(num_classes)


@pytest.mark.parametrize(("num_classes", "named"), [(4, ["c1: +1.0", "c2: +2.0", "c3: +3.0"]), (31, [])])
def test_slopes_run_from_the_baselines_recall_to_the_arms(num_classes, named):
    """One line per class; the three that moved most are named, or with over thirty classes the groups' means are drawn instead."""
    before, after = recalls(num_classes)
    groups = {name: "many" if number < 2 else "few" for number, name in enumerate(before.index)}
    axes = classes.slope_page({"cb": (before, after)}, groups).axes[0]
    segments = axes.collections[0].get_segments()
    assert np.array(segments)[:, :, 1] == pytest.approx(np.column_stack([before, after]))
    assert sorted(text.get_text() for text in axes.texts) == named
    means = [[before[:2].mean(), after[:2].mean()], [before[2:].mean(), after[2:].mean()]]
    expected = [] if named else [pytest.approx(ends) for ends in means]
    assert [list(line.get_ydata()) for line in axes.lines] == expected


def test_slopes_share_one_scale_and_twelve_arms_a_page():
    """Thirteen arms need two pages, and a page's panels have one range."""
    names = [f"arm {number}" for number in range(14)]
    per_class = pd.DataFrame([(name, c, place / 20) for place, name in enumerate(names) for c in "ab"], columns=["arm", "class", "recall"])
    pages = classes.slope_pages(per_class, ["a", "b"], {"a": "many", "b": "few"}, arms_of(names))
    drawn_pages = [shown.draw() for shown in pages]
    assert [len(figure.axes) for figure in drawn_pages] == [12, 1]
    assert len({axes.get_ylim() for axes in drawn_pages[0].axes}) == 1


def test_slopes_are_of_the_seeds_that_both_arms_have():
    """The mean over other seeds is of other trainings; the seeds are named where either has more."""
    by_seed = {"base": pd.DataFrame({"a": [0.2, 0.4, 0.9], "b": [0.5, 0.5, 0.5]}), "arm": pd.DataFrame({"a": [0.3, 0.5], "b": [0.5, 0.5]})}
    by_seed["other"] = pd.DataFrame({"a": [0.1], "b": [0.1]}, index=[7])
    rows = [(arm, c, frame[c].mean()) for arm, frame in by_seed.items() for c in "ab"]
    per_class = pd.DataFrame(rows, columns=["arm", "class", "recall"])
    (shown,) = classes.slope_pages(per_class, ["a", "b"], {"a": "many", "b": "few"}, arms_of(list(by_seed)), by_seed)
    assert shown.alt.endswith("the class that moved most: arm: a +10.0 points.")
    axes = shown.draw().axes
    assert [panel.get_title("left") or panel.get_title() for panel in axes] == ["arm, seeds 0-1"]


def rows_of(*rows, metric="accuracy"):
    """Differences to the baseline: arm, mean, low, high, verdict."""
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "role": "baseline",
                "against": "base",
                "metric": metric,
                "mean": mean,
                "low": low,
                "high": high,
                "verdict": verdict,
            }
            for arm, mean, low, high, verdict in rows
        ]
    )


FOUND = (
    ("cb", 1.0, 0.6, 1.4, "better"), ("mixup", -1.0, -1.5, -0.5, "worse (t only)"), ("ls", 0.1, -0.2, 0.4, "no difference beyond 0.5"),
    ("tta", 0.5, -1.0, 2.0, "inconclusive"), ("one", 0.3, np.nan, np.nan, "inconclusive"),
)  # fmt: skip


def forest(metric="accuracy", rows=FOUND):
    names = ["base", *(row[0] for row in rows)]
    return differences.forest_pages(rows_of(*rows, metric=metric), arms_of(names), metric, METRICS)[0].draw()


def test_forests_show_means_intervals_and_the_margin():
    """Each arm has its mean, its interval and its verdict's shape; the margin is a band around zero."""
    axes = forest().axes[0]
    marks = {round(float(x), 6): line for line in axes.lines if line.get_marker() not in ("None", "") for x in line.get_xdata()}
    assert {mean: marks[mean].get_marker() for _, mean, *_ in FOUND} == {1.0: "^", -1.0: "v", 0.1: "s", 0.5: "o", 0.3: "o"}
    assert marks[1.0].get_markerfacecolor() != "white"
    assert marks[-1.0].get_markerfacecolor() == "white"
    ends = [tuple(path.vertices[:, 0]) for path in axes.collections[0].get_paths()]
    assert ends == [(low, high) for _, _, low, high, _ in FOUND if np.isfinite(low)]
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((-0.5, 0.5))


def test_nats_have_no_margin_and_say_that_less_is_better():
    """The margin is in points, and belongs to no difference in nats."""
    axes = forest("nll").axes[0]
    assert not axes.patches
    assert axes.get_xlabel() == "NLL, nats (left is better)"


def test_far_intervals_end_in_arrows():
    """One interval of two seeds does not press the others together; its numbers stand beside it."""
    rows = [(f"a{number}", 0.1, -0.2, 0.4, "inconclusive") for number in range(20)]
    axes = forest(rows=[*rows, ("wide", 0.1, -90, 90, "inconclusive"), ("far", -40, -41, -39, "worse")]).axes[0]
    low, high = axes.get_xlim()
    assert -5 < low < -0.2
    assert 0.4 < high < 5
    assert {line.get_marker() for line in axes.lines} >= {"<", ">"}
    assert "-40.00 [-41.00, -39.00]" in {text.get_text() for text in axes.texts}


def test_thirty_arms_a_page_and_families_whole():
    """A family that fits on a page is not torn between two."""
    rows = [
        differences.Row(family, f"{family} {number}", "", {})
        for family, count in (("a", 20), ("b", 15), ("c", 40))
        for number in range(count)
    ]
    parts = differences.paged(rows)
    assert [row for part in parts for row in part] == rows
    assert [(part[0].family, len(part)) for part in parts] == [("a", 20), ("b", 15), ("c", 30), ("c", 10)]


def test_arms_that_resolve_alike_are_drawn_once(whole):
    """Both names stand at one row."""
    labels = [label.get_text() for label in whole["differences-1"].draw().axes[0].get_yticklabels()]
    assert "cb = reweight (of baseline)" in labels
    assert not any(label.startswith("reweight") for label in labels)
    assert labels[0] == "ladder"
    assert "condition no-lag" in labels


@pytest.mark.parametrize("metric", ["test/accuracy", "test/nll"])
def test_waterfalls_steps_lead_from_level_to_level(metric):
    """The bars begin at the level before, are as high as the paired difference, and end at the next level."""
    frames, plan = frames_of(arms=(*LADDER, arm("no-lag/mixup", "no-lag/cb", "condition", "no-lag/baseline")))
    name = metric.removeprefix("test/")
    scale = 1 if name == "nll" else 100
    pages = waterfall.waterfall_pages(frames.arms, frames.differences, plan, name, METRICS)
    axes = pages[0].draw().axes
    assert [panel_axes.get_title(loc="left") for panel_axes in axes] == ["the ladder", "under no-lag"]
    done = frames.runs.groupby("arm")[metric].mean()
    for panel, names in zip(axes, (["baseline", "cb", "mixup"], ["no-lag/baseline", "no-lag/cb", "no-lag/mixup"]), strict=True):
        levels = [scale * done[panel_axes] for panel_axes in names]
        bars = [patch for patch in panel.patches if patch.get_height()]
        assert [bar.get_y() for bar in bars] == pytest.approx(levels[:-1])
        assert [bar.get_y() + bar.get_height() for bar in bars] == pytest.approx(levels[1:])


def test_published_levels_are_diamonds(whole):
    """Where an arm carries a published accuracy it stands at that height."""
    lines = [line for line in whole["waterfall-1"].draw().axes[0].lines if line.get_marker() == "D"]
    assert [list(line.get_ydata()) for line in lines] == [pytest.approx([84.22, np.nan, np.nan], nan_ok=True)]


def test_a_ladder_with_a_gap_has_no_waterfall():
    """A rung without any finished run leaves steps that nobody knows."""
    assert "waterfall-1" not in pages_of(broken=[("cb", seed) for seed in range(3)])


def points_of(values, metric="train/loss"):
    """Curves: arm -> seed -> values by step."""
    rows = [
        (arm, seed, metric, step, value)
        for arm, by_seed in values.items()
        for seed, row in by_seed.items()
        for step, value in enumerate(row)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "metric", "step", "value"])


def test_curves_are_means_within_the_seeds_range():
    """The line is the mean over seeds by epoch from 1, the band goes from the least to the most; one seed has no band."""
    values = {"base": {0: [0.9, 0.1], 1: [1.0, 0.3]}, "cb": {0: [0.5, 0.5]}}
    axes = curves.curve_pages(points_of(values), arms_of(["base", "cb"], cb="ladder"), METRICS)[0].draw().axes[0]
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 2], [1, 2]]
    assert [list(line.get_ydata()) for line in axes.lines] == [pytest.approx([0.95, 0.2]), [0.5, 0.5]]
    (band,) = axes.collections
    assert {tuple(point) for point in band.get_paths()[0].vertices.tolist()} == {(1, 0.9), (1, 1.0), (2, 0.1), (2, 0.3)}


def test_a_panel_holds_six_arms_beside_the_baseline_in_grey():
    """Seven variants need two panels, each with the baseline for reference."""
    values = {name: {0: [number, number + 1.0]} for number, name in enumerate(["base", *"abcdefg"])}
    figure = curves.curve_pages(points_of(values), arms_of(list(values)), METRICS)[0].draw()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["ladder: train/loss", "variants: train/loss", "variants: train/loss"]
    assert [len(axes.lines) for axes in figure.axes] == [1, 1 + 6, 1 + 1]
    assert [axes.lines[0].get_color() for axes in figure.axes[1:]] == [style.GREY, style.GREY]


def test_one_training_is_one_line():
    """Arms with the very same curves share a line and their names are joined."""
    values = {"base": {0: [3.0, 2.0]}, "a": {0: [1.0, 1.0]}, "b": {0: [1.0, 1.0]}, "c": {0: [1.0, 1.1]}}
    names = [list(strip.names.values()) for strip in curves.strips(points_of(values), arms_of(list(values)))]
    assert names == [["base"], ["a = b", "c"]]


def spending(**epochs):
    """Finished runs with their epochs; seconds are twice as many, and one more for each arm."""
    rows = [
        {"arm": arm, "state": "done", "epochs/own": number, "epochs/shared": 0, "time/own": 2 * number, "time/shared": place}
        for place, (arm, number) in enumerate(epochs.items())
    ]
    return pd.DataFrame(rows)


def test_costs_are_epochs_and_never_seconds():
    """The baseline stands at zero; where all arms train equally long, there is no page."""
    rows, arms = rows_of(("a", 1.0, 0.0, 2.0, ""), ("b", 2.0, 0.0, 4.0, "")), arms_of(["base", "a", "b"])
    gains = cost.gains(spending(base=6, a=6, b=9), rows, arms, "accuracy")
    assert [(gain.name, gain.cost, gain.mean) for gain in gains] == [("base", 6, 0), ("a", 6, 1), ("b", 9, 2)]
    (shown,) = cost.cost_pages(spending(base=6, a=6, b=9), rows, arms, "accuracy", METRICS)
    texts = {text.get_text() for text in shown.draw().axes[0].texts}
    assert texts == {"base", "a", "b"}
    assert cost.cost_pages(spending(base=6, a=6, b=6), rows, arms, "accuracy", METRICS) == []


@pytest.mark.parametrize(("metric", "expected"), [("accuracy", ["a", "c"]), ("nll", ["base", "b", "d"])])
def test_the_front_is_beaten_by_nothing_cheaper(metric, expected):
    """An arm is on it where no arm of the same cost or less has as good a mean."""
    gains = [
        cost.Gain(name, spent, mean, mean, mean)
        for name, spent, mean in (("base", 1, 0), ("a", 1, 1), ("b", 2, -1), ("c", 3, 2), ("d", 4, -2))
    ]
    assert [gain.name for gain in cost.front(gains, is_lower_better=METRICS.is_lower_better(metric))] == expected


def test_the_front_has_arms_that_may_be_the_best():
    """Neither a lucky seed of an unfinished arm nor a number chosen on the test images leads it; without any that may, all do."""
    gains = [cost.Gain("base", 1, 0, 0, 0), cost.Gain("lucky", 1, 5, 5, 5, is_rival=False), cost.Gain("a", 2, 1, 1, 1)]
    assert [gain.name for gain in cost.front(gains, is_lower_better=False)] == ["base", "a"]
    assert [gain.name for gain in cost.front(gains[1:2], is_lower_better=False)] == ["lucky"]


def test_reliability_shows_accuracy_over_confidence_and_the_shares(whole):
    """A line through the bins, the bars below it, and the calibration error in the title."""
    frames, _ = frames_of()
    upper, lower = whole["reliability-1"].draw().axes[:2]
    bins = frames.calibration[frames.calibration["arm"] == "baseline"]
    assert upper.lines[1].get_xydata() == pytest.approx(100 * bins[["confidence", "accuracy"]].to_numpy())
    heights = np.zeros(15)
    heights[bins["bin"]] = 100 * bins["share"]
    assert [bar.get_height() for bar in lower.patches] == pytest.approx(heights)
    error = 100 * float(frames.arms.set_index("arm")["ece_mean"]["baseline"])
    assert upper.get_title() == f"baseline\nECE {error:.1f} %"


def test_distances_are_no_probabilities():
    """The nearest class mean's scores are marked, also in the arms built on it, and have no calibration error."""
    ncm = arm("ncm", "baseline", change={"posthoc.name": ["none", "ncm"]})
    after = arm("after", "ncm", change={"mix.name": ["none", "mixup"]})
    back = arm("back", "after", change={"posthoc.name": ["ncm", "none"]})
    shown = pages_of(arms=(LADDER[0], ncm, after, back))["reliability-1"]
    panels = shown.draw().axes[::2]
    marked = [panel.get_title() for panel in panels if any("distances" in text.get_text() for text in panel.texts)]
    assert marked == ["ncm", "after"]
    assert reliability.DISTANCES in shown.alt


def test_names_beside_lines_keep_their_distance():
    """Moved as little as can be, in their order, and inside the range."""
    placed = style.spaced([1.0, 1.0, 5.0, 9.9, 10.0], 1.0, 0.0, 10.0)
    assert placed == pytest.approx([0.5, 1.5, 5.0, 9.0, 10.0])
    assert style.spaced([], 1, 0, 1) == []


def test_margin_of_the_plan_is_drawn():
    """Another margin in the file is another band."""
    frames, plan = frames_of()
    for margin in (0.5, 2.0):
        pages = figures.pages(replace(frames), {**plan, "margin": margin}, "accuracy")
        axes = next(shown for shown in pages if shown.what == "differences").draw().axes[0]
        band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
        assert band.x1 == pytest.approx(margin)


@pytest.mark.parametrize(
    "theirs",
    [
        {"text.usetex": True},
        {"font.family": ["no such font"]},
        {"figure.dpi": 2000, "savefig.dpi": 9},
        {"axes.grid": True, "image.cmap": "hot"},
    ],
)
def test_a_matplotlibrc_of_the_user_changes_no_figure(tmp_path, theirs):
    """Whatever a matplotlibrc sets, the files are the same: nothing of it is trusted."""
    written = list(pages_of().values())[:4]
    figures.write(written, tmp_path / "plain")
    with mpl.rc_context(theirs):
        assert figures.write(written, tmp_path / "theirs") == written
    assert files_in(tmp_path / "plain") == files_in(tmp_path / "theirs")


@pytest.mark.parametrize("error", [ValueError("no font"), OSError("no space"), RuntimeError("latex was not found"), MemoryError()])
def test_a_figure_that_cannot_be_drawn_is_left_out_and_told_once(tmp_path, capsys, error):
    """The others are written, nothing is left of it, and one line says so."""
    first, second, *others = list(pages_of().values())[:4]

    def fail():
        raise error

    broken = [replace(first, draw=fail), replace(second, draw=fail), *others]
    assert figures.write(broken, tmp_path) == others
    assert {Path(name).stem for name in files_in(tmp_path)} == {page.name for page in others}
    assert capsys.readouterr().err.count("2 of 4 figures could not be drawn") == 1


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense", "TkAgg", ""])
def test_no_backend_is_needed(tmp_path, backend):
    """A backend that a notebook's environment names, and that is not there, is none of our business."""
    script = "from pathlib import Path; from ablation.report import figures\n"
    script += "figures.confusion_matrix_png([[1, 2], [3, 4]], ['a', 'b'], Path('x.png'), 't')"
    environment = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": str(Path(figures.__file__).parents[3])}
    environment.pop("DISPLAY", None)
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "x.png").stat().st_size > 1000
