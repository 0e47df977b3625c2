"""The record of a study: in the store (under its file's name, or the study run last), or in a zip."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.errors import AblateError, ConfigError, unknown_name
from ablation.tracking.messages import without_secrets
from ablation.tracking.store import Store

if TYPE_CHECKING:
    from ablation.report.frames import tables


def study_name(file: Path | None, profile: str | None, store: Store) -> str:
    """The name of the study of a file and profile, or of the study that was run last."""
    if file is not None:
        from ablation.study.config import load
        from ablation.study.task import load_task

        study_file = load(file, load_task().schema)
        if profile is not None and profile not in study_file.profiles:
            raise unknown_name("profiles", "profile", profile, study_file.profiles)
        return f"{study_file.study}.{profile}" if profile else study_file.study
    if profile is not None:
        raise ConfigError("--profile", "needs the study's file beside it")
    studies = store.studies()
    if not studies and (deleted := store.deleted()):
        raise AblateError(f"{', '.join(deleted)} was deleted in MLflow, and no other study is here; ablate run FILE restores it")
    if not studies:
        raise AblateError(f"the store at {without_secrets(store.uri)} holds no study yet; ablate run FILE records one")
    return studies[0][0]


def open_recorded(file: Path | None, profile: str | None) -> "tables.Recorded":
    """The record of a study: from its zip, or from the store under its file's name, or of the study that was run last."""
    if file is not None and file.suffix == ".zip":
        from ablation.report.frames import packed

        if profile is not None:
            raise ConfigError("--profile", f"found {profile} beside {file}; expected none, since a zip holds one study")
        return packed.read(file)
    store = Store.open(make=False)
    return store.recorded(study_name(file, profile, store))


def done_row(recorded: "tables.Recorded", arm: str, seed: int | None) -> Mapping[Any, Any]:
    """The row of a finished run of the arm: with this seed, or the first one."""
    from ablation.report.frames.tables import run_rows

    names = [recorded_arm["name"] for recorded_arm in recorded.plan["arms"]]
    if arm not in names:
        raise unknown_name("ARM", "arm", arm, names)
    rows = [row for row in run_rows(recorded).to_dict("records") if row["arm"] == arm and row["state"] == "done"]
    if not rows:
        raise AblateError(f"{arm} has no finished run; ablate run trains what is missing")
    matching = [row for row in rows if seed in (None, row["seed"])]
    if not matching:
        raise ConfigError("--seed", f"found {seed}; expected one of those that are done: {', '.join(str(row['seed']) for row in rows)}")
    return matching[0]
