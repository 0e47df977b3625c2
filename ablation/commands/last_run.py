"""The file of the study that was last run here, for commands that need the file and are given none."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from ablation.errors import AblateError, ConfigError
from ablation.system.digests import digest
from ablation.system.files import write_json
from ablation.tracking.addresses import database_address, store_address
from ablation.tracking.messages import without_secrets

DEFAULT_FILE = Path("experiments.yaml")


def note_last_run(root: Path, file: Path, profile: str | None, study: str) -> None:
    """Note in the folder of the store which file, which profile, and so which study, a run begins with, and in which store.

    The file is noted as it lies from that folder, so that a copy of both names its own.
    """
    from ablation.planning.workspace import Workspace  # which imports more than a look at the last run needs

    about = {"file": os.path.relpath(file.resolve(), root.resolve()), "profile": profile, "study": study}
    with Workspace(root).beginning():  # since studies that begin at once each keep what the others noted
        write_json(root / "last-run.json", {**about, "stores": {**last_stores(root), study: store_here(root)}}, is_kept=False)


def last_run(root: Path = Path("mlruns")) -> tuple[Path, str | None] | None:
    """The file and the profile that were last run here, if the file is still there."""
    noted = _noted(root)
    file = (root.resolve() / noted.get("file", "")).resolve()
    return (file, noted.get("profile")) if file.is_file() else None


def store_here(root: Path) -> str:
    """What tells the store that this shell names from others: nothing for the database in the folder, else a digest of its address."""
    address = store_address(root.resolve())
    is_own = address == database_address(root.resolve() / "mlflow.db")
    return "" if is_own else digest(without_secrets(address.rstrip("/")))[:16]


def last_stores(root: Path = Path("mlruns")) -> dict[str, str]:
    """study -> in which store it was run last, as `store_here` tells it; earlier versions noted none."""
    stores = _noted(root).get("stores")
    return {str(study): str(store) for study, store in stores.items()} if isinstance(stores, dict) else {}


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
    """The folder where a recorded study's relative paths start: of its file, or of the file last run here, or the current one.

    The file last run here is that of all its profiles, whichever was run.
    """
    if file is None and (noted := last_run()):
        last_file, last_profile = noted
        name = last_study().removesuffix(f".{last_profile}" if last_profile else "")  # of the file's study without a profile
        file = last_file if f"{study}.".startswith(f"{name}.") else None
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
    taken = last_profile if profile is None else profile
    print(f"the study of {found.name}{f' with --profile {taken}' if taken else ''}; --file names another", file=sys.stderr)
    return found, taken
