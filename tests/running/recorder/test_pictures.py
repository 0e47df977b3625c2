"""Pictures that other processes draw."""

import json
import os
import signal
import time

import pytest

from ablation.running.recorder.pictures import CONFUSION, Pictures

CLASSES = ["cat", "dog"]


@pytest.fixture
def result(tmp_path):
    """The folder of a result with two classes."""
    folder = tmp_path / "result"
    folder.mkdir()
    (folder / f"{CONFUSION}.csv").write_text(",cat,dog\ncat,3,1\ndog,0,4\n")
    (folder / "result.json").write_text(json.dumps({"classes": CLASSES}))
    return folder


@pytest.fixture
def drawing():
    """Pictures whose processes end with the test."""
    opened = Pictures()
    yield opened
    opened.close()


def pixels(path):
    return path.read_bytes()


def test_a_picture_is_the_same_whoever_draws_it(result, drawing):
    """One that was asked for comes from another process, byte for byte that of this one."""
    drawing.ask_sum([result / f"{CONFUSION}.csv"], CLASSES, "one")
    (future, path), *_ = drawing._asked.values()
    future.result(60)
    tables = [result / f"{CONFUSION}.csv"]
    assert drawing.of_sum(tables, CLASSES, "one") == path
    assert pixels(path) == pixels(drawing.of_sum(tables, CLASSES, "one"))


def test_who_waits_draws_what_nobody_has_begun(result, drawing):
    """While the other processes begin, most pictures are drawn here."""
    for index in range(12):
        drawing.ask_sum([result / f"{CONFUSION}.csv"], CLASSES, str(index))
    begun = time.monotonic()
    assert drawing.of_sum([result / f"{CONFUSION}.csv"], CLASSES, "11")
    assert time.monotonic() - begun < 60
    assert drawing.problem == ""


def test_a_process_that_is_killed_loses_no_picture(result, drawing):
    """What it was to draw is drawn here, and nothing is asked of it any more."""
    drawing.ask_sum([result / f"{CONFUSION}.csv"], CLASSES, "one")
    (future, _), *_ = drawing._asked.values()
    while not future.running() and not future.done():
        time.sleep(0.01)
    for pid in list(drawing._pool._processes):
        os.kill(pid, signal.SIGKILL)
    picture = drawing.of_sum([result / f"{CONFUSION}.csv"], CLASSES, "one")
    assert picture is not None
    assert pixels(picture)
    assert drawing.problem == ""
    drawing.ask_sum([result / f"{CONFUSION}.csv"], CLASSES, "two")
    assert drawing.of_sum([result / f"{CONFUSION}.csv"], CLASSES, "two") is not None


def test_a_result_without_classes_has_no_picture(tmp_path, drawing):
    """Nothing is asked, and no process begins."""
    drawing.ask(tmp_path, "one")
    assert drawing._pool is None
