"""The report's first screen in a terminal: the strip, the sentences, and the arms by family. Predictions are not read for it."""

from dataclasses import replace

import pandas as pd
from rich.text import Text

from ablation.errors import ConfigError
from ablation.report.documents import writing
from ablation.report.documents.terminal_families import folded_blocks, label_lines
from ablation.report.documents.terminal_table import Section, Tables
from ablation.report.documents.terminal_text import Screen, command_in, filled, short_names
from ablation.report.frames.asked import known_metric
from ablation.report.frames.facts import lacking_metric
from ablation.report.frames.own import compared_plan, own_code
from ablation.report.frames.recorded import Recorded
from ablation.report.frames.references import References
from ablation.report.frames.tables import arm_rows, run_rows
from ablation.report.metrics import MetricTable, metrics_of, short_name
from ablation.report.overview import PLAIN, Overview, overview, sentences
from ablation.report.sections import Content, Shown
from ablation.report.statistics.differences import differences
from ablation.study.written import about_sets

FOLDED = ("sweep", "condition")  # families of a line each
LONGEST_NAME = 40  # cells of an arm in a sentence
STYLES = {r"(?<=  )better.*$": "green", r"(?<=  )worse.*$": "red"}


@writing.with_plain_texts
def of_record(recorded: Recorded, options: Shown, screen: Screen) -> Text:
    """The text of a recorded study, with styles for a terminal; `.plain` is without them."""
    check_options(options)
    plan, runs, metrics = compared_plan(recorded.plan, recorded.runs), run_rows(recorded), metrics_of(recorded.plan)
    metric = known_metric("--metric", options.metric, plan, recorded.runs)
    by = [] if options.sort in ("", "arm") else [known_metric("--sort", options.sort, plan, recorded.runs)]
    options = replace(options, sort=short_name(by[0]) if by else options.sort)
    arms = arm_rows(plan, runs, list(dict.fromkeys([metric, *by])), References())
    arms = writing.in_order(arms[arms["arm"].isin(writing.chosen_arms(plan, options.arms))], options.sort, metrics, runs)
    compared = differences(plan, runs, [metric])
    own = own_code(plan, recorded.runs, runs, list(arms["arm"]))
    lacking = lacking_metric(plan, runs[runs["arm"].isin(arms["arm"])], metric, metrics.words(metric))
    notes = [*filter(None, dict.fromkeys([*options.notes, about_sets(plan)])), *lacking, *(own.warnings if own else ())]
    found = overview(plan, runs, arms, compared[compared["arm"].isin(arms["arm"])], metric, notes, own)
    return _text(found, arms, options, metrics, screen)


def of_content(content: Content, screen: Screen) -> Text:
    """The same from what a report was made of."""
    return _text(content.overview, content.frames.arms, content.options, content.metrics, screen)


def check_options(options: Shown) -> None:
    """Raise ConfigError for options that a terminal's text has no room for."""
    for option, value in (("--only-changed", options.only_changed), ("--reference", options.reference)):
        if value:
            raise ConfigError(option, "found it beside the format text, which has no such columns; expected another --format")


def _text(found: Overview, arms: pd.DataFrame, options: Shown, metrics: MetricTable, screen: Screen) -> Text:
    blocks = [_strip(found, screen), _sentences(found, metrics, screen)]
    if found.num_done:
        blocks += _sorted(found, arms, options.sort, metrics, screen) if options.sort else _families(found, metrics, screen)
    text = Text("\n\n").join(Text("\n").join(lines) for lines in blocks if lines)
    for pattern, style in STYLES.items():
        text.highlight_regex(rf"(?m){pattern}", style)
    return text


def _strip(found: Overview, screen: Screen) -> list[Text]:
    """The study, its facts, and what differs between the file and the record."""
    facts = [f"{fact.name.lower()} {fact.words}" for fact in found.facts]
    lines = filled([screen.letters(word) for word in facts], screen.width, between=screen.letters(" · "))
    notes = [line for note in found.notes for line in filled(screen.letters(f"note: {note}").split(), screen.width, "", "  ")]
    own = filled(screen.letters(found.own.text).split(), screen.width) if found.own else []
    return [Text(line, "bold") for line in filled([found.study], screen.width)] + [Text(line) for line in [*own, *lines, *notes]]


def _sentences(found: Overview, metrics: MetricTable, screen: Screen) -> list[Text]:
    """The best arm, the claims, and the command that claims more, which can be copied."""
    rows = [row for family in found.families for row in family.rows]
    names = short_names([row.arm for row in rows], LONGEST_NAME)
    marks = replace(PLAIN, name=lambda name: names.get(name, name), code=lambda command: f"\n{command}")
    lines: list[Text] = []
    for sentence in sentences(found, metrics, marks):
        words, _, command = screen.letters(sentence).partition("\n")
        lines += [Text(line) for line in filled(words.split(), screen.width)]
        lines += [Text(line, "bold") for line in (command_in(command, screen.width) if command else ())]
    return lines


def _families(found: Overview, metrics: MetricTable, screen: Screen) -> list[list[Text]]:
    """The tables, and lines for what is folded, unless that would leave no table of two arms."""
    whole = [family for family in found.families if family.kind not in FOLDED]
    is_folded = sum(len(family.rows) for family in whole) > 1
    shown = whole if is_folded else found.families
    tables = Tables([Section(family.title, family.rows, family.best) for family in shown], found.metric, metrics, screen)
    return [*tables.blocks(), *(folded_blocks(found, metrics, screen) if is_folded else []), label_lines(found, screen)]


def _sorted(found: Overview, arms: pd.DataFrame, sort: str, metrics: MetricTable, screen: Screen) -> list[list[Text]]:
    """One table of all arms in their order, by name or by a metric, which has a column."""
    rows = {row.arm: row for family in found.families for row in family.rows}
    name, members = short_name(sort), [rows[arm] for arm in arms["arm"]]
    if sort == "arm" or name == found.metric:
        return Tables([Section(f"By {metrics.title(name)}", members)], found.metric, metrics, screen).blocks()
    values = {row["arm"]: metrics.value(name, row[f"{name}_mean"], row[f"{name}_sd"]) for row in arms.to_dict("records")}
    return Tables([Section(f"By {metrics.title(name)}", members)], found.metric, metrics, screen, (name, values)).blocks()
