"""The report's beginning: what the study is, and what is not done of it."""

from ablation.report.section import Section
from ablation.report.sections.common import bullets, paragraphs
from ablation.report.sections.content import Content
from ablation.report.tables import train_counts
from ablation.report.words import counted, escaped, shortened

MOST_CLASSES_NAMED = 12


def opening(content: Content) -> Section:
    """The title, one line of facts, and what the groups of classes are."""
    plan, runs = content.plan, content.frames.runs
    states = {state: int((runs["state"] == state).sum()) for state in dict.fromkeys(["done", "failed", "missing", *runs["state"]])}
    facts = [
        "Runs: " + ", ".join(f"{number} {escaped(state)}" for state, number in states.items()),
        counted(len(content.shown), "arm"),
        f"seeds {', '.join(str(seed) for seed in plan['seeds'])}",
        f"{len(plan['classes'])} classes, {sum(train_counts(plan))} training images (seed {plan['seeds'][0]}), "
        f"{sum(plan['test_counts'])} test images",
    ]
    groups = [f"*{escaped(group)}*: {_classes(names)}" for group, names in plan["groups"].items()]
    return Section(escaped(content.study), paragraphs(" · ".join(facts), f"Groups of classes: {'; '.join(groups)}."))


def _classes(names: list[str]) -> str:
    told = f" ({escaped(shortened(names, MOST_CLASSES_NAMED))})" if names else ""
    return f"{counted(len(names), 'class', 'classes')}{told}" if names else "no class"


def gaps(content: Content) -> list[Section]:
    """The runs that are not done, each named with its reason."""
    rows = content.unfinished.to_dict("records")
    lines = [
        f"{escaped(row['arm'])}, seed {row['seed']}: {escaped(row['state'])}" + (f" ({escaped(row['reason'])})" if row["reason"] else "")
        for row in rows
    ]
    if not lines:
        return []
    told = "Arms with fewer runs than planned are marked in every table (n 1/2), and their seeds without a partner make no pair."
    shown = 20
    rest = (Section("The other runs that are not done", bullets(lines[shown:])),) if len(lines) > shown else ()
    return [Section("Not done", paragraphs(bullets(lines[:shown]), told), rest)]


def unmatched(content: Content) -> list[Section]:
    """The published figures that belong to no arm here."""
    rows = content.references.unmatched
    told = "No arm has this name, label or chain of rungs (or more than one has):"
    return [Section("Published figures not matched", paragraphs(told, bullets([escaped(row) for row in rows])))] if rows else []
