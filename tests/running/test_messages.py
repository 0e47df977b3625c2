"""What is said of a run beside its display."""

import math
from types import SimpleNamespace

import pytest
from rich.console import Console

from ablation.planning.workspace import Workspace, read_speeds
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


def test_a_device_on_which_nothing_begins_is_told_with_the_reason(said):
    """That its memory is full, or what its driver says."""
    event = {"kind": "memory", "device": "cuda:1", "jobs": 0, "slots": 1, "why": ""}
    assert said(event) == ["cuda:1: its memory is full before a job begins, so nothing runs there from now on; other programs may hold it"]
    assert said(event | {"why": "busy"}) == ["cuda:1: no process can begin there (busy), so nothing runs there from now on"]
    assert said(event | {"why": "busy", "jobs": 1}) == ["cuda:1: no other process can begin there (busy): 1 at once from now on"]


def test_the_speed_of_a_first_epoch_is_replaced_by_the_next(tmp_path):
    """The first also loads, captures and compiles; after that a speed is kept now and then."""
    nodes = {"stage": SimpleNamespace(job=SimpleNamespace(kind="kind"))}
    plan, state = SimpleNamespace(study=SimpleNamespace(name="tiny"), nodes=nodes), SimpleNamespace(clock=None, snapshot=dict)
    workspace = Workspace(tmp_path)
    messages = RunMessages(plan, workspace, None, state, Console(quiet=True))
    kept = []
    for event in ({"kind": "started"}, *({"kind": "epoch", "row": {"rate": rate}} for rate in (10.0, 1000.0, 500.0))):
        messages(event | {"stage": "stage"}, lambda _event: None)
        kept.append(1 / read_speeds(workspace.speeds).get("kind", math.inf))
    assert kept == pytest.approx([0, 10, 1000, 1000])


def test_what_is_told_is_said_once(said):
    """The same sentence of several jobs is said once, another one too; damage is said each time."""
    first, second, damage = ({"kind": kind, "message": kind[0] + text} for kind, text in (("told", "1"), ("told", "2"), ("damaged", "3")))
    assert said(first, first, second, first, damage, damage) == ["t1", "t2", "d3", "d3"]
