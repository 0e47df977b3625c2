"""The record of a study: in the store (under its file's name, or the study run last), or in a zip."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ablation.commands.last_run import last_run, last_study
from ablation.errors import AblateError, ConfigError, StoreError, unknown_name
from ablation.study.config import load, task_of, text_hash
from ablation.study.resolving import load_study
from ablation.study.task import DEFAULT
from ablation.study.written import about_sets, compared, declared_since, written
from ablation.tracking.messages import without_secrets
from ablation.tracking.recorded import Recorded
from ablation.tracking.store import Store

if TYPE_CHECKING:
    from ablation.report.frames.recorded import Recorded as AnyRecorded


def study_of_file(file: Path, profile: str | None) -> str:
    """The name of the study of a file and profile."""
    study_file = load(file)
    if profile is not None and profile not in study_file.profiles:
        raise unknown_name("profiles", "profile", profile, study_file.profiles)
    return f"{study_file.study}.{profile}" if profile else study_file.study


def study_name(file: Path | None, profile: str | None, store: Store) -> str:
    """The name of the study of a file and profile, or of the one last run here, or else of the one that changed last in the store."""
    if file is not None:
        return study_of_file(file, profile)
    if profile is not None:
        return profile_last_run(profile)
    studies, last = store.studies(), last_study()
    if last in (known for known, _ in studies):
        return last
    if last and studies:
        why = "was deleted in MLflow, and ablate run FILE restores it" if last in store.deleted() else "is not in the store yet"
        others = ", ".join(name for name, _ in studies)
        raise AblateError(f"{last}, the study last run here, {why}; expected the file of another: {others}")
    if not studies and (deleted := store.deleted()):
        raise AblateError(f"{', '.join(deleted)} was deleted in MLflow, and no other study is here; ablate run FILE restores it")
    if not studies:
        raise AblateError(f"the store at {without_secrets(store.uri)} holds no study yet; ablate run FILE records one")
    return studies[0][0]


def profile_last_run(profile: str) -> str:
    """The name of the study that a profile of the file last run here makes."""
    noted = last_run()
    if noted is None:
        raise ConfigError("--profile", "needs the study's file beside it")
    return study_of_file(noted[0], profile)


def open_recorded(file: Path | None, profile: str | None) -> "AnyRecorded":
    """The record of a study: from its zip, or from the store under its file's name, or of the study that was run last."""
    if file is not None and file.suffix == ".zip":
        from ablation.report.frames import packed

        if profile is not None:
            raise ConfigError("--profile", f"found {profile} beside {file}; expected none, since a zip holds one study")
        return packed.read(file)
    store = Store.open(make=False)
    recorded = of_file(file, profile, store) if file else of_name(study_name(None, profile, store), store)
    for note in recorded.notes:
        _tell(note)
    return recorded


def of_name(name: str, store: Store) -> Recorded:
    """The newest record of that name, with what the file that it came from says now, if that lies here."""
    recorded = store.recorded(name)
    file, noted = Path(recorded.plan.get("file", "")), last_run()
    file = noted[0] if noted and noted[0].name == file.name and last_study() == name else file
    if not file.is_file():
        return with_notes(recorded)
    try:
        study = load(file).study
        profile = name.removeprefix(study).removeprefix(".") or None
        if name in (study, f"{study}.{profile}") and not (named := of_file(file, profile, store)).content:
            return named
    except AblateError as error:
        return with_notes(recorded, f"{file.name} cannot be compared with the recorded plan: {error}")
    return with_notes(recorded)


def of_file(file: Path, profile: str | None, store: Store) -> Recorded:
    """The record of a file's study: the newest plan of what the file says, or the newest plan and what the file says now."""
    name = study_name(file, profile, store)
    known_runs = store.runs_of(name)
    newest = store.recorded(name, known_runs)
    if newest.plan.get("written", {}).get("text") == text_hash(load(file)):
        return with_notes(newest)
    try:
        study = load_study(file, profile)
    except ConfigError as error:
        return with_notes(newest, _declared_since(file, newest), f"{file.name} cannot be compared with the recorded plan: {error}")
    difference = compared(study, newest.plan)
    if not difference:
        return with_notes(newest)
    with contextlib.suppress(StoreError):
        recorded = store.recorded(name, known_runs, written(study)["digest"])
        when = f"the plan of {recorded.plan['created'][:16].replace('T', ' ')}, which {file.name} says"
        source = "" if newest.plan["file"] == recorded.plan["file"] else f" from {newest.plan['file']}"
        return with_notes(recorded, f"shown is {when}; the study {name} was run since{source} with other settings")
    return with_notes(newest, difference)


def _declared_since(file: Path, recorded: Recorded) -> str:
    """What the file declares beside its arms and did not when it was run: for this, no code of the user's is needed."""
    with contextlib.suppress(ConfigError):
        study_file = load(file)
        return declared_since(task_of(study_file).of_file(study_file, file.resolve().parent), file, recorded.plan)
    return ""


def with_notes(recorded: Recorded, *notes: str) -> Recorded:
    """The record with these notes, and with one if the command line changed settings."""
    return replace(recorded, notes=tuple(filter(None, [*notes, about_sets(recorded.plan)])))


@cache
def _tell(note: str) -> None:
    """Print a note, once."""
    Console(stderr=True).print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def check_images(plan: Mapping[str, Any], command: str, instead: str) -> None:
    """Raise AblateError, with what to use `instead`, where a recorded study is of one's own training code."""
    if plan.get("task", DEFAULT) != DEFAULT:
        raise AblateError(f"{command} is for image classification, and {plan['study']} runs training code of its own; {instead}")


def done_row(recorded: "AnyRecorded", arm: str, seed: int | None) -> Mapping[Any, Any]:
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
