"""The beginning of the report: what was run, the best arm, what can be claimed, and what is not done."""

import math
from collections.abc import Mapping

from ablation.formatting import counted, escaped, percent
from ablation.report.frames.classes import on_common_seeds, recall_spreads, seeds_words
from ablation.report.frames.facts import CLASSIFIED
from ablation.report.overview import MARKDOWN, sentences
from ablation.report.sections.common import bullets, named, paragraphs
from ablation.report.sections.content import Content
from ablation.report.sections.section import Section

MOST_RUNS_NAMED = 5
SHOWN = 0.0001  # the smallest difference of recalls that their two decimals show
ITEMS = "The differences over test items: [Doubt from the test items](#doubt-from-the-test-items)."
WHERE = "Where a number comes from: [Runs](#runs), [Provenance](#provenance), [How to read this](#how-to-read-this)."


def opening(content: Content) -> list[Section]:
    """The title, the strip of facts, the best arm with its difference, what can be claimed, and the command that claims more."""
    overview = content.overview
    strip = " · ".join(f"**{escaped(fact.name)}** {escaped(fact.words)}" for fact in overview.facts)
    notes = bullets([f"**Note:** {escaped(note)}." for note in overview.notes])
    lines = sentences(overview, content.metrics, MARKDOWN)
    own = f"**{escaped(content.own.kind)}** {escaped(' '.join(content.own.sentences))}" if content.own else ""
    found = content.frames.item_differences
    where = [] if found.empty else [ITEMS]
    return [Section(escaped(content.study), paragraphs(own, strip, notes, bullets([*lines, *_suffering(content), *where, WHERE])))]


def _suffering(content: Content) -> list[str]:
    """The class with the lowest recall under the best arm, or else the first one, and the one that lost most against the baseline."""
    frame, best = content.frames.per_class, content.overview.best
    if not content.facts >= CLASSIFIED or frame.empty:
        return []
    arm = best.row.arm if best else str(frame["arm"].iloc[0])
    baseline = str(best.row.vs_baseline.get("against", "")) if best else ""
    common = on_common_seeds(content.frames.recalls, [arm, baseline])
    recalls = {arm: recall_spreads(frame) for arm, frame in common.items()}
    known = {name: recall for name, recall in recalls.get(arm, {}).items() if math.isfinite(recall[0])}
    if len(known) < 2:
        return []
    worst = min(known, key=lambda name: known[name][0])
    ties = sum(math.isclose(recall[0], known[worst][0], abs_tol=1e-12) for recall in known.values()) - 1
    before = f" ({percent(recalls[baseline][worst][0])} under {named(content, baseline)})" if baseline in recalls else ""
    others = f" and {counted(ties, 'other')}" if ties else ""
    start = f"The lowest recall under {named(content, arm)} is that of class **{escaped(worst)}**{others}"
    seeds = seeds_words(content.frames.recalls, common)
    loss = _largest_loss(recalls.get(baseline, {}), known)
    return [f"{start}: {percent(*known[worst])}{before}{f', {seeds}' if seeds else ''}{loss}; see [Classes](#classes)."]


def _largest_loss(before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]) -> str:
    """The class whose recall fell most, with both numbers; empty if none fell by as much as is shown."""
    losses = {name: before[name][0] - after[name][0] for name in after if name in before and math.isfinite(before[name][0])}
    worst = max(losses, key=lambda name: losses[name], default="")
    if not worst or losses[worst] < SHOWN:
        return ""
    return f"; the largest loss is that of class **{escaped(worst)}**: {percent(before[worst][0])} to {percent(after[worst][0])}"


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
