"""Two arms of a study side by side: their settings, their results, paired by seed, and the uncertainty from the test images.

Shapes: S seeds, C classes.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from ablation.errors import AblateError, unknown_name
from ablation.formatting import DASH, capitalised, counted_groups, interval, p_value, setting
from ablation.report.frames.asked import known_metric
from ablation.report.frames.classes import CONFUSION, CountsBySeed, counts_by_seed, read_confusion, recalls
from ablation.report.frames.facts import CLASSIFIED, class_groups, classes_of, planned_facts
from ablation.report.frames.own import compared_plan, pair_warnings
from ablation.report.frames.posthoc import DISTANCES
from ablation.report.frames.recorded import Recorded
from ablation.report.frames.tables import run_rows
from ablation.report.metrics import PERCENT, MetricTable, metrics_of, with_unit
from ablation.report.sections.differences import ALIKE, without_interval
from ablation.report.statistics import descriptive, images, items
from ablation.report.statistics.differences import (
    NO_EFFECT,
    NOT_COMPARABLE,
    SAME,
    class_differences,
    is_other_test,
    paired_summary,
    verdicts,
)
from ablation.report.statistics.inference import LEVEL, MOST_SEEDS, equivalence_p, seeds_needed, seeds_needed_to_flip, smallest_p
from ablation.study.changes import flatten
from ablation.study.metrics import has_own_code
from ablation.study.task import DEFAULT, TASKS, load_task
from ablation.study.yamlfile import read

MOST_CLASSES = 10
CONFIG = "config.yaml"
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One table of the comparison, and the sentences below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Two:
    """Two arms with their finished runs: `ours` and `theirs` by seed."""

    recorded: Recorded
    arm: str
    other: str
    ours: Mapping[int, Mapping[Any, Any]]
    theirs: Mapping[int, Mapping[Any, Any]]

    @property
    def common(self) -> list[int]:
        """The seeds that both finished."""
        return [seed for seed in self.ours if seed in self.theirs]

    @property
    def is_same(self) -> bool:
        """Whether both are one training under two names."""
        origins = {arm["name"]: arm.get("same_as") or arm["name"] for arm in self.recorded.plan["arms"]}
        return bool(origins[self.arm] == origins[self.other])

    @cached_property
    def planned(self) -> dict[str, Mapping[str, Any]]:
        """Both arms in the plan, with what only runs tell."""
        arms = compared_plan(self.recorded.plan, self.recorded.runs)["arms"]
        return {arm["name"]: arm for arm in arms if arm["name"] in (self.arm, self.other)}

    @property
    def has_other_test(self) -> bool:
        """Whether both are known to have been tested on other images."""
        return is_other_test(*(arm.get("test_set") for arm in self.planned.values()))

    @property
    def no_effect(self) -> dict[str, str]:
        """Those of both whose seeds have no effect, and how that shows."""
        return {name: arm["no_effect"] for name, arm in self.planned.items() if arm.get("no_effect")}

    @property
    def is_tested(self) -> bool:
        """Whether a difference of the two means something."""
        return not self.is_same and not self.has_other_test

    @property
    def sides(self) -> tuple[tuple[str, Mapping[int, Mapping[Any, Any]]], ...]:
        """Both arms with their runs."""
        return (self.arm, self.ours), (self.other, self.theirs)

    @property
    def items(self) -> str:
        """The word for what the data consist of."""
        return "images" if classes_of(self.recorded.plan) and not has_own_code(self.recorded.plan) else "items"

    @cached_property
    def metrics(self) -> MetricTable:
        """The study's metrics."""
        return metrics_of(self.recorded.plan)


def compare(recorded: Recorded, first: str, second: str, metric: str = "") -> list[Part]:
    """The comparison's tables, the first arm before the second and differences second minus first, with a verdict on the metric.

    Without a metric it is the study's.

    Raises ConfigError for an unknown arm or metric, and AblateError if there is nothing to compare.
    """
    two = _two(recorded, second, first)
    chosen = known_metric("--metric", metric, recorded.plan, recorded.runs)
    if not any(math.isfinite(float(row.get(chosen, math.nan))) for row in (*two.ours.values(), *two.theirs.values())):
        raise AblateError(f"neither {first} nor {second} has recorded {chosen}; expected another --metric")
    parts = [_settings(two), _values(two, chosen)]
    if two.common and planned_facts(recorded.plan) >= CLASSIFIED:
        parts += _by_class(two)
    return [*parts, *(_items(two) if has_own_code(recorded.plan) else ()), _runs(two)]


