"""What the numbers allow to say, and what they do not, in plain words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.report import inference, metrics
from ablation.report.section import Section
from ablation.report.sections.common import BETTER, NO_DIFFERENCE, WORSE, bullets, condition_of, difference, of_metric, paragraphs
from ablation.report.sections.content import Content
from ablation.report.words import counted, escaped, listed, shortened

MOST_NAMED = 5
FLIP = "a sign-flip test"


def claims(content: Content) -> Section:
    """Two lists: what can be claimed, and what cannot."""
    can, cannot = list(_findings(content)), list(_limits(content))
    told = (
        "Verdicts are of " + f"{escaped(metrics.title(content.name))}, at 0.05 after Holm's correction within each family of comparisons."
    )
    return Section("What can be claimed", paragraphs(told, bullets(can), "What cannot:", bullets(cannot)))


def _findings(content: Content) -> Iterator[str]:
    rows = of_metric(content.frames.differences, content.name)
    condition = rows["arm"].map(condition_of(content))
    for role in ("baseline", "parent"):
        own = rows[(condition == "") & (rows["role"] == role)]
        yield from _of_role(content, own, f"its {role}")
    for name in dict.fromkeys(condition[condition != ""]):
        own = rows[(condition == name) & (rows["role"] == "baseline")]
        yield f"Under {escaped(name)}, against its own baseline: {tally(own)}."


def _of_role(content: Content, rows: pd.DataFrame, partner: str) -> Iterator[str]:
    compared = rows[rows["verdict"] != ""]
    if compared.empty:
        yield f"No arm has a seed in common with {partner}, so no difference is claimed."
        return
    for word, verdict in (("Better", BETTER), ("Worse", WORSE)):
        found = compared[compared["verdict"].str.startswith(verdict)]
        sure = found[~found["verdict"].str.contains("t only", regex=False)]
        yield from _named(content, sure, f"**{word} than {partner}**")
        yield from _named(
            content, found.drop(sure.index), f"**{word} than {partner} by the t test only** (the sign-flip test does not confirm it)"
        )
    same = compared[compared["verdict"].str.startswith(NO_DIFFERENCE)]
    yield from _named(content, same, f"**No difference beyond {content.margin:g} points from {partner}**")
    undecided = int((compared["verdict"] == "inconclusive").sum())
    if undecided:
        yield f"**Inconclusive against {partner}**: {undecided} of {counted(len(compared), 'comparison')}."


def _named(content: Content, rows: pd.DataFrame, start: str) -> Iterator[str]:
    """The arms with their intervals, the largest difference first."""
    if not rows.empty:
        ordered = rows.loc[rows["mean"].abs().sort_values(ascending=False, kind="stable").index].to_dict("records")
        told = [f"{escaped(row['arm'])} {difference(content.name, row)}" for row in ordered]
        yield f"{start} ({len(told)}): {shortened(told, MOST_NAMED)}."


def tally(rows: pd.DataFrame) -> str:
    """`3 better (1 by the t test only), 2 worse, 5 without a difference beyond 0.5, 15 inconclusive`."""
    verdicts = rows["verdict"]
    words = []
    for start, told in ((BETTER, "better"), (WORSE, "worse"), (NO_DIFFERENCE, "without a difference beyond the margin")):
        own = verdicts[verdicts.str.startswith(start)]
        alone = int(own.str.contains("t only", regex=False).sum())
        if len(own):
            words.append(f"{len(own)} {told}" + (f" ({alone} by the t test only)" if alone else ""))
    for verdict, told in (("inconclusive", "inconclusive"), ("same training", "of the same training"), ("", "without a pair of seeds")):
        number = int((verdicts == verdict).sum())
        words += [f"{number} {told}"] if number else []
    return listed(words) or "nothing to compare"


def _limits(content: Content) -> Iterator[str]:
    rows = of_metric(content.frames.differences, content.name)
    yield claim(int(rows["pairs"].max()) if len(rows) else 0, int(rows["tests"].max()) if len(rows) else 0)
    yield from _power(content, rows)
    yield from _marked(content)
    yield from (escaped(note) + "." for note in content.plan["notes"])
    if content.superseded:
        yield f"Not in the newest plan, and not counted: {counted(len(content.superseded), 'run')} in the store (see Provenance)."


def claim(pairs: int, tests: int) -> str:
    """What that many paired seeds can and cannot show, in the largest family of so many tests."""
    needed, of_family = inference.seeds_needed_to_flip(), inference.seeds_needed_to_flip(tests)
    after = f" ({of_family} after Holm over {tests} comparisons, the largest family)" if tests > 1 else ""
    if pairs == 0:
        return "No arm has a seed in common with its baseline, so no difference is claimed."
    if pairs == 1:
        return f"One seed gives no interval: no difference can be told from chance. {needed} seeds can{after}."
    best = f"{inference.smallest_p(pairs):.2g}"
    if pairs < needed:
        return f"{pairs} seeds cannot reach 0.05 by {FLIP} (the smallest p is {best}); {needed} can{after}."
    most = int(inference.LEVEL / inference.smallest_p(pairs))
    told = f"With {pairs} seeds {FLIP} can reach p = {best} at best, which withstands Holm over up to {counted(most, 'comparison')}"
    return f"{told}; the largest family has {tests}, for which {of_family} seeds are needed." if pairs < of_family else f"{told}."


def _power(content: Content, rows: pd.DataFrame) -> Iterator[str]:
    """How many seeds would find a difference as large as the margin, by family."""
    known = rows[rows["seeds_needed"].notna()]["seeds_needed"]
    if not known.empty and metrics.unit(content.name) is metrics.FRACTION:
        low, high = int(known.min()), int(known.max())
        told = f"about {low} seeds are" if low == high else f"{low} to {high} seeds, depending on the family, are"
        yield f"To resolve {content.margin:g} points {told} needed (paired t test, 80 % power); the study has {len(content.plan['seeds'])}."


def _marked(content: Content) -> Iterator[str]:
    """What stands in the way of single arms."""
    near = near_chance(content)
    if near:
        yield f"**Near chance**, so little was learnt: {shortened([escaped(arm) for arm in near])}."
    on_test = [escaped(name) for name, arm in content.planned.items() if "selected on test" in arm["labels"]]
    if on_test:
        yield f"**Chosen on the test set**, so too good by an unknown amount: {shortened(on_test)}."
    short = [escaped(row["arm"]) for row in content.frames.arms.to_dict("records") if row["n"] < row["planned"]]
    if short:
        yield f"**Fewer runs than planned**: {shortened(short)} (see Not done)."


def near_chance(content: Content) -> list[str]:
    """The arms whose mean accuracy is hardly above guessing or always naming the largest class of the test images."""
    share = chance(content.plan)
    bound = share + min(share / 2, (1 - share) / 10)
    rows: Sequence[Mapping[Any, Any]] = content.frames.arms.to_dict("records")
    return [row["arm"] for row in rows if math.isfinite(row["accuracy_mean"]) and row["accuracy_mean"] <= bound]


def chance(plan: Mapping[str, Any]) -> float:
    """The accuracy without looking at an image: 1/C, or the share of the largest class of the test images if that is more."""
    counts: Sequence[int] = plan["test_counts"]
    return max(1 / len(counts), max(counts) / max(1, sum(counts)))
