"""A document is held against the store by the options that it names itself."""

import json
import re
from dataclasses import replace
from functools import cache

import pytest

from ablation import report
from ablation.errors import ConfigError
from ablation.report.documents import check as checking
from ablation.report.documents.check import lines
from ablation.report.documents.writing import SUFFIXES, gather
from ablation.report.sections import Shown, made_by
from tests.report.studies import arm, study
from tests.tiny import write

pytestmark = pytest.mark.usefixtures("few_figures")
FORMS = [form for form in report.FORMATS if form not in ("csv", "text")]  # those that say how they were made


def check(recorded, path, form, options):
    """How the document at that path compares with the store."""
    return checking.check(recorded, path, checking.read(path, form, options))


@cache
def usual(form):
    """The study's report, made once."""
    return report.write(study(), form)


def written(folder, form, recorded=None, **options):
    """The file with the study's report."""
    path = folder / f"told.{SUFFIXES[form]}"
    path.write_text(report.write(recorded or study(), form, **options) if recorded or options else usual(form))
    return path


@pytest.mark.parametrize("form", report.FORMATS)
def test_an_untouched_report_matches(tmp_path, form):
    """In every form."""
    assert check(study(), written(tmp_path, form), None, Shown()) == (0, "")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options",
    [{"metric": "nll", "arms": ["cb", "no-lag/*"]}, {"sort": "few", "only_changed": True}],
)
def test_a_report_is_made_again_as_it_was_asked_for(tmp_path, form, options):
    """Its metric, arms, order and columns are in it; those of the command do not count."""
    assert check(study(), written(tmp_path, form, **options), None, Shown(metric="ece", sort="arm")) == (0, "")


@pytest.mark.parametrize("form", report.FORMATS)
def test_a_report_with_figures_matches(tmp_path, form):
    """Figures are named, and need not be drawn again."""
    report.write(study(), form, tmp_path)
    assert check(study(), tmp_path / f"report.{SUFFIXES[form]}", None, Shown())[0] == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_report_matches_without_the_figures_that_could_not_be_drawn(tmp_path, monkeypatch, form):
    """It says which; where no figure can even be named any more, one sentence does."""
    from ablation.report import figures

    pages = figures.pages

    def broken_pages(*args):
        first, *others = pages(*args)
        return [replace(first, draw=lambda: 1 / 0), *others]

    with monkeypatch.context() as patch:
        patch.setattr(figures, "pages", broken_pages)
        report.write(study(), form, tmp_path)
    path = tmp_path / f"report.{SUFFIXES[form]}"
    assert '"undrawn": [' in path.read_text()
    assert check(study(), path, None, Shown()) == (0, "")
    monkeypatch.setattr(figures, "pages", lambda *_: 1 / 0)
    with pytest.raises(ConfigError, match=r"--check: cannot name the figures of .*division by zero"):
        check(study(), path, None, Shown())


def test_the_csv_files_beside_it_match_too(tmp_path):
    """Each by its own name."""
    report.write(study(), "csv", tmp_path)
    for name in ("runs.csv", "differences.csv", "calibration.csv"):
        assert check(study(), tmp_path / name, None, Shown())[0] == 0
    (tmp_path / "runs.csv").write_text((tmp_path / "runs.csv").read_text().replace("done", "gone", 1))
    assert check(study(), tmp_path / "runs.csv", None, Shown())[0] == 1


@pytest.mark.parametrize("form", report.FORMATS)
def test_one_edited_digit_is_found(tmp_path, form):
    """The line is in the diff, and counted once."""
    path = written(tmp_path, form)
    text = path.read_text()
    end = text.index('"provenance"') if form == "json" else len(text) / 2
    number = next(digit for digit in re.finditer(r"(?<=\d)\d(?=\D*$)", text, re.MULTILINE) if digit.start() > end / 2)
    path.write_text(f"{text[: number.start()]}{(int(number[0]) + 1) % 10}{text[number.end() :]}")
    count, diff = check(study(), path, None, Shown())
    assert count == 1
    assert [line[0] for line in diff.splitlines()[3:]] == ["-", "+"]


@pytest.mark.parametrize("form", report.FORMATS)
def test_another_number_in_the_store_is_found(tmp_path, form):
    """A run that gives another result changes what the report should say."""
    path, other = written(tmp_path, form), study()
    other.runs.loc[other.runs["arm"] == "cb", "test/accuracy"] += 0.1
    assert check(other, path, None, Shown())[0] > 0


@pytest.mark.parametrize("form", report.FORMATS)
def test_what_another_run_without_training_changes_does_not_count(tmp_path, form):
    """The plan's date and command, its predicted times, and where it was planned."""
    path, later = written(tmp_path, form), study()
    later.plan |= {
        "created": "2027-01-01T00:00:00",
        "command": "ablate run demo.yaml --yes",
        "stages": [{"seconds": 3}],
        "file": "moved/demo.yaml",
    }
    later.plan["provenance"] = {**later.plan["provenance"], "user": "else", "commit": "f00d"}
    assert check(later, path, None, Shown()) == (0, "")


def test_many_differences_are_cut(tmp_path):
    """Forty lines of the diff, and the count of them all."""
    path = tmp_path / "x.md"
    first, _, rest = usual("markdown").partition("\n")
    path.write_text("\n".join([first, *(f"mine {number}" for number in range(100))]))
    count, diff = check(study(), path, None, Shown())
    assert count >= 100
    assert len(diff.splitlines()) == 41
    assert diff.endswith("...")
    assert rest


