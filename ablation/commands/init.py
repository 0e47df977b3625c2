"""`ablate init`: write a commented study to start from."""

import contextlib
import shlex
import sys
from pathlib import Path

from ablation.commands.exit_codes import DONE
from ablation.errors import ConfigError
from ablation.formatting import capitalised
from ablation.study.templates import TEMPLATES, Template, code_text, text
from ablation.system.paths import user_folder


def init(name: str, file: Path) -> int:
    """Write the study of that name into a new file, and say what to type next; raises ConfigError if the file is there already.

    Training code that belongs to it is written beside it, unless a file of that name is there.
    """
    content = text(name, file, Path.cwd())
    user_folder(file.parent, "--output")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write_new(file, content)
    except FileExistsError:
        raise ConfigError(
            "--output", f"found {file}, which is there already; expected a new file, such as --output studies/mine.yaml"
        ) from None
    written = [str(file)]
    if code := TEMPLATES[name].code:
        with contextlib.suppress(FileExistsError):
            _write_new(file.parent / code, code_text(name))
            written.append(str(file.parent / code))
    print(_next(TEMPLATES[name], file, written), file=sys.stderr)
    return DONE


def _write_new(file: Path, content: str) -> None:
    with file.open("x", encoding="utf-8", newline="\n") as stream:
        stream.write(content)


def _next(template: Template, file: Path, written: list[str]) -> str:
    """What was written, and the commands that come next."""
    quoted, code = shlex.quote(str(file)), template.code
    flags = " --allow-code" if code else ""
    commands = {
        **({} if code else {f"ablate data {quoted}": "what is in the data, without training"}),
        f"ablate plan {quoted}{flags}": "what would run, and how long it takes",
        f"ablate run {quoted} --profile {template.profile}{flags}": "a small one, to see that all works",
        **({f"ablate check-task {quoted}{flags}": "whether a run comes out the same twice"} if code else {}),
        f"ablate run {quoted}{flags}": "all of it",
    }
    width = max(map(len, commands))
    lines = [f"Written to {' and '.join(written)}: {template.about}."]
    lines += [f"{file.parent / code} was there already, and stays as it is."] if code and len(written) == 1 else []
    lines += [f"{capitalised(template.needs)}. Then:"]
    lines += [f"  {command:<{width}}   {about}" for command, about in commands.items()]
    lines += ["Other studies to start from:"]
    others = [other for other in TEMPLATES.values() if other.name != template.name]
    return "\n".join([*lines, *(f"  ablate init {other.name:<12}   {other.about}" for other in others)])
