"""`ablate clean`: delete files whose contents are recorded in the store, after saying which and asking."""

import contextlib
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.prompt import Confirm

from ablation.commands.exit_codes import DONE, FAILED
from ablation.commands.last_run import last_stores, store_here
from ablation.commands.recorded import study_name
from ablation.errors import AblateError, ConfigError
from ablation.formatting import counted, listed, size
from ablation.planning.states import CONFIG
from ablation.planning.workspace import Workspace
from ablation.running.executors.engines import alive_jobs
from ablation.running.parts.split import delete as delete_split
from ablation.running.parts.split import splits
from ablation.tracking.recorded import Recorded, is_superseded
from ablation.tracking.store import Store

BEGUN = ("*/checkpoint.safetensors", "*/checkpoints*/*", "*/try-*")  # what a stage has that was begun, and not ended
NO_PLAN, DATA = "of no study's newest plan", "decoded data, which all studies share"


@dataclass(frozen=True)
class Deletable:
    """Folders that may be deleted, by the study that they belong to."""

    results: Mapping[str, Sequence[Path]]
    stages: Mapping[str, Sequence[Path]]
    data: Sequence[Path]
    splits: Mapping[str, Sequence[Path]]
    unknown: Sequence[str] = ()  # studies that ran here, and whose newest plan is not in the store: what they need cannot be told

    @property
    def folders(self) -> list[Path]:
        """All of them."""
        kinds = (self.results, self.stages, self.splits)
        return [*(path for by_study in kinds for paths in by_study.values() for path in paths), *self.data]

    def lines(self) -> list[str]:
        """What would be deleted, a line for each study."""
        rows = []
        for name in dict.fromkeys([*self.results, *self.stages, *self.splits]):
            results, stages, splits = self.results.get(name, ()), self.stages.get(name, ()), self.splits.get(name, ())
            kinds = [(len(stages), "trained stage"), (len(results), "computed result"), (len(splits), "split")]
            what = listed([counted(number, kind) for number, kind in kinds if number])
            rows.append(f"  {name}: {what}, {size(_bytes([*results, *stages, *splits]))}")
        return [*rows, *([f"  {DATA}: {size(_bytes(self.data))}"] if self.data else [])]


def clean(file: Path | None, profile: str | None, *, everything: bool, yes: bool) -> int:
    """Say what would be deleted, ask, and delete it: stages and results that are recorded; with `everything`, all work and decoded data.

    With a file or a profile, only of that study; what another study shares and has not finished stays, and so do decoded data.
    """
    workspace, console = Workspace(Path("mlruns").resolve()), Console(stderr=True, highlight=False, soft_wrap=True)
    only = _chosen_study(file, profile)
    with _nothing_running(workspace):
        found = _deletable(workspace, only, everything=everything)
    if found.unknown:
        plans, they = ("their newest plans are", "they") if len(found.unknown) > 1 else ("its newest plan is", "it")
        told = f"ran here, and {plans} not in the store: stages that {they} may need stay; --all deletes them"
        console.print(f"{listed(found.unknown)} {told}", markup=False)
    if not found.folders:
        console.print("nothing to delete")
        return DONE
    console.print(
        f"to delete in {workspace.root}, {size(_bytes(found.folders))} in all; what is recorded in the store stays:", markup=False
    )
    for line in found.lines():
        console.print(line, markup=False)
    if not (yes or _is_confirmed(console)):
        console.print("nothing was deleted")
        return DONE
    with _nothing_running(workspace):  # until all is deleted, so that no run starts from what is being deleted
        still = set(_deletable(workspace, only, everything=everything).folders)  # a run may have come and gone while the question stood
        return _delete([folder for folder in found.folders if folder in still], workspace, console)  # never more than was shown


