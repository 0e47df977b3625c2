"""What the user sees meanwhile: a live table in a terminal, plain lines elsewhere, and an honest time left."""

import contextlib
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablation.formatting import duration
from ablation.planning.plan import Plan
from ablation.report.metrics import PERCENT, planned_metrics, with_unit
from ablation.running.clock import Clock
from ablation.running.recorder.choosing import best_of
from ablation.running.words import curve_words, epoch_words, shown_values
from ablation.system import sealed

REFRESH = 0.5  # seconds between two drawings
LINE_EVERY = 5.0  # seconds between two plain lines about one stage
MOST_ROWS = 20
MOST_RESULTS = 12

Values = Mapping[tuple[str, int], Mapping[str, float]]  # the metrics of runs, by arm and seed


class View(Protocol):
    """What shows events."""

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Results:
    """What came out so far: the metrics of the runs that are recorded, and of those that finish."""

    def __init__(self, plan: Plan, folder: Path, recorded: Values) -> None:
        self.metrics = planned_metrics(plan)
        self.runs = {(run.arm, run.seed): run for run in plan.runs}
        self.baselines = {arm.name: arm.baseline for arm in plan.study.arms}
        self.folder, self.values = folder, {run: dict(values) for run, values in recorded.items() if run in self.runs}
        self.num_planned = Counter(arm for arm, _ in self.runs)
        self.by_arm: dict[str, dict[int, Mapping[str, float]]] = {}
        for (arm, seed), values in self.values.items():
            self.by_arm.setdefault(arm, {})[seed] = values
        self.newest = list(self.by_arm)  # the arm that got a result last stands last
        for arm, seed in [name for name, run in self.runs.items() if run.state == "evaluated"]:
            self.take(arm, seed)

    def take(self, arm: str, seed: int) -> None:
        """Look up the metrics of a run that is finished; of one that chooses among others, those of the best."""
        run, metrics = self.runs[arm, seed], {}
        if run.choice is not None:
            metric = f"validation/{run.choice.metric}"
            among = {name: values for name in run.choice.among if metric in (values := self.values.get((name, seed), {}))}
            metrics = among[best_of(run.choice, {name: values[metric] for name, values in among.items()})] if among else {}
        else:
            with contextlib.suppress(OSError, ValueError, KeyError):  # the record will tell; the display goes without
                metrics = json.loads((self.folder / run.key / sealed.RESULT).read_text(encoding="utf-8"))["metrics"]
        self.values[arm, seed] = self.by_arm.setdefault(arm, {})[seed] = metrics
        self.newest = [*(name for name in self.newest if name != arm), arm]

    @property
    def title(self) -> str:
        """What the metric that is shown is called: that of the study."""
        return self.metrics.title(self.metrics.default)

    def scores(self, arm: str) -> dict[int, float]:
        """The study's metric of an arm's runs by seed, as the store has it."""
        name = self.metrics.full_name(self.metrics.default)
        return {seed: values[name] for seed, values in self.by_arm.get(arm, {}).items() if name in values}

    def difference(self, arm: str) -> float:
        """The mean difference to the arm's baseline over the seeds that both have, in its own unit; NaN where there is none."""
        scores, others = self.scores(arm), self.scores(self.baselines[arm] or "")
        pairs = [self.metrics.unit(self.metrics.default).scale * (scores[seed] - others[seed]) for seed in scores if seed in others]
        return fmean(pairs) if pairs else math.nan

    def words(self, arm: str, seed: int) -> str:
        """`accuracy 84.22 %, +0.50 points to baseline so far`: what a run came to."""
        name = self.metrics.default
        unit, difference = self.metrics.unit(name), self.difference(arm)
        value = self.metrics.value(name, self.scores(arm).get(seed, math.nan))
        words = f"{self.metrics.words(name)} {with_unit(value, '%' if unit.values == PERCENT.values else unit.values, '{} {}')}"
        if math.isnan(difference):
            return words
        return f"{words}, {with_unit(self.metrics.difference(name, difference), unit.differences, '{} {}')} to {self.baselines[arm]} so far"

    def rows(self) -> list[list[str]]:
        """Arm, runs that are there of those planned, accuracy and difference: of the first arm and the newest, in the plan's order."""
        arms = [arm for arm in self.num_planned if arm in self.by_arm]
        shown = {*arms[:1], *self.newest[1 - MOST_RESULTS :]}
        return [self._row(arm) for arm in arms if arm in shown]

    def _row(self, arm: str) -> list[str]:
        num_planned, num_done = self.num_planned[arm], len(self.by_arm[arm])
        scores, name = self.scores(arm), self.metrics.default
        mean = self.metrics.value(name, fmean(scores.values()) if scores else math.nan)
        return [arm, f"{num_done}/{num_planned}", mean, self.metrics.difference(name, self.difference(arm))]


