"""One study of several records: what was run on machines without a common store, or in one that is lost and was packed before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ablation.errors import ConfigError
from ablation.formatting import counted
from ablation.report.frames.facts import settings_schema
from ablation.report.frames.packed import Packed
from ablation.report.frames.recorded import Packable
from ablation.study.written import Written, differences

Plan = Mapping[str, Any]
OF_THE_DATA = {  # what a plan has of the data of its first arm, in words
    "metric": "metric",
    "classes": "list of classes",
    "groups": "grouping of classes",
    "test_counts": "number of test images",
}
PACKED_ELSEWHERE = "were packed elsewhere, in "
STALE = "made by other code, versions of packages or on another kind of device"
RECORD = "record"  # the column with the number of the record that a row is from


@dataclass(frozen=True)
class Joined:
    """A study whose runs come from several records of it; the files of a run are read from its own."""

    study: str
    plan: Plan
    runs: pd.DataFrame
    superseded: Sequence[str]
    records: Mapping[str, Packable] = field(repr=False)  # by the id of each run

    def artifact(self, run_id: str, name: str) -> Path:
        """A file of a run; raises StoreError if its record has none of that name."""
        return self.records[run_id].artifact(run_id, name)

    def points(self, points: Sequence[tuple[Packable, pd.DataFrame]]) -> pd.DataFrame:
        """The points of the runs' curves, from all those of each record."""
        chosen = []
        for record, frame in points:
            run_ids = [run_id for run_id, found in self.records.items() if found is record]
            chosen.append(frame[frame["run_id"].isin(run_ids)])
        return pd.concat(chosen, ignore_index=True)


def joined(first: Packable, others: Sequence[Packed], *, keep_stale: bool = False) -> Joined:
    """The study with the runs of all these records; of a run that several have, the first that is finished.

    What the file says is what the first one's says. Each has to be of the same study, with the same settings of the arms that both files
    have, to have planned an arm and seed that those before it in the join have, and to have the same key for each such run: it stands for
    settings, data, weights, code, versions and the kind of device. With `keep_stale` the last three may differ, and a note says so. Raises
    ConfigError if one is not, or is damaged. What it has of arms that the file no longer has is superseded.
    """
    plan, frames, records, notes = first.plan, [first.runs], [first], list[str]()
    waiting = list(others)
    while waiting:  # one that shares a run only with another comes after that one
        other = waiting[0]
        try:
            other = next((record for record in waiting if _common(plan, record)), other)
            stale = _check(other, plan, has_store=not isinstance(first, Packed))
            plan = _joined_plan(plan, other.plan)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _unfit(other, "whose plan is damaged, or was written by an earlier version that joins nothing") from None
        if stale and not keep_stale:
            raise _unfit(other, f"in which {stale} was {STALE}; --keep-stale joins it all the same, and the report says so")
        notes += [f"runs of {other.archive.path.name} were {STALE} (see Provenance)"] if stale else []
        waiting.remove(other)
        frames.append(other.runs)
        records.append(other)
    runs, mixed = _without_mixed_choices(_joined_runs(frames), frames)
    is_planned = runs["arm"].isin([arm["name"] for arm in plan["arms"]])
    gone = {f"{arm} {seed}" for arm, seed in runs.loc[~is_planned, ["arm", "seed"]].itertuples(index=False)}
    runs = runs[is_planned].reset_index(drop=True)
    origins = [records[number] for number in runs.pop(RECORD)]
    earlier = [note for note in plan.get("notes") or () if PACKED_ELSEWHERE not in note]  # told of a join before this one
    keys = {(arm, seed): key for arm, seed, key in runs[["arm", "seed", "key"]].itertuples(index=False)}
    planned = [{**run, "key": keys.get((run["arm"], run["seed"]), run["key"])} for run in plan["runs"]]
    plan = {**plan, "runs": planned, "notes": _united(earlier, notes, mixed, _notes(origins, records))}
    counted_here = {f"{arm} {seed}" for arm, seed in keys}
    superseded = sorted(gone.union(*(record.superseded for record in records)) - counted_here)
    return Joined(first.study, plan, runs, superseded, dict(zip(runs["run_id"], origins, strict=True)))


