"""What a report says of a study of one's own training code: what was run, and what of it was checked and what was not."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from ablation.formatting import counted, listed, ranges, shortened
from ablation.report.metrics import metrics_of
from ablation.report.statistics.best import OTHER_TEST
from ablation.report.statistics.differences import NO_EFFECT, is_other_test, test_sets_of
from ablation.study.metrics import TEST_ITEMS, has_own_code
from ablation.tracking.texts import plain

USUAL = (TEST_ITEMS, "split", "initial weights", "order")  # what arms usually share, so that their runs make pairs
NO_CHANGE = "change without effect"  # the label of arms whose numbers are those of their parent, though their settings differ
WIDER = "Independent runs leave the tests valid, with wider intervals."
BIASED = "; these arms were tested on other items than the rest, so their differences are not comparable"
MOST_NAMED = 4
T = TypeVar("T")


@dataclass(frozen=True)
class OwnCode:
    """What must be known of a study of one's own training code, in sentences of plain text.

    `kind` says what was run, `sentences` what was checked and what was not, `warnings` what makes results worth less, without a full
    stop. `no_effect` has the arms whose seeds have none, and how that shows; `no_change` those whose change of settings has none.
    """

    kind: str
    sentences: Sequence[str]
    warnings: Sequence[str]
    no_effect: Mapping[str, str]
    no_change: Mapping[str, str]

    @property
    def text(self) -> str:
        """The first lines of a report."""
        return " ".join([self.kind, *self.sentences])


def own_code(plan: Mapping[str, Any], recorded: pd.DataFrame, runs: pd.DataFrame, arms: Sequence[str]) -> OwnCode | None:
    """What there is to say of these arms; None for another kind of study.

    `plan` is that of `compared_plan`, `recorded` are the runs as they are in the store, `runs` is `run_rows`.
    """
    if not has_own_code(plan):
        return None
    done = runs[(runs["state"] == "done") & runs["arm"].isin(arms) & (runs["chosen"] == "")]  # a chosen run is another arm's
    told, values = told_same(recorded, done), numbers(done, metrics_of(plan).full_names)
    no_effect = {arm["name"]: arm["no_effect"] for arm in plan["arms"] if arm["name"] in set(arms) and arm.get("no_effect")}
    no_change = changes_without_effect(plan, values)
    found = [*_differing_warnings(told), *_no_effect_words(no_effect), *_no_change_words(no_change), *_tied_words(values)]
    sentences = [*_same_words(told, done), *_data_words(plan), *_checked_words(plan)]
    warnings = [*found, *_checked_warnings(plan), *_notes(recorded, done)]
    return OwnCode(_kind(plan, len(arms)), sentences, warnings, no_effect, no_change)


def compared_plan(plan: Mapping[str, Any], recorded: pd.DataFrame) -> Mapping[str, Any]:
    """The plan, in which arms of one's own code have what only their runs tell (`with_findings`), and a label where the test items are not
    those of the parent or the baseline under a seed that both have; the recorded plan of an image study has all of it already.
    """
    if not has_own_code(plan) or recorded.empty:
        return plan
    finished = recorded[recorded["status"] == "FINISHED"]
    found = with_findings(plan, told_same(recorded, finished).get(TEST_ITEMS, {}), numbers(finished, metrics_of(plan).full_names))
    sets = test_sets_of(found)
    return {**found, "arms": [_with_label(arm, sets) for arm in found["arms"]]}


def with_findings(plan: Mapping[str, Any], told: "ByRun", values: "Numbers") -> dict[str, Any]:
    """The plan, whose arms have as `test_set` the digests of their runs' test items, by seed, and as `no_effect` how it shows that their
    seeds have none, which is empty where they have one.
    """
    sets: dict[str, dict[int, str]] = {}
    for (arm, seed), digest in told.items():
        sets.setdefault(arm, {})[seed] = digest
    no_effect = seeds_without_effect({arm["name"]: _of_training(values, arm) for arm in plan["arms"]})
    arms = [{**arm, "test_set": _of_training(sets, arm), "no_effect": no_effect.get(arm["name"], "")} for arm in plan["arms"]]
    return {**plan, "arms": arms}


def _of_training(by_arm: Mapping[str, Mapping[int, T]], arm: Mapping[str, Any]) -> dict[int, T]:
    """What an arm's runs have, by seed; another name of a training has the runs of that."""
    return {**by_arm.get(arm.get("same_as") or "", {}), **by_arm.get(arm["name"], {})}


def _with_label(arm: Mapping[str, Any], sets: Mapping[str, Any]) -> dict[str, Any]:
    partners = dict.fromkeys(filter(None, (arm["parent"], arm["baseline"])))
    others = [name for name in partners if is_other_test(arm["test_set"], sets.get(name))]
    label = {OTHER_TEST: f"its test items are not those of {listed(others)}"} if others else {}
    return {**arm, "labels": {**arm["labels"], **label}}


