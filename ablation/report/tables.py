"""What is recorded of a study, as tidy frames.

Shapes: R runs of one arm, C true classes, C predicted classes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablation.errors import AblateError
from ablation.report import attribution, images, statistics
from ablation.report.differences import ROLES, class_differences, comparisons, differences
from ablation.report.metrics import HEADLINE, RELIABILITY, interval_columns, short_name
from ablation.report.references import References
from ablation.report.words import change_words

METRICS = (*HEADLINE, *RELIABILITY)
STATES = {"FINISHED": "done", "FAILED": "failed", "KILLED": "stopped", "RUNNING": "running"}
SPENDING = ("time/own", "time/shared", "epochs/own", "epochs/shared")
ABOUT_RUN = ["arm", "seed", "state", "reason", "chosen", "key", "run_id", "start", "end"]
CURVE_COLUMNS = ["arm", "seed", "metric", "step", "value"]


class Recorded(Protocol):
    """What the report asks of a store."""

    @property
    def study(self) -> str:
        """The study's name."""

    @property
    def plan(self) -> Mapping[str, Any]:
        """The newest recorded plan."""

    @property
    def runs(self) -> pd.DataFrame:
        """One row per arm and seed of that plan that has an MLflow run, with its final metrics."""

    @property
    def superseded(self) -> Sequence[str]:
        """The runs in the store that the newest plan no longer has."""

    def predictions(self, run_id: str) -> pd.DataFrame:
        """The test images' index, label, predicted class and scores."""

    def curves(self, run_ids: list[str]) -> pd.DataFrame:
        """run_id, metric, step and value of every point of every curve."""

    def artifact(self, run_id: str, name: str) -> Path:
        """The local path of a file of the run."""


@dataclass(frozen=True)
class Frames:
    """A study's results. Values are fractions (NLL: nats), differences points (NLL: nats).

    `runs` has one row per planned arm and seed; `arms` one per arm, with the ids of its runs, and where an arm is chosen among others
    for each seed, `chosen` names the one of that seed, or those of all seeds; in it, columns with points say so in their names.
    `per_class` has one row per arm and class; `averages` one per arm and average; `confusion` the counts of each arm summed over its
    seeds (rows are true classes); `curves` one row per point; `calibration` one per arm and bin of confidence that holds images.

    `differences` has one row per arm, role of its partner (parent, baseline) and metric, with tests over seeds, and `class_differences`
    one per class, of recalls. `image_differences` and `mcnemar` hold what the test images leave in doubt, which is another question.
    `attribution` has what each rung of the ladder does in each place, `effects` those of crossed settings, and `conditions` each arm
    under a condition against itself without.

    `unreadable` tells of runs that are done but whose predictions could not be read, "arm seed N: why"; they are missing wherever
    predictions are needed, and there only.
    """

    runs: pd.DataFrame
    arms: pd.DataFrame
    per_class: pd.DataFrame
    averages: pd.DataFrame
    confusion: dict[str, npt.NDArray[np.int64]]
    curves: pd.DataFrame
    differences: pd.DataFrame
    class_differences: pd.DataFrame
    image_differences: pd.DataFrame
    mcnemar: pd.DataFrame
    calibration: pd.DataFrame
    attribution: pd.DataFrame
    effects: pd.DataFrame
    conditions: pd.DataFrame
    unreadable: list[str]


