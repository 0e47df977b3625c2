"""What is longer than a tag: it loses whole entries, never its end, and what lost it is read all the same."""

import json

import pytest

from ablation.running.recorder import contents
from ablation.study.metrics import TEST_ITEMS
from ablation.tracking import texts
from tests.running.recorder.test_own import recorded

CODE = """
def fit(run, *, lr=0.1):
    for number in range(150):
        run.same(f"part {number:03} of the data", number)
    run.items(["a", "b"], {"score": [lr, lr]})
    return {"score": lr + run.seed} | {f"{number:040}": number for number in range(200)}
"""


def test_a_study_with_long_texts_goes_on(own):
    """Two hundred classes, metrics that nobody declared, and as many digests: the next commands read what was recorded."""
    (own.folder / "longtexts.py").write_text(CODE)
    classes = ", ".join(f"'{number:026}'" for number in range(200))
    (own.folder / "study.yaml").write_text(
        f"study: own\ntask: {{function: 'longtexts:fit', classes: [{classes}]}}\nmetrics: {{score: {{better: higher}}}}\nseeds: [0]\n"
    )
    done = own("run", "study.yaml", "--allow-code")
    assert done.status == 0, done.err
    tags = recorded()[1]["baseline", 0]["tags"]
    assert TEST_ITEMS in json.loads(tags["ablation.same"])
    assert len(json.loads(tags["ablation.inputs"])["classes"]) == 32
    assert all(len(value) <= texts.LONGEST_TAG for value in tags.values())
    again = own("run", "study.yaml", "--allow-code")
    assert (again.status, again.epochs) == (0, 0)
    assert own("report", "study.yaml").status == 0


@pytest.mark.parametrize("notes", [[], ["one", "two"], ["x" * 5000, "two"], ["short " * 10] * 200, ['"' * 4000] * 30, ["é\n" * 100] * 99])
def test_notes_are_cut_one_by_one(notes):
    kept = contents.fitting_notes(notes)
    text = json.dumps(kept, ensure_ascii=False)
    assert len(text) <= texts.LONGEST_TAG
    assert all(len(note) <= contents.LONGEST_NOTE for note in kept)
    whole = kept if len(kept) == len(notes) else kept[:-1]
    assert len(whole) == len(notes) or kept[-1] == contents.fitting_notes(notes)[-1]
    assert all(note in (full, f"{full[: contents.LONGEST_NOTE - 6]} [...]") for note, full in zip(whole, notes, strict=False))
    if len(whole) < len(notes):
        assert kept[-1].startswith(f"and {len(notes) - len(whole)} more note")
        assert len(text) > texts.LONGEST_TAG - contents.LONGEST_NOTE * 2 - 100


def test_two_runs_leave_out_the_same_digests():
    """In whatever order they told them, and the test items are never left out."""
    same = {f"name {number:03}": "0" * 32 for number in range(150)} | {TEST_ITEMS: "1" * 32}
    kept, turned = contents.fitting_same(same), contents.fitting_same(dict(reversed(same.items())))
    assert kept == turned
    assert kept[TEST_ITEMS] == "1" * 32
    assert 80 < len(kept) < 150
    assert len(json.dumps(kept)) <= texts.LONGEST_TAG
    assert contents.fitting_same({"split": "a"}) == {"split": "a"}


@pytest.mark.parametrize(("text", "expected"), [('{"a": 1}', {"a": 1}), ('{"a": 1, "b', {}), ("", {}), ("[1]", {}), ("nan", {})])
def test_what_lost_its_end_is_read_as_nothing(text, expected):
    assert texts.plain(text, {}) == expected