def test_published_figures_are_read_where_the_command_runs(tmp_path, monkeypatch):
    """The path is in the document as it was given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "published.csv").write_text("report,arm,accuracy\nB,cb,0.9\n")
    path = written(tmp_path, "markdown", references="published.csv")
    assert check(study(), path, None, Shown()) == (0, "")
    (tmp_path / "published.csv").write_text("report,arm,accuracy\nB,cb,0.8\n")
    assert check(study(), path, None, Shown())[0] > 0


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.md", "# my notes\n", "does not say in its first line how it was made"),
        ("a.md", "", "does not say in its first line how it was made"),
        ("a.tex", "% ablate report {broken}\n", "what it was made by cannot be read"),
        ("a.md", '<!-- ablate report {"study": "demo"} -->\n', "does not say how it was made"),
        ("a.json", '{"study": "demo"}', "does not say how it was made"),
        ("a.json", '{"study": ', "what it was made by cannot be read"),
        ("a.md", "\udcff", "cannot read"),
    ],
)
def test_what_is_no_report_is_told(tmp_path, name, text, words):
    """One sentence with the file and what was expected."""
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match="--check: ") as caught:
        check(study(), tmp_path / name, None, Shown())
    assert words in str(caught.value)
    assert "expected a report that ablate report wrote" in str(caught.value)


def test_a_missing_file_and_a_wrong_form_are_told(tmp_path):
    """So is a report of another study."""
    with pytest.raises(ConfigError, match="cannot read"):
        check(study(), tmp_path / "none.md", None, Shown())
    path = written(tmp_path, "json")
    with pytest.raises(ConfigError, match="is json; expected html"):
        check(study(), path, "html", Shown())
    other = study()
    other.study = "another"
    with pytest.raises(ConfigError, match="a report of the study demo; expected one of another"):
        check(other, path, None, Shown())


@pytest.mark.parametrize("name", ["a-->b", "<!--", "</style>", 'quo"te', "two\nlines", "ünï–code", "--"])
def test_no_name_ends_the_comment(tmp_path, name):
    """A glob may hold anything, and comes back as it was."""
    recorded = study([arm("baseline", None), arm(name, "baseline")], seeds=[0])
    line = made_by(gather(recorded, Shown(arms=(name.replace("[", "?"),))))
    options = line.partition("report ")[2]
    assert not re.search(r"<|>|--|\n", options)
    assert json.loads(options)["arms"] == [name]
    assert check(recorded, written(tmp_path, "markdown", recorded, arms=[name]), None, Shown()) == (0, "")


@pytest.mark.parametrize("form", FORMS)
def test_a_hostile_name_comes_back_in_every_form(tmp_path, form):
    """All that ends something in one of them, in one name."""
    name = 'a-->b<!--</style>"\n--'
    recorded = study([arm("baseline", None), arm(name, "baseline")], seeds=[0])
    assert check(recorded, written(tmp_path, form, recorded, arms=[name]), None, Shown()) == (0, "")


@pytest.mark.parametrize("form", ["markdown", "html"])
def test_another_layout_is_told_as_such(tmp_path, form):
    """What an older version wrote cannot be compared line by line, which one sentence says; where it is alike it matches."""
    path = written(tmp_path, form)
    older = path.read_text().replace('"edition": 2', '"edition": 1', 1)
    path.write_text(older)
    other = study()
    other.runs.loc[other.runs["arm"] == "cb", "test/accuracy"] += 0.1
    with pytest.raises(ConfigError, match=r"has the layout of another version of ablate \(edition 1\); expected edition 2"):
        check(other, path, None, Shown())


def test_only_who_planned_it_is_left_out():
    """The sections around it stay, and all that is said of the runs."""
    left = lines("markdown", usual("markdown"))
    assert {"### Provenance", "### Runs", "### How to read this", "## Comparison"} <= set(left)
    gone = [line for line in usual("markdown").splitlines() if line not in left and "To claim more: " not in line]
    assert gone == ["Planned 2026-01-02T03:04:05 by `ablate run demo.yaml` from `demo.yaml`."]


@pytest.mark.parametrize("form", ["markdown", "html", "latex"])
def test_what_is_said_of_the_runs_counts(tmp_path, form):
    """The versions of packages, the machine and the digest of the data."""
    for found, instead in (("torch 2.11.0", "torch 2.3.1"), ("d1d2d3", "d1d2d4"), ("Thing, 2 cores", "Thing, 64 cores")):
        path = written(tmp_path, form)
        text = path.read_text()
        assert found in text
        path.write_text(text.replace(found, instead))
        assert check(study(), path, None, Shown())[0] >= 1


def test_the_command(ablate):
    """0 where it matches, also after another run that had nothing to do; 1 and a diff where it does not; 2 for what is no report."""
    file = write(ablate.folder, seeds=[0])
    assert ablate("run", file).status == 0
    assert ablate("report", "--output", "out").status == 0
    fine = ablate("report", "--check", "out/report.md")
    assert (fine.status, fine.out) == (0, "")
    assert "out/report.md matches the store" in fine.err
    assert ablate("run", file).status == 0
    assert ablate("report", file, "--check", "out/report.md").status == 0
    path = ablate.folder / "out" / "report.md"
    path.write_text(path.read_text().replace("## Comparison\n", "## Comparision\n"))
    edited = ablate("report", "--check", "out/report.md")
    assert edited.status == 1
    assert "-## Comparision\n+## Comparison\n" in edited.err
    assert "out/report.md does not match the store: 1 line differs" in edited.err
    assert ablate("report", "--check", str(file)).status == 2
    both = ablate("report", "--check", "out/report.md", "--output", "new")
    assert both.status == 2
    assert "--check: found it beside --output" in both.err
