"""What is read out of what a script prints."""

import pytest

from ablation.errors import TrainingError
from ablation.tasks.own.definition import Definition, Source
from ablation.tasks.own.expressions import compiled
from ablation.tasks.own.patterns import Lines, Printed


def seen(text, metrics=None, curves=None):
    printed = Printed(metrics or {}, curves or {})
    return printed, [point for line in text.splitlines() for point in printed.see(line)]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lines_end_as_progress_bars_end_them(size):
    """In pieces of any size; without colours, also where a letter or a colour is cut in two."""
    data = "one\r\ntwo\r\x1b[1;31mé 3\x1b[0m\x1b[K\r\n\n\x1b]0;title\x07four".encode()
    lines = Lines()
    read = [line for i in range(0, len(data), size) for line in lines.take(data[i : i + size])]
    assert [*read, *lines.end()] == ["one", "two", "é 3", "four"]
    assert list(lines.end()) == []


def test_a_line_without_an_end_is_cut():
    lines = Lines()
    assert [len(line) for line in lines.take(b"x" * 1_000_000)] == [20_000]
    assert list(lines.take(b"y\n")) == ["y"]


def test_the_last_match_is_the_metric():
    printed, _ = seen("ppl 3.5 ppl 3.25\nother\nppl 2\n", {"test/ppl": r"ppl ([\d.]+)", "test/none": "none (x)"})
    assert printed.metrics == {"test/ppl": "2"}


def test_a_step_numbers_what_follows():
    text = "warm loss=9\nepoch 1 loss=0.5\nval=3\nepoch 2 loss=0.25\nval=2\nval=1\n"
    _, points = seen(text, curves={"step": r"epoch (\d+)", "loss": "loss=([0-9.]+)", "val": r"val=(\d)"})
    expected = [(0, {"loss": 9.0}), (1, {"loss": 0.5}), (1, {"val": 3.0}), (2, {"loss": 0.25}), (2, {"val": 2.0}), (2, {"val": 1.0})]
    assert points == expected


def test_steps_are_whole_numbers():
    """Half an epoch, or a thousand of which a pattern takes the first digit, is no step, and a note says so."""
    curves = {"step": r"step ([\d.e]+)", "loss": "loss {number}"}
    printed, points = seen("step 2 loss 4\nstep 2.5 loss 3\nstep 1,000 loss 2\nstep 9e16 loss 2\nstep 3 loss 1\n", curves=curves)
    assert points == [(2, {"loss": 4.0}), (2, {"loss": 3.0}), (2, {"loss": 2.0}), (2, {"loss": 2.0}), (3, {"loss": 1.0})]
    assert [note.split(";")[0] for note in printed.notes] == [
        f"the pattern of the curve step matched {text}, which is no whole number below 2**53" for text in ("2.5", "1,000", "9e16")
    ]


def test_without_a_step_each_curve_counts():
    _, points = seen("loss=4 loss=3\nval=9\nloss=2\n", curves={"loss": r"loss=(\d)", "val": r"val=(\d)"})
    assert points == [(1, {"loss": 4.0}), (2, {"loss": 3.0}), (1, {"val": 9.0}), (3, {"loss": 2.0})]


def test_after_a_stop_curves_are_counted_on():
    """Where no step numbers them; and a note says so."""
    printed = Printed({}, {"loss": r"loss=(\d)", "val": r"val=(\d)"})
    printed.go_on({"loss": 3, "val": 0})
    assert [point for line in ("loss=4", "val=9") for point in printed.see(line)] == [(4, {"loss": 4.0}), (1, {"val": 9.0})]
    (note,) = printed.notes
    assert note.startswith("the run was stopped and went on; the points of the curve loss are numbered as they came")
    numbered = Printed({}, {"step": r"epoch (\d)", "loss": r"loss=(\d)"})
    numbered.go_on({"loss": 3})
    assert (numbered.see("epoch 2 loss=4"), list(numbered.notes)) == ([(2, {"loss": 4.0})], [])


