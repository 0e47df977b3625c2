"""Reads a recorded study into tidy frames and writes documents from them; trains and records nothing.

pandas, seaborn and matplotlib are imported on first use only.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ablation.report.frames.recorded import Recorded
    from ablation.report.frames.tables import Frames
    from ablation.study.config import Study

__all__ = ["FORMATS", "brief", "load", "tidy_frames", "write"]

FORMATS = ("markdown", "html", "latex", "csv", "json", "text")


def load(study: "str | Study") -> "Frames":
    """The frames of a study (or of a study's name) in the store that `run` writes to.

    Of a study they are those of the newest plan of what its file says; where there is none, those of the newest plan, with a warning.
    """
    from ablation.errors import StoreError
    from ablation.study.written import compared, written
    from ablation.tracking.store import Store

    store = Store.open(make=False)
    recorded = store.recorded(study if isinstance(study, str) else study.name)
    if not isinstance(study, str) and (difference := compared(study, recorded.plan)):
        try:
            recorded = store.recorded(study.name, content=written(study)["digest"])
        except StoreError:
            warnings.warn(difference, stacklevel=2)
    return tidy_frames(recorded)


def tidy_frames(recorded: "Recorded") -> "Frames":
    """The tidy frames of one recorded study."""
    from ablation.report.frames import tables

    return tables.tidy_frames(recorded)


def brief(
    recorded: "Recorded", arms: Sequence[str] = (), metric: str = "", sort: str = "", *, notes: Sequence[str] = (), width: int = 100
) -> str:
    """The text that a run ends with, which is the first screen of its report: at most `width` columns, and at least 60.

    `arms`, `metric`, `sort` and `notes` are those of `write`.
    """
    from ablation.report.documents import terminal
    from ablation.report.documents.terminal_text import Screen
    from ablation.report.sections import Shown

    options = Shown(metric, tuple(arms), sort, notes=tuple(notes))
    return terminal.of_record(recorded, options, Screen(width)).plain


def write(
    recorded: "Recorded",
    format: str = "markdown",  # noqa: A002 - the command's own word for it
    output: Path | None = None,
    metric: str = "",
    arms: Sequence[str] = (),
    *,
    references: Path | None = None,
    sort: str = "",
    only_changed: bool = False,
    notes: Sequence[str] = (),
    content: str = "",
    columns: Sequence[str] = (),
) -> str:
    """The report's text in one of FORMATS; with `output`, that folder also holds it, the figures and the CSV files.

    Differences are taken of `metric`, one of the final metrics, with `test/` or without (none: the study's metric, as its plan was
    recorded). `arms` are globs that choose what is shown (none: everything), `references` is
    a CSV file of published figures to compare with. `sort` is a metric, the best arm first, or `arm`; `only_changed` gives each setting
    that differs between the arms a column. `notes` are sentences about the plan for the beginning of the report, `content` says which
    plan it is if it is not the newest one. `columns` names those of LaTeX's tables (none: the usual ones).
    """
    from ablation.report.documents import writing
    from ablation.report.sections import Shown

    published = str(references) if references else ""
    options = Shown(metric, tuple(arms), sort, only_changed, published, tuple(notes), content, columns=tuple(columns))
    return writing.write(recorded, format, output, options)
