"""The beginning of the report: the study, and what is not done of it."""

from ablation.formatting import counted, escaped, shortened
from ablation.report.frames.facts import classes_of, groups_of, train_counts
from ablation.report.sections.common import bullets, counted_once, paragraphs
from ablation.report.sections.content import Content
from ablation.report.sections.section import Section

MOST_CLASSES_NAMED = 12
MOST_RUNS_NAMED = 20


def opening(content: Content) -> list[Section]:
    """The title, one line of facts, and the groups of classes."""
    plan, runs = content.plan, counted_once(content)
    states = {state: int((runs["state"] == state).sum()) for state in dict.fromkeys(["done", "failed", "missing", *runs["state"]])}
    facts = [
        "Runs: " + ", ".join(f"{number} {escaped(state)}" for state, number in states.items()),
        counted(len(content.shown), "arm"),
        f"seeds {', '.join(str(seed) for seed in plan['seeds'])}",
        *([_data(content)] if "classes" in content.facts else []),
    ]
    groups = groups_of(plan)
    members = [f"*{escaped(group)}*: {_classes(names)}" for group, names in groups.items()]
    words = f"Groups of classes: {'; '.join(members)}." if any(groups.values()) else ""
    notes = bullets([f"**Note:** {escaped(note)}." for note in content.options.notes])
    return [Section(escaped(content.study), paragraphs(notes, " · ".join(facts), words))]


def _data(content: Content) -> str:
    """`10 classes, 770 training images (seed 0), 359 test images`."""
    plan, num_classes = content.plan, f"{len(classes_of(content.plan))} classes"
    if "counts" not in content.facts:
        return num_classes
    return f"{num_classes}, {sum(train_counts(plan))} training images (seed {plan['seeds'][0]}), {sum(plan['test_counts'])} test images"


def _classes(names: list[str]) -> str:
    examples = f" ({escaped(shortened(names, MOST_CLASSES_NAMED))})" if names else ""
    return f"{counted(len(names), 'class', 'classes')}{examples}" if names else "no class"


def gaps(content: Content) -> list[Section]:
    """The runs that are not done, with their reasons, and those whose predictions cannot be read."""
    rows = content.unfinished.to_dict("records")
    lines = [
        f"{escaped(row['arm'])}, seed {row['seed']}: {escaped(row['state'])}" + (f" ({escaped(row['reason'])})" if row["reason"] else "")
        for row in rows
    ]
    unreadable = [escaped(run) for run in content.frames.unreadable]
    if not lines and not unreadable:
        return []
    marked = "Arms with fewer runs than planned are marked in every table (n 1/2), and their seeds without a partner make no pair."
    rest = (Section("The other runs that are not done", bullets(lines[MOST_RUNS_NAMED:])),) if len(lines) > MOST_RUNS_NAMED else ()
    why = "These runs are done, but their predictions cannot be read: they are left out of whatever is made of predictions."
    body = paragraphs(bullets(lines[:MOST_RUNS_NAMED]), marked if lines else "", why if unreadable else "", bullets(unreadable))
    return [Section("Not done", body, rest)]


def unmatched(content: Content) -> list[Section]:
    """The published figures that match no arm."""
    rows = content.references.unmatched
    words = "No arm has this name, label or chain of rungs (or more than one has):"
    return [Section("Published figures not matched", paragraphs(words, bullets([escaped(row) for row in rows])))] if rows else []