def pair_warnings(recorded: pd.DataFrame, done: pd.DataFrame) -> list[str]:
    """What is not the same across two arms, whose finished runs are in `done`."""
    return list(_differing_warnings(told_same(recorded, done)))


def _kind(plan: Mapping[str, Any], num_arms: int) -> str:
    what = f"{'function' if plan['own']['is_function'] else 'command'} {code_words(plan)}"
    return f"Own training code: {what}, {counted(num_arms, 'arm')} x {counted(len(plan['seeds']), 'seed')}."


def code_words(plan: Mapping[str, Any]) -> str:
    """The function, or the command as its file has it: places in braces, which are recorded as words for a shell, have no quotes."""
    return re.sub(r"'(\{[\w.-]+\})'", r"\1", str(plan["own"]["what"]))


# --- what is the same across arms ----------------------------------------------------------------------------------------------------

ByRun = Mapping[tuple[str, int], str]  # (arm, seed) -> the digest that the run handed back


def told_same(recorded: pd.DataFrame, done: pd.DataFrame) -> dict[str, dict[tuple[str, int], str]]:
    """name -> what each of these runs handed back of it, as a digest."""
    told: dict[str, dict[tuple[str, int], str]] = {}
    for run, text in _of_runs(recorded, done, "same"):
        for name, value in plain(text, {}).items():
            told.setdefault(str(name), {})[run] = str(value)
    return told


def _of_runs(recorded: pd.DataFrame, done: pd.DataFrame, column: str) -> Iterator[tuple[tuple[str, int], str]]:
    """(arm, seed) and the text in that column of each of these runs that has one."""
    texts = dict(zip(recorded["run_id"], recorded[column], strict=True)) if column in recorded else {}
    for row in done.to_dict("records"):
        if isinstance(text := texts.get(row["run_id"]), str) and text:
            yield (row["arm"], int(row["seed"])), text


def _by_seed(by_run: ByRun) -> dict[int, dict[str, str]]:
    by_seed: dict[int, dict[str, str]] = {}
    for (arm, seed), value in by_run.items():
        by_seed.setdefault(seed, {})[arm] = value
    return by_seed


def _differs(by_run: ByRun) -> bool:
    """Whether two arms differ in it under the same seed."""
    return any(len(set(by_arm.values())) > 1 for by_arm in _by_seed(by_run).values())


def _differing_warnings(told: Mapping[str, ByRun]) -> Iterator[str]:
    for name, by_run in told.items():
        if _differs(by_run):
            yield _differing_words(name, by_run) + (BIASED if name == TEST_ITEMS else "")


def _differing_words(name: str, by_run: ByRun) -> str:
    """`not the same across arms: split (wide and deep unlike baseline, seeds 0-4)`."""
    unlike: dict[str, None] = {}
    seeds, first = list[int](), next(iter(by_run))[0]
    for seed, by_arm in sorted(_by_seed(by_run).items()):
        reference = by_arm.get(first, next(iter(by_arm.values())))
        others = [arm for arm, value in by_arm.items() if value != reference]
        unlike |= dict.fromkeys(others)
        seeds += [seed] if others else []
    under = f"seed{'s' * (len(seeds) > 1)} {ranges(seeds)}"
    return f"not the same across arms: {name} ({shortened([*unlike], MOST_NAMED)} unlike {first}, {under})"


def _same_words(told: Mapping[str, ByRun], done: pd.DataFrame) -> Iterator[str]:
    """`Same across arms, checked: test items, split; not checked: initial weights, order.`, if there are two arms."""
    finished = set(zip(done["arm"], done["seed"].astype(int), strict=True))
    if done["arm"].nunique() < 2:
        return
    whole = {name for name, by_run in told.items() if finished <= {*by_run} and not _differs(by_run)}
    partly = [name for name, by_run in told.items() if name not in whole and not _differs(by_run)]
    checked = [name for name in (*USUAL, *told) if name in whole]
    parts = {
        "checked": ", ".join(dict.fromkeys(checked)) or "nothing",
        "checked of some runs only": ", ".join(partly),
        "differing": ", ".join(name for name, by_run in told.items() if _differs(by_run)),
        "not checked": ", ".join(name for name in USUAL if name not in told),
    }
    yield f"Same across arms, {'; '.join(f'{how}: {names}' for how, names in parts.items() if names)}."
    if parts["not checked"] and not parts["differing"]:
        yield WIDER


# --- seeds, data, repetition -----------------------------------------------------------------------------------------------------------


Numbers = Mapping[str, Mapping[int, tuple[float, ...]]]  # arm -> seed -> its metrics, of runs that have them all


def numbers(done: pd.DataFrame, metrics: Sequence[str]) -> dict[str, dict[int, tuple[float, ...]]]:
    """The metrics of these runs by arm and seed; runs without a number, and all runs if no metric is known, are left out."""
    known = [name for name in metrics if name in done]
    found: dict[str, dict[int, tuple[float, ...]]] = {}
    for row in done.dropna(subset=known).to_dict("records") if known else ():
        found.setdefault(str(row["arm"]), {})[int(row["seed"])] = tuple(row[name] for name in known)
    return found


