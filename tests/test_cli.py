"""The command as a process of its own: help, signals, a terminal, and what SIGKILL leaves."""

import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
import time
from unittest.mock import MagicMock, Mock

import click
import pytest
from click.testing import CliRunner

from ablation import cli, cli_group, report
from ablation.errors import ClusterError
from ablation.tracking.store import Store
from tests.tiny import BASE, Planned, write

ABLATE = [sys.executable, "-m", "ablation"]
COMMANDS = sorted(cli.cli.commands)
# Epochs of about half a second, so that signals come in the middle of one.
SLOW = {"data": {"name": "digits", "longtail": {"name": "linear", "largest": 100, "smallest": 60}}, "epochs": 5}


# --- help --------------------------------------------------------------------------------------------------------------------


def test_there_are_the_documented_commands():
    """The commands that the documents name are there."""
    assert {"run", "plan", "status", "show", "log", "report", "clean", "schema", "ui"} <= set(COMMANDS)


def test_the_commands_stand_in_the_order_of_use():
    """The help lists every command once, with a summary that is not cut."""
    listed = re.findall(r"^  ([a-z-]+) {2,}(.+)$", CliRunner().invoke(cli.cli, ["--help"]).stdout.partition("Commands:")[2], re.MULTILINE)
    assert tuple(name for name, _ in listed) == cli_group.ORDER
    assert sorted(cli_group.ORDER) == COMMANDS
    assert dict(listed) == {name: command.short_help for name, command in cli.cli.commands.items()}
    assert max(len(words) for _, words in listed) <= 45


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_a_sentence(name):
    """`--help` of each command begins with what it does, and no option is without a word."""
    result = CliRunner().invoke(cli.cli, [name, "--help"])
    assert result.exit_code == 0
    command = cli.cli.commands[name]
    assert command.help
    assert command.help.strip().endswith(".")
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name
            assert option.opts[0] in result.stdout


def test_the_formats_are_the_reports():
    """The formats that the command line offers, without importing the report, are those that it writes."""
    assert cli.FORMATS == report.FORMATS