@pytest.mark.parametrize(("streams", "is_told"), [(("output", "errors"), True), (("errors", "errors"), False)])
def test_steps_of_another_stream_are_told(streams, is_told):
    """Two streams of a process come in no sure order."""
    printed = Printed({}, {"step": r"epoch (\d)", "loss": r"loss=(\d)"})
    points = [point for line, stream in zip(("epoch 2", "loss=4"), streams, strict=True) for point in printed.see(line, stream)]
    assert points == [(2, {"loss": 4.0})]
    told = "step and loss were printed to different streams, so that a point may have the number of the step before it or after it"
    assert list(printed.notes) == ([told] if is_told else [])


def test_what_is_no_number_is_left_out_with_a_note():
    printed, points = seen("epoch x loss=nan\nepoch 2 loss=1e-3\nloss=low\n", curves={"step": r"epoch (\w+)", "loss": r"loss=(\S+)"})
    assert points == [(2, {"loss": 0.001})]
    assert list(printed.notes) == [
        "the pattern of the curve step matched what is no finite number, which is left out",
        "the pattern of the curve loss matched what is no finite number, which is left out",
    ]


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ("loss 7.58e-05", "7.58e-05"),
        ("loss   -3", "-3"),
        ("loss .5,", ".5"),
        ("loss 1.", "1."),
        ("loss +1E+3 s", "+1E+3"),
        ("loss nan", "nan"),
        ("loss -inf", "-inf"),
        ("loss Infinity", "Infinity"),
        ("loss n/a", "n/a"),
        ("loss None.", "None"),
        ("loss nonetheless", "4"),
        ("loss 2%", "2"),
    ],
)
def test_any_number(printed, found):
    """{number} takes a number whole, as programs print it, and blanks are any run of blanks."""
    last, _ = seen(f"loss 4\n{printed}\n", {"test/loss": "loss {number}"})
    assert (last.metrics, last.cut) == ({"test/loss": found}, {})


@pytest.mark.parametrize(
    ("pattern", "line", "found"),
    [
        ("loss-{number}", "loss-3", "3"),
        ("epoch {number}", "epoch 3,0.5", "3"),
        (r"epoch \d+,{number}", "epoch 3,0.5", "0.5"),
        ("loss {number}k", "loss 12.5k", "12.5"),
        (r"loss\D*{number}", "loss......0.5", "0.5"),
        (r"loss\D*{number}", "loss (0.5)", "0.5"),
        ("loss {number}", "loss 5Max", "5"),
        (r"top-\d+ {number}", "top-1 4", "4"),
    ],
)
def test_what_stands_beside_a_number_is_no_part_of_it(pattern, line, found):
    """Names with a hyphen, columns, leaders, brackets, and a unit that the pattern names."""
    last, _ = seen(f"{line}\n", {"test/loss": pattern})
    assert (last.metrics, last.cut) == ({"test/loss": found}, {})


@pytest.mark.parametrize(
    ("pattern", "printed", "found"),
    [
        ("acc {number}", "acc 0.91,0.85", "0.91"),
        ("acc {number}", "acc 84, 97", "84"),
        ("acc {number},", "acc 84,97", "84"),
        ("acc {number}", "acc 0.912,3", "0.912"),
        ("acc {number}", "acc 3,4.5", "3"),
    ],
)
def test_a_comma_between_two_numbers_ends_the_first(tmp_path, pattern, printed, found):
    """Before a blank or a number with a point, or where the pattern names it; a number with a point has its decimals."""
    values, _ = seen(printed, {"validation/loss": pattern})
    values.check(Definition(tmp_path, sources={"validation/loss": Source(pattern)}, names={"validation/loss": "val/loss"}))
    assert values.metrics == {"validation/loss": found}


def test_blanks_and_sets_beside_a_number():
    last, _ = seen("a  b [x ] loss=  3\n", {"test/loss": r"a b \[x[ ]\] loss={number}"})
    assert last.metrics == {"test/loss": "3"}
    assert not seen("information", {"test/loss": "{number}"})[0].metrics


