"""The script of a part's job, carried out by the shell."""

import os
import signal
import subprocess
import time

import pytest

from ablation.running.parts.script import PartCommand, write_script
from tests import parts

PART = """
import os, signal, sys, time
noted = open("noted", "a", buffering=1)
signal.signal(signal.SIGUSR1, lambda *_: (noted.write("warned\\n"), sys.exit(130)))
signal.signal(signal.SIGTERM, lambda *_: (noted.write("ended\\n"), sys.exit(130)))
print("said", *sys.argv[1:], os.environ["ABLATE_SPLIT"].endswith("abc-2"), os.environ.get("SITE"), flush=True)
noted.write("begun\\n")
time.sleep(float(os.environ.get("SECONDS_TO_SLEEP", 20)))
sys.exit(3)
"""


@pytest.fixture
def split(tmp_path):
    return parts.split_of(tmp_path, [["r1"], ["r2"]])


def started(tmp_path, split, *, alone=False, again="touch again", setup="export SITE='a b'", **environment):
    """The script under way, once its command has begun if it sleeps."""
    (tmp_path / "part.py").write_text(PART)
    command = PartCommand(tmp_path, ["python3", "part.py", "two words", "$HOME"], [setup])
    path = write_script(command, split, "NUMBER", again=again, alone=alone)
    process = subprocess.Popen(["bash", path], env=os.environ | {"NUMBER": "2"} | environment)
    while not (tmp_path / "noted").exists() or "begun" not in (tmp_path / "noted").read_text():
        time.sleep(0.02)
    return process


def test_the_command_is_carried_out_in_its_folder(tmp_path, split):
    """Its words are no shell's, the lines before it are, its output is in the part's file, and its status is the job's."""
    assert started(tmp_path, split, SECONDS_TO_SLEEP="0").wait(60) == 3
    assert split.output(2).read_text() == "said two words $HOME --part 2/2 True a b\n"
    assert not (tmp_path / "again").exists()


def test_alone_it_has_one_run_at_once(tmp_path, split):
    """In a script of its own: that of other parts may be read by the queue later."""
    started(tmp_path, split, alone=True, SECONDS_TO_SLEEP="0").wait(60)
    started(tmp_path, split, SECONDS_TO_SLEEP="0").wait(60)
    assert "--jobs 1 --part 2/2" in split.output(2).read_text()
    assert len(list(split.folder.glob("job-*.sh"))) == 2


def test_a_job_without_a_number_says_so(tmp_path, split):
    """In a file of no part, where it is looked for: the site names another variable than the queue's."""
    path = write_script(PartCommand(tmp_path, ["python3", "part.py"]), split, "NUMBER")
    assert subprocess.run(["bash", path], env=os.environ | {"NUMBER": ""}, check=False).returncode == 1
    assert (split.folder / "part-.out").read_text().startswith("NUMBER is empty in the job; the site's field part ")
    assert not (tmp_path / "noted").exists()


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_warning_is_passed_on_and_the_job_asked_for_again(tmp_path, split, is_stopped):
    """Unless the user ended the study."""
    process = started(tmp_path, split)
    if is_stopped:
        split.ask_to_stop()
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 130
    assert (tmp_path / "noted").read_text() == "begun\nwarned\n"
    assert (tmp_path / "again").exists() == (not is_stopped)


def test_a_part_that_ends_at_once_when_warned_is_asked_for_again(tmp_path, split):
    """Its status is its own, not that of the wait which the warning ended, though it has ended before the shell looks."""
    process = started(tmp_path, split, setup='kill() { builtin kill "$@"; local status=$?; sleep 0.5; return $status; }')
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 130
    assert (tmp_path / "again").exists()


def test_a_job_that_is_ended_is_not_asked_for_again(tmp_path, split):
    """scancel sends SIGTERM to all of its processes; the shell waits for the part."""
    process = started(tmp_path, split)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
    for pid in (process.pid, *map(int, children)):
        os.kill(pid, signal.SIGTERM)
    assert process.wait(60) == 130
    assert (tmp_path / "noted").read_text() == "begun\nended\n"
    assert not (tmp_path / "again").exists()


def test_a_script_that_was_cut_is_written_again(tmp_path, split):
    """As by a full disk; nothing else stays in the folder."""
    command = PartCommand(tmp_path, ["python3", "part.py"])
    path = write_script(command, split, "NUMBER")
    text = path.read_text()
    for cut in (b"", text.encode() + "é".encode()[:1]):
        path.write_bytes(cut)
        assert write_script(command, split, "NUMBER") == path
        assert path.read_text() == text
    assert not list(split.folder.glob(".*.part"))
