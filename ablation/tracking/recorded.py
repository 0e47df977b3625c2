"""A study as it is recorded in the store: its plan, a row for each run, and what can be read of a run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.errors import StoreError
from ablation.study.metrics import has_own_code, is_curve
from ablation.tracking.messages import first_line

if TYPE_CHECKING:
    import pandas as pd

    from ablation.tracking.store import Store

ITEMS = "items.parquet"  # the artifact with a run's scores per item
PLAN, FILE = "plan.json", "experiments.yaml"  # the artifacts with the newest plan, and with the file that it came from
VERSION_TAG = "ablation.version."  # the tag of a package's version, before the name of the package
TAG_OF_COLUMN = {  # columns of the frame of runs that come from a tag
    "commit": "mlflow.source.git.commit",
    "dirty": "ablation.git.dirty",
    "hardware": "ablation.hardware",
    "device": "ablation.device",
    "precision": "ablation.precision",
    "statistical": "ablation.statistical",
    "command": "ablation.command",
}
RARE = {"same": "ablation.same", "notes": "ablation.notes"}  # columns that are there if any run has the tag, JSON each
COLUMNS = ("arm", "seed", "status", "key", "run_id", "start", "end", "reason", "chosen", *TAG_OF_COLUMN, "versions", "digest")


@dataclass(frozen=True)
class Point:
    """One value of one metric."""

    name: str
    value: float
    time: int  # milliseconds
    step: int = 0


SUPERSEDED = "ablation.superseded"  # the tag of a run that is to be run again
GROUP = "group"  # the column with the number of each image's group


@dataclass(frozen=True)
class Recorded:
    """A study in the store: the newest plan, its runs, and the names of runs that the plan no longer has."""

    study: str
    plan: dict[str, Any]
    runs: "pd.DataFrame"
    superseded: list[str]
    store: "Store" = field(repr=False)
    content: str = ""  # what the file said that the plan came from, if it is not the newest plan
    notes: tuple[str, ...] = ()  # what its reader must know of the file and the plan, a sentence each

    def predictions(self, run_id: str) -> "pd.DataFrame":
        """The run's predictions: index, label, predicted, logits, and the group where images are of groups."""
        import pandas as pd  # late, as in the other functions: a look at one run needs no frame

        path = self.store.artifact(run_id, "predictions.parquet")
        try:
            table = pd.read_parquet(path, page_checksum_verification=True)
            _check_columns([str(name) for name in table.columns])  # the checksums do not cover the names
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise StoreError(f"{path} cannot be read ({first_line(error)}); it may have been damaged since it was written") from None
        return table

    def curves(self, run_ids: Sequence[str]) -> "pd.DataFrame":
        """Every point of every curve of these runs: run_id, metric, step, value."""
        import pandas as pd

        metrics = self.runs.set_index("run_id").filter(regex="/")
        names = {run_id: [str(name) for name, value in metrics.loc[run_id].items() if pd.notna(value)] for run_id in run_ids}
        rows = [(run_id, point.name, point.step, point.value) for run_id in run_ids for point in self.points(run_id, names[run_id])]
        return pd.DataFrame(rows, columns=["run_id", "metric", "step", "value"])

    def points(self, run_id: str, metrics: Sequence[str] = ()) -> list[Point]:
        """The same of one run, with their times; `metrics` are the names of all metrics of the run, if the caller has them."""
        if not has_own_code(self.plan):
            return self.store.curves(run_id, metrics)
        return [point for point in self.store.curves(run_id, beginnings=("",)) if is_curve(self.plan, point.name)]

    def items(self, run_id: str) -> "pd.DataFrame | None":
        """The run's scores per item: item, a column for each metric, and the cluster, where there are any; None if it has none."""
        import pandas as pd

        try:
            path = self.store.artifact(run_id, ITEMS)
        except StoreError:  # few kinds of code hand them back
            return None
        try:
            return pd.read_parquet(path, page_checksum_verification=True)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} cannot be read ({first_line(error)}); it may have been damaged since it was written") from None

    def artifact(self, run_id: str, name: str) -> Path:
        """A file among the run's artifacts; raises StoreError if there is none of that name."""
        return self.store.artifact(run_id, name)


