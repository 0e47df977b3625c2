"""The short table of a study, shown again whenever its record changes, until its run ends."""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ablation import report
from ablation.errors import AblateError, ConfigError
from ablation.tracking.store import Recorded as InStore

if TYPE_CHECKING:
    from ablation.report.frames.tables import Recorded

DONE = 0  # the exit status
LOOK_EVERY = 2.0  # seconds between two looks at the store


class Options(Protocol):
    """What a report takes."""

    @property
    def form(self) -> str | None:
        """The document's form; None is markdown."""

    @property
    def output(self) -> Path | None:
        """The folder that it is written into; None: only the short table is shown."""

    @property
    def arms(self) -> Sequence[str]:
        """Globs that choose what is shown."""

    @property
    def metric(self) -> str:
        """The metric that differences are taken of."""

    @property
    def sort(self) -> str | None:
        """The column that orders the arms."""

    @property
    def only_changed(self) -> bool:
        """Whether the settings that differ get a column each."""

    @property
    def reference(self) -> Path | None:
        """A CSV file of published figures."""


def watch(open_recorded: Callable[[], "Recorded"], options: Options) -> int:
    """Show the table, and with an output folder write the report, whenever the study changes; the exit status when its run has ended.

    Where nothing is recorded yet, it waits as long as something is being run here. Ctrl-C ends the watching, and nothing else.
    """
    console = Console()
    shown = _Redrawn(console) if console.is_terminal else _Printed(console)
    with contextlib.suppress(KeyboardInterrupt), shown:
        recorded = _once_there(open_recorded)
        last: int | None = None
        while True:
            is_running = is_held(Path("mlruns/locks") / f"{recorded.study}.lock")  # asked first, so that the last change is seen
            changed, began = _changed(recorded), time.monotonic()
            if changed != last:
                recorded = open_recorded() if is_running or last is not None else recorded
                last = changed
                shown.table(_table(recorded, options))
                if options.output is not None:
                    write(recorded, options)
            shown.headline(_headline(recorded.study, is_running=is_running))
            if not is_running:
                break
            time.sleep(max(LOOK_EVERY, time.monotonic() - began))  # a long report is not written all the time
    return DONE


def _once_there(open_recorded: Callable[[], "Recorded"]) -> "Recorded":
    """The study's record, as soon as a run that has just begun has registered it."""
    is_told = False
    while True:
        try:
            return open_recorded()
        except ConfigError:
            raise
        except AblateError as error:
            if not any(is_held(path) for path in Path("mlruns/locks").glob("*.lock")):
                raise
            if not is_told:
                Console(stderr=True).print(f"waiting: {error}", markup=False, highlight=False, soft_wrap=True)
                is_told = True
        time.sleep(LOOK_EVERY)


def is_held(path: Path) -> bool:
    """Whether a process holds that lock."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def _changed(recorded: "Recorded") -> int:
    """When the record changed last; one that lies in no store stays as it is."""
    return recorded.store.changed(recorded.study) if isinstance(recorded, InStore) else 0


def _table(recorded: "Recorded", options: Options) -> str:
    from ablation.report.documents.writing import chosen_arms

    return report.brief(recorded, chosen_arms(recorded.plan, options.arms))


def write(recorded: "Recorded", options: Options) -> str:
    """The report as asked for: its text, and in the output folder, where there is one, its files."""
    return report.write(
        recorded,
        options.form or "markdown",
        options.output,
        options.metric,
        options.arms,
        references=options.reference,
        sort=options.sort or "",
        only_changed=options.only_changed,
    )


def _headline(study: str, *, is_running: bool) -> str:
    """How the run stands, as it says itself beside the store."""
    try:
        about = json.loads((Path("mlruns/status") / f"{study}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        about = {}
    state = "running" if is_running else "not running"
    return " · ".join(filter(None, [f"{study}: {state}", about.get("headline", "") if is_running else ""]))


class _Redrawn:
    """In a terminal: the table and the headline above it, drawn anew in their place."""

    def __init__(self, console: Console) -> None:
        self.live = Live(console=console, auto_refresh=False)
        self.parts = [Text("", style="bold"), Text("")]

    def __enter__(self) -> "_Redrawn":
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def table(self, text: str) -> None:
        """Show this table from now on."""
        self.parts[1] = Text(text, no_wrap=True, overflow="ellipsis")

    def headline(self, text: str) -> None:
        """Show this above it."""
        self.parts[0] = Text(text, style="bold")
        self.live.update(Group(*self.parts), refresh=True)


class _Printed:
    """Elsewhere: the table once per change, under the headline of that moment."""

    def __init__(self, console: Console) -> None:
        self.console, self.waiting = console, ""

    def __enter__(self) -> "_Printed":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to leave."""

    def table(self, text: str) -> None:
        """Print this table with the next headline."""
        self.waiting = text

    def headline(self, text: str) -> None:
        """Print it where a table waits for it."""
        if self.waiting:
            self.console.out(f"{text}\n\n{self.waiting}\n", highlight=False)
            self.waiting = ""
