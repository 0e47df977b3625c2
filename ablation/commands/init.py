"""`ablate init`: write a commented study to start from."""

import shlex
import sys
from pathlib import Path

from ablation.commands.exit_codes import DONE
from ablation.errors import ConfigError
from ablation.formatting import capitalised
from ablation.study.templates import TEMPLATES, text
from ablation.system.paths import user_folder


def init(name: str, file: Path) -> int:
    """Write the study of that name into a new file, and say what to type next; raises ConfigError if the file is there already."""
    content = text(name, file, Path.cwd())
    user_folder(file.parent, "--output")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(content)
    except FileExistsError:
        raise ConfigError(
            "--output", f"found {file}, which is there already; expected a new file, such as --output studies/mine.yaml"
        ) from None
    print(_next(name, file), file=sys.stderr)
    return DONE


def _next(name: str, file: Path) -> str:
    """What was written, and the commands that come next."""
    template, quoted = TEMPLATES[name], shlex.quote(str(file))
    commands = {
        f"ablate data {quoted}": "what is in the data, without training",
        f"ablate plan {quoted}": "what would run, and how long it takes",
        f"ablate run {quoted} --profile {template.profile}": "a small one, to see that all works",
        f"ablate run {quoted}": "all of it",
    }
    width = max(map(len, commands))
    lines = [f"Written to {file}: {template.about}.", f"{capitalised(template.needs)}. Then:"]
    lines += [f"  {command:<{width}}   {about}" for command, about in commands.items()]
    lines += ["Other studies to start from:"]
    return "\n".join([*lines, *(f"  ablate init {other.name:<10}   {other.about}" for other in TEMPLATES.values() if other.name != name)])
