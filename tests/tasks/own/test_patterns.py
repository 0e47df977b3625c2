"""What is read out of what a script prints."""

import pytest

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


def test_without_a_step_each_curve_counts():
    _, points = seen("loss=4 loss=3\nval=9\nloss=2\n", curves={"loss": r"loss=(\d)", "val": r"val=(\d)"})
    assert points == [(1, {"loss": 4.0}), (2, {"loss": 3.0}), (1, {"val": 9.0}), (3, {"loss": 2.0})]


def test_what_is_no_number_is_left_out_with_a_note():
    printed, points = seen("epoch x loss=nan\nepoch 2 loss=1e-3\nloss=low\n", curves={"step": r"epoch (\w+)", "loss": r"loss=(\S+)"})
    assert points == [(2, {"loss": 0.001})]
    assert list(printed.notes) == [
        "the pattern of the curve step matched what is no finite number, which is left out",
        "the pattern of the curve loss matched what is no finite number, which is left out",
    ]
