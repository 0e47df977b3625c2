"""The figures show the numbers, on one scale, and are files that can be read."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from ablation.report import figures

NAMES = ["plane", "a $\\bad math_", "two\nlines", "狗"]


def matrices(count, num_classes=4):
    """Random counts of that many arms."""
    generator = np.random.default_rng(0)
    return {f"arm {number}": generator.integers(0, 50, (num_classes, num_classes)) for number in range(count)}


def heatmaps(figure):
    """The panels with a matrix: all but the colour bar."""
    return [axes for axes in figure.axes if axes.get_title() not in ("", "share")]


def test_plotted_matrices_are_the_rows_shares_on_one_scale():
    """Every panel plots its matrix divided by the row's sum, from 0 to 1, and an empty row is blank."""
    confusion = matrices(3)
    confusion["arm 1"][2] = 0
    panels = heatmaps(figures.confusion_page(confusion, NAMES))
    assert [panel.get_title() for panel in panels] == list(confusion)
    for panel, counts in zip(panels, confusion.values(), strict=True):
        mesh = panel.collections[0]
        expected = [[value / sum(row) if sum(row) else np.nan for value in row] for row in counts.tolist()]
        assert np.ma.filled(mesh.get_array().astype(float), np.nan) == pytest.approx(np.array(expected), nan_ok=True)
        assert (mesh.norm.vmin, mesh.norm.vmax) == (0, 1)


@pytest.mark.parametrize(("count", "pages"), [(0, 0), (1, 1), (12, 1), (13, 2)])
def test_twelve_matrices_a_page(tmp_path, count, pages):
    """A page holds at most twelve arms, whatever their classes are called."""
    files = figures.confusion_pages(matrices(count), NAMES, tmp_path)
    assert [path.name for path in files] == [f"confusion-{page}.png" for page in range(1, pages + 1)]
    assert all(imread(path).ndim == 3 for path in files)


@pytest.mark.parametrize("num_classes", [2, 16, 100])
def test_one_runs_matrix_is_drawn_for_any_number_of_classes(tmp_path, num_classes):
    """Few classes are annotated, many only coloured."""
    path = figures.confusion_matrix_png(
        matrices(1, num_classes)["arm 0"], [f"class {c}" for c in range(num_classes)], tmp_path / "a" / "m.png", "cb"
    )
    assert imread(path).shape == (460, 500, 4)


def test_class_distribution_is_drawn(tmp_path):
    """One outline per split."""
    path = figures.class_distribution_png({"train": [30, 20, 10, 5], "test": [10] * 4}, NAMES, tmp_path / "classes.png")
    assert imread(path).shape == (320, 600, 4)


def test_equal_numbers_make_equal_files(tmp_path):
    """A figure has no date and no version in it."""
    first, second = (figures.confusion_pages(matrices(2), NAMES, tmp_path / name)[0].read_bytes() for name in "ab")
    assert first == second


def test_curves_are_means_with_a_band_of_one_deviation():
    """The line is the mean over seeds; one seed has no band."""
    points = [("a", seed, "train/loss", step, float(step + seed)) for seed in (0, 2) for step in range(3)]
    points += [("b", 0, "train/loss", step, 5.0) for step in range(3)]
    axes = figures.curve_page(pd.DataFrame(points, columns=["arm", "seed", "metric", "step", "value"])).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[1, 2, 3], [5, 5, 5]]
    assert len(axes.collections) == 1
    edges = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == pytest.approx((1 - 2**0.5, 3 + 2**0.5))


def test_curves_of_many_arms_have_pages(tmp_path):
    """Eight arms a page."""
    points = [(f"arm {number}", 0, "val/accuracy", step, 0.5) for number in range(9) for step in range(2)]
    files = figures.curve_pages(pd.DataFrame(points, columns=["arm", "seed", "metric", "step", "value"]), tmp_path)
    assert [path.name for path in files] == ["curves-1.png", "curves-2.png"]


def test_drawing_leaves_the_users_style_alone(tmp_path):
    """No setting of matplotlib differs afterwards."""
    before = dict(mpl.rcParams)
    figures.confusion_matrix_png(matrices(1)["arm 0"], NAMES, tmp_path / "m.png", "cb")
    assert dict(mpl.rcParams) == before