def test_an_unknown_command_is_told():
    """A command that does not exist is status 2."""
    assert CliRunner().invoke(cli.cli, ["rnu"]).exit_code == 2


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)], ids=lambda words: " ".join(["ablate", *words]))
def test_help_answers_at_once(words):
    """`--help`, of each command too, takes less than half a second of computing, imports included."""
    before, seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, []
    for _ in range(2):
        done = subprocess.run([*ABLATE, *words, "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        seconds.append(after - before)
        before = after
    assert min(seconds) < 0.5
    assert all(name in done.stdout for name in (words or COMMANDS))


def test_a_cluster_that_is_gone_is_nobodys_mistake(monkeypatch):
    """One message and the status of a failure."""
    monkeypatch.setattr("ablation.commands.techniques.techniques", Mock(side_effect=ClusterError("the cluster is gone")))
    result = CliRunner().invoke(cli.cli, ["techniques"])
    assert (result.exit_code, result.stderr) == (1, "error: the cluster is gone\n")


def test_a_technique_beside_the_page_of_all_is_refused():
    """Which shows all of them, whatever the name."""
    result = CliRunner().invoke(cli.cli, ["techniques", "focal", "--format", "markdown"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        result.stderr == "error: NAME: found 'focal' beside --format markdown, the page of all techniques; expected only one of the two\n"
    )


@pytest.mark.parametrize(("host", "written"), [("::1", "[::1]"), ("127.0.0.1", "127.0.0.1")])
def test_the_addresses_of_the_page_can_be_opened(ablate, monkeypatch, host, written):
    """An address of IPv6 stands in brackets, without which its end would be the port."""
    store = Store.open()
    store.touch(store.experiment("demo"))
    server = MagicMock()
    server.return_value.__enter__.return_value.wait.return_value = 0
    monkeypatch.setattr("ablation.commands.ui.subprocess.Popen", server)
    shown = ablate("ui", "--host", host, "--port", 5001)
    assert (shown.status, shown.err.count(f" http://{written}:5001/#/experiments/")) == (0, 3)
    assert server.call_args.args[0][-5:-3] == [host, "--port"]


def test_a_mistake_is_status_two_without_a_traceback():
    """As a process too, a user's mistake is told on stderr, with status 2."""
    done = subprocess.run([*ABLATE, "run", "experiments.yaml", "--nothing"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such option" in done.stderr
    assert "Traceback" not in done.stderr


# --- signals -----------------------------------------------------------------------------------------------------------------


def started(file, folder, **more):
    """`ablate run` as a process, in a group of its own as a shell would put it."""
    command = [*ABLATE, "run", str(file), "--jobs", "1", "--device", "cpu"]
    settings = {"start_new_session": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
    return subprocess.Popen(command, cwd=folder, **settings)


def wait_until(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def checkpoints(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("mlruns/stages/*/checkpoint.safetensors") if path.exists()}


def test_stopped_killed_and_run_again(folder, tmp_path_factory):
    """Ctrl-C, then SIGKILL in the middle of an epoch, then the same command: the bits of a run that nobody disturbed.

    Nothing stays RUNNING, nothing is recorded twice, and no process is left. The last command has a terminal, in which it draws.
    """
    layers = {"base": SLOW, "variants": {"tta": {"tta": "vflip"}}}
    file = write(folder, **layers)

    stopped = started(file, folder)
    wait_until(lambda: checkpoints(folder), stopped)
    os.killpg(stopped.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    out, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130, err
    assert f"To go on: python -m ablation run {file} --jobs 1 --device cpu" in err
    assert "Traceback" not in err
    assert "failed" not in err

    before = checkpoints(folder)
    assert before
    killed = started(file, folder)
    wait_until(lambda: checkpoints(folder) and checkpoints(folder) != before, killed)
    killed.kill()
    killed.communicate(timeout=60)
    wait_until_gone(killed.pid)

    status, out, drawn = in_a_terminal(file, folder)
    assert status == 0, drawn
    assert "\n  baseline  " in out
    assert "\x1b" not in out
    assert b"\x1b[" in drawn
    assert b"stages waiting" in drawn

    other = tmp_path_factory.mktemp("undisturbed")
    undisturbed = Planned(write(other, **layers), other / "mlruns")
    assert undisturbed.carry_out() == 5
    for arm in ("baseline", "tta"):
        mine = folder / "mlruns" / "results" / undisturbed.run_of(arm).key / "predictions.parquet"
        assert mine.read_bytes() == (undisturbed.result(arm) / "predictions.parquet").read_bytes()
    runs = Store.open(folder / "mlruns").runs_of("tiny")
    expected = [(kind, arm) for kind in ("run", "summary") for arm in ("baseline", "tta")]
    tags = [run["tags"] for run in runs if run["tags"]["ablation.kind"] != "plan"]
    assert sorted((one["ablation.kind"], one["ablation.arm"]) for one in tags) == expected
    assert {run["status"] for run in runs} == {"FINISHED"}
    for run in runs:
        steps = [point.step for point in Store.open(folder / "mlruns").curves(run["run_id"]) if point.name == "train/loss"]
        assert steps == ([0, 1, 2, 3, 4] if run["tags"]["ablation.kind"] == "run" else [])


def in_a_terminal(file, folder):
    """`ablate run` with a terminal for stderr: its status, its stdout, and what the terminal got."""
    ours, theirs = pty.openpty()
    process = started(file, folder, stderr=theirs, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"})
    os.close(theirs)
    drawn, end = b"", time.monotonic() + 120
    while time.monotonic() < end:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                drawn += os.read(ours, 65536)
            except OSError:  # the other end was closed
                break
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    return process.returncode, out, drawn


def wait_until_gone(group, seconds=30):
    """Wait until no process of the group is alive."""
    end = time.monotonic() + seconds
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGUSR1])
def test_a_signal_while_it_starts(folder, number):
    """Before anything trains, Ctrl-C and what a cluster sends to all processes are status 130 with the command to go on.

    Neither the command nor its workers complain.
    """
    file = write(folder, base={"data": BASE["data"]})
    process = started(file, folder)
    wait_until(lambda: len(children(process.pid)) >= 2, process)  # the tracker of shared memory, and a worker
    time.sleep(0.2)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert f"o go on: python -m ablation run {file} --jobs 1 --device cpu" in err  # To, where a busy machine let it begin to train
    wait_until_gone(process.pid)


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []
