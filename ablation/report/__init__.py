"""What the store holds of a study, as tidy frames and as documents; pandas and seaborn are imported on first use only."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ablation.config import Study
    from ablation.report.tables import Frames, Recorded

__all__ = ["FORMATS", "brief", "frames", "load", "write"]

FORMATS = ("markdown", "html", "latex", "csv", "json")


def load(study: "str | Study") -> "Frames":
    """The frames of a study, or of the study of that name, in the store that `run` writes to."""
    from ablation.tracking.store import Store

    return frames(Store.open(make=False).recorded(study if isinstance(study, str) else study.name))


def frames(recorded: "Recorded") -> "Frames":
    """The tidy frames of what was recorded of one study."""
    from ablation.report import tables

    return tables.frames(recorded)


def brief(recorded: "Recorded", arms: Sequence[str]) -> str:
    """The short table that a run ends with."""
    from ablation.report.short import brief as short_table

    return short_table(recorded, arms)


def write(
    recorded: "Recorded",
    format: str = "markdown",  # noqa: A002 - the command's own word for it
    output: Path | None = None,
    metric: str = "test/accuracy",
    arms: Sequence[str] = (),
    *,
    references: Path | None = None,
    sort: str = "",
    only_changed: bool = False,
) -> str:
    """The report's text in one of FORMATS; with `output`, that folder also holds it, the figures and the CSV files.

    Differences are taken of `metric`, one of the test images', with `test/` or without. `arms` are globs that choose what is shown
    (none: everything), `references` is a CSV file of published figures to compare with. `sort` is a metric, the best arm first, or
    `arm`; `only_changed` gives each setting that differs between the arms a column.
    """
    from ablation.report import documents
    from ablation.report.sections import Shown

    asked = Shown(metric, tuple(arms), sort, only_changed, str(references) if references else "")
    return documents.write(recorded, format, output, asked)
