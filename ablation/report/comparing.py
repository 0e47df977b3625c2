"""Two arms of a study beside one another: what they set, what came out, paired by seed, and what the test images leave in doubt.

Shapes: S seeds, C classes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ablation.config import RESTARTS
from ablation.errors import AblateError, unknown_name
from ablation.matrix import flatten
from ablation.report import images, statistics
from ablation.report.differences import MARGIN, SAME, class_differences, paired, verdicts
from ablation.report.inference import LEVEL, MOST_SEEDS, equivalence_p, seeds_needed, seeds_needed_to_flip, smallest_p, summary
from ablation.report.metrics import HEADLINE, RELIABILITY, is_lower_better, short_name, title, unit, value
from ablation.report.tables import Recorded, class_groups, run_rows
from ablation.report.words import DASH, interval, p_value, setting
from ablation.yamlfile import read

MOST_CLASSES = 10
CONFIG = "config.yaml"


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


def compare(recorded: Recorded, arm: str, other: str, metric: str) -> list[Part]:
    """The comparison's tables; raises ConfigError for an unknown arm or metric, AblateError where nothing is there to compare."""
    two, known = _two(recorded, arm, other), _metrics(recorded.runs)
    chosen = f"test/{short_name(metric)}"
    if chosen not in known:
        raise unknown_name("--metric", "metric", metric, known)
    parts = [_settings(two), _values(two, chosen)]
    if two.common:
        results = _results(two)
        parts += [_classes(two, results), *_images(two, results)]
    return [*parts, _runs(two)]


def _metrics(runs: pd.DataFrame) -> list[str]:
    """Every metric of the test images that the runs have, and those of every report."""
    return list(dict.fromkeys([*HEADLINE, *RELIABILITY, *(str(name) for name in runs.columns if str(name).startswith("test/"))]))


def _two(recorded: Recorded, arm: str, other: str) -> Two:
    names = [one["name"] for one in recorded.plan["arms"]]
    for given in (arm, other):
        if given not in names:
            raise unknown_name("ARM", "arm", given, names)
    if arm == other:
        raise AblateError(f"found {arm} twice; expected two different arms")
    rows = run_rows(recorded)
    done = rows[rows["state"] == "done"]
    found = [{int(row["seed"]): row for row in done[done["arm"] == name].to_dict("records")} for name in (arm, other)]
    for name, runs in zip((arm, other), found, strict=True):
        if not runs:
            raise AblateError(f"{name} has no finished run yet; ablate log {name} SEED tells how one stands")
    return Two(recorded, arm, other, *found)


# --- settings ----------------------------------------------------------------------------------------------------------------


def _settings(two: Two) -> Part:
    """The settings that differ, as the runs' own records have them."""
    ours, others = _flat(two, two.ours), _flat(two, two.theirs)
    differing = [name for name in {**others, **ours} if ours.get(name, "") != others.get(name, "")]
    rows = tuple((name, _setting(others, name), _setting(ours, name)) for name in differing)
    same = ("both resolve to the same settings: one training under two names",) if two.is_same else ()
    notes = (*same, *_choice_notes(two))
    nothing = () if rows or notes else ("no setting differs",)
    return Part("Settings that differ", ("setting", two.other, two.arm), rows, (*notes, *nothing, *_label_notes(two)))


def _flat(two: Two, runs: Mapping[int, Mapping[Any, Any]]) -> dict[str, Any]:
    """The settings of an arm's run, if possible of one whose seed both finished."""
    row = runs[(two.common or list(runs))[0]]
    return flat_settings(read(two.recorded.artifact(row["run_id"], CONFIG)))


def _choice_notes(two: Two) -> tuple[str, ...]:
    """Said where an arm's runs are those of other arms, which may differ from seed to seed."""
    sides = ((two.arm, two.ours), (two.other, two.theirs))
    chosen = {name: ", ".join(f"seed {seed} {row['chosen']}" for seed, row in runs.items() if row["chosen"]) for name, runs in sides}
    return tuple(f"{name} was chosen on validation images: {words}" for name, words in chosen.items() if words)


def _label_notes(two: Two) -> tuple[str, ...]:
    """The honest labels of both arms, in words."""
    labels = {arm["name"]: arm["labels"] for arm in two.recorded.plan["arms"]}
    return tuple(f"{name}: {label} ({why})" for name in (two.arm, two.other) for label, why in labels[name].items())


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """An arm's settings as dotted names, and of each stage those that differ from them or do not go without saying."""
    plain, before = flatten(config["settings"]), ""
    found: dict[str, Any] = {}
    for i, stage in enumerate(config["stages"]):
        usual = plain | _usual(stage, before)
        found |= {f"stages.{i}.{name}": own for name, own in flatten(stage).items() if usual.get(name) != own}
        before = stage["train"]
    return plain | found


