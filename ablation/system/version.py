"""The version of this package, installed or not."""

import re
from pathlib import Path

NAME = "longtail-ablation"


def version() -> str:
    """The version of the checkout that this file is part of, else of the installed package; `unknown` for a mere copy of it."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""  # read so, since a parser takes longer to import than this
    found = re.search(rf'^name = "{NAME}"$.*?^version = "([^"]+)"$', text, re.MULTILINE | re.DOTALL)
    return found[1] if found else _installed()


def _installed() -> str:
    from importlib.metadata import PackageNotFoundError  # late: it takes longer than the rest of `--help`
    from importlib.metadata import version as installed_version

    try:
        return installed_version(NAME)
    except PackageNotFoundError:
        return "unknown"
