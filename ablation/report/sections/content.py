"""What every document is made of, and how it was asked for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from ablation.report.metrics import short_name
from ablation.report.references import References
from ablation.report.tables import Frames

MADE_BY = "ablate report "  # what the first line of a document begins with, after the mark of a comment

# what the store says of where a run comes from
RECORDED = ("commit", "dirty", "versions", "hardware", "device", "precision", "statistical", "digest", "command")


@dataclass(frozen=True)
class Shown:
    """What was asked for: the metric, globs of arms, a column to sort by, and the file of published figures."""

    metric: str = "test/accuracy"
    arms: tuple[str, ...] = ()
    sort: str = ""
    only_changed: bool = False
    reference: str = ""


@dataclass(frozen=True)
class Content:
    """All that a document is made of; `figures` has the path and the words of each picture, by what they show."""

    study: str
    plan: Mapping[str, Any]
    superseded: Sequence[str]
    frames: Frames
    metric: str
    references: References
    figures: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    options: Shown = field(default_factory=Shown)
    recorded: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["run_id", *RECORDED]))  # per run, where it comes from

    @property
    def name(self) -> str:
        """The metric's short name, as the frames have it."""
        return short_name(self.metric)

    @property
    def margin(self) -> float:
        """The points below which a difference is called none."""
        return float(self.plan.get("margin", 0.5))

    @cached_property
    def shown(self) -> list[str]:
        """The arms that are shown, in the order of the tables."""
        return [str(arm) for arm in self.frames.arms["arm"]]

    @cached_property
    def planned(self) -> dict[str, Mapping[str, Any]]:
        """The plan's arms that are shown, by name."""
        by_name = {arm["name"]: arm for arm in self.plan["arms"]}
        return {name: by_name[name] for name in self.shown}

    @cached_property
    def pairs(self) -> dict[tuple[str, str], dict[Any, Any]]:
        """(arm, role) -> the difference of the metric."""
        rows = self.frames.differences[self.frames.differences["metric"] == self.name].to_dict("records")
        return {(row["arm"], row["role"]): row for row in rows}

    @cached_property
    def on_test(self) -> frozenset[str]:
        """The plan's arms, shown or not, that were chosen by looking at the test images."""
        return frozenset(arm["name"] for arm in self.plan["arms"] if "selected on test" in arm["labels"])

    @property
    def unfinished(self) -> pd.DataFrame:
        """The runs of the shown arms that are not done."""
        return self.frames.runs[self.frames.runs["state"] != "done"]


def made_by(content: Content) -> str:
    """How the document was asked for, on one line that is safe within a comment of HTML, Markdown or LaTeX.

    The line holds JSON, in which a text may be written so that it cannot end the comment.
    """
    asked = {"study": content.study, **asdict(content.options), "figures": bool(content.figures)}
    told = json.dumps(asked, ensure_ascii=True)
    for mark in ("<", ">", "--"):
        told = told.replace(mark, "".join(f"\\u{ord(letter):04x}" for letter in mark))
    return MADE_BY + told
