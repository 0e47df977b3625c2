"""The script of an engine's job that carries out one part."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablation.running.parts.log import INTERRUPTED
from ablation.running.parts.split import STOP, Split
from ablation.system.digests import digest
from ablation.system.files import part_of, to_disk

PART_SPLIT = "ABLATE_SPLIT"  # the variable that tells a part the folder of its split
RESTARTS = "ABLATE_RESTARTS"  # and how often the engine has begun its job again

TEMPLATE = """#!/bin/bash
{head}# One part of the study {study}, as ablate submits it.
part="${variable}"
exec >> {split}/part-"$part".out 2>&1
[ "$part" ] || {{ echo "{variable} is empty in the job; the site's field part names the variable with a part's number"; exit 1; }}
cd {folder} || exit 1
{setup}export {split_variable}={split}
pid=
trap 'caught=1 warned=1; [ -z "$pid" ] || kill -USR1 "$pid"' USR1
trap 'caught=1' TERM
{command} --part "$part/{num_parts}" &
pid=$!
[ -z "$warned" ] || kill -USR1 "$pid"
caught=1 # a signal ends a wait with a status of its own; the next wait gives that of the command
while [ "$caught" ]; do caught=; wait "$pid"; status=$?; done
[ $status != 255 ] || {{ wait "$pid"; status=$?; }} # what bash says where the command ends just as a signal comes; then it knows
{again}exit $status
"""


@dataclass(frozen=True)
class PartCommand:
    """The command of every part, without --part: where it is started, its words, and the lines of shell before it."""

    folder: Path
    words: Sequence[str]
    setup: Sequence[str] = ()


def begin_of_scripts(split: Split) -> str:
    """What the names of a split's scripts begin with: those of the same runs in another clone of the project begin otherwise."""
    return f"job-{digest(split.name)[:8]}-"


def write_script(command: PartCommand, split: Split, variable: str, *, head: str = "", again: str = "", alone: bool = False) -> Path:
    """The file of the script, under a name of its own for each text: a queue may read it only when the job begins."""
    text = script(command, split, variable, head=head, again=again, alone=alone)
    path = split.folder / f"{begin_of_scripts(split)}{digest(text)[:8]}.sh"
    content = text.encode()
    if not (path.exists() and path.read_bytes() == content):  # a full disk may have cut an earlier one
        part = part_of(path)
        part.write_bytes(content)
        to_disk(part)
        part.replace(path)
    return path


def script(command: PartCommand, split: Split, variable: str, *, head: str = "", again: str = "", alone: bool = False) -> str:
    """The text of the script: `variable` is the engine's for the number of the part; `alone`, it has one run at once.

    It passes on SIGUSR1, at which the part ends after its epoch, and outlives SIGTERM, which the part gets too; then the shell command
    `again`, if given, asks for the same job again after a SIGUSR1, unless the user ended the study.
    """
    stop = shlex.quote(str(split.folder / STOP))
    asks = f'if [ "$warned" ] && [ $status = {INTERRUPTED} ] && [ ! -e {stop} ]; then {again}; fi\n' if again else ""
    return TEMPLATE.format(
        head=head,
        study=split.study,
        folder=shlex.quote(str(command.folder)),
        setup="".join(f"{line}\n" for line in command.setup),
        variable=variable,
        split_variable=PART_SPLIT,
        split=shlex.quote(str(split.folder)),
        command=shlex.join([*command.words, *(["--jobs", "1"] if alone else [])]),
        num_parts=len(split.shares),
        again=asks,
    )