def frames(
    recorded: Recorded,
    shown: Sequence[str] | None = None,
    metrics: Sequence[str] = METRICS,
    references: References | None = None,
    chosen: str = "test/accuracy",
) -> Frames:
    """The frames of the arms `shown` (None: of all of them); differences are taken to every arm, shown or not, and corrected for all.

    `arms` has the intervals and verdicts of the metric `chosen`, which is one of `metrics`.
    """
    plan, runs = recorded.plan, run_rows(recorded)
    names = [arm["name"] for arm in plan["arms"]]
    kept = names if shown is None else [name for name in names if name in set(shown)]
    compared, pairs = differences(plan, runs, metrics), _of_arms(comparisons(plan), kept)
    results, unreadable = _results(recorded, runs, {*kept, *pairs["against"]})
    counts = {arm: np.stack([one.counts_CC for one in results[arm].values()]) for arm in kept if arm in results}
    shown_runs = runs[runs["arm"].isin(kept)].reset_index(drop=True)
    arms = _with_verdicts(arm_rows(plan, runs, metrics, references or References()), compared, chosen)
    classes = list(plan["classes"])
    return Frames(
        runs=shown_runs,
        arms=_of_arms(arms, kept),
        per_class=class_rows(counts, plan),
        averages=average_rows(counts),
        confusion={arm: counts_RCC.sum(axis=0) for arm, counts_RCC in counts.items()},
        curves=curve_rows(recorded, shown_runs),
        differences=_of_arms(compared, kept),
        class_differences=class_differences(pairs, _recalls(results, classes), classes, class_groups(plan)),
        image_differences=images.image_rows(pairs, results),
        mcnemar=images.mcnemar_rows(pairs, results),
        calibration=images.calibration_rows({arm: results[arm] for arm in counts}),
        attribution=_each(attribution.attribution, plan, runs, metrics),
        effects=_each(attribution.effects, plan, runs, metrics),
        conditions=_of_conditions(_each(attribution.conditions, plan, runs, metrics), kept),
        unreadable=unreadable,
    )


