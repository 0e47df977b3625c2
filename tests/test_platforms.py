"""A study on macOS, as far as Linux can look like it, and what Windows is told."""

import os
import subprocess
import sys

import pytest

from ablation import cli
from tests.tiny import write

# What macOS lacks is gone in every process: real-time signals, the cores of a process, what the kernel tells in files, prctl.
MACOS = """
import signal, sys
if "ablation" in " ".join(sys.orig_argv) or "multiprocessing" in " ".join(sys.orig_argv):
    import fcntl, os, types
    del signal.SIGRTMIN, signal.SIGRTMAX, os.sched_getaffinity
    from ablation.system import memory, signals
    memory.sys = signals.sys = types.SimpleNamespace(platform="darwin", exit=sys.exit, unraisablehook=sys.unraisablehook)
    fcntl.F_FULLFSYNC = 51  # which Linux refuses

    def refuse(event, arguments):
        if event == "open" and str(arguments[0]).startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(2, "no such file", arguments[0])

    sys.addaudithook(refuse)
"""


def ablate(folder, *words):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "mac"), os.getcwd()])}
    command = [sys.executable, "-m", "ablation", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_a_study_runs_as_on_macos(tmp_path):
    """It trains in workers, ends them in order, and its results stand when it is asked again."""
    (tmp_path / "mac").mkdir()
    (tmp_path / "mac" / "sitecustomize.py").write_text(MACOS)
    write(tmp_path, ladder={"baseline": {}})
    done = ablate(tmp_path, "run", "tiny.yaml", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "resource_tracker" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "1/1 runs" in ablate(tmp_path, "status").stdout


def test_windows_is_told_in_a_sentence(monkeypatch, capsys):
    """At the start, with the status of a mistake, instead of failing somewhere inside."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: found Windows; expected Linux or macOS, or Linux within Windows (WSL), where ablate runs as on Linux\n"
    )


def test_the_command_line_begins_without_what_windows_lacks():
    """Or nobody there would read the sentence."""
    code = "import sys; sys.modules.update(dict.fromkeys(['fcntl', 'resource', 'pwd', 'termios'])); import ablation.cli"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
