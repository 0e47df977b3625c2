"""The README tells the truth: its table is the example report's, its file is a study, its links lead somewhere."""

import re
from pathlib import Path

import ablation
from ablation.report.sections.common import LABELS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs" / "example-report"
LARGEST = 1_000_000  # bytes of the example report


def test_every_number_of_the_table_is_in_the_example_report():
    """Means, differences, intervals and verdicts of an arm stand in a row of the report."""
    report = (EXAMPLE / "report.md").read_text(encoding="utf-8")
    rows = [line for line in README.splitlines() if re.match(r"\| [a-z-]+ \|.*±", line)]
    assert len(rows) == 5
    for row in rows:
        arm, _, *cells = (cell.strip().strip("*") for cell in row.strip("|").split("|"))
        theirs = next(line for line in report.splitlines() if re.match(rf"\| {arm} +\|", line) and "±" in line)
        assert all(cell in theirs for cell in cells), (row, theirs)


def test_the_file_in_the_readme_is_that_of_the_example(tmp_path):
    """It can be read, and has the example's arms with all their settings, seeds and margin."""
    (tmp_path / "study.yaml").write_text(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0], encoding="utf-8")
    told, example = (ablation.load_study(path) for path in (tmp_path / "study.yaml", ROOT / "studies" / "digits-lt.yaml"))
    assert (told.seeds, told.margin) == (example.seeds, example.margin)
    assert told.arms == example.arms


def test_the_files_in_the_documents_are_studies(tmp_path):
    """Whoever copies one from the page on the file has a study."""
    written = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "study-file.md").read_text(encoding="utf-8"), re.DOTALL)
    arms = []
    for number, text in enumerate(written):
        path = tmp_path / f"study-{number}.yaml"
        path.write_text(text, encoding="utf-8")
        arms.append([arm.name for arm in ablation.load_study(path).arms])
    assert arms[0][:4] == ["baseline", "cb", "mixup", "weighted"]


def test_the_page_on_the_report_has_every_label_with_its_mark():
    """In the order in which the tables' legends know them."""
    rows = re.findall(r"^\| ([A-Z]) \| ([a-z ]+) \|", (ROOT / "docs" / "report.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [(label, mark) for mark, label in rows] == [(label, mark) for label, (mark, _) in LABELS.items()]


def test_links_and_pictures_lead_to_files():
    """Of the README and of the example report, which is small."""
    for page in (ROOT / "README.md", EXAMPLE / "README.md", EXAMPLE / "report.md"):
        links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
        assert not missing, (page, missing)
    assert sum(path.stat().st_size for path in EXAMPLE.rglob("*") if path.is_file()) < LARGEST
