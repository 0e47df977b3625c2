"""The data of the study: how they were split, and what may make a result worth less."""

from collections.abc import Mapping
from typing import Any

from ablation.formatting import counted, escaped, shortened
from ablation.report.frames.facts import groups_of
from ablation.report.sections.common import bullets, paragraphs, table
from ablation.report.sections.content import Content
from ablation.report.sections.section import Section

MOST_CLASSES_NAMED = 12
MOST_FINDINGS = 3  # seen at once


def data(content: Content) -> list[Section]:
    """A line for each data set, with what was found in it, and the images of each class and split."""
    accounts = content.plan.get("data") or []
    body = paragraphs(*(_account(account, len(accounts)) for account in accounts))
    details = tuple(Section(_title(account, len(accounts)), _class_table(account)) for account in accounts if account.get("counts"))
    return [Section("Data", body, details)] if accounts else []


def findings(content: Content) -> list[Section]:
    """What was found in the data that may make a result worth less; nothing if nothing was."""
    accounts = content.plan.get("data") or []
    lines = [escaped(finding["sentence"]) for account in accounts for finding in account["findings"]]
    more = [f"and {len(lines) - MOST_FINDINGS} more, see [Data](#data)."] if len(lines) > MOST_FINDINGS else []
    return [Section("Found in the data", bullets([*lines[:MOST_FINDINGS], *more]))] if lines else []


def groups(content: Content) -> list[Section]:
    """The groups of classes and their members; nothing if there is no group."""
    found = groups_of(content.plan)
    members = [f"*{escaped(group)}*: {_members(names)}" for group, names in found.items()]
    return [Section("Groups of classes", bullets(members))] if any(found.values()) else []


def _members(names: list[str]) -> str:
    examples = f" ({escaped(shortened(names, MOST_CLASSES_NAMED))})" if names else ""
    return f"{counted(len(names), 'class', 'classes')}{examples}" if names else "no class"


def _account(account: Mapping[str, Any], num_accounts: int) -> str:
    arms = f" Arms: {escaped(shortened(account['arms']))}." if num_accounts > 1 else ""
    sentences = [escaped(finding["sentence"]) for finding in account["findings"]]
    return paragraphs(f"{escaped(account['summary'])}.{arms}", bullets(sentences))


def _title(account: Mapping[str, Any], num_accounts: int) -> str:
    which = f" of {escaped(account['data'])}" if num_accounts > 1 else ""
    return f"Images of the {counted(len(account['classes']), 'class', 'classes')}{which}, seed {account['seed']}"


def _class_table(account: Mapping[str, Any]) -> str:
    counts: Mapping[str, list[int]] = account["counts"]
    rows = [[escaped(name), *(f"{per_class[c]:,}" for per_class in counts.values())] for c, name in enumerate(account["classes"])]
    return table(["class", *counts], rows)