def _notes(origins: Sequence[Packable], records: Sequence[Packable]) -> list[str]:
    """How many runs come from which zip."""
    numbers = [(record.archive.path, origins.count(record)) for record in records[1:] if isinstance(record, Packed)]
    names = [path.name for path, _ in numbers]
    told = [(path.name if names.count(path.name) == 1 else path.as_posix(), number) for path, number in numbers if number]
    return [f"{counted(number, 'run')} of {len(origins)} {PACKED_ELSEWHERE}{name}" for name, number in told]


# --- what may be joined ------------------------------------------------------------------------------------------------------


def _check(other: Packed, plan: Plan, *, has_store: bool) -> str:
    """An arm and seed that is the same but for code, versions or kind of device, in words; "" if there is none.

    Raises ConfigError if the packed study cannot be joined with that plan.
    """
    if other.study != plan["study"]:
        raise _unfit(other, f"which is of the study {other.study}; expected one of {plan['study']}")
    ours, theirs = plan.get("written"), other.plan.get("written")
    if not ours or not theirs:
        raise _unfit(other, "which cannot be compared with this study: an earlier version wrote one of them")
    shared = [name for name in ours["arms"] if name in theirs["arms"]]
    if ours["text"] != theirs["text"] and (words := differences(_settings(theirs, ours, shared), _settings(ours, ours, shared))):
        raise _unfit(other, f"whose file says something else: {'; '.join(words)}; expected the same settings")
    sets = [_sets(one) for one in (plan, other.plan)]
    if sets[0] != sets[1]:
        told = ["none" if not one else " ".join(f"--set {path}={value}" for path, value in one.items()) for one in sets]
        raise _unfit(other, f"which was run with {told[1]}; expected {told[0]}, as this study")
    common, mine, yours = _common(plan, other), _runs(plan), _runs(other.plan)
    stale = [f"{arm} seed {seed}" for arm, seed in common if _is_stale(other, mine[arm, seed], yours[arm, seed])]
    if not common:
        how = (
            f"; ablate run FILE --arm {next(iter(yours))[0]} --seed {next(iter(yours))[1]} here records one" if has_store and yours else ""
        )
        tells = "so that nothing tells whether settings, data and versions are the same"
        raise _unfit(other, f"which has no arm and seed in common with this study, {tells}{how}")
    for name, called in OF_THE_DATA.items():
        if plan.get(name) and other.plan.get(name) and plan[name] != other.plan[name]:
            raise _unfit(other, f"which was planned for another {called}; expected the same as in this study")
    return stale[0] if stale else ""


