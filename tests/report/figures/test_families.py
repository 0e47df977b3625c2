"""Families, sweeps, recalls and curves show the numbers of the frames, in pages and in columns of a paper."""

import math
import os
import re
import signal
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.special import softmax
from sklearn.metrics import average_precision_score, roc_auc_score

from ablation import report
from ablation.report import figures
from ablation.report.figures import classes, differences, dots, files, results, style, sweeps, waterfall
from ablation.report.figures.page import arms_shown, file_name
from ablation.report.figures.recall import arms_that_matter
from ablation.report.frames import tables
from ablation.report.metrics import metrics_of
from ablation.report.statistics import ranking
from ablation.training.ranking import auroc_and_average_precision
from tests.report.studies import LADDER, arm, restricted, study

METRICS = metrics_of({})
LONG = "a-class-with-" + "a-very-long-name-" * 4


def swept(axes, **more):
    """The arms of a sweep with these axes over the baseline, whose own values are 0.3."""
    points = [{}]
    for axis, levels in axes.items():
        points = [{**point, axis: level} for point in points for level in levels]
    arms = [
        arm(f"s/{'/'.join(p.values())}", "baseline", "sweep", factors=p, change={a: [0.3, v] for a, v in p.items()}, **more) for p in points
    ]
    return (LADDER[0], *arms)


def pages_of(metric="test/accuracy", **options):
    """The pages of a study made by hand, by name, with its frames."""
    recorded = study(**options)
    frames = tables.tidy_frames(recorded)
    return {page.name: page for page in figures.pages(frames, recorded.plan, metric)}, frames


def test_the_ladder_has_a_dot_per_seed_and_its_means():
    """One row per rung: all seeds, and the mean at the place of the row."""
    pages, frames = pages_of()
    axes = pages["ladder"].draw().axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["baseline", "cb", "mixup"]
    points = {(round(float(x), 6), float(y)) for line in axes.lines for x, y in line.get_xydata()}
    for place, name in enumerate(["baseline", "cb", "mixup"]):
        values = 100 * frames.runs.loc[frames.runs["arm"] == name, "test/accuracy"]
        assert {(round(value, 6), float(place)) for value in [*values, values.mean()]} <= points
    mean = 100 * frames.runs.loc[frames.runs["arm"] == "cb", "test/accuracy"].mean()
    assert f"cb {mean:.2f} (" in pages["ladder"].alt


def test_intervals_are_those_of_the_difference_and_stay_inside():
    """An interval begins at the parent's level; its ends beyond the panel are arrows at the edge."""
    found = {"mean": 1.0, "low": -50.0, "high": 1.5, "verdict": "inconclusive"}
    row = results.Row("a", "a", {0: 90.0, 1: 92.0}, 91.0, math.sqrt(2), "base", 90.0, found)
    assert row.interval == (40.0, 91.5)
    axes = dots.page([replace(row, difference=None), row], results.axis_of("accuracy", METRICS), style.PAGE).axes[0]
    low, high = axes.get_xlim()
    assert all(low <= x <= high for line in axes.collections for path in line.get_paths() for x in path.vertices[:, 0])
    assert "<" in {line.get_marker() for line in axes.lines}
    assert ">" not in {line.get_marker() for line in axes.lines}


def test_families_stand_below_their_parents():
    """The variants of one parent stand below its row, which is no arm of the family."""
    pages, _ = pages_of()
    labels = [label.get_text() for label in pages["variants"].draw().axes[0].get_yticklabels()]
    assert labels == ["cb, the parent", "cutmix", "baseline, the parent", "reweight (= cb)"]


