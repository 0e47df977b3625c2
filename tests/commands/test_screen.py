"""The text of a study on standard output, in a terminal and in a pipe."""

import os
import pty
import sys

import pytest
from rich.cells import cell_len

from ablation.commands.screen import print_study
from ablation.report.sections import Shown
from tests.report.studies import CONDITIONED, shifted, study


def in_a_terminal(recorded, columns, monkeypatch):
    """What a terminal of so many columns gets."""
    ours, theirs = pty.openpty()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        print_study(recorded, Shown())
    return os.read(ours, 65536).decode()


def printed(recorded, capsys):
    print_study(recorded, Shown())
    return capsys.readouterr().out


def test_a_pipe_gets_plain_text_of_a_hundred_columns(capsys, monkeypatch):
    """Whatever the terminal elsewhere has."""
    monkeypatch.setenv("COLUMNS", "70")
    text = printed(study(CONDITIONED), capsys)
    assert "\x1b" not in text
    assert 90 < max(map(cell_len, text.splitlines())) <= 100


@pytest.mark.parametrize(("columns", "width"), [(250, 100), (80, 80), (30, 60)])
def test_a_terminal_gets_its_own_width(monkeypatch, columns, width):
    """At most 100 columns, at least 60."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    lines = (
        in_a_terminal(study(CONDITIONED), columns, monkeypatch)
        .replace("\x1b[1m", "")
        .replace("\x1b[2m", "")
        .replace("\x1b[0m", "")
        .splitlines()
    )
    assert width - 10 < max(map(cell_len, lines)) <= width


def test_colours_are_for_terminals_that_want_them(monkeypatch, capsys):
    """Green for what is better there; none with NO_COLOR."""
    recorded = shifted({"up": 0.05})
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32mbetter" in in_a_terminal(recorded, 100, monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in in_a_terminal(recorded, 100, monkeypatch)
    assert "\x1b" not in printed(recorded, capsys)
