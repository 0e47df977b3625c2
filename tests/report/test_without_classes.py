"""A study whose metric is an error and whose test items have no classes is reported in every form, in words of its own."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from ablation import report
from ablation.errors import ConfigError
from ablation.report.documents import comparing
from ablation.report.documents.csv import csv_files
from ablation.report.frames import packed
from ablation.study.metrics import Metric, metric_rows
from tests.report.studies import PROVENANCE, Study, arm, cells

SEEDS = (0, 1, 2)
SHIFTS = {  # of the error
    "baseline": 0.0, "wide": -4.0, "deep": 4.0, "same": 0.001, "rate/low": 0.5, "rate/high": -0.5, "dry/baseline": 0.2, "dry/wide": -4.0,
}  # fmt: skip
ARMS = (
    arm("baseline", None, published={"A": 12.5}),
    arm("wide", "baseline", change={"width": [8, 16], "act.name": ["relu", "gelu"]}),
    arm("deep", "wide", "variant", change={"depth": [2, 4]}, labels={"budget": "twice as many updates", "selected on test": "its epoch"}),
    arm("same", "baseline", "variant", change={"seed": [0, 1]}, labels={"chosen": "the better of two arms"}),
    *(arm(f"rate/{level}", "baseline", "sweep", factors={"rate": level}) for level in ("low", "high")),
    arm("dry/baseline", None, "condition", "dry/baseline", condition="dry"),
    arm("dry/wide", "dry/baseline", "condition", "dry/baseline", condition="dry"),
)
MAE = Metric("test/mae", "MAE", "lower", "", 1.0, is_headline=True)
RMSE = Metric("test/rmse", "RMSE", "lower", "m", table="quality")
FORBIDDEN = ("class", "accuracy", "points", "images")


def recorded_study(metrics=(MAE,), curves=True, seeds=SEEDS):
    """A recorded plan and its runs as the store would give them; predictions are not there and must not be asked for."""
    generator = np.random.default_rng(0)
    rows = []
    for planned in ARMS:
        for seed in seeds:
            error = 12.0 + SHIFTS[planned["name"]] + 0.05 * generator.normal()
            run_id = f"{len(rows):032x}"
            place = {"arm": planned["name"], "seed": seed, "status": "FINISHED", "key": run_id, "run_id": run_id, "start": 0, "end": 60_000}
            values = {metric.name: error * (1 + number) for number, metric in enumerate(metrics)}
            spent = {"time/own": 60.0, "time/shared": 30.0, "epochs/own": 2.0, "epochs/shared": 1.0}
            rows.append(place | {"reason": None, "chosen": "", **PROVENANCE, **values, **spent})
    plan = {
        "study": "errors",
        "task": "regression",
        "metrics": metric_rows(metrics),
        "arms": list(ARMS),
        "runs": [{"arm": row["arm"], "seed": row["seed"], "key": row["key"], "state": "done", "reason": ""} for row in rows],
        "seeds": list(seeds),
        "created": "2026-01-02T03:04:05",
        "command": "ablate run errors.yaml",
        "file": "errors.yaml",
        "notes": [],
        "margin": 0.5,
    }
    points = [(row["run_id"], "train/mae", step, row["test/mae"] + 5 - step) for row in rows for step in range(3) if curves]
    return Study("errors", plan, pd.DataFrame(rows), [], {}, pd.DataFrame(points, columns=["run_id", "metric", "step", "value"]))


class Words(HTMLParser):
    """What a reader of a page sees, and what is read out of it."""

    def __init__(self, page):
        super().__init__()
        self.words, self.is_code = [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.is_code = tag in ("script", "style")
        self.words += [value for name, value in attrs if name in ("alt", "title", "aria-label", "id", "href")]

    def handle_endtag(self, tag):
        self.is_code = False

    def handle_data(self, data):
        self.words += [] if self.is_code else [data]


def forbidden_in(text, form="markdown"):
    """The words of classification in a document; HTML's own attribute and LaTeX's own command are none."""
    if form == "html":
        text = " ".join(Words(text).words)
    return [word for word in FORBIDDEN if word in text.replace("\\documentclass", "").lower()]


@pytest.mark.parametrize("metrics", [(MAE,), (MAE, RMSE)], ids=["one", "two"])
@pytest.mark.parametrize("form", report.FORMATS)
def test_no_form_speaks_of_classification(form, metrics):
    """Each form is made, has every arm and the metric's name, and has none of the words."""
    text = report.write(recorded_study(metrics), form)
    assert forbidden_in(text, form) == []
    assert "mae" in text.lower()
    folded = ("sweep", "condition") if form == "text" else ()
    assert all(planned["name"] in text.replace("\\allowbreak{}", "") for planned in ARMS if planned["kind"] not in folded)


