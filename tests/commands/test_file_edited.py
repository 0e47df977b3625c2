"""A report belongs to the file that is named: other contents are told, and another file's arms are never shown as its own."""

import pytest

from ablation.cli import FORMATS
from ablation.commands.recorded import open_recorded
from tests.tiny import write

CB, MIX = {"cb": {"sampler": "class_balanced"}}, {"mixed": {"mix": "mixup"}}


@pytest.mark.usefixtures("few_figures")
def test_the_report_of_a_file_is_its_own(ablate):
    """Two files with one study's name each show their arms; an edit is told on stderr and in every format; --check still matches."""
    first = write(ablate.folder, variants=CB)
    second = first.with_name("second.yaml")
    second.write_text(first.read_text().replace("cb:", "root:").replace("class_balanced", "square_root"))
    for file in (first, second):
        assert ablate("run", file).status == 0
    own, others = ablate("report", first), ablate("report", second)
    assert ("| cb " in own.out, "| root " in own.out) == (True, False)
    assert ("| cb " in others.out, "| root " in others.out) == (False, True)
    assert f"the study tiny was run since from {second.name} with other settings\n" in own.err
    assert others.err == ""
    document = ablate.folder / "report.md"
    document.write_text(own.out)
    assert ablate("report", "--check", document).status == 0
    second.write_text(second.read_text().replace("square_root", "progressive"))
    for form in FORMATS:
        edited = ablate("report", second, "--format", form)
        assert edited.status == 0
        assert "second.yaml was edited since: sampler progressive was square_root in root" in " ".join(edited.out.split())
    document.write_text(ablate("report", second).out)
    assert ablate("report", "--check", document).status == 0


def test_a_file_that_was_edited_back_is_no_other(ablate):
    """Where the newest plan is of the same file, it is told that other settings were run, and no other file is named."""
    file = write(ablate.folder, variants=CB)
    text = file.read_text()
    for written in (text, text.replace("class_balanced", "square_root")):
        file.write_text(written)
        assert ablate("run", file).status == 0
    file.write_text(text)
    told = ablate("report", file).err
    assert ", which tiny.yaml says; the study tiny was run since with other settings\n" in told


def test_what_set_changed_is_told_wherever_the_file_is(ablate):
    """Without FILE the note about --set is there too where the file is gone, is another study's, or no longer parses, which is told."""
    file = write(ablate.folder, base={"epochs": 2})
    assert ablate("run", file, "--set", "epochs=1").status == 0
    text = file.read_text()
    note = "run with --set epochs=1, which the file does not say"
    for changed, problem in ((text, ""), (text.replace("study: tiny", "study: other"), ""), ("study: [", "cannot be compared"), (None, "")):
        file.unlink() if changed is None else file.write_text(changed)
        recorded = open_recorded(None, None)
        assert note in recorded.notes
        assert any("cannot be compared" in note for note in recorded.notes) == bool(problem)
