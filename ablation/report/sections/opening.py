"""The report's beginning: what the study is, and what is not done of it."""

from ablation.report.section import Section
from ablation.report.sections.common import bullets, counted_once, paragraphs
from ablation.report.sections.content import Content
from ablation.report.tables import train_counts
from ablation.report.words import counted, escaped, shortened

MOST_CLASSES_NAMED = 12


def opening(content: Content) -> Section:
    """The title, one line of facts, and what the groups of classes are."""
    plan, runs = content.plan, counted_once(content)
    states = {state: int((runs["state"] == state).sum()) for state in dict.fromkeys(["done", "failed", "missing", *runs["state"]])}
    facts = [
        "Runs: " + ", ".join(f"{number} {escaped(state)}" for state, number in states.items()),
        counted(len(content.shown), "arm"),
        f"seeds {', '.join(str(seed) for seed in plan['seeds'])}",
        f"{len(plan['classes'])} classes, {sum(train_counts(plan))} training images (seed {plan['seeds'][0]}), "
        f"{sum(plan['test_counts'])} test images",
    ]
    groups = [f"*{escaped(group)}*: {_classes(names)}" for group, names in plan["groups"].items()]
    told = f"Groups of classes: {'; '.join(groups)}." if any(plan["groups"].values()) else ""
    return Section(escaped(content.study), paragraphs(" · ".join(facts), told))


def _classes(names: list[str]) -> str:
    told = f" ({escaped(shortened(names, MOST_CLASSES_NAMED))})" if names else ""
    return f"{counted(len(names), 'class', 'classes')}{told}" if names else "no class"


def gaps(content: Content) -> list[Section]:
    """The runs that are not done, each named with its reason, and those of which nothing but the metrics can be read."""
    rows = content.unfinished.to_dict("records")
    lines = [
        f"{escaped(row['arm'])}, seed {row['seed']}: {escaped(row['state'])}" + (f" ({escaped(row['reason'])})" if row["reason"] else "")
        for row in rows
    ]
    unreadable = [escaped(one) for one in content.frames.unreadable]
    if not lines and not unreadable:
        return []
    told = "Arms with fewer runs than planned are marked in every table (n 1/2), and their seeds without a partner make no pair."
    shown = 20
    rest = (Section("The other runs that are not done", bullets(lines[shown:])),) if len(lines) > shown else ()
    why = "These runs are done, but their predictions cannot be read: they are left out of whatever is made of predictions."
    body = paragraphs(bullets(lines[:shown]), told if lines else "", why if unreadable else "", bullets(unreadable))
    return [Section("Not done", body, rest)]


def unmatched(content: Content) -> list[Section]:
    """The published figures that belong to no arm here."""
    rows = content.references.unmatched
    told = "No arm has this name, label or chain of rungs (or more than one has):"
    return [Section("Published figures not matched", paragraphs(told, bullets([escaped(row) for row in rows])))] if rows else []