@pytest.mark.parametrize(("levels", "scale"), [(["0.1", "0.2", "0.5"], "linear"), (["1e-5", "1e-3"], "log"), (["-1", "100"], "linear")])
def test_numbers_are_swept_to_scale(levels, scale):
    """The means stand at their values, with the parent's own one among them."""
    pages, frames = pages_of(arms=swept({"mix.alpha": levels}))
    axes = pages["sweep-s"].draw().axes[0]
    assert axes.get_xscale() == scale
    means = 100 * frames.runs.groupby("arm")["test/accuracy"].mean()
    expected = sorted([(0.3, means["baseline"]), *((float(level), means[f"s/{level}"]) for level in levels)])
    line = next(line for line in axes.lines if line.get_color() == style.UP and line.get_linewidth() == 1.4)
    assert line.get_xydata() == pytest.approx(np.array(expected))


def test_words_are_swept_in_rows():
    """A sweep over techniques has a row each."""
    pages, _ = pages_of(arms=swept({"tta": ["hflip", "flips"]}))
    assert [label.get_text() for label in pages["sweep-s"].draw().axes[0].get_yticklabels()] == ["baseline, the parent", "hflip", "flips"]


@pytest.mark.parametrize(("metric", "best"), [("test/accuracy", max), ("test/nll", min)])
def test_two_axes_are_a_heat_map_and_three_are_several(metric, best):
    """The cells have the means, and the best one is bold in the metric's direction."""
    axes = {"mix.alpha": ["0.1", "1.0"], "loss": ["ce", "focal"]}
    pages, frames = pages_of(metric, arms=swept(axes))
    panel = pages["sweep-s"].draw().axes[0]
    scale = 100 if metric == "test/accuracy" else 1
    means = scale * frames.runs.groupby("arm")[metric].mean()
    cells = [[means[f"s/{alpha}/{loss}"] for loss in axes["loss"]] for alpha in axes["mix.alpha"]]
    assert np.asarray(panel.images[0].get_array()) == pytest.approx(np.array(cells))
    bold = [text.get_text() for text in panel.texts if text.get_fontweight() == "bold"]
    of_points = best(np.ravel(cells))  # the parent, which is in no cell, may be better than all
    assert bold == ([f"{of_points:.{METRICS.unit(metric).decimals}f}"] if best(of_points, means["baseline"]) == of_points else [])
    assert f"the best mean is that of {means.idxmax() if best is max else means.idxmin()}" in pages["sweep-s"].alt
    three, _ = pages_of(arms=swept({**axes, "sampler": ["a", "b", "c"]}))
    assert len(three["sweep-s"].draw().axes) == 3


def test_the_best_value_is_that_over_the_seeds_that_all_have():
    """One easy seed does not make a value the best in bold or in words; nor does a value with runs missing or chosen on the test images."""
    recorded = restricted(study(swept({"mix.alpha": ["0.1", "0.2", "0.5", "1.0"]}), absent={("s/0.5", 0)}), {"s/0.2": [2]})
    next(one for one in recorded.plan["arms"] if one["name"] == "s/1.0")["labels"] = {"selected on test": "its epoch"}
    levels = {"baseline": 0.5, "s/0.1": 0.6, "s/0.2": 0.55, "s/0.5": 0.9, "s/1.0": 0.95}
    recorded.runs["test/accuracy"] = recorded.runs["arm"].map(levels) + 0.1 * (recorded.runs["seed"] == 2)
    frames = tables.tidy_frames(recorded)
    page = next(page for page in figures.pages(frames, recorded.plan, "test/accuracy") if page.name == "sweep-s")
    assert "; the best mean is that of s/0.1;" in page.alt
    bold = [text.get_text() for text in page.draw().axes[0].texts if text.get_fontweight() == "bold"]
    assert bold == ["70.00"]  # on seed 2, the one that all points have
    shown = arms_shown(frames.arms)
    assert arms_that_matter(frames.runs, frames.arms, "accuracy", METRICS, shown) == ["s/0.1", "baseline"]


def test_a_choice_is_ringed():
    """The point that a sweep chose is marked, and named in the legend."""
    arms = (*swept({"mix.alpha": ["0.1", "1.0"]}), arm("s/best", "baseline", "sweep"))
    pages, _ = pages_of(arms=arms, chosen={("s/best", 0): "s/1.0"})
    figure = pages["sweep-s"].draw()
    assert "chosen" in {text.get_text() for text in figure.legends[0].get_texts()}