class ProgressState:
    """The state of the matrix, from its events."""

    def __init__(self, plan: Plan, num_slots: int, results: Results) -> None:
        self.plan, self.clock, self.results = plan, Clock(plan, num_slots), results
        self.curves, self.words = plan.study.task.curves, plan.study.task.words
        self.began = time.monotonic()
        self.running: dict[str, dict[str, Any]] = {}
        self.given_up: dict[tuple[int, str], list[str]] = {}  # the arms, by their seed and the message

    def see(self, event: Mapping[str, Any]) -> None:
        """Take one event."""
        self.clock.see(event)
        key, kind = event.get("stage", ""), event["kind"]
        if kind == "started":
            self.running[key] = {"epoch": 0, "shown": {}}
        elif kind == "epoch":
            self.running[key] = {"epoch": event["epoch"], "shown": shown_values(event["row"]["values"], self.curves)}
        elif kind == "finished":
            self.results.take(event["arm"], event["seed"])
        elif kind == "given up":
            self.given_up.setdefault((event["seed"], event["message"]), []).append(event["arm"])
        elif kind in ("done", "failed", "stopped"):
            self.running.pop(key, None)

    @property
    def failed(self) -> list[str]:
        """The runs that failed and why, a line for those of a seed that failed alike, as the runs of one stage do."""
        return [f"{_name(arms[0], len(arms), seed)}: {message}" for (seed, message), arms in self.given_up.items()]

    def name(self, key: str) -> str:
        """The arms and the seed that a stage belongs to, in few words."""
        node = self.plan.nodes[key]
        return _name(node.owner, len(node.arms), node.seed)

    def epochs(self, key: str) -> int:
        """The number of rows that a stage's history will have; 0 where nobody knows."""
        return self.plan.nodes[key].end_epoch if self.words.is_counted else 0

    def snapshot(self) -> dict[str, Any]:
        """What `ablate status` shows, as plain data."""
        rows = [{"name": self.name(key), "row": self.words.row, "epochs": self.epochs(key), **row} for key, row in self.running.items()]
        return {"headline": self.headline(), "running": rows, "failed": self.failed}

    def headline(self) -> str:
        """Runs done, time spent and, unless all are done, time left."""
        num_done, num_runs = len(self.results.values), len(self.results.runs)
        seconds = self.clock.seconds_left if num_done < num_runs else 0.0
        is_told = seconds or (num_done < num_runs and self.words.is_counted and self.clock.is_known)
        left = f" · about {duration(seconds)} left" if is_told else ""
        num_failed = sum(map(len, self.given_up.values()))
        failed = f", {num_failed} failed" if num_failed else ""
        return f"{num_done}/{num_runs} runs{failed} · {duration(time.monotonic() - self.began)}{left}"