@pytest.mark.parametrize(
    ("pattern", "printed", "whole"),
    [
        (r"loss:? ([\d.]+)", "loss 7.58e-05", "7.58e-05"),
        (r"loss (\d+)", "loss 3.5", "3.5"),
        (r"loss (\d\.\d\d)", "loss 0.1234", "0.1234"),
        (r"loss ([\d.]+)", "loss 1,234.5", "1,234.5"),
        ("loss {number}", "loss 1,234", "1,234"),
        ("loss.*{number}", "loss 12.34", "12.34"),
        (r"loss\D*{number}", "loss: -0.5", "-0.5"),
        (r"loss\D*{number}", "loss: .75", ".75"),
        (r"loss\D*{number}", "loss=\u22120.5", "\u22120.5"),
        (".*{number} loss", "12,345.6 loss", "12,345.6"),
        ("loss {number}", "loss 12.5k", "12.5k"),
        ("loss {number}", "loss 1_234", "1_234"),
        ("acc {number}", "acc 84,97", "84,97"),
        ("acc {number}", "acc 84,21 %", "84,21"),
        ("acc {number}", "acc -0,7531", "-0,7531"),
        (r"acc (\d+)", "acc 84,9)", "84,9"),
        ("acc {number}", "acc 1.234,5", "1.234,5"),
    ],
)
def test_a_part_of_a_number_fails_the_run(tmp_path, pattern, printed, whole):
    """The last match counts: one that was cut before does not."""
    definition = Definition(tmp_path, sources={"validation/loss": Source(pattern)}, names={"validation/loss": "val/loss"})
    found, _ = seen(printed, {"validation/loss": pattern})
    with pytest.raises(TrainingError) as caught:
        found.check(definition)
    assert caught.value.kind == "data"
    assert caught.value.message.startswith(f"val/loss: its pattern '{pattern}' matched {found.metrics['validation/loss']} of {whole}; ")
    later, _ = seen(f"{printed}\nloss 4.25\n", {"validation/loss": "loss {number}"})
    later.check(definition)
    assert later.metrics == {"validation/loss": "4.25"}


@pytest.mark.parametrize(
    ("pattern", "line", "found"),
    [
        (r"loss:? ([\d.]+)", "loss: nan", "nan"),
        (r"loss (-?[\d.]+) end", "loss -inf end", "-inf"),
        (r"(?:val|test) (?P<x>[(\d).]+)", "test inf", "inf"),
        (r"loss.*?(\d+)", "loss nan, lr 5", "nan"),
        (r"loss.*?(\d+)", "loss 3 (2 nan)", "3"),
        (r"loss ([\d.]+)", "loss nano", "4"),
        (r"loss (\S+)", "loss nan", "nan"),
        (r"loss:? ([\d.]+)", "loss: N/A", "N/A"),
        (r"loss ([\d.]+)", "loss null", "null"),
    ],
)
def test_a_later_nan_is_not_skipped(pattern, line, found):
    """The pattern of one's own matches NaN, infinity and what is no number in its group's place too."""
    printed, _ = seen(f"loss 4\nval 4 loss 4 end\n{line}\n", {"test/loss": pattern})
    assert printed.metrics == {"test/loss": found}


def test_a_part_of_a_number_is_no_point_of_a_curve():
    printed, points = seen("loss 0.5\nloss 5e-1\nloss nan\n", curves={"loss": r"loss ([\d.]+)"})
    assert points == [(1, {"loss": 0.5})]
    assert list(printed.notes) == [
        "the pattern of the curve loss took 5 of 5e-1, which is left out; {number} takes all of it",
        "the pattern of the curve loss matched what is no finite number, which is left out",
    ]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("loss", "not 0"),
        ("({number})", "not 2"),
        ("{number} {number}", "not 2"),
        (r"(\d*)", "can match nothing"),
        ("(loss", "a regular expression"),
    ],
)
def test_patterns_that_are_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        compiled(pattern)