def texts_outside(figure):
    """The texts that are cut at the figure's edge."""
    canvas = FigureCanvasAgg(figure)
    with style.styled():
        canvas.draw()
    boxes = {text.get_text(): text.get_window_extent() for text in figure.findobj(mpl.text.Text) if text.get_text() and text.get_visible()}
    width, height = figure.canvas.get_width_height()
    return [name for name, box in boxes.items() if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > width + 0.5 or box.y1 > height + 0.5]


@pytest.mark.parametrize("wide", [style.WIDEST, style.COLUMN])
def test_slopes_name_the_longest_classes_in_full(wide):
    """No letter of a name is left out, and none is outside the page."""
    names = [f"{LONG}{number}" for number in range(4)]
    before = pd.Series([50.0, 60, 70, 80], index=names)
    with style.styled():
        figure = classes.slope_page(
            {"cb": (before, before.add([1.0, 2, 3, 4])), "mixup": (before, before - 1)}, dict.fromkeys(names, "many"), wide
        )
    labels = {re.sub(r"\s", "", text.get_text()) for axes in figure.axes for text in axes.texts}
    assert f"{names[3]}:+4.0" in labels
    assert texts_outside(figure) == []


@pytest.mark.parametrize(
    ("lows", "words"),
    [
        ([math.nan, math.nan], ["pale: no interval"]),
        ([-1.0, math.nan], ["pale: no interval, or it holds 0", "95 % interval of the step"]),
        ([-1.0, 0.5], ["pale: the interval holds 0", "95 % interval of the step"]),
    ],
)
def test_the_waterfalls_legend_names_what_is_drawn(lows, words):
    """One seed gives no interval, so that none can hold 0."""
    steps = [{"mean": 1.0, "low": low, "high": low + 2} for low in lows]
    part = [waterfall.Ladder("", ["baseline", "cb", "ls"], [90.0, 91.0, 92.0], steps, {})]
    with style.styled():
        legend = waterfall.waterfall_page(part, "accuracy", METRICS).legends[0]
    assert [text.get_text() for text in legend.get_texts()][2:] == words


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("better, by less than 0.5 (t only)", "better (t only)"),
        ("better, by less than 0.5", "better"),
        ("no difference beyond 0.5", "no difference beyond 0.5"),
        ("inconclusive (no spread)", "inconclusive"),
        ("seed without effect", "seed without effect"),
        ("", "inconclusive"),
    ],
)
def test_legends_keep_what_a_mark_says(verdict, words):
    """A hollow mark is of the t test alone, also where the difference is surely small."""
    assert differences.short_verdict(verdict) == words
    assert differences.looks(verdict)[2] == ("t only" not in verdict and words != "inconclusive")


def test_the_waterfalls_intervals_stay_inside_the_axes():
    """An interval of two seeds ends in an arrow inside the panel."""
    step = {"mean": 1.0, "low": -300.0, "high": 300.0}
    part = [waterfall.Ladder("", ["baseline", "cb"], [90.0, 91.0], [step], {})]
    with style.styled():
        axes = waterfall.waterfall_page(part, "accuracy", METRICS).axes[0]
    low, high = axes.get_ylim()
    ends = [y for collection in axes.collections for path in collection.get_paths() for y in path.vertices[:, 1]]
    marks = [y for line in axes.lines if line.get_marker() in ("v", "^") for y in line.get_ydata()]
    assert len(marks) == 2
    assert all(low <= y <= high for y in [*ends, *marks])


