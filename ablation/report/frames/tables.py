"""Tidy frames of a recorded study.

Shapes: R runs of one arm, C true classes, C predicted classes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablation.errors import AblateError
from ablation.report.frames.classes import CONFUSION, CountsBySeed, average_rows, class_rows, counts_by_seed, read_confusion, recalls
from ablation.report.frames.facts import CLASSIFIED, NOTHING, Needs, class_groups, classes_of, facts_of, planned_facts, settings_schema
from ablation.report.frames.own import compared_plan
from ablation.report.frames.recorded import Recorded
from ablation.report.frames.references import References
from ablation.report.metrics import metrics_of, short_name
from ablation.report.statistics import attribution, descriptive, images, items
from ablation.report.statistics.differences import ROLES, class_differences, comparisons, differences, is_other_test, test_sets_of
from ablation.study.metrics import has_own_code, is_curve
from ablation.study.wording import change_words
from ablation.system.beside import beside

STATES = {"FINISHED": "done", "FAILED": "failed", "KILLED": "stopped", "RUNNING": "running"}
MANY_RUNS = 40
SPENDING = ("time/own", "time/shared", "epochs/own", "epochs/shared")
T = TypeVar("T")
ABOUT_RUN = ["arm", "seed", "state", "reason", "chosen", "key", "run_id", "start", "end"]
CURVE_COLUMNS = ["arm", "seed", "metric", "step", "value"]
# frame -> the facts that a study needs for it; otherwise the frame has no rows and is in no document
NEEDS: Mapping[str, Needs] = {
    "per_class": CLASSIFIED,
    "averages": CLASSIFIED,
    "confusion": CLASSIFIED,
    "class_differences": CLASSIFIED,
    "image_differences": frozenset({"predictions"}),
    "mcnemar": frozenset({"predictions"}),
    "calibration": frozenset({"predictions"}),
    "item_differences": frozenset({"items"}),
    "curves": frozenset({"curves"}),
}


@dataclass(frozen=True)
class Frames:
    """A study's results. Values are in the store's unit (such as fractions), differences in their metric's (such as points).

    `runs` has one row per planned arm and seed. `arms` has one row per arm, with the ids of its runs; columns in points have names that
    end in `_points`. If an arm's runs are chosen among those of other arms, `chosen` names the chosen arm of each seed.
    `per_class` has one row per arm and class, `averages` one per arm and average, `curves` one per point, and `calibration` one per arm
    and bin of confidence with images. `confusion` has each arm's counts, summed over its seeds (rows are true classes).

    `differences` has one row per arm, role of the partner (parent, baseline) and metric, with tests over seeds; `class_differences` has
    one per class, of recalls. `image_differences` and `mcnemar` show the uncertainty from the test images, which is another question;
    `item_differences` does so for the scores that one's own training code hands back for each item; `scored` has the runs with such.
    `attribution` has the effect of each rung of the ladder in each position, `effects` those of crossed settings, and `conditions`
    compares each arm under a condition with the plain arm.

    `recalls` has a frame per arm, with a row per seed and a column per class, for what compares arms seed by seed.
    `predictions` reads those of a run by its id; None without predictions. `unreadable` lists finished runs whose predictions, or
    confusion matrices, could not be read ("arm seed N: why"); they are missing only in frames made of these. NEEDS lists the facts that
    a study needs for a frame to have rows.
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
    predictions: Callable[[str], pd.DataFrame] | None = None
    recalls: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    item_differences: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=items.ITEM_COLUMNS))
    scored: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=items.RUN_COLUMNS))

    def facts(self, plan: Mapping[str, Any]) -> Needs:
        """What a study with these frames has."""
        facts = facts_of(plan, self.runs, self.curves, has_items=not self.scored.empty)
        is_known = not has_own_code(plan) or self.predictions is not None or not (self.runs["state"] == "done").any()
        return facts if is_known else facts - {"confusions", "predictions"}