def _two(recorded: Recorded, arm: str, other: str) -> Two:
    names = [planned["name"] for planned in recorded.plan["arms"]]
    for name in (other, arm):
        if name not in names:
            raise unknown_name("ARM", "arm", name, names)
    if arm == other:
        raise AblateError(f"found {arm} twice; expected two different arms")
    rows = run_rows(recorded)
    done = rows[rows["state"] == "done"]
    ours, theirs = ({int(row["seed"]): row for row in done[done["arm"] == name].to_dict("records")} for name in (arm, other))
    for name, runs in ((arm, ours), (other, theirs)):
        if not runs:
            raise AblateError(f"{name} has no finished run yet; ablate log {name} SEED tells how one stands")
    return Two(recorded, arm, other, ours, theirs)


# --- settings ----------------------------------------------------------------------------------------------------------------


def _settings(two: Two) -> Part:
    """The settings that differ, from the runs' own records."""
    ours, theirs = _flat(two, two.ours), _flat(two, two.theirs)
    differing = [name for name in {**theirs, **ours} if ours.get(name, "") != theirs.get(name, "")]
    rows = tuple((name, _setting(theirs, name), _setting(ours, name)) for name in differing)
    same = ("both resolve to the same settings: one training under two names",) if two.is_same else ()
    notes = (*same, *_choice_notes(two))
    nothing = () if rows or notes else ("no setting differs",)
    return Part("Settings that differ", ("setting", two.other, two.arm), rows, (*notes, *nothing, *_label_notes(two), *_unlike_notes(two)))


def _flat(two: Two, runs: Mapping[int, Mapping[Any, Any]]) -> dict[str, Any]:
    """The settings of one of an arm's runs, if possible of a seed that both arms finished."""
    row = runs[(two.common or list(runs))[0]]
    return flat_settings(read(two.recorded.artifact(row["run_id"], CONFIG)), two.recorded.plan.get("task", DEFAULT))


def _choice_notes(two: Two) -> tuple[str, ...]:
    """A remark if an arm's runs are those of other arms, which may differ from seed to seed."""
    chosen = {name: ", ".join(f"seed {seed} {row['chosen']}" for seed, row in runs.items() if row["chosen"]) for name, runs in two.sides}
    by = "by a validation metric" if has_own_code(two.recorded.plan) else f"on validation {two.items}"
    return tuple(f"{name} was chosen {by}: {words}" for name, words in chosen.items() if words)


def _label_notes(two: Two) -> tuple[str, ...]:
    """The labels of both arms, with their reasons."""
    labels = {arm["name"]: arm["labels"] for arm in two.recorded.plan["arms"]}
    return tuple(f"{name}: {label} ({why})" for name in (two.arm, two.other) for label, why in labels[name].items())


def _unlike_notes(two: Two) -> tuple[str, ...]:
    """What one's own training code says is not the same across both arms, such as the test items."""
    if not has_own_code(two.recorded.plan):
        return ()
    done = pd.DataFrame([*two.theirs.values(), *two.ours.values()])
    return tuple(f"{capitalised(words)}." for words in pair_warnings(two.recorded.runs, done))


def flat_settings(config: Mapping[str, Any], task: str = DEFAULT) -> dict[str, Any]:
    """An arm's settings by dotted names, and those of each stage that differ from them or from what is implied."""
    flat = flatten(config["settings"])
    by_stage: dict[str, Any] = {}
    before = None
    for number, stage in enumerate(config["stages"]):
        usual = flat | (load_task(task).usual_options(stage, before) if task in TASKS else {})
        by_stage |= {f"stages.{number}.{name}": value for name, value in flatten(stage).items() if usual.get(name) != value}
        before = stage
    return flat | by_stage