def test_the_folder_has_only_what_there_is(tmp_path):
    """No file and no figure of classes; what is there has none of the words, the figures' texts included."""
    text = report.write(recorded_study(), output=tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {
        "report.md", "report.csv", "runs.csv", "differences.csv", "attribution.csv", "effects.csv", "conditions.csv", "figures",
    }  # fmt: skip
    families = {"ladder", "variants", "sweep-rate", "condition-dry"}
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {*families, "differences-1", "waterfall-1", "curves-1", "column"}
    assert forbidden_in(text) == []
    assert all(forbidden_in(path.read_text(encoding="utf-8")) == [] for path in tmp_path.glob("*.csv"))


def test_lower_is_better():
    """In verdicts, in what is bold, in the order and in the words; the smaller arm gains although its difference is negative."""
    recorded = recorded_study()
    text = report.write(recorded)
    verdicts = report.tidy_frames(recorded).arms.set_index("arm")["verdict_vs_baseline"]
    assert (verdicts["wide"], verdicts["deep"]) == ("better (t only)", "worse (t only)")
    assert verdicts["same"] == "no difference beyond 1"
    rows = {row["arm"]: row for row in cells(text, "### All metrics")}
    assert [name for name, row in rows.items() if row["MAE"].startswith("**")] == ["wide"]
    assert cells(text, "## Comparison")[1]["vs baseline"].startswith("-")
    assert "Differences are of MAE, paired by seed" in text
    assert "Lower is better: a difference below zero is a gain." in text
    ordered = [row["arm"].partition(" ")[0] for row in cells(report.write(recorded, sort="mae"), "## Comparison")]
    assert ordered[0] == "wide"
    assert ordered[-1] == "deep"


def test_numbers_without_a_unit_leave_nothing_odd():
    """Three decimals, no empty brackets, no comma or space where the unit's word would stand."""
    recorded = recorded_study()
    text = report.write(recorded)
    value = cells(text, "### All metrics")[0]["MAE"]
    assert re.fullmatch(r"\d+\.\d{3} ± \d\.\d{3}", value)
    assert "- Mean ± standard deviation over 3 seeds; the best of a column is bold." in text
    assert "**No difference beyond 1 from its baseline** (1): same " in text
    assert "- To resolve a difference of 1, 2 to 3 seeds, depending on the family, are needed" in text
    for form in ("markdown", "latex"):
        prose = [line for line in report.write(recorded, form).splitlines() if not line.lstrip("% ").startswith(("|", "!["))]
        assert not re.search(r"\(\)|\( |\(,| ,| \.(?!\.)|,,| in[;,.]", "\n".join(prose))
    latex = report.write(recorded, "latex")
    assert "Differences of MAE, paired by seed" in latex
    assert "followed by nothing (mean), Sd or N (runs);" in latex
    assert "VsParent and VsBaseline, followed by nothing" in latex


def test_other_units_are_told_as_they_are():
    """The second metric has its own table under a plain title; without a margin it makes no claim of equivalence."""
    recorded = recorded_study((MAE, RMSE))
    text = report.write(recorded, metric="rmse")
    assert "RMSE in m, mean ± standard deviation over 3 seeds. For RMSE lower is better." in text.split("## Further metrics")[1]
    assert list(cells(text, "## Further metrics")[0]) == ["arm", "n", "RMSE"]
    assert "Differences are m of RMSE, paired by seed" in text
    assert "no difference beyond" not in text
    assert "Seeds needed" not in text
    assert "Further metrics" not in report.write(recorded_study())


@pytest.mark.parametrize("curves", [True, False])
def test_what_is_missing_is_said_once(curves):
    """One line at the end of how to read it, with the curves only where there are none."""
    text = report.write(recorded_study(curves=curves))
    missing = "categories, groups of categories, numbers of items per category and predictions of single items"
    missing = missing if curves else f"{missing.replace(' and ', ', ')} and training curves"
    assert text.splitlines().count(f"- Left out, since the study does not record it: what is made of {missing}.") == 1
    assert "## Not done" not in text


def test_published_figures_are_of_the_main_metric(tmp_path):
    """As they are, not in percent; a file names them by the metric, and a file of classes is none of this study."""
    recorded = recorded_study()
    rows = {row["arm"]: row for row in cells(report.write(recorded), "### Published figures")}
    measured = recorded.runs.loc[recorded.runs["arm"] == "baseline", "test/mae"].mean()
    assert (rows["baseline"]["A"], rows["baseline"]["A gap"]) == ("12.500", f"{measured - 12.5:+.3f}")
    path = tmp_path / "published.csv"
    path.write_text("report,arm,mae\nB,wide,7.25\n")
    rows = {row["arm"]: row for row in cells(report.write(recorded, references=path), "### Published figures")}
    assert rows["wide"]["B"] == "7.250"
    path.write_text("arm,class,precision,recall,f1,support\nwide,x,1,1,1,1\n")
    with pytest.raises(ConfigError, match=r"expected report, arm, mae$"):
        report.write(recorded, references=path)


def test_an_unknown_metric_names_those_of_the_study():
    """And no metric of classes."""
    with pytest.raises(ConfigError, match=r"expected one of mae\. Did you mean 'mae'"):
        report.write(recorded_study(), metric="maee")
    with pytest.raises(ConfigError, match="unknown metric 'test/accuracy'"):
        report.write(recorded_study(), metric="test/accuracy")


def test_the_short_table_and_the_comparison_of_two():
    """The table that a run ends with has the headline and its verdict; two arms are compared without classes."""
    recorded = recorded_study()
    text = report.brief(recorded, [planned["name"] for planned in ARMS])
    header = next(line for line in text.splitlines() if line.startswith("Ladder"))
    assert re.split(r" {2,}", header) == ["Ladder", "MAE", "vs parent [95 %]", "vs baseline", "verdict"]
    assert next(line for line in text.splitlines() if line.startswith("  wide")).endswith("  better (t only)")
    assert forbidden_in(text) == []


def test_two_arms_beside_one_another(tmp_path):
    """Settings, numbers and runs; nothing of classes and test items."""

    class Written:
        def __getattr__(self, name):
            return getattr(recorded, name)

        def artifact(self, run_id, name):
            path = tmp_path / name
            path.write_text("settings: {width: 8}\nstages: [{epochs: 2, width: 8}]\n")
            return path

    recorded = recorded_study()
    parts = comparing.compare(Written(), "wide", "baseline")
    assert [part.title for part in parts] == ["Settings that differ", "Results, paired by seed", "Runs"]
    assert parts[1].rows[0][0] == "MAE"
    assert parts[1].notes[0] == "Mean ± sd over seeds; baseline minus wide, over the seeds that both have."
    assert parts[1].notes[1].startswith("Verdict on MAE, baseline against wide: worse (t only).")
    assert forbidden_in(json.dumps([[part.title, part.columns, part.rows, part.notes] for part in parts])) == []


def test_json_and_frames_are_those_of_the_metric():
    """Differences as they are, no key of classes; every frame is there and those of classes are empty."""
    recorded = recorded_study()
    parts = json.loads(report.write(recorded, "json"), parse_constant=pytest.fail)
    assert not set(parts) & {"per_class", "averages", "confusion", "class_differences", "image_differences", "mcnemar", "calibration"}
    frames = report.tidy_frames(recorded)
    expected = frames.differences.set_index(["arm", "role"]).loc[("wide", "parent")]
    difference = next(row for row in parts["differences"] if (row["arm"], row["role"]) == ("wide", "parent"))
    assert difference["mean"] == expected["mean"] == pytest.approx(-4, abs=0.2)
    assert frames.per_class.empty
    assert frames.unreadable == []
    assert "per_class.csv" not in csv_files(frames, recorded.plan)


def test_it_is_packed_without_predictions(tmp_path):
    """A zip holds the files that such a run has, and gives the same report."""

    class Point:
        def __init__(self, name, step, value):
            self.name, self.step, self.value, self.time = name, step, value, 0

    recorded = recorded_study()
    (tmp_path / "config.yaml").write_text("settings: {}\nstages: []\n")
    points = {key: [Point(*row) for row in rows[["metric", "step", "value"]].to_numpy()] for key, rows in recorded.points.groupby("run_id")}
    stored = replace(recorded)
    stored.store = type("Curves", (), {"curves": lambda _, run_id: points[run_id]})()
    stored.artifact = lambda run_id, name: tmp_path / name
    packed.write(stored, packed.stored_points(stored), b"study: errors\n", tmp_path / "study.zip")
    assert report.write(packed.read(tmp_path / "study.zip")) == report.write(recorded)
