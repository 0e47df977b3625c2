"""`ablate clean`: delete what is recorded anyway."""

import shutil
from pathlib import Path

from rich.console import Console

from ablation.commands.exit_codes import DONE
from ablation.errors import AblateError
from ablation.formatting import size
from ablation.planning.workspace import Workspace
from ablation.tracking.store import Recorded, Store


def clean(*, everything: bool) -> int:
    """Delete trained stages and results that are recorded; with `everything`, those of unfinished work and the decoded data too."""
    workspace = Workspace(Path("mlruns").resolve())
    with workspace.held_off() as running:  # to the end, so that no run begins with what is about to be deleted
        if running:
            raise AblateError(f"{', '.join(running)} is being run; nothing was deleted")
        return _cleaned(workspace, everything=everything)


def _cleaned(workspace: Workspace, *, everything: bool) -> int:
    plans = _plans()
    runs = [run for one in plans for run in one.store.runs_of(one.study)]
    recorded = {run["tags"].get("ablation.key") for run in runs if run["status"] == "FINISHED"}
    folders = [path for path in workspace.results.glob("*") if everything or path.name in recorded or path.suffix == ".part"]
    unfinished = {path.parent.name for path in workspace.stages.glob("*/checkpoint.safetensors")}.union(*map(_unfinished, plans))
    folders += [path for path in workspace.stages.glob("*") if everything or path.name not in unfinished]
    folders += [workspace.data] if everything and workspace.data.exists() else []
    freed = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file() and file.stat().st_nlink == 1)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    Console(stderr=True).print(f"deleted {len(folders)} folders, {size(freed)}; what is recorded stays", highlight=False)
    return DONE


def _plans() -> list[Recorded]:
    """Every study in the store; none where there is no store."""
    if not Store.is_there():
        return []
    store = Store.open(make=False)
    return [store.recorded(study) for study, _ in store.studies()]


def _unfinished(recorded: Recorded) -> set[str]:
    """The stages of a study's newest plan that a run still needs which is not recorded as finished."""
    finished = recorded.runs[recorded.runs["status"] == "FINISHED"]
    done = set(zip(finished["arm"], finished["seed"], strict=True))
    left = {(run["arm"], run["seed"]) for run in recorded.plan["runs"]} - done
    return {stage["key"] for stage in recorded.plan["stages"] if any((arm, stage["seed"]) in left for arm in stage["arms"])}
