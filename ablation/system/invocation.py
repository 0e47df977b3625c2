"""The command line of this process, for the record, and the one that continues it."""

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

AT_ONCE = ("status", "clean")  # commands that answer before anyone wonders


def command_line() -> str:
    """The command as it was started: by its name, by `python -m ablation`, or through uv."""
    start = ["python", "-m", "ablation"] if Path(sys.argv[0]).name == "__main__.py" else ["ablate"]
    words = shlex.join([*(["uv", "run"] if "UV_RUN_RECURSION_DEPTH" in os.environ else []), *start, *sys.argv[1:]])
    return words.encode(errors="backslashreplace").decode()  # a database takes no names that are not UTF-8


def command_to_go_on() -> str:
    """The command that continues after a stop, without `--rerun=force`, so that finished runs are not repeated."""
    return command_line().replace(" --rerun=force", "").replace(" --rerun force", "")


def command_without_part() -> str:
    """The command that carries out and records the whole study, of which this process is a part."""
    return re.sub(r" --(part[ =]\S+|record)(?= |$)", "", command_line())


def first_words(command: str, options: Mapping[str, Any], *, is_terminal: bool) -> str:
    """What a command says while it imports what it needs: `run` to everyone, the others to a terminal; a pipe gets none of theirs."""
    if command in AT_ONCE or not (is_terminal or command == "run"):
        return ""
    profile = f" (profile {options['profile']})" if options.get("profile") else ""
    return f"reading {options.get('file') or 'what is here'}{profile} ..."