@pytest.mark.parametrize("ties", [False, True])
def test_areas_are_scikit_learns(ties):
    """AUROC and average precision of every class, also with equal scores."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 200)
    scores = generator.normal(size=(200, 4)).astype(np.float32) + 1.5 * np.eye(4, dtype=np.float32)[labels]
    scores = np.round(scores) if ties else scores
    found = ranking.ranking(labels, scores)
    shares = np.round(softmax(scores.astype(np.float64), axis=1), 12)  # equal ones are equal in spite of rounding
    for place in range(4):
        assert found.auroc_C[place] == pytest.approx(roc_auc_score(labels == place, shares[:, place]))
        assert found.average_precision_C[place] == pytest.approx(average_precision_score(labels == place, shares[:, place]))
    assert found.auroc_C.mean() == pytest.approx(roc_auc_score(labels, shares, multi_class="ovr"))


@pytest.mark.parametrize("scale", [1, 12, 60, 400])
@pytest.mark.parametrize("num_classes", [2, 7])
def test_areas_are_the_recorded_ones(num_classes, scale):
    """Also of scores so far apart that each probability is 0 or 1: the figure and the table say the same number."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, num_classes, 400)
    scores = (scale * (generator.normal(size=(400, num_classes)) + np.eye(num_classes)[labels])).astype(np.float32)
    found = ranking.ranking(labels, scores)
    recorded = auroc_and_average_precision(labels, scores)
    assert (found.auroc_C.mean(), found.average_precision_C.mean()) == pytest.approx(recorded, abs=1e-12)


def test_a_class_without_images_has_no_area():
    """It is left out of the mean, and nothing warns."""
    shares = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]], np.float32)
    found = ranking.ranking(np.array([0, 1, 1]), np.log(shares))
    assert np.isnan(found.auroc_C[2])
    assert found.auroc_C[:2] == pytest.approx([1.0, 1.0])


def test_legends_have_the_areas_of_the_frames():
    """The ladder's rungs with the mean over seeds and classes."""
    pages, frames = pages_of()
    done = frames.runs[(frames.runs["arm"] == "cb") & (frames.runs["state"] == "done")]
    areas = []
    for run_id in done["run_id"]:
        table = frames.predictions(run_id)
        shares = softmax(table.filter(like="logit/").to_numpy(np.float64), axis=1)
        areas.append(roc_auc_score(table["label"], shares, multi_class="ovr"))
    assert f"cb {np.mean(areas):.3f}" in pages["roc"].alt
    legend = pages["roc"].draw().axes[0].get_legend()
    assert f"cb ({np.mean(areas):.3f})" in {text.get_text() for text in legend.get_texts()}


@pytest.mark.parametrize(("seeds", "words"), [({"cb": [0, 2], "mixup": [2, 0]}, "seeds 0, 2"), ({"cb": [1]}, "seed 1")])
def test_curves_of_rungs_are_of_the_seeds_that_all_have(seeds, words):
    """Which the figure and its words name; the areas are those of these seeds."""
    recorded = restricted(study(arms=LADDER[:3]), seeds)
    frames = tables.tidy_frames(recorded)
    page = next(page for page in figures.pages(frames, recorded.plan, "test/accuracy") if page.name == "roc")
    common = [int(seed) for seed in re.findall(r"\d", words)]
    kept = frames.runs[(frames.runs["arm"] == "baseline") & frames.runs["seed"].isin(common)]["run_id"]
    by_run = [frames.predictions(run_id) for run_id in kept]
    shares = [softmax(table.filter(like="logit/").to_numpy(np.float64), axis=1) for table in by_run]
    area = np.mean([roc_auc_score(table["label"], found, multi_class="ovr") for table, found in zip(by_run, shares, strict=True)])
    assert page.alt.startswith(f"ROC, mean over classes and {words}, with the AUROC: baseline {area:.3f}, cb ")
    assert f"every rung, of {words} (AUROC)" in {axes.get_title(loc="left") for axes in page.draw().axes}


def test_recalls_are_sorted_by_training_images():
    """The largest class stands first, with its number, and every class has both recalls."""
    pages, frames = pages_of()
    page = next(page for page in pages.values() if page.name == "recall-cb")
    axes = page.draw().axes[0]
    recalls = 100 * frames.per_class.set_index(["arm", "class"])["recall"]
    assert [text.get_text() for text in axes.texts] == ["training\nimages", "100", "99", "98", "97"]
    points = {round(float(x), 6) for line in axes.lines for x in line.get_xdata()}
    assert {round(value, 6) for value in [*recalls["cb"], *recalls["baseline"]]} <= points


