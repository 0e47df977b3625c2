"""The metric that a reader asks for: its name in the store, or an error that names those there are."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.errors import ConfigError, unknown_name
from ablation.formatting import listed
from ablation.report.frames.facts import classes_of, settings_schema
from ablation.report.metrics import PREFIX, metrics_of, short_name
from ablation.study.config import AUTO
from ablation.study.task import DEFAULT, TASKS, load_task


def known_metric(option: str, metric: str, plan: Mapping[str, Any], runs: pd.DataFrame) -> str:
    """The metric's name in the store, of what a study's file may call it; the study's metric if none is given.

    Raises ConfigError if neither the plan nor any of the runs has it.
    """
    metrics = metrics_of(plan)
    known = _known(metrics.full_names, settings_schema(plan).class_metrics, runs)
    full, task = metrics.full_name(metrics.default if metric in ("", AUTO) and metric not in metrics else metric), plan.get("task", DEFAULT)
    if full not in known and task in TASKS:
        full = load_task(task).stored_metric(metric, classes_of(plan))
    if full not in known:
        raise _unknown_metric(option, metric, [short_name(name) for name in known], plan)
    return full


def _known(names: Iterable[str], class_metrics: Collection[str], runs: pd.DataFrame) -> list[str]:
    """These metrics, and those of single classes that the runs have. Any other number of a run has no known unit or better direction."""
    columns = [str(column) for column in runs.columns if str(column).startswith(PREFIX)]
    return list(dict.fromkeys([*names, *(column for column in columns if short_name(column).partition("/")[0] in class_metrics)]))


def _unknown_metric(option: str, metric: str, known: Sequence[str], plan: Mapping[str, Any]) -> ConfigError:
    """An error that names the study's metrics, without those of each class."""
    main = [*metrics_of(plan).names, *(["arm"] if option == "--sort" else [])]
    others = [name for name in known if name not in main]
    hint = unknown_name("", "metric", short_name(metric), [*main, *others]).problem.partition("Did you mean")[2]
    near = f" Did you mean{hint}" if hint else ""
    of_classes = [f"{kind}/CLASS" for kind in settings_schema(plan).class_metrics] if classes_of(plan) else []
    more = f", or {listed(of_classes)}" if of_classes else ""
    return ConfigError(option, f"unknown metric {metric!r}; expected one of {', '.join(main)}{more}.{near}")