def _setting(settings: Mapping[str, Any], name: str) -> str:
    return setting(settings[name]) if name in settings else DASH


# --- numbers -----------------------------------------------------------------------------------------------------------------


def _pair(two: Two) -> pd.DataFrame:
    """The comparison as a frame of pairs, as the statistics take it."""
    comparison = {"arm": two.arm, "role": "", "against": two.other, "family": "", "hypothesis": 0}
    kinds = {"is_same": two.is_same, "has_other_test": two.has_other_test, "is_void": bool(two.no_effect)}
    return pd.DataFrame([comparison | kinds | {"is_planned": True, "is_tested": two.is_tested}])


def _values(two: Two, chosen: str) -> Part:
    """Every metric of both arms over all their seeds, and the differences over the seeds that both finished."""
    metrics, runs = two.metrics, pd.DataFrame([*two.ours.values(), *two.theirs.values()])
    names = [metric for metric in dict.fromkeys([chosen, *metrics.full_names]) if metric in runs and runs[metric].notna().any()]
    differences = {metric: paired_summary(runs, _pair(two), metric, metrics.unit(metric).scale).to_dict("records")[0] for metric in names}
    rows = tuple(_value_row(two, metric, differences[metric]) for metric in names)
    columns = ("metric", two.other, two.arm, "difference [95 % interval]", "p (t)", "p (sign flips)")
    return Part(
        "Results, paired by seed", columns, rows, (_units(two, names), *_uncalibrated(two), *_verdict(two, chosen, differences[chosen]))
    )


def _units(two: Two, names: Sequence[str]) -> str:
    """What the numbers of a table of these metrics are."""
    values = two.metrics.value_units(names)
    differences = two.metrics.difference_units(names)
    mean = capitalised(f"{values}, mean ± sd over seeds" if values else "mean ± sd over seeds")
    pattern = "{} in {}" if differences.startswith(PERCENT.differences) else "{} ({})"
    return f"{mean}; {with_unit(f'{two.arm} minus {two.other}', differences, pattern)}, over the seeds that both have."


def _uncalibrated(two: Two) -> Iterator[str]:
    """A remark if an arm's scores are distances, whose softmax is not meant as a probability."""
    for name, runs in two.sides:
        if _flat(two, runs).get("posthoc.name") == DISTANCES:
            yield f"The scores of {name} are distances ({DISTANCES}): its NLL and ECE are those of uncalibrated numbers."


def _value_row(two: Two, metric: str, difference: Mapping[Any, Any]) -> tuple[str, ...]:
    sides = [pd.DataFrame({metric: [float(row[metric]) for row in runs.values()]}) for runs in (two.theirs, two.ours)]
    spreads = [[float(number[metric]) for number in descriptive.mean_and_sd(side)] for side in sides]
    values = [two.metrics.value(metric, mean, sd) for mean, sd in spreads]
    flips = p_value(difference["p_flip"]) if two.is_tested else DASH
    return (two.metrics.title(metric), *values, *_difference_cells(two, metric, difference), flips)


def _difference_cells(two: Two, metric: str, difference: Mapping[Any, Any]) -> tuple[str, str]:
    """The difference with its interval, and the p of the t test; no p if both arms are one training, or tested on other items."""
    words = interval(difference["mean"], difference["low"], difference["high"], two.metrics.unit(metric).decimals)
    return words, p_value(difference["p_t"]) if two.is_tested else DASH


