"""Options of `ablate report` that would have no effect are refused; what was run otherwise than the file says is told everywhere."""

import warnings

import pytest

import ablation
from ablation import report
from tests.tiny import write


@pytest.fixture
def recorded(ablate):
    """`ablate` in a folder with a study of two runs, of which `--set` changed a setting."""
    write(ablate.folder, base={"epochs": 1}, variants={"cb": {"sampler": "class_balanced"}})
    assert ablate("run", "tiny.yaml", "--set", "optimizer.lr=0.002").status == 0
    return ablate


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--format", "latex", "--only-changed"), "--only-changed: found it with --format latex, which has no place for it"),
        (("--format", "csv", "--reference", "a.csv"), "--reference: found it with --format csv, which has no place for it"),
        (("--watch", "--only-changed"), "--watch: found --only-changed beside it; expected --output DIR too"),
        (("--watch", "--format", "html"), "--watch: found --format beside it; expected --output DIR too"),
        (("--check", "out/report.md", "--metric", "nll"), "--check: found --metric beside it; expected it alone"),
    ],
)
def test_an_option_without_effect_is_refused(recorded, words, problem):
    """Status 2 and one sentence, in which the option stands."""
    assert recorded("report", "--output", "out").status == 0
    refused = recorded("report", *words)
    assert (refused.status, refused.out, problem in refused.err) == (2, "", True)


def test_a_zip_tells_what_set_changed(recorded):
    """As the store does, in a terminal and in a document; a document from which that was cut no longer matches."""
    told = "run with --set optimizer.lr=0.002, which the file does not say"
    assert recorded("pack", "tiny.zip").status == 0
    for file in ("tiny.yaml", "tiny.zip"):
        assert told in " ".join(recorded("report", file, "--format", "text").out.split())
        lines = recorded("report", file).out.splitlines()
        assert len([line for line in lines if line.startswith("- **Note:** run with --set ")]) == 1
    path = recorded.folder / "told.md"
    for text, status in (("\n".join(lines), 0), ("\n".join(line for line in lines if not line.startswith("- **Note:**")), 1)):
        path.write_text(f"{text}\n")
        assert recorded("report", "tiny.zip", "--check", path).status == status


def test_frames_are_those_of_what_the_file_says(ablate):
    """Where two files have one study's name, as `ablate report FILE` has it; where none was run so, a warning says what differs."""
    files = [write(ablate.folder, name, base={"epochs": epochs}, ladder={"baseline": {}}) for name, epochs in (("a", 1), ("b", 2))]
    for file in files:
        file.write_text(file.read_text().replace(f"study: {file.stem}", "study: both"))
        assert ablate("run", file).status == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = (report.load(ablation.load_study(file)).runs["test/nll"].tolist() for file in files)
    assert first != second
    files[0].write_text(files[0].read_text().replace("epochs: 1", "epochs: 3"))
    with pytest.warns(UserWarning, match="epochs"):
        assert report.load(ablation.load_study(files[0])).runs["test/nll"].tolist() == second
