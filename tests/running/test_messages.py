"""What is said of a run beside its display."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from ablation.planning.workspace import Workspace
from ablation.running.messages import RunMessages


@pytest.fixture
def said(tmp_path):
    """The lines that are said of events."""

    def lines(*events):
        console = Console(record=True, width=500)
        state = SimpleNamespace(clock=SimpleNamespace(num_slots=0), snapshot=dict)
        messages = RunMessages(SimpleNamespace(study=SimpleNamespace(name="tiny")), Workspace(tmp_path), None, state, console)
        for event in events:
            messages(event, lambda _event: None)
        return console.export_text().splitlines()

    return lines


def test_what_is_told_is_said_once(said):
    """The same sentence of several jobs is said once, another one too; damage is said each time."""
    first, second, damage = ({"kind": kind, "message": kind[0] + text} for kind, text in (("told", "1"), ("told", "2"), ("damaged", "3")))
    assert said(first, first, second, first, damage, damage) == ["t1", "t2", "d3", "d3"]
