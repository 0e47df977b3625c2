"""The same store gives the same document in every form, and the folder with it."""

import csv
import io
import json
import re

import pandas as pd
import pytest

from ablation import report
from ablation.errors import ConfigError
from ablation.report.documents import writing
from ablation.report.frames import tables
from ablation.report.frames.asked import known_metric
from tests.report.studies import CLASSES, LADDER, arm, cells, numbers, shifted, study

FRAMES = ("differences", "class_differences", "image_differences", "mcnemar", "calibration", "attribution", "effects", "conditions")


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("format_name", report.FORMATS)
def test_the_same_store_gives_the_same_document(format_name):
    """Nothing but the store is in it: no clock, no path, no chance."""
    assert report.write(study(), format_name) == report.write(study(), format_name)


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("format_name", report.FORMATS)
def test_with_output_the_folder_holds_the_document_its_figures_and_the_csv_files(tmp_path, format_name):
    """The text that is returned is the file's, and every figure that it links to is there."""
    text = report.write(study(), format_name, tmp_path / "new" / "out")
    folder = tmp_path / "new" / "out"
    name = f"report.{writing.SUFFIXES[format_name]}"
    assert (folder / name).read_text() == text
    files = {"report.csv", "runs.csv", "per_class.csv", "confusion.csv", "figures", *(f"{name}.csv" for name in FRAMES)}
    assert files | {name, *(["numbers.tex"] if format_name == "latex" else [])} == {path.name for path in folder.iterdir()}
    links = re.findall(r"\]\((figures/[^)]*)\)", text)
    assert len(links) == len(set(links))
    assert bool(links) == (format_name == "markdown")
    assert all((folder / link).stat().st_size > 1000 for link in links)
    confusion = pd.read_csv(folder / "confusion.csv")
    assert len(confusion) == len(LADDER) * len(CLASSES) ** 2
    assert set(confusion["true"]) == set(CLASSES)


@pytest.mark.usefixtures("few_figures")
def test_processes_beside_this_one_write_the_same(tmp_path, monkeypatch):
    """With many runs, tables and text are made in processes of their own; every file has the same bytes."""
    report.write(study(), "markdown", tmp_path / "one")
    monkeypatch.setattr(tables, "MANY_RUNS", 0)
    monkeypatch.setattr("ablation.system.beside.free_cores", lambda: 2)
    monkeypatch.setattr("threading.active_count", lambda: 1)
    report.write(study(), "markdown", tmp_path / "many")
    one, many = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
        for folder in (tmp_path / "one", tmp_path / "many")
    )
    assert one == many


def test_csv_is_the_arms_frame():
    """What is read back equals the frame."""
    recorded = study()
    back = pd.read_csv(io.StringIO(report.write(recorded, "csv")), keep_default_na=True)
    assert back["accuracy_mean"].tolist() == report.tidy_frames(recorded).arms["accuracy_mean"].tolist()
    assert back["accuracy_vs_parent_pairs"].tolist() == [0, 3, 3, 3, 3, 0, 3]


def test_json_has_fractions_and_no_nan():
    """Full digits, differences as fractions too, null where there is no number."""
    recorded = study(broken={("cb", 1)})
    whole = json.loads(report.write(recorded, "json"), parse_constant=pytest.fail)
    arms = report.tidy_frames(recorded).arms
    assert [row["accuracy_mean"] for row in whole["arms"]] == arms["accuracy_mean"].tolist()
    assert whole["arms"][1]["accuracy_vs_parent"] == pytest.approx(arms["accuracy_vs_parent_points"][1] / 100)
    assert whole["arms"][0]["medium_mean"] is None
    assert whole["confusion"]["cb"] == report.tidy_frames(recorded).confusion["cb"].tolist()
    assert next(run for run in whole["runs"] if run["state"] == "failed")["test/accuracy"] is None
    assert set(whole) >= {"study", "plan", "per_class", "averages", "curves", "superseded"}