def has_frame(facts: Needs, frame: str) -> bool:
    """Whether a study with these facts has that frame."""
    return NEEDS.get(frame, NOTHING) <= facts


def tidy_frames(
    recorded: Recorded,
    shown: Sequence[str] | None = None,
    metrics: Sequence[str] = (),
    references: References | None = None,
    metric: str = "",
    meanwhile: Callable[[], None] | None = None,
) -> Frames:
    """The frames of the arms `shown` (None: all arms). Arms that are not shown still count as partners and in corrections.

    `metrics` are the full names of the metrics to compare (none: the plan's). `arms` has the intervals and verdicts of `metric`, which
    is one of them (none: the plan's). `meanwhile` is done here while other processes compute.
    """
    plan, runs = compared_plan(recorded.plan, recorded.runs), run_rows(recorded)
    compared_metrics = metrics or metrics_of(plan).full_names
    names = [arm["name"] for arm in plan["arms"]]
    kept = names if shown is None else [name for name in names if name in set(shown)]
    begin = partial(beside, worth=has_many_runs(runs))
    of_metrics = begin(partial(_of_metrics, plan, runs, compared_metrics, references or References(), metric))
    pairs = _of_arms(comparisons(plan), kept)
    results, unreadable = _results(recorded, runs, {*kept, *pairs["against"]})
    of_images = begin(partial(images.image_rows, pairs, results))
    if meanwhile is not None:
        meanwhile()
    by_seed, unread = _confusions(recorded, runs, {*kept, *pairs["against"]}, results)
    counts = {arm: np.stack(list(by_seed[arm].values())) for arm in kept if arm in by_seed}
    shown_runs = runs[runs["arm"].isin(kept)].reset_index(drop=True)
    classes = classes_of(plan)
    recalls_by_arm = recalls(by_seed, classes)
    frames = Frames(
        runs=shown_runs,
        per_class=class_rows(counts, plan),
        averages=average_rows(counts),
        confusion={arm: counts_RCC.sum(axis=0) for arm, counts_RCC in counts.items()},
        curves=curve_rows(recorded, shown_runs),
        class_differences=class_differences(pairs, recalls_by_arm, classes, class_groups(plan)),
        mcnemar=images.mcnemar_rows(pairs, results),
        calibration=images.calibration_rows({arm: results[arm] for arm in kept if arm in results}),
        unreadable=[*unreadable, *unread],
        predictions=recorded.predictions if results else None,
        recalls=recalls_by_arm,
        image_differences=of_images(),
        **_of_kept(of_metrics(), kept),
    )
    return _with_items(frames, recorded, runs, pairs) if has_own_code(plan) else frames


def has_many_runs(runs: pd.DataFrame) -> bool:
    """Whether what is made of them is worth processes of its own."""
    return len(runs) >= MANY_RUNS


def _of_metrics(
    plan: Mapping[str, Any], runs: pd.DataFrame, metrics: Sequence[str], references: References, metric: str
) -> dict[str, pd.DataFrame]:
    """The frames of all arms that are made of the runs' final metrics alone."""
    compared = differences(plan, runs, metrics)
    return {
        "differences": compared,
        "arms": _with_verdicts(arm_rows(plan, runs, metrics, references), compared, plan, metric),
        "attribution": attribution.attribution(plan, runs, metrics),
        "effects": attribution.effects(plan, runs, metrics),
        "conditions": attribution.conditions(plan, runs, metrics),
    }


def _of_kept(frames: Mapping[str, pd.DataFrame], arms: Sequence[str]) -> dict[str, pd.DataFrame]:
    """These frames without the rows of other arms; what each rung and crossed settings do is of the study."""
    ways = {"differences": _of_arms, "arms": _of_arms, "conditions": _of_conditions}
    return {name: ways[name](frame, arms) if name in ways else frame for name, frame in frames.items()}