class LiveView:
    """A table that is drawn anew."""

    def __init__(self, state: ProgressState, console: Console) -> None:
        self.state = state
        self.live = Live(self._draw(), console=console, auto_refresh=False, transient=True)
        self.live.start()
        self.drawn = 0.0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event."""
        self.state.see(event)
        if time.monotonic() - self.drawn > REFRESH:
            self.drawn = time.monotonic()
            self.live.update(self._draw(), refresh=True)

    def _draw(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        words, curves = self.state.words, self.state.curves
        for name in (words.running, words.row, *(curve.title for curve in curves), *(() if curves else ("",))):
            table.add_column(name, justify="left" if name in (words.running, "") else "right")
        for row in self.state.snapshot()["running"][:MOST_ROWS]:
            cells = [row["shown"].get(curve.title, "") for curve in curves] or [curve_words(row["shown"]).removeprefix(", ")]
            table.add_row(row["name"], epoch_words(row), *map(Text, cells))
        waiting = sum(1 for key in self.state.plan.nodes if key not in self.state.clock.ended and key not in self.state.running)
        headline, rest = Text(self.state.headline(), style="bold"), Text(f"{waiting} {words.part}s waiting", style="dim")
        return Group(headline, table, rest, *self._results(), *(Text(f"failed: {line}", style="red") for line in self.state.failed[-3:]))

    def _results(self) -> list[Text | Table]:
        rows = self.state.results.rows()
        if not rows:
            return []
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("result so far", "runs", self.state.results.title, "vs baseline"):
            table.add_column(name, justify="left" if name == "result so far" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        more = len(self.state.results.newest) - len(rows)
        return [Text(""), table, *([Text(f"and {more} arms more: ablate report", style="dim")] if more else [])]

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.live.stop()


class PlainView:
    """A line now and then."""

    def __init__(self, state: ProgressState, console: Console) -> None:
        self.state, self.console = state, console
        self.said: dict[str, float] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event."""
        self.state.see(event)
        key, kind = event.get("stage", ""), event["kind"]
        if kind == "epoch" and time.monotonic() - self.said.get(key, 0.0) > LINE_EVERY:
            self.said[key] = time.monotonic()
            shown = shown_values(event["row"]["values"], self.state.curves)
            epochs = self.state.epochs(key)
            total = f"/{epochs}" if epochs else ""
            self._say(f"{self.state.name(key)}: {self.state.words.row} {event['epoch']}{total}{curve_words(shown)}")
        elif kind == "finished":
            self._say(f"{event['arm']} seed {event['seed']}: finished, {self.state.results.words(event['arm'], event['seed'])}")
        elif kind == "given up" and len(self.state.given_up[event["seed"], event["message"]]) == 1:
            self._say(f"{_name(event['arm'], 1, event['seed'])}: failed ({event['failure']}): {event['message']}")

    def _say(self, text: str) -> None:
        self.console.print(f"{self.state.headline()} | {text}", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing to leave."""


class LastingView:
    """Another view, for as long as it can be shown: when it fails, that is said once, and only the state is kept up."""

    def __init__(self, state: ProgressState, console: Console, make: Callable[[ProgressState, Console], View]) -> None:
        self.state, self.console = state, console
        self.view: View | None = None
        with self._given_up_if_it_fails():
            self.view = make(state, console)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event."""
        with self._given_up_if_it_fails():
            (self.view or self.state.see)(event)

    def close(self) -> None:
        """Leave the terminal as it was."""
        with self._given_up_if_it_fails():
            if self.view:
                self.view.close()

    @contextlib.contextmanager
    def _given_up_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a display does, the work goes on
            view, self.view = self.view, None
            with contextlib.suppress(Exception):
                if view:
                    view.close()
            with contextlib.suppress(Exception):
                self.console.print(
                    f"the display ends here, the work goes on ({type(error).__name__}: {error})", markup=False, soft_wrap=True
                )


def progress_display(state: ProgressState, console: Console) -> View:
    """The live table where stderr is a terminal that can be drawn on, plain lines elsewhere."""
    return LastingView(state, console, LiveView if is_drawable(console) else PlainView)


def is_drawable(console: Console) -> bool:
    """Whether the console is a terminal that can move its cursor, whatever FORCE_COLOR says."""
    return console.is_terminal and not console.is_dumb_terminal and (not _is_forced() or console.file.isatty())


def _name(arm: str, num_arms: int, seed: int) -> str:
    more = f" (+{num_arms - 1} {'arm' if num_arms == 2 else 'arms'})" if num_arms > 1 else ""
    return f"{arm}{more} seed {seed}"


def _is_forced() -> bool:
    return any(os.environ.get(name) for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"))