def _verdict(two: Two, chosen: str, difference: Mapping[Any, Any]) -> Iterator[str]:
    """The verdict on the chosen metric, and whether more seeds are needed."""
    title, margin, pairs = two.metrics.words(chosen), two.metrics.margin(chosen), int(difference["pairs"])
    if not two.is_tested:
        yield f"Verdict on {title}: {SAME if two.is_same else NOT_COMPARABLE}."
        return
    if not pairs:
        yield "No seed is finished in both arms, so that nothing is paired and nothing can be said of the difference."
        return
    if two.no_effect:
        yield f"Verdict on {title}: {NO_EFFECT} ({'; '.join(f'{name}: {why}' for name, why in two.no_effect.items())})."
        return
    row = pd.DataFrame([difference]).assign(is_same=False, has_other_test=False, is_void=False)
    equal = np.array([math.nan]) if margin is None else equivalence_p(row, margin)
    row = row.assign(p_t_holm=row["p_t"], p_flip_holm=row["p_flip"], p_equal_holm=equal)
    (verdict,) = verdicts(row, margin, is_lower_better=two.metrics.is_lower_better(chosen))
    yield f"Verdict on {title}, {two.arm} against {two.other}: {verdict}. It is one test, not corrected for others that are made."
    yield from _too_few(two, chosen, difference, pairs)


def _too_few(two: Two, chosen: str, difference: Mapping[Any, Any], pairs: int) -> Iterator[str]:
    """Remarks if there are too few pairs."""
    if pairs == 1:
        yield "One pair of runs shows no spread: nothing can be claimed from it."
        return
    if smallest_p(pairs) > LEVEL:
        least = f"with {pairs} pairs the sign-flip test cannot go below p = {smallest_p(pairs):.3g}"
        yield f"Too few seeds: {least}; from {seeds_needed_to_flip()} pairs on it can reach {LEVEL:g}."
    margin = two.metrics.margin(chosen)
    if margin is not None and difference["sd"] > 0:
        needed = float(seeds_needed(difference["sd"], margin))
        seeds = f"more than {MOST_SEEDS:,}" if math.isinf(needed) else f"about {needed:.0f}" if needed > pairs else ""
        if seeds:
            words = two.metrics.margin_words(chosen)
            yield f"To find a true difference of {words} with 80 % power takes {seeds} seeds, by this spread."


# --- classes and images ------------------------------------------------------------------------------------------------------


def _by_class(two: Two) -> list[Part]:
    """What the recalls differ by and, unless the study was packed without its predictions, what the test images say."""
    recorded, classes = two.recorded, classes_of(two.recorded.plan)
    if "predictions" not in planned_facts(recorded.plan):
        return list(_classes(two, _of_both(two, lambda run_id: read_confusion(recorded.artifact(run_id, CONFUSION), classes))))
    results = _of_both(two, lambda run_id: images.read(recorded.predictions(run_id), len(classes)))
    return [*_classes(two, counts_by_seed(results)), *_images(two, results)]


def _of_both(two: Two, read: Callable[[str], T]) -> dict[str, dict[int, T]]:
    """What is read of both arms' runs, each once, for the seeds that both finished."""
    by_run = {run_id: read(run_id) for run_id in {runs[seed]["run_id"] for runs in (two.ours, two.theirs) for seed in two.common}}
    return {name: {seed: by_run[runs[seed]["run_id"]] for seed in two.common} for name, runs in two.sides}


def _classes(two: Two, counts: CountsBySeed) -> Iterator[Part]:
    """The classes whose recall differs most; nothing if the arms were tested on other images, which make no pair."""
    if two.has_other_test:
        return
    plan = two.recorded.plan
    classes, groups = classes_of(plan), class_groups(plan)
    differences = class_differences(_pair(two), recalls(counts, classes), classes, groups).dropna(subset="mean")
    order = differences["mean"].abs().sort_values(ascending=False, kind="stable").index
    rows = tuple(
        (str(row["class"]), row["group"], *_difference_cells(two, "recall", row), p_value(row["p_t_holm"]))
        for row in differences.loc[order].head(MOST_CLASSES).to_dict("records")
    )
    tested = f"all {len(classes)} classes" if len(differences) == len(classes) else f"the {len(differences)} with test {two.items}"
    shown = f"the {MOST_CLASSES} of {len(classes)} classes that differ most" if len(classes) > MOST_CLASSES else "largest first"
    columns = ("class", "group", "difference [95 % interval]", "p (t)", "p (t, Holm)")
    note = f"Points, {shown}; Holm's correction is over {tested}."
    yield Part("Recall by class, paired by seed", columns, rows, (note,))