def test_columns_are_narrow_vectors_with_their_fonts(tmp_path):
    """3.3 inches wide, with TrueType fonts inside and none of type 3."""
    pages, _ = pages_of()
    chosen = [page for page in pages.values() if page.column is not None][:3]
    assert figures.write(chosen, tmp_path) == chosen
    for page in chosen:
        body = (tmp_path / "column" / f"{page.name}.pdf").read_bytes()
        (width,) = {float(found) for found in re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ", body)}
        assert width == pytest.approx(72 * style.COLUMN, abs=0.1)
        assert b"/FontFile2" in body
        assert b"/Type3" not in body


def test_processes_write_what_one_writes(tmp_path, monkeypatch):
    """The bytes do not depend on how many draw."""
    pages = list(pages_of()[0].values())[: files.FEWEST]
    for folder, count in (("one", 1), ("two", 2)):
        monkeypatch.setattr(files, "_processes", lambda _, count=count: count)
        assert figures.write(pages, tmp_path / folder) == pages
    bodies = [
        {str(path.relative_to(tmp_path / folder)): path.read_bytes() for path in (tmp_path / folder).rglob("*") if path.is_file()}
        for folder in ("one", "two")
    ]
    assert bodies[0] == bodies[1]


def test_a_process_that_dies_loses_no_page(tmp_path, monkeypatch):
    """What the killed process leaves undone is drawn by the one that waits for it."""
    parent, page = os.getpid(), next(iter(pages_of()[0].values()))

    def draw():
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return page.draw()

    pages = [replace(page, name=f"page-{number}", draw=draw, column=None) for number in range(3)]
    monkeypatch.setattr(files, "_processes", lambda _: 2)
    assert figures.write(pages, tmp_path) == pages
    assert {path.name for path in tmp_path.iterdir()} == {f"page-{number}.{end}" for number in range(3) for end in ("png", "svg")}


def test_names_of_files_are_safe():
    """Families and arms, whatever stands in their names."""
    names = ["ladder", "drop_one", "sweep mix_a", "tta/without-cb", "condition no-lag", "../x", "a\\b:c"]
    assert [file_name(name) for name in names] == ["ladder", "drop-one", "sweep-mix_a", "tta-without-cb", "condition-no-lag", "-x", "a-b-c"]


def test_the_sweeps_words_name_the_best():
    """The alt text has each value's mean, and the best one."""
    pages, frames = pages_of(arms=swept({"mix.alpha": ["0.1", "1.0"]}))
    means = frames.runs.groupby("arm")["test/accuracy"].mean()
    assert f"the best mean is that of {means.idxmax()}" in pages["sweep-s"].alt
    assert sweeps.number_of("nan") is None


def test_what_stands_beside_an_arm_is_of_the_seeds_that_both_have():
    """The tick of the parent, from which the interval begins; and a waterfall whose rungs have other seeds is left out."""
    arms = [arm("baseline", None), arm("cb", "baseline"), arm("mixup", "cb")]
    recorded = restricted(study(arms, seeds=range(6)), {"cb": [3, 4, 5]})
    frames = report.tidy_frames(recorded)
    found = results.results_of(frames.runs, frames.differences, recorded.plan, "accuracy", metrics_of(recorded.plan))
    for name in ("cb", "mixup"):
        row = found.row(name)
        assert row.parent_level == pytest.approx(row.mean - row.difference["mean"])
    pages = {page.name for page in figures.pages(frames, recorded.plan, "test/accuracy")}
    assert not any(name.startswith("waterfall") for name in pages)
    whole = study(arms, seeds=range(6))
    assert "waterfall-1" in {page.name for page in figures.pages(report.tidy_frames(whole), whole.plan, "test/accuracy")}
