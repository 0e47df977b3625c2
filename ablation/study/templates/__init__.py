"""Studies to start from, one file each, as `ablate init` writes them; the repository's own are made of the same texts."""

import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from ablation.errors import unknown_name

FILE = "experiments.yaml"  # where a study is written if no other file is named, and how its comments call it
FOLDERS = r"(?<=root: )(data|images)\b"  # the folders of images that are named in the files


@dataclass(frozen=True)
class Template:
    """A study to start from: what it is, what it needs, and the profile that shows soonest whether all works."""

    name: str
    about: str
    needs: str
    profile: str
    code: str = ""  # the file with the training code of its own, which stands beside the study


TEMPLATES = {
    template.name: template
    for template in (
        Template(
            "own-images",
            "your own images: a ladder of four techniques, two losses, three seeds",
            "put your images under images/CLASS/, or name a CSV in the file",
            "try",
        ),
        Template(
            "reports",
            "the whole matrix of two course reports on class imbalance: 70 arms",
            "nothing is needed for its profile quick; all of it downloads CIFAR-10 into data/, and weights",
            "quick",
        ),
        Template(
            "cifar10-lt",
            "CIFAR-10-LT as the field trains it, beside published figures",
            "CIFAR-10 is downloaded into data/ (170 MB) unless it lies there",
            "short",
        ),
        Template(
            "own-function",
            "a training function of your own, here a regression: three arms and a sweep, six seeds",
            "replace `fit` with your own function, or try it as it is first, which takes a minute",
            "try",
            "diabetes.py",
        ),
        Template(
            "own-command",
            "a training script of your own, here a small language model: three rungs, a variant and a sweep, eight seeds",
            "replace train.py with your own script, or try it as it is first, which takes a minute (python is your shell's)",
            "try",
            "train.py",
        ),
    )
}


def text(name: str, file: Path, folder: Path) -> str:
    """The study as it is written to that file; its images lie in `folder`. Raises ConfigError for an unknown name."""
    if name not in TEMPLATES:
        raise unknown_name("NAME", "study to start from", name, TEMPLATES)
    content = (Path(__file__).parent / f"{name}.yaml").read_text(encoding="utf-8")
    way = Path(os.path.relpath(folder.resolve(), file.resolve().parent)).as_posix()
    content = re.sub(FOLDERS, lambda match: match[0] if way == "." else _quoted(f"{way}/{match[0]}"), content)
    return content.replace(FILE, shlex.quote(file.as_posix()))


def code_text(name: str) -> str:
    """The training code of that study."""
    return (Path(__file__).parent / f"{TEMPLATES[name].code}.txt").read_text(encoding="utf-8")


def _quoted(path: str) -> str:
    """The path as YAML reads it back, also within brackets: in quotes unless it is plain."""
    return path if re.fullmatch(r"[\w./-]+", path) else json.dumps(path, ensure_ascii=False)
