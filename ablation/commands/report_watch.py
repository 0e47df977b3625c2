"""Watching a study: its short table is shown again whenever its record changes, until its run ends."""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ablation import report
from ablation.commands.screen import study_text
from ablation.errors import AblateError, ConfigError
from ablation.formatting import counted
from ablation.running.progress import is_drawable
from ablation.tracking.database import at_work
from ablation.tracking.recorded import Recorded as StoredRecord

if TYPE_CHECKING:
    from ablation.report.frames.recorded import Recorded

DONE = 0  # the exit status
POLL_SECONDS = 2.0  # between two looks at the store


class Options(Protocol):
    """The options of a report."""

    @property
    def document_format(self) -> str | None:
        """The document's format; None means markdown."""

    @property
    def output(self) -> Path | None:
        """The folder for the report; None shows only the short table."""

    @property
    def arms(self) -> Sequence[str]:
        """Globs that select the arms."""

    @property
    def metric(self) -> str:
        """The metric whose differences are tested."""

    @property
    def sort(self) -> str | None:
        """The column that orders the arms."""

    @property
    def only_changed(self) -> bool:
        """Whether the settings that differ get a column each."""

    @property
    def reference(self) -> Path | None:
        """A CSV file of published figures."""

    @property
    def columns(self) -> str | None:
        """The columns of LaTeX's tables, with commas between them."""


def watch(open_recorded: Callable[[], "Recorded"], options: Options) -> int:
    """Show the table whenever the study changes, and write the report if there is an output folder; the exit status when the run has ended.

    If nothing is recorded yet, wait as long as something runs here. Ctrl-C ends the watching and nothing else.
    """
    console = Console()
    view = _RedrawnTable(console) if is_drawable(console) else _PrintedTable(console)
    with contextlib.suppress(KeyboardInterrupt), view:
        recorded = _wait_for_record(open_recorded)
        shown_change: int | None = None
        while True:
            running = at_work(Path("mlruns"), recorded.study)  # checked first, so that the last change is not missed
            last_change, began = _last_change(recorded), time.monotonic()
            if last_change != shown_change:
                recorded = open_recorded() if running or shown_change is not None else recorded
                shown_change = last_change
                view.table(_table(recorded, options))
                if options.output is not None:
                    write(recorded, options)
            view.headline(_headline(recorded.study, running))
            if not running:
                break
            time.sleep(max(POLL_SECONDS, time.monotonic() - began))  # a report that takes long is not written all the time
    return DONE


def _wait_for_record(open_recorded: Callable[[], "Recorded"]) -> "Recorded":
    """The study's record, as soon as a run that has just started has registered it."""
    is_announced = False
    while True:
        try:
            return open_recorded()
        except ConfigError:
            raise
        except AblateError as error:
            if not at_work(Path("mlruns")):
                raise
            if not is_announced:
                Console(stderr=True).print(f"waiting: {error}", markup=False, highlight=False, soft_wrap=True)
                is_announced = True
        time.sleep(POLL_SECONDS)


def _last_change(recorded: "Recorded") -> int:
    """When the record last changed; 0 for one that is not in a store, which never changes."""
    return recorded.store.changed(recorded.study) if isinstance(recorded, StoredRecord) else 0


def _table(recorded: "Recorded", options: Options) -> Text:
    from ablation.report.sections import Shown

    return study_text(recorded, Shown(options.metric, tuple(options.arms), options.sort or ""))


def write(recorded: "Recorded", options: Options) -> str:
    """Write the report's files into the output folder, if there is one; the report's text."""
    return report.write(
        recorded,
        options.document_format or "markdown",
        options.output,
        options.metric,
        options.arms,
        references=options.reference,
        sort=options.sort or "",
        only_changed=options.only_changed,
        notes=recorded.notes if isinstance(recorded, StoredRecord) else (),
        content=recorded.content if isinstance(recorded, StoredRecord) else "",
        columns=options.columns.split(",") if options.columns else (),
    )


def _headline(study: str, running: Sequence[str]) -> str:
    """The progress of the run, from the status file that it writes beside the store; where only parts are `running`, how many."""
    if study not in running:
        return f"{study}: running · {counted(len(running), 'part')}" if running else f"{study}: not running"
    try:
        status = json.loads((Path("mlruns/status") / f"{study}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        status = {}
    return " · ".join(filter(None, [f"{study}: running", status.get("headline", "")]))


class _RedrawnTable:
    """In a terminal: the headline and the table are redrawn in place."""

    def __init__(self, console: Console) -> None:
        self.live = Live(console=console, auto_refresh=False)
        self.parts = [Text("", style="bold"), Text("")]

    def __enter__(self) -> "_RedrawnTable":
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def table(self, text: Text) -> None:
        """Show this table from now on."""
        text.no_wrap, text.overflow = True, "ellipsis"
        self.parts[1] = text

    def headline(self, text: str) -> None:
        """Show this headline above the table."""
        self.parts[0] = Text(text, style="bold")
        self.live.update(Group(*self.parts), refresh=True)


class _PrintedTable:
    """Elsewhere: the table is printed once per change, under the headline of that moment."""

    def __init__(self, console: Console) -> None:
        self.console, self.waiting = console, Text()

    def __enter__(self) -> "_PrintedTable":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to clean up."""

    def table(self, text: Text) -> None:
        """Print this table with the next headline."""
        self.waiting = text

    def headline(self, text: str) -> None:
        """Print this headline and the waiting table, if there is one."""
        if self.waiting:
            self.console.print(Text(f"{text}\n\n").append_text(self.waiting).append("\n"), soft_wrap=True, highlight=False)
            self.waiting = Text()
