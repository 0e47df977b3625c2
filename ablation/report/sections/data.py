"""The data of the study: how they were split, and what may make a result worth less."""

from collections.abc import Mapping
from typing import Any

from ablation.formatting import counted, escaped, shortened, table
from ablation.report.sections.common import bullets, paragraphs
from ablation.report.sections.content import Content
from ablation.report.sections.section import Section


def data(content: Content) -> list[Section]:
    """A line for each data set, with what was found in it; the images of each class and split are folded."""
    accounts = content.plan.get("data") or []
    body = paragraphs(*(_account(account, len(accounts)) for account in accounts))
    details = tuple(Section(_title(account, len(accounts)), _class_table(account)) for account in accounts if account.get("counts"))
    return [Section("Data", body, details)] if accounts else []


def _account(account: Mapping[str, Any], num_accounts: int) -> str:
    arms = f" Arms: {escaped(shortened(account['arms']))}." if num_accounts > 1 else ""
    findings = [escaped(finding["sentence"]) for finding in account["findings"]]
    return paragraphs(f"{escaped(account['summary'])}.{arms}", bullets(findings))


def _title(account: Mapping[str, Any], num_accounts: int) -> str:
    which = f" of {escaped(account['data'])}" if num_accounts > 1 else ""
    return f"Images of the {counted(len(account['classes']), 'class', 'classes')}{which}, seed {account['seed']}"


def _class_table(account: Mapping[str, Any]) -> str:
    counts: Mapping[str, list[int]] = account["counts"]
    rows = [[escaped(name), *(f"{per_class[c]:,}" for per_class in counts.values())] for c, name in enumerate(account["classes"])]
    return table(["class", *counts], rows)
