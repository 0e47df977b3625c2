"""The command line of this process, for the record, and the one that continues it."""

import os
import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """The command as it was started: by its name, by `python -m ablation`, or through uv."""
    start = ["python", "-m", "ablation"] if Path(sys.argv[0]).name == "__main__.py" else ["ablate"]
    words = shlex.join([*(["uv", "run"] if "UV_RUN_RECURSION_DEPTH" in os.environ else []), *start, *sys.argv[1:]])
    return words.encode(errors="backslashreplace").decode()  # a database takes no names that are not UTF-8


def command_to_go_on() -> str:
    """The command that continues after a stop, without `--rerun=force`, so that finished runs are not repeated."""
    return command_line().replace(" --rerun=force", "").replace(" --rerun force", "")
