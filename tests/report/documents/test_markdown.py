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
    """The best arm, the ladder, the families and the classes; the rest opens on a click, under headings of their own."""
    text = report.write(study(CONDITIONED))
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Comparison", "## Variants", "## Comparison under no-lag", "## Classes", "## Details",
    ]  # fmt: skip
    for heading in (
        "### What can be claimed",
        "### All metrics",
        "### Differences",
        "#### Every test",
        "#### Doubt from the test images",
        "### Who gained, who paid",
        "### Conditions side by side",
        "### Worst class and calibration",
        "### Changes",
        "#### cb (n = 3)",
        "#### cb: confusions",
        "### Runs",
        "### Provenance",
    ):
        assert heading in folded(text)
    assert "<summary>cb (n = 3)</summary>" in text
    assert len(text.splitlines()) - len(folded(text)) < 80


def test_seventy_arms_are_no_long_document():
    """The long tables of arms that are neither on the ladder nor the best are left out, and the files that have them are named."""
    rungs = [arm("baseline", None), arm("cb", "baseline")]
    arms = [*rungs, *(arm(f"rate/{number}", "cb", "sweep", factors={"rate": str(number)}) for number in range(68))]
    recorded = study(arms, seeds=[0, 1], classes=[str(number) for number in range(10)], images=5)
    text = report.write(recorded)
    assert len(text.encode()) < 100_000
    assert "#### cb (n = 2)" in text
    assert "#### rate/1 (n = 2)" not in text
    assert "The other arms: in the HTML page, and in `per_class.csv`" in text
    assert "rate/67" in text


def test_names_are_themselves_within_a_summary():
    """There Markdown's backslashes would show, and HTML is still no markup."""
    text = report.write(study([arm("baseline", None), arm("a|b<i>", "baseline")], seeds=[0]))
    assert "<summary>a|b&lt;i&gt; (n = 1)</summary>" in text
    assert "#### a\\|b&lt;i&gt; (n = 1)" in text
