"""The text of a study on standard output: as wide as the terminal, with colours there, plain in a pipe."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console

from ablation.tracking.recorded import Recorded as StoredRecord

if TYPE_CHECKING:
    from rich.text import Text

    from ablation.report.frames.recorded import Recorded
    from ablation.report.sections import Shown


def print_study(recorded: "Recorded", options: "Shown") -> None:
    """Print the first screen of a study's report."""
    Console(file=sys.stdout).print(study_text(recorded, options), soft_wrap=True, highlight=False)


def study_text(recorded: "Recorded", options: "Shown") -> "Text":
    """The same as a text with styles, for the terminal that standard output is, or for a pipe."""
    from ablation.report.documents import terminal
    from ablation.report.documents.terminal_text import NARROWEST, WIDTH, Screen

    console = Console(file=sys.stdout)
    width = min(WIDTH, max(NARROWEST, console.width)) if sys.stdout.isatty() else WIDTH
    notes = recorded.notes if isinstance(recorded, StoredRecord) else ()
    return terminal.of_record(recorded, replace(options, notes=tuple(notes)), Screen(width, console.encoding))