def _usual(stage: Mapping[str, Any], before: str) -> dict[str, Any]:
    """A stage's options where the file says nothing of them: all begins anew where `train` changes, a frozen backbone is in eval mode."""
    restart = list(RESTARTS) if stage["train"] != before else []
    return {
        "train": "all",
        "head": "keep",
        "start": "weights",
        "restart": restart,
        "backbone": "eval" if stage["train"] == "head" else "train",
    }


def _setting(settings: Mapping[str, Any], name: str) -> str:
    return setting(settings[name]) if name in settings else DASH


# --- numbers -----------------------------------------------------------------------------------------------------------------


def _pair(two: Two) -> pd.DataFrame:
    """The one comparison, in the form that the report's statistics take."""
    about = {"arm": two.arm, "role": "", "against": two.other, "family": "", "is_same": two.is_same, "hypothesis": 0}
    return pd.DataFrame([about])


def _values(two: Two, chosen: str) -> Part:
    """Every metric of both arms, over all their seeds, and the differences over the seeds that both finished."""
    runs = pd.DataFrame([*two.ours.values(), *two.theirs.values()])
    names = [metric for metric in dict.fromkeys([chosen, *HEADLINE, *RELIABILITY]) if metric in runs and runs[metric].notna().any()]
    found = {metric: summary(paired(runs, _pair(two), metric)).to_dict("records")[0] for metric in names}
    rows = tuple(_value_row(two, metric, found[metric]) for metric in names)
    columns = ("metric", two.other, two.arm, "difference [95 % interval]", "p (t)", "p (sign flips)")
    how = f"Percent (NLL: nats), mean ± sd over seeds; {two.arm} minus {two.other} in points (NLL: nats), over the seeds that both have."
    return Part("Results, paired by seed", columns, rows, (how, *_uncalibrated(two), *_verdict(two, chosen, found[chosen])))


def _uncalibrated(two: Two) -> Iterator[str]:
    """Said where an arm's scores are distances, whose softmax was never meant as a probability."""
    for name, runs in ((two.arm, two.ours), (two.other, two.theirs)):
        if _flat(two, runs).get("posthoc.name") == "ncm":
            yield f"The scores of {name} are distances (ncm): its NLL and ECE are those of uncalibrated numbers."


def _value_row(two: Two, metric: str, found: Mapping[Any, Any]) -> tuple[str, ...]:
    name = short_name(metric)
    sides = [pd.DataFrame({name: [float(row[metric]) for row in runs.values()]}) for runs in (two.theirs, two.ours)]
    told = [value(name, *(float(one[name]) for one in statistics.mean_and_sd(side))) for side in sides]
    return (title(name), *told, *_difference(name, found, is_same=two.is_same), DASH if two.is_same else p_value(found["p_flip"]))


def _difference(name: str, found: Mapping[Any, Any], *, is_same: bool) -> tuple[str, str]:
    """The difference within its interval, and the t test's p; of one training under two names there is no test."""
    told = interval(found["mean"], found["low"], found["high"], unit(name).decimals)
    return told, DASH if is_same else p_value(found["p_t"])


def _verdict(two: Two, chosen: str, found: Mapping[Any, Any]) -> Iterator[str]:
    """What the chosen metric allows to say, and whether more seeds are needed for more."""
    name, margin, pairs = short_name(chosen), float(two.recorded.plan.get("margin", MARGIN)), int(found["pairs"])
    if two.is_same:
        yield f"Verdict on {title(name)}: {SAME}."
        return
    if not pairs:
        yield "No seed is finished in both arms, so that nothing is paired and nothing can be said of the difference."
        return
    row = pd.DataFrame([found]).assign(is_same=False)
    equal = equivalence_p(row, margin) if unit(name).suffix == "_points" else np.array([math.nan])
    row = row.assign(p_t_holm=row["p_t"], p_flip_holm=row["p_flip"], p_equal_holm=equal)
    (verdict,) = verdicts(row, margin, is_lower_better=is_lower_better(name))
    yield f"Verdict on {title(name)}, {two.arm} against {two.other}: {verdict}. It is one test, not corrected for others that are made."
    yield from _too_few(name, found, margin, pairs)