def _images(two: Two, results: images.Results) -> Iterator[Part]:
    """The uncertainty from the test images: another question than the seeds', so under its own title."""
    title = f"Test {two.items}: the other source of doubt"
    if two.is_same:
        return
    boot, exact = images.image_rows(_pair(two), results), images.mcnemar_rows(_pair(two), results)
    if exact.empty:
        yield Part(title, (), (), (f"The two arms were not tested on the same {two.items}, so that none can be paired.",))
        return
    if boot["mean"].isna().any():
        yield Part(title, (), (), (f"The seeds were not all tested on the same {two.items}, so that these cannot be drawn again.",))
    else:
        resampled = tuple(
            (two.metrics.title(row["metric"]), interval(row["mean"], row["low"], row["high"])) for row in boot.to_dict("records")
        )
        clusters = two.recorded.plan.get("clusters")
        whole = f", whole {counted_groups(clusters['test'], clusters['name']).partition(' ')[2]} at a time" if clusters else ""
        drawn = f"the {boot['images'].iloc[0]} test {two.items} drawn again {images.RESAMPLES:,} times{whole}"
        alone = f" {without_interval(two.items.removesuffix('s'))}" if boot["low"].isna().any() else ""
        note = f"Points; {drawn}, these trained models as they are.{alone}"
        yield Part(title, ("metric", f"difference [95 % interval, bootstrap over {two.items}]"), resampled, (note,))
    rows = tuple((str(row["seed"]), str(row["gained"]), str(row["lost"]), p_value(row["p"])) for row in exact.to_dict("records"))
    note = f"Gained: right in {two.arm} only; lost: right in {two.other} only. The test compares two trained models, not two settings."
    test = "p (signs of groups)" if two.recorded.plan.get("clusters") else "p (McNemar, exact)"
    yield Part(f"Test {two.items} gained and lost", ("seed", "gained", "lost", test), rows, (note,))


def _items(two: Two) -> Iterator[Part]:
    """The uncertainty from the items whose scores one's own training code handed back."""
    tables = {name: {seed: two.recorded.items(runs[seed]["run_id"]) for seed in two.common} for name, runs in two.sides}
    read = {name: {seed: items.read(table) for seed, table in by_seed.items() if table is not None} for name, by_seed in tables.items()}
    if two.is_same or not any(read.values()):
        return
    values = {
        (name, seed, metric): float(runs[seed].get(metric, math.nan))
        for name, runs in two.sides
        for seed in two.common
        for metric in two.metrics.full_names
    }
    frame = items.item_rows(_pair(two), read, values, two.metrics)
    rows = tuple(_item_row(two, row) for row in frame[frame["why_not"] == ""].to_dict("records"))
    missing = (
        f"{two.metrics.title(row['metric'])}: no interval, since {row['why_not']}." for row in frame.to_dict("records") if row["why_not"]
    )
    drawn = f"These trained models as they are; items, or whole clusters of them, drawn again {items.RESAMPLES:,} times."
    drawn += f" {ALIKE}" if (frame["low"].isna() & (frame["why_not"] == "")).any() else ""
    columns = ("metric", "difference [95 % interval, bootstrap over items]", "items", "clusters", "seeds")
    yield Part("Test items: the other source of doubt", columns if rows else (), rows, (*((drawn,) if rows else ()), *missing))


def _item_row(two: Two, row: Mapping[Any, Any]) -> tuple[str, ...]:
    words = interval(row["mean"], row["low"], row["high"], two.metrics.unit(row["metric"]).decimals)
    return two.metrics.title(row["metric"]), words, str(row["items"]), str(row["clusters"] or DASH), str(row["seeds"])


def _runs(two: Two) -> Part:
    """The runs that everything above is based on."""
    seeds = sorted({*two.theirs, *two.ours})
    rows = tuple((str(seed), *(runs[seed]["run_id"] if seed in runs else DASH for runs in (two.theirs, two.ours))) for seed in seeds)
    unpaired = [str(seed) for seed in seeds if seed not in two.common]
    notes = (f"Not paired, since only one of both finished them: seeds {', '.join(unpaired)}.",) if unpaired else ()
    return Part("Runs", ("seed", two.other, two.arm), rows, notes)
