"""What a recorded plan says besides its arms and runs, and the facts that parts of the report need."""

from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

from ablation.study.metrics import has_own_code, is_curve
from ablation.study.settings_schema import SettingsSchema
from ablation.study.task import DEFAULT, TASKS, load_task
from ablation.techniques.technique import Technique

# classes: the names of the classes; groups: which classes belong together; counts: the training and test items of each class;
# confusions: the confusion matrix of every run; predictions: label and predicted class of every test item and run; items: a score of
# every test item and run; curves: metrics of every epoch or step
Fact = Literal["classes", "groups", "counts", "confusions", "predictions", "items", "curves"]
Needs = frozenset[Fact]
NOTHING: Needs = frozenset()
CLASSIFIED: Needs = frozenset({"classes", "confusions"})
ABSENT: Mapping[Fact, str] = {  # how a report names missing facts, in words for any kind of work
    "classes": "categories",
    "groups": "groups of categories",
    "counts": "numbers of items per category",
    "predictions": "predictions of single items",
    "items": "scores of single items",
    "curves": "training curves",
}
OF_OWN_CODE: Needs = frozenset({"classes", "predictions", "items", "curves"})  # what one's own training code may hand back
NO_SCHEMA = SettingsSchema(settings=Technique, stage_options=Technique, whole_arm=(), required={}, paths=(), choices=())


def planned_facts(plan: Mapping[str, Any]) -> Needs:
    """The facts that follow from the plan alone.

    Runs have predictions if there are classes to predict and they were not left out. Confusion matrices follow from predictions; runs of
    images have them as files of their own.
    """
    has_classes = bool(plan.get("classes"))
    facts: dict[Fact, bool] = {
        "classes": has_classes,
        "groups": bool(plan.get("groups")),
        "counts": bool(plan.get("counts") and plan.get("test_counts")),
        "confusions": has_classes and not (lacks_items(plan) and has_own_code(plan)),
        "predictions": has_classes and not lacks_items(plan),
    }
    return frozenset(fact for fact, is_there in facts.items() if is_there)


def lacks_items(plan: Mapping[str, Any]) -> bool:
    """Whether predictions and scores of single items were left out where the study was packed."""
    return plan.get("predictions") is False


def facts_of(plan: Mapping[str, Any], runs: pd.DataFrame, curves: pd.DataFrame, *, has_items: bool = False) -> Needs:
    """The plan's facts, `curves` if there are any (they are expected as long as no run is done), and `items` if any run has them."""
    has_curve = len(curves) > 0 or (not has_own_code(plan) and any(is_curve(plan, str(column)) for column in runs.columns))
    found: dict[Fact, bool] = {"curves": has_curve or not (runs["state"] == "done").any(), "items": has_items}
    return planned_facts(plan) | {fact for fact, is_there in found.items() if is_there}


def absent_facts(plan: Mapping[str, Any], facts: Needs) -> list[str]:
    """What the study does not record, in words, of what its kind of work may record."""
    known = OF_OWN_CODE if has_own_code(plan) else frozenset(ABSENT) - {"items"}
    return [words for fact, words in ABSENT.items() if fact in known and fact not in facts]


def classes_of(plan: Mapping[str, Any]) -> list[str]:
    """The names of the classes, which may be none."""
    return list(plan.get("classes") or ())


def groups_of(plan: Mapping[str, Any]) -> dict[str, list[str]]:
    """group -> its classes; a group may be empty."""
    return {name: list(members) for name, members in (plan.get("groups") or {}).items()}


def class_groups(plan: Mapping[str, Any]) -> dict[str, str]:
    """class -> the group that it belongs to."""
    return {name: group for group, members in groups_of(plan).items() for name in members}


def train_counts(plan: Mapping[str, Any]) -> list[int]:
    """The training items per class of the plan's first seed."""
    counts = {int(seed): list(numbers) for seed, numbers in plan["counts"].items()}
    return counts[int(plan["seeds"][0])]


def lacking_metric(plan: Mapping[str, Any], runs: pd.DataFrame, metric: str, words: str) -> list[str]:
    """A sentence if finished runs have no value of the metric, by its full name, which is `words`; none for that of an empty group."""
    done = runs[runs["state"] == "done"]
    lacking = int(done[metric].isna().sum()) if metric in done else len(done)
    group = metric.rpartition("/")[2]
    if not lacking or groups_of(plan).get(group) == []:
        return []
    has = "no finished run has" if lacking == len(done) else f"{lacking} of {len(done)} finished runs do not have"
    if has_own_code(plan):
        return [f"{has} {words}"]
    return [f"{has} {words}; ablate run with --rerun cached tests what was recorded without it"]


def settings_schema(plan: Mapping[str, Any]) -> SettingsSchema:
    """The schema of the study's settings; an empty one if its kind of work is unknown here."""
    task = plan.get("task", DEFAULT)
    return load_task(task).schema if task in TASKS else NO_SCHEMA
