"""No table is wider than its page, opened or not: on a desk, on GitHub, and on a phone."""

import pytest

from ablation import report
from ablation.report.documents.writing import gather, text
from ablation.report.sections import Shown
from tests.report.documents.layouts import BROWSER, github, too_wide
from tests.report.studies import arm, study

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome, which is not installed")
LONG = "decoupled/class-balanced-focal"
CHANGE = {"smoothing.epsilon": [0.1, 0.2], "stages.1.sampler.name": ["class_balanced", "progressive"], "loss.weights": ["none", "inverse"]}
ARMS = [
    arm("baseline", None, published={"A": 84.22, "B": 85.1}, labels={"lag": "52.6 % are still initial"}),
    arm("cb", "baseline", label="reweighting by WeightedRandomSampler", change={"sampler.name": ["shuffle", "class_balanced"]}),
    arm("two-stages-of-training", "cb", change=CHANGE, labels={"bundle": "several", "selected on test": "its epoch"}),
    *(arm(f"{LONG}/{n}", "cb", "sweep", change=CHANGE, factors={"smoothing.epsilon": str(n)}) for n in range(14)),
    arm("as-published/baseline", None, "condition", "as-published/baseline"),
    arm(f"as-published/{LONG}/1", "as-published/baseline", "condition", "as-published/baseline"),
]
CLASSES = [f"aeroplane number {number}" for number in range(10)]


@pytest.fixture(scope="module")
def content():
    """A study of long names, with two seeds, so that intervals are wide."""
    return gather(study(ARMS, seeds=[0, 1], classes=CLASSES, images=10), Shown())


@pytest.mark.parametrize("width", [1280, 900, 390])
def test_no_table_of_the_page_is_wider_than_it(content, width, tmp_path):
    """Nor is the page, with all that is folded opened."""
    assert too_wide(text(content, "html", {}), width, tmp_path) == []


def test_no_table_of_the_markdown_is_wider_than_githubs_page(content, tmp_path):
    """At 900 pixels, as GitHub lays it out."""
    assert too_wide(github(text(content, "markdown", {})), 900, tmp_path) == []


def test_the_settings_that_differ_fit_too(tmp_path):
    """As many columns of settings as there is room for, the rest in another table."""
    changes = {f"some.long.name.of.a.setting{number}": [number, number + 1] for number in range(12)}
    recorded = study([arm("baseline", None), arm("many", "baseline", change=changes)], seeds=[0, 1])
    markdown = report.write(recorded, only_changed=True)
    assert all(f"setting{number}" in markdown.split("## Ladder")[0] for number in range(12))
    assert too_wide(github(markdown), 900, tmp_path) == []