def _of_arms(frame: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    return frame[frame["arm"].isin(arms)].reset_index(drop=True)


def _of_conditions(frame: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """The rows of these arms of conditions; `arm` in the frame is the name without the condition."""
    return frame[(frame["condition"] + "/" + frame["arm"]).isin(arms)].reset_index(drop=True)


def _results(recorded: Recorded, runs: pd.DataFrame, arms: Collection[str]) -> tuple[dict[str, dict[int, images.Predictions]], list[str]]:
    """arm -> seed -> the predictions of each finished run; and the runs whose predictions could not be read, with the reason.

    Arms without predictions are left out. Nothing is read if the study has no predictions. One's own training code may declare classes
    and hand back none: then nothing is unreadable.
    """
    if "predictions" not in planned_facts(recorded.plan):
        return {}, []
    num_classes = len(classes_of(recorded.plan))
    results, unreadable = _of_runs(runs, arms, lambda run_id: images.read(recorded.predictions(run_id), num_classes))
    return results, unreadable if results or not has_own_code(recorded.plan) else []


def _confusions(recorded: Recorded, runs: pd.DataFrame, arms: Collection[str], results: images.Results) -> tuple[CountsBySeed, list[str]]:
    """The runs' confusion matrices, and the runs whose file could not be read.

    They are made of the predictions; where a study was packed without these, they are files of their own.
    """
    facts, classes = planned_facts(recorded.plan), classes_of(recorded.plan)
    if "predictions" in facts or "confusions" not in facts:
        return counts_by_seed(results), []
    return _of_runs(runs, arms, lambda run_id: read_confusion(recorded.artifact(run_id, CONFUSION), classes))


def _with_items(frames: Frames, recorded: Recorded, runs: pd.DataFrame, pairs: pd.DataFrame) -> Frames:
    """The frames with what the scores of the test items say, which only one's own training code hands back."""

    def scored_items(run_id: str) -> items.Items | None:
        table = recorded.items(run_id)
        return None if table is None else items.read(table)

    metrics, arms = metrics_of(recorded.plan), {*frames.arms["arm"], *pairs["against"]}
    has_none = recorded.plan["own"].get("has_items") is False
    scored, unreadable = ({}, list[str]()) if has_none else _of_runs(runs, arms, scored_items)
    return replace(
        frames,
        item_differences=items.item_rows(pairs, scored, _values(runs, metrics.full_names), metrics),
        scored=items.run_rows(scored),
        unreadable=[*frames.unreadable, *unreadable],
    )


def _of_runs(runs: pd.DataFrame, arms: Collection[str], read: Callable[[str], T | None]) -> tuple[dict[str, dict[int, T]], list[str]]:
    """arm -> seed -> what is read of each finished run, once, if there is anything; and the runs that could not be read, with reasons."""
    done = runs[(runs["state"] == "done") & runs["arm"].isin(arms)]
    by_run: dict[str, T | None] = {}
    problems: dict[str, str] = {}
    for run_id in dict.fromkeys(done["run_id"]):
        try:
            by_run[run_id] = read(run_id)
        except AblateError as error:
            problems[run_id] = str(error)
    results: dict[str, dict[int, T]] = {}
    named = list(zip(done["arm"], done["seed"], done["run_id"], strict=True))
    for arm, seed, run_id in named:
        if (result := by_run.get(run_id)) is not None:
            results.setdefault(arm, {})[int(seed)] = result
    return results, [f"{arm} seed {seed}: {problems[run_id]}" for arm, seed, run_id in named if run_id in problems]


def _values(runs: pd.DataFrame, metrics: Sequence[str]) -> dict[tuple[str, int, str], float]:
    """(arm, seed, metric) -> the number that the run came to."""
    return {(row["arm"], int(row["seed"]), name): row[name] for row in runs.to_dict("records") for name in metrics if name in runs.columns}


def _with_verdicts(arms: pd.DataFrame, compared: pd.DataFrame, plan: Mapping[str, Any], metric: str) -> pd.DataFrame:
    """The arms with additional columns: the intervals and verdicts of one metric."""
    metrics = metrics_of(plan)
    name = short_name(metric) or metrics.default
    columns = {}
    for role in ROLES:
        rows = compared[(compared["role"] == role) & (compared["metric"] == name)].set_index("arm").reindex(arms["arm"])
        low, high = metrics.interval_columns(name, role)
        columns[low], columns[high] = rows["low"].to_numpy(dtype=float), rows["high"].to_numpy(dtype=float)
        columns[f"verdict_vs_{role}"] = np.array([_text(word) for word in rows["verdict"]], dtype=object)
    return arms.assign(**columns)


# --- runs and arms -----------------------------------------------------------------------------------------------------------


def run_rows(recorded: Recorded) -> pd.DataFrame:
    """One row per arm and seed of the plan, in its order, with state, run and metrics; the state is `missing` if there is no run.

    An arm with the same settings as another gets the other's run of a seed that it has none of: they are one training.
    """
    plan = recorded.plan
    by_place = {(row["arm"], int(row["seed"])): row for row in recorded.runs.to_dict("records")}
    same_as = {arm["name"]: arm["same_as"] for arm in plan["arms"] if arm.get("same_as")}
    of_training = {(same_as.get(arm, arm), seed): row for (arm, seed), row in by_place.items() if row["status"] == "FINISHED"}
    places = [(planned["arm"], int(planned["seed"])) for planned in plan["runs"]]
    found = [by_place.get((arm, seed)) or of_training.get((same_as.get(arm, arm), seed)) for arm, seed in places]
    rows = [_run_row(planned, run) for planned, run in zip(plan["runs"], found, strict=True)]
    recorded_metrics = {str(column) for column in recorded.runs.columns if "/" in str(column)}
    metrics = sorted(recorded_metrics | {*metrics_of(plan).full_names, *(SPENDING[:1] if has_own_code(plan) else SPENDING)})
    frame = pd.DataFrame(rows, columns=[*ABOUT_RUN, *metrics])
    # One block of metrics: with thousands of them, every later step would copy each column separately.
    return pd.concat([frame[ABOUT_RUN], frame[metrics].astype("float64")], axis=1)


def _run_row(planned: Mapping[str, Any], run: Mapping[Any, Any] | None) -> dict[Any, Any]:
    place = {"arm": planned["arm"], "seed": int(planned["seed"])}
    if run is not None:
        return {**run, **place, "state": STATES.get(run["status"], str(run["status"]).lower()), "reason": _text(run["reason"])}
    failed = planned["state"] == "failed"
    return {
        **place,
        "state": "failed" if failed else "missing",
        "reason": _text(planned.get("reason")) if failed else "",
        "chosen": "",
        "run_id": "",
    }


def arm_rows(plan: Mapping[str, Any], runs: pd.DataFrame, metrics: Sequence[str], references: References) -> pd.DataFrame:
    """One row per arm of the plan: its description, its changes, and every metric's mean, sd and differences."""
    known_metrics = metrics_of(plan)
    arms = pd.DataFrame([_arm_row(plan, arm) for arm in plan["arms"]])
    counts = runs.groupby("arm")["state"].agg(planned="size", n=lambda states: int((states == "done").sum()))
    arms = arms.join(counts, on="arm").fillna({"planned": 0, "n": 0}).astype({"planned": int, "n": int})
    arms["chosen"] = [choices(runs, name) for name in arms["arm"]]
    arms["runs"] = [" ".join(runs.loc[(runs["arm"] == name) & (runs["state"] == "done"), "run_id"]) for name in arms["arm"]]
    paired = arms.assign(**{role: _partners(plan, role) for role in ROLES})
    compared = [descriptive.compare(runs, paired, metric, known_metrics) for metric in metrics]
    return pd.concat([arms, *compared, _published(plan, references, runs)], axis=1)


def _partners(plan: Mapping[str, Any], role: str) -> list[str]:
    """Whom each arm of the plan is paired with; nobody where there is no partner, or one that was tested on other items."""
    test_sets, partners = test_sets_of(plan), [_text(arm[role]) for arm in plan["arms"]]
    both = zip(plan["arms"], partners, strict=True)
    return ["" if is_other_test(arm.get("test_set"), test_sets.get(partner)) else partner for arm, partner in both]


def choices(runs: pd.DataFrame, arm: str) -> str:
    """The chosen arm of each seed, if the arm's runs are chosen: `seed 0 tau/0.5, seed 1 tau/1.0, on 120 images`."""
    chosen = runs[(runs["arm"] == arm) & (runs["chosen"] != "")]
    rows = [] if chosen.empty else chosen.to_dict("records")  # nearly always empty, and `to_dict` takes long even then
    words = [f"seed {row['seed']} {row['chosen']}" + _equal(row.get("choice/equal", 1.0)) for row in rows]
    num_images = sorted({int(row["validation/images"]) for row in rows if row.get("validation/images", 0) > 0})
    return ", ".join(words) + (f", on {' or '.join(map(str, num_images))} validation images" if num_images else "")


def _equal(num_equal: float) -> str:
    """A remark if several arms were equally good, so that the choice means nothing."""
    return f" (the first of {num_equal:.0f} equal ones)" if num_equal > 1 else ""


def _arm_row(plan: Mapping[str, Any], arm: Mapping[str, Any]) -> dict[str, str]:
    parent, change = _text(arm["parent"]), "; ".join(change_words(arm["change"], settings_schema(plan)))
    is_known = not parent or any(parent == other["name"] for other in plan["arms"])
    return {
        "arm": arm["name"],
        "label": _text(arm.get("label")),
        "kind": arm["kind"],
        "condition": arm["name"].partition("/")[0] if arm["kind"] == "condition" else "",
        "parent": parent,
        "baseline": _text(arm["baseline"]),
        "change": change if is_known or not change else f"of {parent} (not run): {change}",
        "same_as": _text(arm.get("same_as")),
        "labels": ", ".join(arm["labels"]),
        "note": _text(arm.get("note")),
    }


def _published(plan: Mapping[str, Any], references: References, runs: pd.DataFrame) -> pd.DataFrame:
    """Per report, a column with its published figures and one with gaps (measured minus published)."""
    metrics = metrics_of(plan)
    unit, names = metrics.unit(metrics.published), [arm["name"] for arm in plan["arms"]]
    figures = published_figures(plan, references)
    measured = descriptive.by_seed(runs, names, metrics.full_name(metrics.published)).mean().to_numpy()
    columns = {}
    for report in sorted({report for by_report in figures.values() for report in by_report}):
        values = np.array([figures[name].get(report, np.nan) for name in names], dtype=float)
        columns[f"published/{report}"] = values
        columns[metrics.gap_column(report)] = unit.scale * (measured - values)
    return pd.DataFrame(columns, index=range(len(names)))


def published_figures(plan: Mapping[str, Any], references: References) -> dict[str, dict[str, float]]:
    """arm -> report -> published figure in the store's unit. Figures from the reference file replace those from the study's file."""
    metrics = metrics_of(plan)
    scale = metrics.unit(metrics.published).scale
    return {
        arm["name"]: {
            **{report: value / scale for report, value in (arm.get("published") or {}).items()},
            **references.headlines.get(arm["name"], {}),
        }
        for arm in plan["arms"]
    }


def curve_rows(recorded: Recorded, runs: pd.DataFrame) -> pd.DataFrame:
    """arm, seed, metric, step and value of every training and validation curve of the finished runs."""
    done = runs[runs["state"] == "done"]
    if done.empty:
        return pd.DataFrame(columns=CURVE_COLUMNS)
    points = recorded.curves(list(dict.fromkeys(done["run_id"])))
    points = points[points["metric"].map(lambda name: is_curve(recorded.plan, str(name))).astype(bool)]
    return done[["arm", "seed", "run_id"]].merge(points, on="run_id")[CURVE_COLUMNS]


def _text(value: object) -> str:
    """The text; empty if the store has none (None, or NaN in a frame)."""
    return value if isinstance(value, str) else ""
