"""The log of a part: a file for each attempt, read at any moment."""

import errno
import json
import os
import threading

import pytest

from ablation.errors import AblateError
from ablation.running.parts.log import BEGIN, FINISHED, LogReader, PartLog, log_file, num_in_vain
from tests import parts


def kinds(lines):
    return [line["kind"] for line in lines]


def test_what_is_written_is_read_once(tmp_path):
    """Who begins and where, each event that says something, the runs, and the end with its status."""
    log, reader = PartLog(tmp_path, 3), LogReader(tmp_path, 3)
    assert reader.read() == []
    log.begin()
    log({"kind": "tick"})
    log({"kind": "epoch", "stage": "s1", "epoch": 1, "row": {}})
    log.finished(parts.run("base", "r1", "s1"))
    log.failed(parts.run("cb", "r2", "s1"), "nan", "it became nan", "a log")
    log.end(1, "why")
    lines = reader.read()
    assert kinds(lines) == [BEGIN, "epoch", FINISHED, "run failed", "part ends"]
    assert (lines[3]["run"], lines[3]["failure"], lines[3]["message"], lines[3]["log"]) == ("r2", "nan", "it became nan", "a log")
    assert reader.begun["pid"]
    assert (reader.ended["status"], reader.ended["why"]) == (1, "why")
    assert reader.read() == []


def test_what_an_orphan_writes_after_a_later_attempt_has_begun_is_left_out(tmp_path):
    """What it wrote before counts; the end that it tells is not that of the newest attempt."""
    first = PartLog(tmp_path, 1)
    first.begin()
    first({"kind": "epoch", "stage": "s1", "epoch": 1, "row": {}})
    second, reader = PartLog(tmp_path, 1), LogReader(tmp_path, 1)
    second.begin()
    assert (first.attempt, second.attempt) == (1, 2)
    assert kinds(reader.read()) == [BEGIN, "epoch", BEGIN]
    first({"kind": "epoch", "stage": "s1", "epoch": 2, "row": {}})
    first.end(0)
    second({"kind": "done", "stage": "s1"})
    assert kinds(reader.read()) == ["done"]
    assert not reader.ended


def test_a_torn_line_is_left_out_and_the_next_attempt_has_a_file_of_its_own(tmp_path):
    """A host that lost its power leaves half a line, or zeros."""
    PartLog(tmp_path, 1).begin()
    with log_file(tmp_path, 1, 1).open("ab") as file:
        file.write(b'\0\0\0\n[1]\n{"kind": "epo')
    second = PartLog(tmp_path, 1)
    second.begin()
    assert kinds(LogReader(tmp_path, 1).read()) == [BEGIN, BEGIN]


def test_it_can_be_read_at_every_cut(tmp_path):
    """However far a network disk shows the file, each line comes once and whole."""
    log = PartLog(tmp_path, 1)
    for number in range(3):
        log({"kind": "told", "message": f"ä{number}"})
    text = log_file(tmp_path, 1, 1).read_bytes()
    for cut in range(len(text) + 1):
        reader = LogReader(tmp_path, 1)
        log_file(tmp_path, 1, 1).write_bytes(text[:cut])
        lines = reader.read()
        log_file(tmp_path, 1, 1).write_bytes(text)
        assert [line["message"] for line in lines + reader.read()] == ["ä0", "ä1", "ä2"]


def test_attempts_that_begin_at_once_have_each_a_number(tmp_path):
    """Also where nothing but the file system tells them of each other."""
    made = []
    threads = [threading.Thread(target=lambda: made.append(PartLog(tmp_path, 1).attempt)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(1, 9))


@pytest.mark.parametrize("part", [1, 11])
def test_the_logs_of_two_parts_are_apart(tmp_path, part):
    """Part 1 is not part 11."""
    PartLog(tmp_path, 12 - part).begin()
    assert LogReader(tmp_path, part).read() == []
    lines = [json.loads(line) for line in log_file(tmp_path, 12 - part, 1).read_text().splitlines()]
    assert kinds(lines) == [BEGIN]


def test_attempts_that_ended_before_anything_came_of_them(tmp_path):
    """Only those in a row before this one that were asked to end; what they tell of earlier ones is nothing new."""
    run = parts.run("base", "r1", "s1")
    ends = [("started", "epoch", 130), ("started", 1), ("started", 130), (FINISHED, "started", 130), (130,)]
    for *kinds, status in ends:
        log = PartLog(tmp_path, 1)
        log.begin()
        for kind in kinds:
            log.finished(run) if kind == FINISHED else log({"kind": kind, "stage": "s1", "epoch": 1, "row": {}})
        log.end(status)
    assert [num_in_vain(tmp_path, 1, attempt) for attempt in range(1, 7)] == [0, 0, 0, 1, 2, 3]
    log = PartLog(tmp_path, 1)
    log({"kind": "started", "stage": "s1"})
    log.finished(run)
    log.end(130)
    assert num_in_vain(tmp_path, 1, 7) == 0


def test_steps_that_an_earlier_attempt_had_reached_are_nothing_new(tmp_path):
    """As those of code that does not resume: it logs the first steps in each attempt, and would ask for itself for ever."""
    for last in (3, 3, 2, 4, 4):
        log = PartLog(tmp_path, 1)
        log.begin()
        log({"kind": "started", "stage": "s1"})
        for step in range(1, last + 1):
            log({"kind": "epoch", "stage": "s1", "epoch": step, "row": {}})
        log.end(130)
    assert [num_in_vain(tmp_path, 1, attempt) for attempt in range(1, 7)] == [0, 0, 1, 2, 0, 1]


def test_the_same_steps_with_other_values_are_new(tmp_path):
    """As those of code that resumes and counts its steps anew in each attempt."""
    for loss in (1.0, 0.5, 0.5):
        log = PartLog(tmp_path, 1)
        log.begin()
        log({"kind": "started", "stage": "s1"})
        log({"kind": "epoch", "stage": "s1", "epoch": 1, "row": {"time": loss, "values": {"loss": loss}}})
        log.end(130)
    assert [num_in_vain(tmp_path, 1, attempt) for attempt in range(1, 5)] == [0, 0, 0, 1]


def test_a_full_disk_tears_no_other_line(tmp_path, monkeypatch):
    """Half a line may be there: an event is left out, and what counts is told in a sentence; the next line stands for itself."""
    log, write = PartLog(tmp_path, 1), os.write

    def full(file, text):
        write(file, text[: len(text) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    log({"kind": "told", "message": "before"})
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        log({"kind": "told", "message": "lost"})
        with pytest.raises(AblateError, match="the log of part 1 could not be written: No space left on device; expected room in "):
            log.finished(parts.run("base", "r1", "s1"))
        log.end(0)
    log({"kind": "told", "message": "after"})
    assert [line["message"] for line in LogReader(tmp_path, 1).read()] == ["before", "after"]