def _is_stale(other: Packed, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two records of a run have other keys, but the same content; raises ConfigError if they have not, or do not say."""
    if mine["key"] == theirs["key"]:
        return False
    contents = mine.get("content"), theirs.get("content")
    if None not in contents and contents[0] == contents[1]:
        return True
    what = "settings, data or weights" if None not in contents else f"settings, data or weights, or was {STALE}"
    raise _unfit(other, f"in which {mine['arm']} seed {mine['seed']} was run with other {what}; expected the same as in this study")


def _unfit(other: Packed, problem: str) -> ConfigError:
    return ConfigError("--with", f"found {other.archive.path}, {problem}")


def _settings(file: Written, ours: Written, names: Sequence[str]) -> Written:
    """What a file says of the settings of these arms; all else as ours says it."""
    arms = {name: {**ours["arms"][name], **{part: file["arms"][name][part] for part in ("settings", "choice")}} for name in names}
    return {**ours, "first": file["first"], "arms": arms}


def _runs(plan: Plan) -> dict[tuple[str, int], Mapping[str, Any]]:
    return {(run["arm"], run["seed"]): run for run in plan["runs"]}


def _common(plan: Plan, other: Packed) -> list[tuple[str, int]]:
    """The arms and seeds that both have planned."""
    theirs = _runs(other.plan)
    return [name for name in _runs(plan) if name in theirs]


def _sets(plan: Plan) -> dict[str, Any]:
    """What --set changed, without paths, whose contents count by the keys."""
    paths = tuple(f"{family}.{name}" for family, name in settings_schema(plan).paths)
    return {path: value for path, value in plan["written"].get("sets", ()) if not path.endswith(paths)}


# --- joining -----------------------------------------------------------------------------------------------------------------


def _joined_runs(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """A row for each arm and seed, with the number of its record: of several the first that is finished, else the first."""
    numbered = [frame.assign(**{RECORD: number}) for number, frame in enumerate(frames)]
    rows = pd.concat([frame for frame in numbered if len(frame)] or numbered[:1], ignore_index=True)
    finished_first = (rows["status"] != "FINISHED").sort_values(kind="stable").index
    return rows.loc[finished_first].drop_duplicates(["arm", "seed"]).sort_index().reset_index(drop=True)


def _without_mixed_choices(runs: pd.DataFrame, frames: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, list[str]]:
    """The rows without those that chose between other results than the rows have, and a note for each of these."""
    is_mixed = [bool(row["chosen"]) and not _has_its_points(row, runs, frames[row[RECORD]]) for row in runs.to_dict("records")]
    left = [f"{arm} seed {seed}" for arm, seed in runs.loc[is_mixed, ["arm", "seed"]].itertuples(index=False)]
    notes = [f"{name} chose between other results than those here, and is left out" for name in left]
    return runs[[not mixed for mixed in is_mixed]].reset_index(drop=True), notes


def _has_its_points(row: Mapping[Any, Any], runs: pd.DataFrame, own: pd.DataFrame) -> bool:
    """Whether the arms between which a run chose have the results here that they had in its own record."""
    sweep = row["arm"].rpartition("/")[0] + "/"
    results = [name for name in own.columns if name.startswith(("test/", "validation/"))]
    tables = []
    for frame in (runs, own):
        is_point = (frame["seed"] == row["seed"]) & frame["arm"].str.startswith(sweep) & (frame["chosen"] == "")
        tables.append(frame[is_point].set_index("arm")[results].sort_index())
    return bool(tables[0].equals(tables[1]))


def _joined_plan(ours: Plan, theirs: Plan) -> dict[str, Any]:
    """Our plan with the arms, seeds, runs and stages that only theirs has; seeds and arms in the order of the file."""
    file, all_seeds = ours["written"], [*ours["seeds"], *theirs["seeds"]]
    arms = {arm["name"]: arm for arm in (*theirs["arms"], *ours["arms"])}
    names = [name for name in file["arms"] if name in arms]
    seeds = list(dict.fromkeys([*(seed for seed in file["seeds"] if seed in all_seeds), *all_seeds]))
    runs = {(run["arm"], run["seed"]): run for run in (*theirs["runs"], *ours["runs"])}
    stages: dict[str, dict[str, Any]] = {}
    for stage in (*(ours.get("stages") or ()), *(theirs.get("stages") or ())):
        known = stages.setdefault(stage["key"], {**stage})
        known["arms"] = _united(known["arms"], stage["arms"])
    return dict(ours) | {
        "seeds": seeds,
        "arms": [arms[name] for name in names],
        "runs": [runs[name, seed] for seed in seeds for name in names if (name, seed) in runs],
        "stages": list(stages.values()),
        "notes": _united(ours.get("notes") or (), theirs.get("notes") or ()),
        **({"counts": {**(theirs.get("counts") or {}), **ours["counts"]}} if ours.get("counts") else {}),
        **({"data": _joined_accounts(ours["data"], theirs.get("data") or ())} if ours.get("data") else {}),
        **({"predictions": False} if theirs.get("predictions") is False else {}),
    }


def _joined_accounts(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Our accounts of the data, with the arms that only theirs have: in ours that shares an arm with it, or as one of its own."""
    accounts = [dict(account) for account in ours]
    for other in theirs:
        new = [arm for arm in other["arms"] if not any(arm in account["arms"] for account in ours)]
        same = next((account for account in accounts if set(account["arms"]) & set(other["arms"])), None)
        if same is not None:
            same["arms"] = _united(same["arms"], new)
        else:
            accounts.append({**other, "arms": new})
    return accounts


def _united(*lists: Sequence[Any]) -> list[Any]:
    """The entries of all, each once."""
    return list(dict.fromkeys(entry for one in lists for entry in one))