def _delete(folders: Sequence[Path], workspace: Workspace, console: Console) -> int:
    """Delete them, say what is gone, and what is not; return the exit status."""
    before = _bytes(folders)
    for folder in folders:
        delete_split(folder) if workspace.parts in folder.parents else shutil.rmtree(folder, ignore_errors=True)
    left = [folder for folder in folders if folder.exists()]
    freed = size(max(0, before - _bytes(left)))
    console.print(f"deleted {counted(len(folders) - len(left), 'folder')}, {freed}; what is recorded stays", markup=False)
    if left:
        told = f"{counted(len(left), 'folder')} could not be deleted, the first {left[0]}; expected folders that this user may change"
        console.print(told, markup=False)
    return FAILED if left else DONE


def _chosen_study(file: Path | None, profile: str | None) -> str:
    """The name of the study that was named, "" if none was."""
    if file is None and profile is None:
        return ""
    if file is not None and file.suffix == ".zip":
        raise ConfigError("--file", f"found {file}; expected the study's file, since a zip has no folders to clean")
    store = Store.open(make=False)
    return store.recorded(study_name(file, profile, store)).study


@contextlib.contextmanager
def _nothing_running(workspace: Workspace) -> Iterator[None]:
    """Keep studies from beginning to run for a while; raises AblateError if one runs already."""
    with workspace.held_off() as running_studies:
        if running_studies:
            raise AblateError(f"{', '.join(running_studies)} is being run; nothing was deleted")
        for split in splits(workspace.parts):
            if jobs := alive_jobs(split):
                at_work = f"parts of {split.study} are at work (job {', '.join(sorted(jobs))})"
                raise AblateError(f"{at_work}, which ablate cancel ends; nothing was deleted")
        yield


def _is_confirmed(console: Console) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise AblateError("nothing was deleted, since there is no terminal to ask at; the same command with --yes deletes it")
    return Confirm.ask("delete it?", default=False, console=console)


# --- what may go ---------------------------------------------------------------------------------------------------------------


def _deletable(workspace: Workspace, only: str, *, everything: bool) -> Deletable:
    """What may be deleted of the study named `only`, or of all; with `everything`, also what is not recorded, and decoded data."""
    studies = [recorded for recorded in _recorded_studies() if everything or not _is_elsewhere(recorded.study, workspace)]
    own = [recorded for recorded in studies if only in ("", recorded.study)]
    others = [recorded for recorded in studies if recorded not in own]
    runs = {recorded.study: recorded.store.runs_of(recorded.study) for recorded in studies}
    needing = others if everything else studies
    unfinished = set().union(*(_unfinished_stages(recorded, runs[recorded.study]) for recorded in needing))
    if not everything:
        unfinished |= {path.parent.name for pattern in BEGUN for path in workspace.stages.glob(pattern)}
        unfinished |= set().union(*(recorded.plan.get("left", ()) for recorded in studies))
    finished = {recorded.study: set(_finished(recorded.store, runs[recorded.study])) for recorded in studies}
    wanted = {recorded.study: _wanted(recorded, finished[recorded.study]) for recorded in studies}
    kept = set().union(*(wanted[recorded.study] for recorded in needing))
    kept |= {key for split in splits(workspace.parts) if split.study not in runs for keys in split.shares for key in keys}
    results = {recorded.study: _keys(recorded, finished[recorded.study], everything=everything) - kept for recorded in own}
    stages = {recorded.study: {stage["key"] for stage in recorded.plan["stages"]} - unfinished for recorded in own}
    stray = [path for path in workspace.results.glob("*") if everything or path.suffix == ".part"]
    unknown = [] if everything else sorted(_run_here(workspace) - {recorded.study for recorded in studies})
    unplanned = [path for path in workspace.stages.glob("*") if path.name not in unfinished and not unknown]
    return Deletable(
        results=_by_study(workspace.results.glob("*"), results, () if only else stray),
        stages=_by_study(workspace.stages.glob("*"), stages, () if only else unplanned),
        data=[workspace.data] if everything and not only and workspace.data.exists() else [],
        splits=_splits(workspace, wanted, only, everything=everything),
        unknown=[study for study in unknown if only in ("", study)],
    )