def test_globs_choose_what_is_shown_and_not_what_is_compared():
    """The chosen arms alone, with their differences to a baseline that is not shown."""
    text = report.write(study(), arms=["cut*", "no-lag/*"])
    rows = cells(text, "## Variants")
    assert [row["arm"] for row in rows] == ["cutmix (B)"]
    assert numbers(rows[0]["vs baseline"])
    assert "### baseline" not in text
    assert "### no-lag/cb (n = 3)" in text


def test_seeds_beyond_counting_are_no_missing_number():
    """More than a thousand seeds are `inf` in JSON as in CSV, and an unknown number of them is null."""
    recorded = study()
    recorded.plan["margin"] = 0.001
    rows = json.loads(report.write(recorded, "json"), parse_constant=pytest.fail)["differences"]
    assert {row["seeds_needed"] for row in rows if row["metric"] == "accuracy" and row["role"] == "parent"} >= {"inf"}
    assert {row["seeds_needed"] for row in rows if row["metric"] == "nll"} == {None}


def test_csv_and_json_have_nats_as_they_are():
    """No column of the NLL speaks of points, and JSON has its difference undivided; that of the ECE is a fraction again."""
    recorded = study()
    rows = list(csv.DictReader(io.StringIO(report.write(recorded, "csv", metric="nll"))))  # pandas 2.3 reads the last digit otherwise
    whole = json.loads(report.write(recorded, "json", metric="nll"))["arms"][1]
    nll, ece = (recorded.runs.pivot(index="seed", columns="arm", values=f"test/{name}") for name in ("nll", "ece"))
    assert not [column for column in rows[1] if column.startswith("nll") and "points" in column]
    gain = (nll["cb"] - nll["baseline"]).mean()
    assert float(rows[1]["nll_vs_parent"]) == whole["nll_vs_parent"] == pytest.approx(gain)
    assert whole["ece_vs_parent"] == pytest.approx((ece["cb"] - ece["baseline"]).mean())
    assert float(rows[1]["ece_vs_parent_points"]) == pytest.approx(100 * whole["ece_vs_parent"])


def test_metrics_of_the_validation_images_are_no_test_metrics():
    """A document is the same without them, and none can be asked for as a metric of the report."""
    recorded, without = study(), study()
    without.runs = without.runs.drop(columns=[column for column in without.runs if column.startswith("validation/")])
    assert len(without.runs.columns) < len(recorded.runs.columns)
    assert report.write(recorded) == report.write(without)
    assert report.write(recorded, "csv") == report.write(without, "csv")
    for name in ("validation/nll", "val/nll"):
        with pytest.raises(ConfigError, match="--metric: unknown metric"):
            report.write(recorded, metric=name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"format": "htm"}, "--format: unknown format 'htm'"), ({"metric": "acuracy"}, "Did you mean 'accuracy'"),
     ({"arms": ["zz*"]}, "--arm: unknown arm")],
)  # fmt: skip
def test_unknown_words_are_errors(arguments, words):
    """A format, a metric or an arm that nobody knows stops the report."""
    with pytest.raises(ConfigError) as caught:
        report.write(study(), **arguments)
    assert words in str(caught.value)


def test_an_output_that_is_a_file_is_an_error(tmp_path):
    """One sentence, and the file is left alone."""
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match=r"--output: found .* is a file; expected a folder"):
        report.write(study(), output=tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_seventy_arms_stay_readable(tmp_path):
    """One row each, and figures by the page."""
    arms = [arm("baseline", None), *(arm(f"a{number}", "baseline", "sweep") for number in range(70))]
    text = report.write(study(arms, seeds=[0], images=5, steps=2), arms=["baseline", "a1*"], output=tmp_path)
    assert len(cells(text, "### All metrics")) == 12
    assert [row["arm"] for row in cells(text, "## Sweep a1")] == ["baseline", "a1"]
    assert text.count("(figures/confusion-") > 0


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("", ["baseline", "up", "down"]), ("arm", ["baseline", "down", "up"]), ("accuracy", ["up", "baseline", "down"]),
     ("test/nll", None)],
)  # fmt: skip
def test_arms_are_sorted(sort, expected):
    """As the file has them, by name, or the best first, which is the lowest of the NLL."""
    recorded = shifted({"up": 0.05, "down": -0.05})
    expected = expected or recorded.runs.groupby("arm")["test/nll"].mean().sort_values().index.tolist()
    assert [row["arm"] for row in cells(report.write(recorded, sort=sort), "## Comparison")] == expected
    assert pd.read_csv(io.StringIO(report.write(recorded, "csv", sort=sort)))["arm"].tolist() == expected