def _too_few(name: str, found: Mapping[Any, Any], margin: float, pairs: int) -> Iterator[str]:
    """Said where so many pairs cannot show what one would like to know."""
    if pairs == 1:
        yield "One pair of runs shows no spread: nothing can be claimed from it."
        return
    if smallest_p(pairs) > LEVEL:
        least = f"with {pairs} pairs the sign-flip test cannot go below p = {smallest_p(pairs):.3g}"
        yield f"Too few seeds: {least}; from {seeds_needed_to_flip()} pairs on it can reach {LEVEL:g}."
    if unit(name).suffix == "_points" and found["sd"] > 0:
        needed = float(seeds_needed(found["sd"], margin))
        told = f"more than {MOST_SEEDS:,}" if math.isinf(needed) else f"about {needed:.0f}" if needed > pairs else ""
        if told:
            yield f"To find a true difference of {margin:g} points with 80 % power takes {told} seeds, by this spread."


# --- classes and images ------------------------------------------------------------------------------------------------------


def _results(two: Two) -> dict[str, dict[int, images.Predictions]]:
    """Of both arms what is kept of the predictions of the seeds that both finished."""
    num_classes = len(two.recorded.plan["classes"])
    read_ones: dict[str, images.Predictions] = {}
    for runs in (two.ours, two.theirs):
        for run_id in (runs[seed]["run_id"] for seed in two.common):
            read_ones[run_id] = read_ones.get(run_id) or images.read(two.recorded.predictions(run_id), num_classes)
    sides = ((two.arm, two.ours), (two.other, two.theirs))
    return {name: {seed: read_ones[runs[seed]["run_id"]] for seed in two.common} for name, runs in sides}


def _classes(two: Two, results: images.Results) -> Part:
    """The classes whose recall differs most."""
    plan = two.recorded.plan
    classes, groups = list(plan["classes"]), class_groups(plan)
    recalls = {name: _recalls(list(by_seed.values()), two.common, classes) for name, by_seed in results.items()}
    found = class_differences(_pair(two), recalls, classes, groups).dropna(subset="mean")
    found = found.loc[found["mean"].abs().sort_values(ascending=False, kind="stable").index].head(MOST_CLASSES)
    rows = tuple(
        (str(row["class"]), row["group"], *_difference("recall", row, is_same=two.is_same), p_value(row["p_t_holm"]))
        for row in found.to_dict("records")
    )
    shown = f"the {MOST_CLASSES} of {len(classes)} classes that differ most" if len(classes) > MOST_CLASSES else "largest first"
    columns = ("class", "group", "difference [95 % interval]", "p (t)", "p (t, Holm)")
    note = f"Points, {shown}; Holm's correction is over all {len(classes)} classes."
    return Part("Recall by class, paired by seed", columns, rows, (note,))


def _recalls(predictions: Sequence[images.Predictions], seeds: Sequence[int], classes: Sequence[str]) -> pd.DataFrame:
    """Recalls by seed and class; NaN where a class has no test images."""
    recall_SC = statistics.class_figures(np.stack([one.counts_CC for one in predictions]))["recall"]
    return pd.DataFrame(recall_SC, index=pd.Index(seeds), columns=list(classes))


def _images(two: Two, results: images.Results) -> Iterator[Part]:
    """What the test images leave in doubt: another question than the seeds', so under its own title."""
    about = "Test images: the other source of doubt"
    if two.is_same:
        return
    boot, exact = images.image_rows(_pair(two), results), images.mcnemar_rows(_pair(two), results)
    if exact.empty:
        yield Part(about, (), (), ("The two arms were not tested on the same images, so that none can be paired.",))
        return
    if boot["mean"].isna().any():
        yield Part(about, (), (), ("The seeds were not all tested on the same images, so that these cannot be drawn again.",))
    else:
        resampled = tuple((title(row["metric"]), interval(row["mean"], row["low"], row["high"])) for row in boot.to_dict("records"))
        note = f"Points; the {boot['images'].iloc[0]} test images drawn again {images.RESAMPLES:,} times, these trained models as they are."
        yield Part(about, ("metric", "difference [95 % interval, bootstrap over images]"), resampled, (note,))
    rows = tuple((str(row["seed"]), str(row["gained"]), str(row["lost"]), p_value(row["p"])) for row in exact.to_dict("records"))
    note = f"Gained: right in {two.arm} only; lost: right in {two.other} only. McNemar compares two trained models, not two settings."
    yield Part("Test images gained and lost", ("seed", "gained", "lost", "p (McNemar, exact)"), rows, (note,))


def _runs(two: Two) -> Part:
    """The runs that everything above rests on."""
    seeds = sorted({*two.theirs, *two.ours})
    rows = tuple((str(seed), *(runs[seed]["run_id"] if seed in runs else DASH for runs in (two.theirs, two.ours))) for seed in seeds)
    left = [str(seed) for seed in seeds if seed not in two.common]
    notes = (f"Not paired, since only one of both finished them: seeds {', '.join(left)}.",) if left else ()
    return Part("Runs", ("seed", two.other, two.arm), rows, notes)