def seeds_without_effect(values: Numbers) -> dict[str, str]:
    """arm -> its seeds, in words, where all of them (two or more) gave equal metrics."""
    equal = {arm: by_seed for arm, by_seed in values.items() if len(by_seed) > 1 and len({*by_seed.values()}) == 1}
    return {arm: f"equal numbers under seeds {ranges(sorted(by_seed))}" for arm, by_seed in equal.items()}


def changes_without_effect(plan: Mapping[str, Any], values: Numbers) -> dict[str, str]:
    """arm -> how it equals its parent, where all metrics do under every seed that both have, though the settings differ."""
    found = {}
    for arm in plan["arms"]:
        name, parent = arm["name"], arm.get("parent")
        ours, theirs = values.get(name, {}), values.get(parent, {})
        shared = ours.keys() & theirs.keys()
        if arm["change"] and not arm.get("same_as") and shared and all(ours[seed] == theirs[seed] for seed in shared):
            under = "all seeds" if len(shared) > 1 else f"seed {min(shared)}"
            found[name] = f"equal to {parent} to the last digit under {under}: does the code read {listed([*arm['change']])}?"
    return found


def _no_effect_words(no_effect: Mapping[str, str]) -> Iterator[str]:
    if no_effect:
        arms = shortened([f"{arm} ({why})" for arm, why in no_effect.items()], MOST_NAMED)
        yield f"{NO_EFFECT}: {arms}; such runs are no repetitions, so their intervals mean nothing, and no verdict is claimed"


def _no_change_words(no_change: Mapping[str, str]) -> Iterator[str]:
    if no_change:
        yield f"{NO_CHANGE}: {shortened([f'{arm} ({why})' for arm, why in no_change.items()], MOST_NAMED)}"


def _tied_words(values: Numbers) -> Iterator[str]:
    """The arms of which some seeds, and not all, gave equal metrics, as rounded ones may."""
    tied = {arm: sum(number for number in Counter(by_seed.values()).values() if number > 1) for arm, by_seed in values.items()}
    some = [
        f"{arm} under {number} of {len(values[arm])} seeds" for arm, number in tied.items() if len({*values[arm].values()}) > 1 and number
    ]
    if some:
        yield f"equal to the printed digits, as rounded numbers may be: {shortened(some, MOST_NAMED)}"


def _data_words(plan: Mapping[str, Any]) -> Iterator[str]:
    if not plan["own"].get("data"):
        yield "Data: not declared, so a change of them is not seen."


def _checked_words(plan: Mapping[str, Any]) -> Iterator[str]:
    """Whether a run repeats, and whether it resumes, as far as `check-task` has found out."""
    own, checked = plan["own"], plan["own"].get("checked") or {}
    when = f" (checked {checked['when']})" if checked.get("when") else ""
    if checked.get("repeatable") is None:
        yield f"Whether a run repeats was not checked; ablate check-task {plan.get('file') or 'FILE'} does."
    elif checked["repeatable"]:
        yield f"{_tried(checked, plan)} gave the same numbers twice{when}; other arms were not tried."
    if own.get("resumes") and checked.get("resumes") is None:
        yield "That a stopped run resumes with the same result is the author's word."
    elif own.get("resumes") and checked["resumes"]:
        yield f"Stopped and resumed, it gave them again{when}."


def _tried(checked: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """The run that was tried, at the beginning of a sentence; with other settings, as --set gives, it is none of the study."""
    if "arm" not in checked:
        return "A run"
    run = f"run of {checked['arm']} with seed {checked['seed']}"
    is_planned = checked.get("key") in (None, *(planned["key"] for planned in plan["runs"]))
    return f"The {run}" if is_planned else f"A {run} and other settings"


def _checked_warnings(plan: Mapping[str, Any]) -> Iterator[str]:
    own, checked = plan["own"], plan["own"].get("checked") or {}
    if checked.get("repeatable") is False:
        yield f"a run does not repeat{_which(checked)}: the same seed gave other numbers the second time, so the seed does not fix a run"
    if own.get("resumes") and checked.get("resumes") is False:
        yield f"a stopped run does not resume with the same result{_which(checked)}, so a run that was stopped is another one"


def _which(checked: Mapping[str, Any]) -> str:
    return f" ({checked['arm']} seed {checked['seed']})" if "arm" in checked else ""


def _notes(recorded: pd.DataFrame, done: pd.DataFrame) -> list[str]:
    """What was noted of runs while they were checked, each once, with the runs that it is of."""
    runs_of: dict[str, list[str]] = {}
    for (arm, seed), text in _of_runs(recorded, done, "notes"):
        for note in plain(text, []):
            runs_of.setdefault(str(note).rstrip("."), []).append(f"{arm} seed {seed}")
    return [f"{note} ({shortened(runs, MOST_NAMED)})" for note, runs in runs_of.items()]
