"""The LaTeX tables compile in one column and in two, whatever they hold, and nothing is wider than its column."""

import re

import numpy as np
import pytest

from ablation import report
from tests.report.documents.papers import CLASSES, WAYS, assert_clean, compiled, hostile, needs_pdflatex
from tests.report.studies import LADDER, arm, study
from tests.report.test_without_classes import recorded_study

pytestmark = needs_pdflatex
usual = pytest.mark.parametrize("columns", ["article", "[twocolumn]article"], ids=["one column", "two columns"])
EVERYTHING = ["n", "change", "accuracy", "balanced_accuracy", "macro_f1", "many", "few", "nll", "ece", "parent", "baseline", "verdict"]


@usual
@pytest.mark.parametrize(
    "options", [{}, {"metric": "nll", "sort": "few"}, {"columns": EVERYTHING}, {"columns": ["accuracy", "parent"]}], ids=str
)
def test_it_compiles_by_the_command_that_it_names(tmp_path, options, columns):
    """In an article of one or two columns, where nothing is too wide and no reference is open."""
    log, pages = compiled(tmp_path, report.write(study(), "latex", **options), document_class=columns)
    assert_clean(log)
    assert pages


@usual
@pytest.mark.parametrize(
    "recorded",
    [
        lambda: study(LADDER[:1], seeds=(0,)), lambda: study(LADDER[:1]), lambda: study(seeds=(0,)),
        lambda: study(broken={("cb", 1), ("cutmix", 0), ("cutmix", 1), ("cutmix", 2)}), recorded_study,
    ],
    ids=["one run", "one arm", "one seed", "gaps", "no classes"],
)  # fmt: skip
def test_small_and_other_studies_compile(tmp_path, recorded, columns):
    """One arm, one seed, runs that are missing, and metrics of another kind of work."""
    log, pages = compiled(tmp_path, report.write(recorded(), "latex"), document_class=columns)
    assert_clean(log)
    assert pages


@usual
def test_it_compiles_whatever_the_names(tmp_path, columns):
    """Nothing that users named is read as LaTeX; each table is there once."""
    text = report.write(hostile(), "latex", columns=["change", "accuracy", "parent", "published", "verdict"])
    log, _ = compiled(tmp_path, text, document_class=columns)
    assert_clean(log)
    assert "passwd" not in re.sub(r"\s", "", "".join(re.findall(r"\([^()\s]+", log)))
    labels = re.findall(r"newlabel\{(tab:[^}]*)\}", (tmp_path / "tables.aux").read_text())
    assert sorted(labels) == sorted(re.findall(r"\\label\{(tab:[^}]*)\}", text)) == sorted(set(labels))


@pytest.mark.parametrize("columns", CLASSES.values(), ids=CLASSES)
def test_many_long_arms_fit(tmp_path, columns):
    """Over several pages, in three digits before the point, with ladders of many rungs."""
    rungs = [arm(f"a-rung-of-a-long-name-{place}", f"a-rung-of-a-long-name-{place - 1}" if place else "mixup") for place in range(12)]
    names = [f"sweep/of-a-rather-long-name_{number}" for number in range(60)]
    sweep = [arm(name, "baseline", "sweep", labels={"bundle": "x", "lag": "y"}) for name in names]
    recorded = study([*WAYS, *rungs, *sweep], seeds=(0, 1))
    recorded.runs["test/accuracy"] = np.linspace(0.01, 1, len(recorded.runs))
    log, pages = compiled(tmp_path, report.write(recorded, "latex"), document_class=columns)
    assert_clean(log)
    assert pages > 2


def test_it_compiles_with_the_check_marks_of_amssymb(tmp_path):
    """Which replace the drawn ones."""
    source = r"\documentclass{article}\usepackage{amssymb,array,booktabs,graphicx}\begin{document}\input{report.tex}\end{document}"
    log, _ = compiled(tmp_path, report.write(study(WAYS), "latex"), source)
    assert_clean(log)
    assert "msam" in log
