"""The script of an engine's job that carries out one part."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablation.running.parts.split import Split

PART_SPLIT = "ABLATE_SPLIT"  # the variable that tells a part the folder of its split
INTERRUPTED = 130

TEMPLATE = """#!/bin/bash
{head}# One part of the study {study}, as ablate submits it.
cd {folder} || exit 1
{setup}part="${variable}"
export {split_variable}={split}
{command} --part "$part/{num_parts}" &
pid=$!
trap 'kill -USR1 "$pid"' USR1
wait "$pid"; status=$?
while kill -0 "$pid" 2>/dev/null; do wait "$pid"; status=$?; done
{again}exit $status
"""


@dataclass(frozen=True)
class PartCommand:
    """The command of every part, without --part: where it is started, its words, and the lines of shell before it."""

    folder: Path
    words: Sequence[str]
    setup: Sequence[str] = ()


def script(command: PartCommand, split: Split, variable: str, *, head: str = "", again: str = "") -> str:
    """The text of the script: `variable` is the engine's for the number of the part.

    It passes on SIGUSR1, at which the part ends after its epoch; then the shell command `again`, if given, asks for the same job again,
    unless the user ended the study.
    """
    asks = f"if [ $status = {INTERRUPTED} ] && [ ! -e {shlex.quote(str(split.folder / 'stop'))} ]; then {again}; fi\n" if again else ""
    return TEMPLATE.format(
        head=head,
        study=split.study,
        folder=shlex.quote(str(command.folder)),
        setup="".join(f"{line}\n" for line in command.setup),
        variable=variable,
        split_variable=PART_SPLIT,
        split=shlex.quote(str(split.folder)),
        command=shlex.join(command.words),
        num_parts=len(split.shares),
        again=asks,
    )