def test_arms_that_cannot_be_ranked_come_after_those_that_can():
    """A lucky seed of an unfinished arm and a number chosen on the test images lead no list."""
    recorded = shifted({"up": 0.05, "lucky": 0.2, "peeking": 0.3})
    next(one for one in recorded.plan["arms"] if one["name"] == "peeking")["labels"] = {"selected on test": "its epoch"}
    recorded.runs = recorded.runs[~((recorded.runs["arm"] == "lucky") & (recorded.runs["seed"] == 1))]
    rows = cells(report.write(recorded, sort="accuracy"), "## Comparison")
    assert [row["arm"].split()[0] for row in rows] == ["up", "baseline", "peeking", "lucky"]


def test_arms_are_sorted_by_a_metric_as_a_file_names_it():
    """Sensitivity is recall, in every form."""
    recorded = study(arms=[arm("baseline", None), arm("a", "baseline")], seeds=[0], images=5)
    for form in report.FORMATS:
        assert report.write(recorded, form, sort="sensitivity/plane") == report.write(recorded, form, sort="recall/plane")


def test_a_number_of_unknown_direction_is_no_metric():
    """A curve of one's own named like a test metric has no unit, and nobody says that less of it is better."""
    recorded = study()
    recorded.runs["test/loss"] = recorded.runs["test/nll"]
    with pytest.raises(ConfigError, match="--metric: unknown metric 'loss'"):
        report.write(recorded, metric="loss")
    assert report.write(recorded, metric="auto") == report.write(recorded)


def test_an_unknown_column_to_sort_by_is_an_error():
    """With those that there are."""
    with pytest.raises(ConfigError, match=r"--sort: unknown metric 'acc'; expected one of accuracy, .*arm"):
        report.write(study(), sort="acc")


def test_a_metric_is_asked_for_as_a_file_names_it(tmp_path):
    """Sensitivity is recall, and a class has its own name; by every document, and where two arms are compared."""
    recorded = study()
    recorded.runs["test/recall/a_b"] = recorded.runs["test/accuracy"]
    for written, name in (("sensitivity/plane", "recall/plane"), ("recall/a|b", "recall/a_b"), ("test/recall/a_b", "recall/a_b")):
        for form in ("markdown", "text"):
            assert report.write(recorded, form, metric=written) == report.write(recorded, form, metric=name)
        assert known_metric("--metric", written, recorded.plan, recorded.runs) == f"test/{name}"
    with pytest.raises(ConfigError, match=r"or recall/CLASS, sensitivity/CLASS, specificity/CLASS, precision/CLASS and f1/CLASS\."):
        report.write(recorded, metric="sensitivity/train")


def test_an_unknown_metric_is_told_without_a_thousand_names():
    """The main ones, and that every class has its own."""
    classes = [f"class {number}" for number in range(500)]
    recorded = study(LADDER[:1], seeds=[0], classes=classes, images=1)
    recalls = pd.DataFrame({f"test/recall/{name}": [0.5] for name in classes})
    recorded.runs = pd.concat([recorded.runs, recalls], axis=1)
    with pytest.raises(ConfigError) as caught:
        report.write(recorded, metric="recal/class 1")
    assert "or recall/CLASS" in str(caught.value)
    assert len(str(caught.value)) < 300
