"""The report as one JSON object."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from ablation.report.frames.tables import has_frame
from ablation.report.metrics import PERCENT, MetricTable
from ablation.report.sections.content import MADE_BY, Content, made_by
from ablation.study.metrics import has_own_code

VOLATILE = (
    "runs",
    "stages",
    "created",
    "command",
    "file",
    "provenance",
    "written",
)  # the parts of the plan that change if the same study runs again
# frame -> the columns that are differences, in the metric's unit
DIFFERENCES = {
    "differences": ("mean", "sd", "low", "high"),
    "class_differences": ("mean", "sd", "low", "high"),
    "image_differences": ("mean", "low", "high"),
    "item_differences": ("mean", "low", "high"),
    "attribution": ("mean", "sd", "low", "high"),
    "effects": ("mean", "sd", "low", "high"),
    "conditions": ("difference", "difference_sd", "low", "high"),
}
SEEDS = "seeds_needed"
WHOLE = ("mcnemar", "calibration")  # frames that hold no differences


def document(content: Content) -> str:
    """All of the study's frames: values and differences in the store's unit, with all digits, and null for a missing number.

    Numbers of seeds above 1,000 are the word `inf`, as in the CSV files.
    """
    frames, plan = content.frames, content.plan
    parts = {
        "made_by": json.loads(made_by(content).removeprefix(MADE_BY)),
        "study": content.study,
        "metric": content.metric,
        **({"notes": content.notes} if content.notes else {}),
        **({"own": asdict(content.own)} if content.own else {}),
        "plan": {name: value for name, value in plan.items() if name not in (*VOLATILE, *_without_content(plan))},
        "arms": _unscaled(frames.arms),
        "runs": _rows(frames.runs),
        "per_class": _rows(frames.per_class),
        "averages": _rows(frames.averages),
        **{name: _of_seeds(_rows(_as_stored(getattr(frames, name), columns, content.metrics))) for name, columns in DIFFERENCES.items()},
        **{name: _rows(getattr(frames, name)) for name in WHOLE},
        "confusion": {arm: counts_CC.tolist() for arm, counts_CC in frames.confusion.items()},
        "curves": _rows(frames.curves),
        "unmatched": list(content.references.unmatched),
        "superseded": list(content.superseded),
        "provenance": {name: plan.get(name) for name in VOLATILE if name not in ("runs", "stages", "written")},
    }
    present = {name: _without_nan(value) for name, value in parts.items() if has_frame(content.facts, name)}
    return "{\n" + ",\n".join(f"{_dumped(name)}: {_laid_out(value)}" for name, value in present.items()) + "\n}\n"


def _without_content(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """What a plan of one's own training code leaves empty, since it has none."""
    return tuple(name for name in ("classes", "data") if has_own_code(plan) and not plan.get(name))


def _laid_out(value: Any) -> str:
    """A table with one line per row, which keeps it short and diffs readable; anything else on one line."""
    is_table = isinstance(value, list) and value and isinstance(value[0], dict)
    return "[\n" + ",\n".join(map(_dumped, value)) + "\n]" if is_table else _dumped(value)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)


def _unscaled(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of the frame of arms, with columns in points turned into fractions."""
    points = [column for column in frame.columns if column.endswith(PERCENT.suffix)]
    fractions = frame.assign(**{column: frame[column] / PERCENT.scale for column in points})
    return _rows(fractions.rename(columns={column: column.removesuffix(PERCENT.suffix) for column in points}))


def _as_stored(frame: pd.DataFrame, columns: Sequence[str], metrics: MetricTable) -> pd.DataFrame:
    """The frame with these columns in the store's unit of each row's metric; without a `metric` column, all rows are recalls."""
    names = frame["metric"] if "metric" in frame else pd.Series("recall", index=frame.index)
    factor = names.map(lambda name: 1 / metrics.unit(str(name)).scale).astype(float)
    return frame.assign(**{column: frame[column].astype(float) * factor for column in columns})


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _of_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with a word where more seeds are needed than are counted: an unknown number is something else."""
    return [row | {SEEDS: "inf"} if row.get(SEEDS) == math.inf else row for row in rows]


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    if value is pd.NaT or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
