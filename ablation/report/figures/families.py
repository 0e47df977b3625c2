"""Every family of arms as a small figure beside its table: a row per arm, a dot per seed, and the difference to the parent."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from ablation.report.figures import dots, sweeps
from ablation.report.figures.page import ArmsShown, Page, chunks, family, file_name, sized, some
from ablation.report.figures.results import Axis, Results, Row, axis_of, results_of, row_words
from ablation.report.metrics import MetricTable

ROWS_PER_PAGE = 30
REFERENCES = {"condition": "without it"}
TITLES = {"drop_one": "without one rung each", "add_one": "with one rung each", "grid": "all subsets of rungs", "ladder": "the ladder"}


def family_pages(
    runs: pd.DataFrame, differences: pd.DataFrame, plan: Mapping[str, Any], shown: ArmsShown, name: str, metrics: MetricTable
) -> list[Page]:
    """The pages of every family that has two rows (of a condition, two arms); `name` is the metric's.

    A sweep over numbers is a curve, one of two axes a heat map.
    """
    results, axis = results_of(runs, differences, plan, name, metrics), axis_of(name, metrics)
    families: dict[str, list[str]] = {}
    for arm in results.planned:
        if arm in shown.kinds and results.has_values(arm):
            families.setdefault(family(arm, shown.kinds[arm]), []).append(arm)
    return [page for title, arms in families.items() for page in _pages(title, arms, results, axis)]


def _pages(title: str, arms: Sequence[str], results: Results, axis: Axis) -> list[Page]:
    what, name = f"family/{title}", file_name(title)
    sweep = sweeps.sweep_of(arms, results) if title.startswith("sweep ") else None
    if sweep is not None:
        heading = f"{axis.title} over {sweep.axes_words}"
        return [sized(name, what, heading, sweeps.words(sweep, axis), partial(sweeps.page, sweep, axis))]
    rows, heading = rows_of(title, arms, results), f"{axis.title}: {TITLES.get(title, title)}"
    is_condition = title.startswith("condition ")
    return [
        sized(
            name if number == 1 else f"{name}-{number}", what, heading, _words(heading, part, axis), partial(dots.page, part, axis),
            for_paper=not is_condition,
        )
        for number, part in enumerate(chunks(rows, ROWS_PER_PAGE) if len(arms if is_condition else rows) > 1 else [], start=1)
    ]  # fmt: skip


def rows_of(title: str, arms: Sequence[str], results: Results) -> list[Row]:
    """The family's rows in the file's order; arms of a parent outside the family stand below a row of that parent.

    Neighbours are joined seed by seed if one is the other's parent, or both have the same one.
    """
    rows: list[Row] = []
    above = ""  # the parent whose row stands above
    for arm in arms:
        row = results.row(arm, _own_name(arm, title, results.planned[arm]))
        if row.parent and row.parent not in arms and row.parent != above and (parent := results.row(row.parent)).values:
            rows.append(
                replace(
                    parent,
                    remark=f"{parent.remark}, {REFERENCES.get(title.partition(' ')[0], 'the parent')}",
                    parent="",
                    is_reference=True,
                    difference=None,
                )
            )
            above = row.parent
        is_joined = bool(rows) and row.parent != "" and row.parent in (rows[-1].arm, rows[-1].parent)
        rows.append(replace(row, is_joined=is_joined))
    return rows


def _own_name(arm: str, title: str, planned: Mapping[str, Any]) -> str:
    """The arm's name without what its whole family shares: `without cb`, `vflip`; and the arm whose training it is."""
    name = arm
    if title in ("drop_one", "add_one") and planned.get("factors"):
        name = " ".join(f"{word} {rung}" for word, rung in planned["factors"].items())
    elif title.partition(" ")[0] in ("sweep", "condition", "grid") and "/" in arm:
        name = arm.partition("/")[2]
    return f"{name} (= {planned['same_as']})" if planned.get("same_as") else name


def _words(heading: str, part: Sequence[Row], axis: Axis) -> str:
    return f"{heading}, with a dot per seed: {some([row_words(row, axis) for row in part], 10)}."