def recorded_of(store: "Store", study: str, runs: Sequence[Mapping[str, Any]], content: str) -> Recorded:
    """The recorded study that has these runs, with its newest plan, or that from a file with that content; StoreError if there is none."""
    plan_run = next((run for run in runs if run["tags"].get("ablation.kind") == "plan"), None)
    if plan_run is None:
        reason = "has no recorded plan, which may have been deleted in MLflow"
        raise StoreError(f"the study {study!r} {reason}; ablate run FILE records it again")
    try:
        plan = json.loads(store.artifact(plan_run["run_id"], of_content(PLAN, content)).read_text(encoding="utf-8"))
    except StoreError as error:
        raise StoreError(f"{error}; ablate run FILE records it again") from None
    frame, superseded = select_runs(plan, [run for run in runs if run["tags"].get("ablation.kind") == "run"])
    return Recorded(study, plan, frame, superseded, store, content)


def of_content(name: str, content: str) -> str:
    """The artifact PLAN or FILE of the newest plan from a file with that content: `plan-1f2e3d.json`."""
    stem, _, suffix = name.partition(".")
    return f"{stem}-{content}.{suffix}" if content else name


def is_superseded(run: Mapping[str, Any]) -> bool:
    """Whether a run in the store counts only until it is run again, as was asked for."""
    return bool(run["tags"].get(SUPERSEDED))


def select_runs(plan: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> "tuple[pd.DataFrame, list[str]]":
    """The plan's runs as a frame with one row each, and the names of runs that the plan no longer has.

    The columns are COLUMNS, those of RARE and the metrics. The name of a metric has a slash, and no other column's name has one: a curve
    whose name has none is no column.
    """
    import pandas as pd

    planned_keys = {(run["arm"], run["seed"]): run["key"] for run in plan["runs"]}
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    ranks: dict[tuple[str, int], tuple[bool, bool]] = {}
    superseded = []
    for run in runs:
        tags = run["tags"]
        arm, seed, key = tags["ablation.arm"], int(tags["ablation.seed"]), tags["ablation.key"]
        if planned_keys.get((arm, seed)) != key:
            superseded.append(f"{arm} {seed}")
        elif (arm, seed) not in ranks or _rank(run) > ranks[arm, seed]:
            ranks[arm, seed] = _rank(run)
            rows[arm, seed] = _row_without_metrics(run) | {name: value for name, value in run["metrics"].items() if "/" in name}
    frame = pd.DataFrame(list(rows.values())) if rows else pd.DataFrame(columns=list(COLUMNS))
    return frame, sorted(set(superseded))


def _rank(run: Mapping[str, Any]) -> tuple[bool, bool]:
    """Which of two records of a run counts: one that is finished, and of these one that was not to be run again."""
    return run["status"] == "FINISHED", not is_superseded(run)


def _row_without_metrics(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's values of COLUMNS; an empty text for whatever was not recorded."""
    tags = run["tags"]
    versions = {name.removeprefix(VERSION_TAG): value for name, value in sorted(tags.items()) if name.startswith(VERSION_TAG)}
    row = {"arm": tags["ablation.arm"], "seed": int(tags["ablation.seed"]), "status": run["status"], "key": tags["ablation.key"]}
    row |= {"run_id": run["run_id"], "start": run["start"], "end": run["end"], "reason": tags.get("ablation.reason", "")}
    row |= {"chosen": tags.get("ablation.chosen", ""), **{column: tags.get(tag, "") for column, tag in TAG_OF_COLUMN.items()}}
    row |= {column: tags[tag] for column, tag in RARE.items() if tag in tags}
    return row | {"versions": json.dumps(versions) if versions else "", "digest": run["digest"]}


def _check_columns(names: Sequence[str]) -> None:
    has_first_columns = list(names[:3]) == ["index", "label", "predicted"] and len(set(names)) == len(names)
    if not has_first_columns or not all(name.startswith("logit") or name in (GROUP, "item") for name in names[3:]):
        raise ValueError(f"its columns are {', '.join(names)}")
