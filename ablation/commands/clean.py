"""`ablate clean`: delete files whose contents are recorded in the store."""

import shutil
from pathlib import Path

from rich.console import Console

from ablation.commands.exit_codes import DONE
from ablation.errors import AblateError
from ablation.formatting import size
from ablation.planning.workspace import Workspace
from ablation.tracking.recorded import Recorded
from ablation.tracking.store import Store


def clean(*, everything: bool) -> int:
    """Delete stages and results that are recorded; with `everything`, also unfinished work and decoded data."""
    workspace = Workspace(Path("mlruns").resolve())
    with workspace.held_off() as running_studies:  # until all is deleted, so that no run starts from what is being deleted
        if running_studies:
            raise AblateError(f"{', '.join(running_studies)} is being run; nothing was deleted")
        return _delete(workspace, everything=everything)


def _delete(workspace: Workspace, *, everything: bool) -> int:
    recorded_studies = _recorded_studies()
    runs = [run for recorded in recorded_studies for run in recorded.store.runs_of(recorded.study)]
    recorded_keys = {run["tags"].get("ablation.key") for run in runs if run["status"] == "FINISHED"}
    folders = [path for path in workspace.results.glob("*") if everything or path.name in recorded_keys or path.suffix == ".part"]
    unfinished = {path.parent.name for path in workspace.stages.glob("*/checkpoint.safetensors")}.union(
        *map(_unfinished_stages, recorded_studies)
    )
    folders += [path for path in workspace.stages.glob("*") if everything or path.name not in unfinished]
    folders += [workspace.data] if everything and workspace.data.exists() else []
    freed = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file() and file.stat().st_nlink == 1)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    Console(stderr=True).print(f"deleted {len(folders)} folders, {size(freed)}; what is recorded stays", highlight=False)
    return DONE


def _recorded_studies() -> list[Recorded]:
    """Every study in the store; none if there is no store."""
    if not Store.is_there():
        return []
    store = Store.open(make=False)
    return [store.recorded(study) for study, _ in store.studies()]


def _unfinished_stages(recorded: Recorded) -> set[str]:
    """The stages of the study's newest plan that a run needs which is not recorded as finished."""
    finished_rows = recorded.runs[recorded.runs["status"] == "FINISHED"]
    finished_runs = set(zip(finished_rows["arm"], finished_rows["seed"], strict=True))
    unfinished = {(run["arm"], run["seed"]) for run in recorded.plan["runs"]} - finished_runs
    return {stage["key"] for stage in recorded.plan["stages"] if any((arm, stage["seed"]) in unfinished for arm in stage["arms"])}
