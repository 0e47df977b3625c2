"""The file of the study that was last run here, for commands that need the file and are given none."""

import json
import sys
from pathlib import Path
from typing import Any

from ablation.errors import AblateError, ConfigError
from ablation.system.files import write_json

DEFAULT_FILE = Path("experiments.yaml")


def note_last_run(root: Path, file: Path, profile: str | None, study: str) -> None:
    """Note in the folder of the store which file, which profile, and so which study, a run begins with."""
    write_json(root / "last-run.json", {"file": str(file.resolve()), "profile": profile, "study": study}, is_kept=False)


def last_run(root: Path = Path("mlruns")) -> tuple[Path, str | None] | None:
    """The file and the profile that were last run here, if the file is still there."""
    noted = _noted(root)
    file = Path(noted.get("file", ""))
    return (file, noted.get("profile")) if file.is_file() else None


def last_study(root: Path = Path("mlruns")) -> str:
    """The name of the study that was last run here; "" if none was, or an earlier version ran it."""
    return str(_noted(root).get("study", ""))


def _noted(root: Path) -> dict[str, Any]:
    """What the last run noted; empty if none did, or what it wrote was damaged."""
    try:
        return dict(json.loads((root / "last-run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def folder_of(study: str, file: Path | None) -> Path:
    """The folder where a recorded study's relative paths start: of its file, or of the file last run here, or the current one."""
    if file is None and study == last_study() and (noted := last_run()):
        file = noted[0]
    return file.resolve().parent if file else Path.cwd()


def study_file(file: Path | None, profile: str | None) -> tuple[Path, str | None]:
    """The file and the profile that are given, else those of the study last run here, else experiments.yaml; says which it takes."""
    if file is not None:
        if file.suffix == ".zip":
            raise ConfigError("--file", f"found {file}; expected the study's file, since a zip has only what was recorded")
        return file, profile
    noted = last_run()
    if noted is None and not DEFAULT_FILE.is_file():
        raise AblateError(f"no study was run here, and there is no {DEFAULT_FILE}; --file names the study's file, ablate init writes one")
    found, last_profile = noted or (DEFAULT_FILE, None)
    taken = profile or last_profile
    print(f"the study of {found.name}{f' with --profile {taken}' if taken else ''}; --file names another", file=sys.stderr)
    return found, taken
