"""What the details of a study of one's own training code say in place of those of images: times, what runs depend on, what is unknown."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ablation.formatting import duration, escaped, listed, shortened
from ablation.report.frames.own import code_words
from ablation.report.sections.common import in_code, named, paragraphs, table
from ablation.report.sections.content import Content
from ablation.report.sections.section import Section

MOST_FILES = 12  # of code that are named


def times(content: Content, rows: pd.DataFrame, once: pd.DataFrame) -> Section:
    """The time of each arm's runs, where nothing is shared but whole runs, and nobody counts epochs."""
    by_arm = rows.groupby("arm", sort=False)["time/own"].agg(["mean", "sum"])
    cells = [[named(content, str(arm)), duration(mean), duration(total)] for arm, mean, total in by_arm.itertuples()]
    body = table(["arm", "a run", "all runs"], [*cells, ["all arms", "", duration(float(once["time/own"].sum()))]])
    words = "Whether an arm does more work than its parent is not known here, so compare their times."
    shared = " Runs that several arms have in common count once among all arms." if len(once) < len(rows) else ""
    return Section("Time", paragraphs(body, words + shared))


def depends_on(plan: Mapping[str, Any]) -> list[str]:
    """What the results of one's own training code depend on, as it was declared."""
    own = plan["own"]
    data = [f"{in_code(entry['path'])} by {escaped(entry['by'])}" for entry in own.get("data") or ()]
    environment = [in_code(f"{name}={value}") for name, value in (own.get("env") or {}).items()]
    facts = {
        "function" if own["is_function"] else "command": in_code(code_words(plan)),
        "packages that it imports": escaped(", ".join(f"{name} {version}" for name, version in (own.get("packages") or {}).items())),
        "code that counts": shortened([in_code(name) for name in own.get("code") or ()], MOST_FILES) or "none",
        "data that count": listed(data) or "none declared",
        "environment": ", ".join(environment),
        "a run has failed after": duration(own["timeout"]) if own.get("timeout") else "",
    }
    return [f"{name}: {value}" for name, value in facts.items() if value]


def looks(content: Content) -> str:
    """How often the test items were looked at, as far as that is known."""
    if content.own:
        return "How the test items were used is the code's affair: whether it chose anything by them cannot be seen from here."
    return f"The test {content.items} were looked at once, after training, unless a label says otherwise."
