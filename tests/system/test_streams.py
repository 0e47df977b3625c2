"""Whatever becomes of the reader of standard output or error, the work that writes to it goes on."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[2])
BEGIN = "import sys; from ablation.system import streams; streams.settle(); "


def run(script, shell="", **environment):
    """Run a script under a shell's redirection of its streams."""
    command = ["sh", "-c", f'exec "$0" -c "$1" {shell}', sys.executable, BEGIN + script]
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONUTF8", "PYTHONIOENCODING")}
    return subprocess.run(command, env=variables | {"PYTHONPATH": ROOT} | environment, capture_output=True, timeout=60, check=False)


WORK = "[print(i, file=sys.stderr, flush=True) for i in range(3000)]; print('done', flush=True)"


@pytest.mark.parametrize("shell", ["2>&-", "2>/dev/full", "2>/dev/null", "2</dev/null"])
def test_errors_of_standard_error_end_nothing(shell):
    """Closed, full or not to be written to: what is written there is lost, and nothing else."""
    done = run(WORK, shell)
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_a_reader_that_is_gone_ends_nothing():
    """The pipe of `2>&1 | head -1` is closed after its first line."""
    reading, writing = os.pipe()
    command = [sys.executable, "-c", BEGIN + WORK]
    with subprocess.Popen(command, stderr=writing, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": ROOT}) as process:
        os.close(writing)
        os.read(reading, 1)
        os.close(reading)
        assert process.stdout.read() == b"done\n"
    assert process.returncode == 0


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_reader_that_is_stuck_holds_nothing_up(is_blocking):
    """Nobody reads the pipe, which fills up: the work goes on, blocking or not."""
    reading, writing = os.pipe()
    os.set_blocking(writing, is_blocking)
    script = BEGIN + "[print('x' * 1000, file=sys.stderr, flush=True) for i in range(500)]; print('done', flush=True)"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        stderr=writing,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": ROOT},
        timeout=60,
        check=True,
    )
    assert done.stdout == b"done\n"
    assert time.monotonic() - began < 30
    os.close(reading)
    os.close(writing)


def test_a_terminal_that_is_gone_ends_nothing():
    """After a hang-up each write fails with EIO."""
    ours, theirs = pty.openpty()
    script = BEGIN + "sys.stdin.readline(); " + WORK
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stderr=theirs, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": ROOT}
    )
    os.close(theirs)
    os.close(ours)
    out, _ = process.communicate(b"\n", timeout=60)
    assert (process.returncode, out) == (0, b"done\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "ascii:strict", "utf-16"])
def test_letters_that_an_encoding_lacks_are_replaced(encoding):
    """Every line arrives, with its letters or with others in their place."""
    done = run(r"print('84.2 \u00b1 0.3 \u2013 \u732b \udcff'); print('end'); print('\u732b', file=sys.stderr)", PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert "end" in done.stdout.decode(encoding.partition(":")[0])


def test_output_that_is_closed_is_no_error_and_no_file_takes_its_number():
    """What is printed goes nowhere, and not into the file that is opened next."""
    done = run("import os; f = open('/dev/null'); print('lost', flush=True); print(f.fileno() > 2, file=sys.stderr)", ">&- <&-")
    assert (done.returncode, done.stderr.strip()) == (0, b"True")


def test_output_that_is_needed_fails_until_it_is_spared():
    """A document that cannot be written is an error; the table after work that is done is none."""
    assert b"No space left" in run("print('x', flush=True)", ">/dev/full").stderr
    assert run("streams.spare_output(); print('x', flush=True)", ">/dev/full").returncode == 0


def test_what_a_technique_prints_is_not_in_the_document():
    """A worker's prints go to standard error."""
    done = run("streams.output_to_error(); print('x')")
    assert (done.stdout, done.stderr) == (b"", b"x\n")


def test_streams_of_others_are_left_alone(capsys):
    """Those of a notebook or of a test are theirs."""
    from ablation.system import streams

    before = sys.stdout, sys.stderr
    streams.settle()
    assert (sys.stdout, sys.stderr) == before