def _finished(store: Store, runs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Arm, seed and key of the runs that are finished, and whose files the store still has; not of those that --rerun force asks for."""
    for run in runs:
        tags = run["tags"]
        if run["status"] == "FINISHED" and not is_superseded(run) and not store.has_lost_files(run["run_id"], CONFIG):
            yield tags.get("ablation.arm", ""), tags.get("ablation.seed", ""), tags.get("ablation.key", "")


def _wanted(recorded: Recorded, finished: set[tuple[str, str, str]]) -> set[str]:
    """The keys of planned runs that have no record of their own yet, though another arm or study may have one: both are one training."""
    return {run["key"] for run in recorded.plan["runs"] if (run["arm"], str(run["seed"]), run["key"]) not in finished}


def _keys(recorded: Recorded, finished: set[tuple[str, str, str]], *, everything: bool) -> set[str]:
    """The keys of a study's finished runs; with `everything`, also of those of its newest plan."""
    return {key for _, _, key in finished} | {run["key"] for run in recorded.plan["runs"] if everything}


def _is_elsewhere(study: str, workspace: Workspace) -> bool:
    """Whether the study was last run with another store than the one that this shell names, which has an earlier plan of it at most."""
    here = store_here(workspace.root)
    return last_stores(workspace.root).get(study, here) != here


def _run_here(workspace: Workspace) -> set[str]:
    """The studies that ran in this folder, whether or not the store that this shell names has their plans."""
    return {path.stem.partition(".part-")[0] for path in (workspace.root / "status").glob("*.json")} | {
        split.study for split in splits(workspace.parts)
    }


def _splits(workspace: Workspace, wanted: Mapping[str, set[str]], only: str, *, everything: bool) -> dict[str, list[Path]]:
    """study -> its splits of which no run is wanted, that is planned and not recorded; or all of them."""
    found: dict[str, list[Path]] = {}
    for split in splits(workspace.parts, only):
        is_over = split.study in wanted and not wanted[split.study] & {key for keys in split.shares for key in keys}
        if everything or is_over:
            found.setdefault(split.study, []).append(split.folder)
    return found


def _by_study(folders: Iterable[Path], keys: Mapping[str, set[str]], others: Iterable[Path]) -> dict[str, list[Path]]:
    """study -> its folders, each under the first study that has its key, in their order; the `others` that none has under NO_PLAN."""
    by_study: dict[str, list[Path]] = {study: [] for study in keys}
    taken = set()
    for folder in sorted(folders):
        name = next((study for study, known in keys.items() if folder.name in known), "")
        if name:
            by_study[name].append(folder)
            taken.add(folder)
    rest = [folder for folder in sorted(others) if folder not in taken]
    return {study: paths for study, paths in (by_study | {NO_PLAN: rest}).items() if paths}


def _bytes(folders: Iterable[Path]) -> int:
    """What deleting them frees; a file that the store links to is freed by none."""
    files = (file.stat() for folder in folders for file in folder.rglob("*") if file.is_file())
    return sum(about.st_size for about in files if about.st_nlink == 1)


def _recorded_studies() -> list[Recorded]:
    """Every study in the store; none if there is no store."""
    if not Store.is_there():
        return []
    store = Store.open(make=False)
    return [store.recorded(study) for study, _ in store.studies()]


def _unfinished_stages(recorded: Recorded, runs: Sequence[Mapping[str, Any]]) -> set[str]:
    """The stages of the study's newest plan that a run needs which is not recorded as finished, or is to be run again."""
    superseded = {run["run_id"] for run in runs if is_superseded(run)}
    finished_rows = recorded.runs[(recorded.runs["status"] == "FINISHED") & ~recorded.runs["run_id"].isin(superseded)]
    finished_runs = set(zip(finished_rows["arm"], finished_rows["seed"], strict=True))
    unfinished = {(run["arm"], run["seed"]) for run in recorded.plan["runs"]} - finished_runs
    return {stage["key"] for stage in recorded.plan["stages"] if any((arm, stage["seed"]) in unfinished for arm in stage["arms"])}