def _of_arms(frame: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    return frame[frame["arm"].isin(arms)].reset_index(drop=True)


def _of_conditions(frame: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """The same where `arm` is the name without the condition."""
    return frame[(frame["condition"] + "/" + frame["arm"]).isin(arms)].reset_index(drop=True)


def _each(
    table: Callable[[Mapping[str, Any], pd.DataFrame, str], pd.DataFrame],
    plan: Mapping[str, Any],
    runs: pd.DataFrame,
    metrics: Sequence[str],
) -> pd.DataFrame:
    """A table of every metric, one below the other; where a metric has no rows, none of its."""
    found = [table(plan, runs, metric) for metric in metrics]
    return pd.concat([one for one in found if not one.empty] or found[:1], ignore_index=True)


def _results(recorded: Recorded, runs: pd.DataFrame, arms: Collection[str]) -> tuple[dict[str, dict[int, images.Predictions]], list[str]]:
    """arm -> seed -> what is kept of the predictions of the runs that are done, each read once; and those that could not be read, and why.

    Arms without predictions are not in the first.
    """
    done = runs[(runs["state"] == "done") & runs["arm"].isin(arms)]
    read: dict[str, images.Predictions] = {}
    problems: dict[str, str] = {}
    for run_id in dict.fromkeys(done["run_id"]):
        try:
            read[run_id] = images.read(recorded.predictions(run_id), len(recorded.plan["classes"]))
        except AblateError as error:
            problems[run_id] = str(error)
    found: dict[str, dict[int, images.Predictions]] = {}
    for arm, seed, run_id in zip(done["arm"], done["seed"], done["run_id"], strict=True):
        if run_id in read:
            found.setdefault(arm, {})[int(seed)] = read[run_id]
    named = zip(done["arm"], done["seed"], done["run_id"], strict=True)
    return found, [f"{arm} seed {seed}: {problems[run_id]}" for arm, seed, run_id in named if run_id in problems]


def _recalls(results: images.Results, classes: Sequence[str]) -> dict[str, pd.DataFrame]:
    """arm -> recalls by seed and class, NaN where a class has no test images."""
    found = {}
    for arm, by_seed in results.items():
        figures = statistics.class_figures(np.stack([one.counts_CC for one in by_seed.values()]))
        found[arm] = pd.DataFrame(figures["recall"], index=pd.Index(list(by_seed)), columns=list(classes))
    return found


def _with_verdicts(arms: pd.DataFrame, compared: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The arms with intervals and verdicts of one metric beside."""
    name = short_name(metric)
    columns = {}
    for role in ROLES:
        own = compared[(compared["role"] == role) & (compared["metric"] == name)].set_index("arm").reindex(arms["arm"])
        low, high = interval_columns(name, role)
        columns[low], columns[high] = own["low"].to_numpy(dtype=float), own["high"].to_numpy(dtype=float)
        columns[f"verdict_vs_{role}"] = np.array([_text(word) for word in own["verdict"]], dtype=object)
    return arms.assign(**columns)


def run_rows(recorded: Recorded) -> pd.DataFrame:
    """One row per arm and seed of the plan, in its order, with state, run and metrics; what has no run is missing.

    An arm that resolves like another and has no runs of its own shows the other's, since they are one training.
    """
    plan = recorded.plan
    found = {(row["arm"], int(row["seed"])): row for row in recorded.runs.to_dict("records")}
    with_runs = {arm for arm, _ in found}
    sources = {arm["name"]: arm["same_as"] for arm in plan["arms"] if arm.get("same_as") and arm["name"] not in with_runs}
    rows = [_run_row(planned, found.get((sources.get(planned["arm"], planned["arm"]), int(planned["seed"])))) for planned in plan["runs"]]
    metrics = sorted({str(column) for column in recorded.runs.columns if "/" in str(column)} | {*METRICS, *SPENDING})
    frame = pd.DataFrame(rows, columns=[*ABOUT_RUN, *metrics])
    # The metrics as one block: of thousands, three for each class, every later step would copy each by itself.
    return pd.concat([frame[ABOUT_RUN], frame[metrics].astype("float64")], axis=1)


def _run_row(planned: Mapping[str, Any], found: Mapping[Any, Any] | None) -> dict[Any, Any]:
    own = {"arm": planned["arm"], "seed": int(planned["seed"])}
    if found is not None:
        return {**found, **own, "state": STATES.get(found["status"], str(found["status"]).lower()), "reason": _text(found["reason"])}
    failed = planned["state"] == "failed"
    return {
        **own,
        "state": "failed" if failed else "missing",
        "reason": _text(planned.get("reason")) if failed else "",
        "chosen": "",
        "run_id": "",
    }


def arm_rows(plan: Mapping[str, Any], runs: pd.DataFrame, metrics: Sequence[str], references: References) -> pd.DataFrame:
    """One row per arm of the plan: what it is, what it changes, and every metric's mean, sd and differences."""
    arms = pd.DataFrame([_arm_row(arm) for arm in plan["arms"]])
    counts = runs.groupby("arm")["state"].agg(planned="size", n=lambda states: int((states == "done").sum()))
    arms = arms.join(counts, on="arm").fillna({"planned": 0, "n": 0}).astype({"planned": int, "n": int})
    arms["chosen"] = [choices(runs, name) for name in arms["arm"]]
    arms["runs"] = [" ".join(runs.loc[(runs["arm"] == name) & (runs["state"] == "done"), "run_id"]) for name in arms["arm"]]
    compared = [statistics.compare(runs, arms, metric) for metric in metrics]
    return pd.concat([arms, *compared, _published(plan, references, runs)], axis=1)


def choices(runs: pd.DataFrame, arm: str) -> str:
    """Whose run each seed's is, where the arm is chosen among others: `seed 0 tau/0.5, seed 1 tau/1.0, on 120 images`."""
    rows = runs[(runs["arm"] == arm) & (runs["chosen"] != "")]
    own = [] if rows.empty else rows.to_dict("records")  # nearly always empty, and turning no row into records takes as long as one
    words = [f"seed {row['seed']} {row['chosen']}" + _equal(row.get("choice/equal", 1.0)) for row in own]
    images = sorted({int(row["validation/images"]) for row in own if row.get("validation/images", 0) > 0})
    return ", ".join(words) + (f", on {' or '.join(map(str, images))} validation images" if images else "")


def _equal(num_equal: float) -> str:
    """Said where several were equally good, so that the choice says nothing."""
    return f" (the first of {num_equal:.0f} equal ones)" if num_equal > 1 else ""


def _arm_row(arm: Mapping[str, Any]) -> dict[str, str]:
    return {
        "arm": arm["name"],
        "label": _text(arm.get("label")),
        "kind": arm["kind"],
        "condition": arm["name"].partition("/")[0] if arm["kind"] == "condition" else "",
        "parent": _text(arm["parent"]),
        "baseline": _text(arm["baseline"]),
        "change": "; ".join(change_words(arm["change"])),
        "same_as": _text(arm.get("same_as")),
        "labels": ", ".join(arm["labels"]),
        "note": _text(arm.get("note")),
    }


def _published(plan: Mapping[str, Any], references: References, runs: pd.DataFrame) -> pd.DataFrame:
    """A column of published accuracies (fractions) per report, and one of gaps (measured minus published, points)."""
    names = [arm["name"] for arm in plan["arms"]]
    figures = published_accuracies(plan, references)
    measured = statistics.by_seed(runs, names, "test/accuracy").mean().to_numpy()
    columns = {}
    for report in sorted({report for by_report in figures.values() for report in by_report}):
        values = np.array([figures[name].get(report, np.nan) for name in names], dtype=float)
        columns[f"published/{report}"] = values
        columns[f"gap/{report}_points"] = 100 * (measured - values)
    return pd.DataFrame(columns, index=range(len(names)))


def published_accuracies(plan: Mapping[str, Any], references: References) -> dict[str, dict[str, float]]:
    """arm -> report -> published accuracy as a fraction; the study's own figures, and the reference file's over them."""
    return {
        arm["name"]: {
            **{report: percent / 100 for report, percent in (arm.get("published") or {}).items()},
            **references.accuracies.get(arm["name"], {}),
        }
        for arm in plan["arms"]
    }


def class_rows(counts: Mapping[str, npt.NDArray[np.int64]], plan: Mapping[str, Any]) -> pd.DataFrame:
    """arm, class, group, then mean and sd over seeds of precision, recall and f1, and the support."""
    classes = list(plan["classes"])
    groups = class_groups(plan)
    rows = []
    for arm, counts_RCC in counts.items():
        figures = statistics.class_figures(counts_RCC)
        for index, name in enumerate(classes):
            values = {figure: figures[figure][:, index] for figure in ("precision", "recall", "f1")}
            support = float(figures["support"][:, index].mean())
            rows.append(
                {"arm": arm, "class": name, "group": groups.get(name, ""), **_spreads(values), "support": support, "n": len(counts_RCC)}
            )
    return pd.DataFrame(rows, columns=["arm", "class", "group", *_figure_columns(), "support", "n"])


def average_rows(counts: Mapping[str, npt.NDArray[np.int64]]) -> pd.DataFrame:
    """arm, average (accuracy, macro avg, weighted avg), then mean and sd over seeds of precision, recall and f1."""
    rows = []
    for arm, counts_RCC in counts.items():
        figures = statistics.class_figures(counts_RCC)
        support = float(figures["support"].sum(axis=1).mean())
        for average, values in statistics.average_figures(figures).items():
            rows.append({"arm": arm, "average": average, **_spreads(values), "support": support, "n": len(counts_RCC)})
    return pd.DataFrame(rows, columns=["arm", "average", *_figure_columns(), "support", "n"])


def curve_rows(recorded: Recorded, runs: pd.DataFrame) -> pd.DataFrame:
    """arm, seed, metric, step and value of every training and validation curve of the runs that are done."""
    done = runs[runs["state"] == "done"]
    if done.empty:
        return pd.DataFrame(columns=CURVE_COLUMNS)
    points = recorded.curves(list(dict.fromkeys(done["run_id"])))
    points = points[points["metric"].str.startswith(("train/", "val/"))]
    return done[["arm", "seed", "run_id"]].merge(points, on="run_id")[CURVE_COLUMNS]


def class_groups(plan: Mapping[str, Any]) -> dict[str, str]:
    """class -> the group that it belongs to."""
    return {name: group for group, names in plan["groups"].items() for name in names}


def train_counts(plan: Mapping[str, Any]) -> list[int]:
    """The training images per class of the plan's first seed."""
    counts = {int(seed): list(numbers) for seed, numbers in plan["counts"].items()}
    return counts[int(plan["seeds"][0])]


def _figure_columns() -> list[str]:
    return [f"{figure}{part}" for figure in ("precision", "recall", "f1") for part in ("", "_sd")]


def _spreads(values: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    spreads = {figure: statistics.spread(numbers) for figure, numbers in values.items()}
    return {column: number for figure, (mean, sd) in spreads.items() for column, number in ((figure, mean), (f"{figure}_sd", sd))}


def _text(value: object) -> str:
    """The text, or nothing where the store has none (None, or NaN in a frame)."""
    return value if isinstance(value, str) else ""
