"""The command as it was started, for the record and for going on with it."""

import os
import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """The command as it was started: by its name, by `python -m ablation`, or through uv."""
    start = ["python", "-m", "ablation"] if Path(sys.argv[0]).name == "__main__.py" else ["ablate"]
    words = shlex.join([*(["uv", "run"] if "UV_RUN_RECURSION_DEPTH" in os.environ else []), *start, *sys.argv[1:]])
    return words.encode(errors="backslashreplace").decode()  # names that are no UTF-8, which no database takes


def command_to_go_on() -> str:
    """The command that carries on what was stopped: what is done stays done, even if it was forced."""
    return command_line().replace(" --rerun=force", "").replace(" --rerun force", "")
