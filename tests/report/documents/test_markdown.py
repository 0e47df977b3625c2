"""What is short comes first, and the rest is folded."""

from ablation import report
from tests.report.studies import CONDITIONED, arm, study


def folded(text):
    """The lines that lie within details."""
    depth, inside = 0, []
    for line in text.splitlines():
        depth += line.startswith("<details>") - line.startswith("</details>")
        inside += [line] if depth else []
    assert depth == 0
    return inside


def test_what_is_short_comes_first_and_details_are_folded():
    """Claims, comparison, differences, trades; per-class tables, runs and provenance open on a click, under headings of their own."""
    text = report.write(study(CONDITIONED))
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## What can be claimed", "## Comparison", "## Comparison under no-lag", "## Differences", "## Who gained, who paid",
        "## Conditions side by side", "## Worst class and calibration", "## Details",
    ]  # fmt: skip
    for heading in (
        "### Every test",
        "### Doubt from the test images",
        "### Changes",
        "#### cb (n = 3)",
        "#### cb: confusions",
        "### Runs",
        "### Provenance",
    ):
        assert heading in folded(text)
    assert "<summary>cb (n = 3)</summary>" in text
    assert len(text.splitlines()) - len(folded(text)) < 130


def test_names_are_themselves_within_a_summary():
    """There Markdown's backslashes would show, and HTML is still no markup."""
    text = report.write(study([arm("baseline", None), arm("a|b<i>", "baseline")], seeds=[0]))
    assert "<summary>a|b&lt;i&gt; (n = 1)</summary>" in text
    assert "#### a\\|b&lt;i&gt; (n = 1)" in text
