"""One study of several records: what was run on machines without a common store, or on one that is lost and was packed before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ablation.errors import ConfigError
from ablation.report.frames.packed import CURVE_COLUMNS, Packed
from ablation.report.frames.recorded import Recorded
from ablation.study.written import differences

Planned = dict[tuple[str, int], dict[str, Any]]  # (arm, seed) -> its entry in a plan


@dataclass(frozen=True)
class Joined:
    """A study whose runs come from several records of it, as the report reads one; the files of a run are read from its own."""

    study: str
    plan: Mapping[str, Any]
    runs: pd.DataFrame
    superseded: Sequence[str]
    records: Mapping[str, Recorded] = field(repr=False)  # by the id of each run

    def predictions(self, run_id: str) -> pd.DataFrame:
        """The run's predictions: index, label, predicted, logits."""
        return self.records[run_id].predictions(run_id)

    def items(self, run_id: str) -> pd.DataFrame | None:
        """The run's scores per item; None if it has none."""
        return self.records[run_id].items(run_id)

    def curves(self, run_ids: Sequence[str]) -> pd.DataFrame:
        """Every point of every curve of these runs: run_id, metric, step, value."""
        found = [self.records[run_id].curves([run_id]) for run_id in run_ids]
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=CURVE_COLUMNS[:-1])

    def artifact(self, run_id: str, name: str) -> Path:
        """A file of a run; raises StoreError if its record has none of that name."""
        return self.records[run_id].artifact(run_id, name)


def joined(first: Recorded, others: Sequence[Packed]) -> Joined:
    """The study with the runs of all these records; of a run that several have, the first that is finished.

    Raises ConfigError unless all are of the same study and file, plan a run in common, and agree on whatever the results of those runs
    depend on: a key stands for settings, data, weights, code, versions and the kind of device.
    """
    plan, runs = dict(first.plan), first.runs
    records: dict[str, Recorded] = dict.fromkeys(map(str, runs["run_id"]), first)
    for other in others:
        _check(other, plan)
        runs = _joined_runs(runs, other.runs)
        plan = _joined_plan(plan, other.plan)
        records = dict.fromkeys(map(str, other.runs["run_id"]), other) | records
    superseded = sorted({name for record in (first, *others) for name in record.superseded})
    return Joined(first.study, plan, runs, superseded, {run_id: records[run_id] for run_id in runs["run_id"]})


def joined_points(study: Joined, points: Sequence[tuple[Recorded, pd.DataFrame]]) -> pd.DataFrame:
    """The points of the study's curves, from all those of each record."""
    chosen = [frame[frame["run_id"].map(study.records.get).map(lambda found, record=record: found is record)] for record, frame in points]
    return pd.concat(chosen, ignore_index=True)


def _check(other: Packed, plan: Mapping[str, Any]) -> None:
    """Raise ConfigError if the packed study cannot be joined with that plan."""
    path, ours, theirs = other.archive.path, plan.get("written"), other.plan.get("written")
    if other.study != plan["study"]:
        raise ConfigError("--with", f"found {path}, which is of the study {other.study}; expected one of {plan['study']}")
    if not ours or not theirs:
        raise ConfigError(
            "--with", f"found {path}; the file that it or this study came from cannot be compared: an earlier version wrote it"
        )
    if ours["digest"] != theirs["digest"]:
        words = "; ".join(differences(theirs, ours))
        raise ConfigError("--with", f"found {path}, whose file says something else: {words}; expected a study of the same file")
    mine, yours = _planned(plan), _planned(other.plan)
    common = [name for name in mine if name in yours]
    differing = [f"{arm} seed {seed}" for arm, seed in common if mine[arm, seed]["key"] != yours[arm, seed]["key"]]
    if differing:
        what = "was run with other settings (--set), data, weights, code, versions of packages or kind of device"
        raise ConfigError("--with", f"found {path}, in which {differing[0]} {what}; expected the same as in this study")
    if not common:
        arm, seed = next(iter(yours), ("its first arm", 0))
        tells = "so that nothing tells whether settings, data and versions are the same"
        how = f"ablate run FILE --arm {arm} --seed {seed} here records one"
        raise ConfigError("--with", f"found {path}, which has no arm and seed in common with this study, {tells}; {how}")


def _planned(plan: Mapping[str, Any]) -> Planned:
    return {(run["arm"], int(run["seed"])): run for run in plan["runs"]}


def _joined_runs(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """The rows of both, one for each arm and seed: a finished one before others, and otherwise ours."""
    both = pd.concat([ours, theirs], ignore_index=True) if len(ours) and len(theirs) else theirs if len(theirs) else ours
    is_first = (both["status"] != "FINISHED").sort_values(kind="stable").index
    return both.loc[is_first].drop_duplicates(["arm", "seed"]).sort_index().reset_index(drop=True)


def _joined_plan(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Our plan with the arms, seeds, runs and stages that only theirs has; seeds and arms in the order of the file."""
    file, all_seeds = ours["written"], [*ours["seeds"], *theirs["seeds"]]
    arms = {arm["name"]: arm for arm in (*theirs["arms"], *ours["arms"])}
    names = [name for name in file["arms"] if name in arms]
    seeds = list(dict.fromkeys([*(seed for seed in file["seeds"] if seed in all_seeds), *all_seeds]))
    runs = _planned(theirs) | _planned(ours)
    plan = dict(ours) | {
        "seeds": seeds,
        "arms": [arms[name] for name in names],
        "runs": [runs[name, seed] for seed in seeds for name in names if (name, seed) in runs],
        "stages": _united(ours["stages"], theirs["stages"], "key"),
        "notes": list(dict.fromkeys([*ours.get("notes", ()), *theirs.get("notes", ())])),
    }
    if "counts" in ours or "counts" in theirs:
        plan["counts"] = {**theirs.get("counts", {}), **ours.get("counts", {})}
    if "data" in ours or "data" in theirs:
        plan["data"] = _united(ours.get("data") or [], theirs.get("data") or [], "summary")
    return plan | ({"predictions": False} if theirs.get("predictions") is False else {})


def _united(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """The entries of both, with the arms of those that have the same value of `name` put together."""
    found: dict[str, dict[str, Any]] = {}
    for entry in (*ours, *theirs):
        known = found.setdefault(entry[name], {**entry, "arms": []})
        known["arms"] = list(dict.fromkeys([*known["arms"], *entry["arms"]]))
    return list(found.values())
