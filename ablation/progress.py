"""What the user sees meanwhile: a live table in a terminal, plain lines elsewhere, and an honest time left."""

import contextlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablation.plan import Node, Plan
from ablation.report.words import change, duration, percent

HEADLINE = "test/accuracy"  # the metric that is shown meanwhile
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


class Clock:
    """The time left: the plan's estimate of what is not done, corrected by how long what is done took."""

    def __init__(self, plan: Plan, num_slots: int) -> None:
        self.nodes, self.num_slots = plan.nodes, num_slots
        self.epochs: dict[str, int] = {}
        self.spent: dict[str, float] = {}
        self.ended = {key for key, node in plan.nodes.items() if not node.seconds}
        self._took, self._estimated = 0.0, 0.0  # of all epochs so far

    def see(self, event: Mapping[str, Any]) -> None:
        """Take note of an epoch's time, or of an end."""
        if event["kind"] == "epoch":
            key, seconds = event["stage"], event["row"]["seconds"]
            self.epochs[key] = self.epochs.get(key, 0) + 1
            self.spent[key] = self.spent.get(key, 0.0) + seconds
            self._took += seconds
            self._estimated += _per_epoch(self.nodes[key])
        elif event["kind"] in ("done", "failed"):
            self.ended.add(event["stage"])

    @property
    def seconds_left(self) -> float:
        """Seconds until the end, were every slot busy."""
        left = [self.seconds_of(key) for key in self.nodes if key not in self.ended]
        return max(sum(left) / self.num_slots, max(left, default=0.0))

    def seconds_of(self, key: str) -> float:
        """The seconds that are left of one stage: by its own epochs, else by the plan, corrected by how wrong that was so far."""
        if key in self.ended:
            return 0.0
        factor = self._took / self._estimated if self._estimated else 1.0
        epochs = max(0, self.nodes[key].left - self.epochs.get(key, 0))
        own = self.spent[key] / self.epochs[key] if self.epochs.get(key) else factor * _per_epoch(self.nodes[key])
        return epochs * own + factor * self.nodes[key].testing


def _per_epoch(node: Node) -> float:
    return (node.seconds - node.testing) / node.left if node.left else 0.0


class Results:
    """What came out so far: the metrics of the runs that are recorded, and of those that finish."""

    def __init__(self, plan: Plan, folder: Path, recorded: Values) -> None:
        self.runs = {(run.arm, run.seed): run for run in plan.runs}
        self.baselines = {arm.name: arm.baseline for arm in plan.study.arms}
        self.folder, self.values = folder, {one: dict(values) for one, values in recorded.items() if one in self.runs}
        self.newest = list(dict.fromkeys(arm for arm, _ in self.values))  # the arm that got a result last stands last
        for one in [one for one, run in self.runs.items() if run.state == "evaluated"]:
            self.take(*one)

    def take(self, arm: str, seed: int) -> None:
        """Look up the metrics of a run that is finished; of one that chooses among others, those of the best."""
        run, found = self.runs[arm, seed], {}
        if run.choice is not None:
            metric = f"validation/{run.choice.metric}"
            among = [values for name in run.choice.among if metric in (values := self.values.get((name, seed), {}))]
            found = (min if run.choice.is_lower_better else max)(among, key=lambda values: values[metric], default={})
        else:
            with contextlib.suppress(OSError, ValueError, KeyError):  # the record will tell; the view goes without
                found = json.loads((self.folder / run.key / "result.json").read_text(encoding="utf-8"))["metrics"]
        self.values[arm, seed] = found
        self.newest = [*(name for name in self.newest if name != arm), arm]

    def accuracies(self, arm: str) -> dict[int, float]:
        """The headline metric of an arm's runs, by seed."""
        return {seed: values[HEADLINE] for (name, seed), values in self.values.items() if name == arm and HEADLINE in values}

    def difference(self, arm: str) -> float:
        """The mean difference to the arm's baseline over the seeds that both have, in points; NaN where there is none."""
        own, other = self.accuracies(arm), self.accuracies(self.baselines[arm] or "")
        pairs = [100 * (own[seed] - other[seed]) for seed in own if seed in other]
        return fmean(pairs) if pairs else math.nan

    def rows(self) -> list[list[str]]:
        """Arm, runs that are there of those planned, accuracy and difference: of the first arm and the newest, in the plan's order."""
        order = list(dict.fromkeys(arm for arm, _ in self.runs))
        there = [arm for arm in order if arm in self.newest]
        shown = {*there[:1], *self.newest[1 - MOST_RESULTS :]}
        return [self._row(arm) for arm in there if arm in shown]

    def _row(self, arm: str) -> list[str]:
        planned, found = sum(name == arm for name, _ in self.runs), self.accuracies(arm)
        there = sum(name == arm for name, _ in self.values)
        return [arm, f"{there}/{planned}", percent(fmean(found.values()) if found else math.nan), change(self.difference(arm))]


class Board:
    """The state of the matrix, from its events."""

    def __init__(self, plan: Plan, num_slots: int, results: Results) -> None:
        self.plan, self.clock, self.results = plan, Clock(plan, num_slots), results
        self.began = time.monotonic()
        self.running: dict[str, dict[str, Any]] = {}
        self.failed: list[str] = []

    def see(self, event: Mapping[str, Any]) -> None:
        """Take one event."""
        self.clock.see(event)
        key, kind = event.get("stage", ""), event["kind"]
        if kind == "started":
            self.running[key] = {"epoch": 0, "rate": 0.0, "loss": None}
        elif kind == "epoch":
            self.running[key] |= {"epoch": event["epoch"], "rate": event["row"]["images_per_second"], "loss": event["row"]["loss"]}
        elif kind == "finished":
            self.results.take(event["arm"], event["seed"])
        elif kind in ("done", "failed", "stopped"):
            self.running.pop(key, None)
            if kind == "failed":
                self.failed.append(f"{self.name(key)}: {event['message']}")

    def name(self, key: str) -> str:
        """The arms and the seed that a stage belongs to, in few words."""
        node = self.plan.nodes[key]
        others = len(node.arms) - 1
        more = f" (+{others} {'arm' if others == 1 else 'arms'})" if others else ""
        return f"{node.owner}{more} seed {node.job.seed}"

    def snapshot(self) -> dict[str, Any]:
        """What `ablate status` shows, as plain data."""
        rows = [{"name": self.name(key), "epochs": self.plan.nodes[key].job.until, **state} for key, state in self.running.items()]
        return {"headline": self.headline(), "running": rows, "failed": self.failed}

    def headline(self) -> str:
        """Runs done, time spent, time left."""
        left = self.clock.seconds_left
        failed = f", {len(self.failed)} failed" if self.failed else ""
        runs = f"{len(self.results.values)}/{len(self.results.runs)} runs"
        return f"{runs}{failed} · {duration(time.monotonic() - self.began)} · about {duration(left)} left"


class LiveView:
    """A table that is drawn anew."""

    def __init__(self, board: Board, console: Console) -> None:
        self.board = board
        self.live = Live(self._draw(), console=console, auto_refresh=False, transient=True)
        self.live.start()
        self.drawn = 0.0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event."""
        self.board.see(event)
        if time.monotonic() - self.drawn > REFRESH:
            self.drawn = time.monotonic()
            self.live.update(self._draw(), refresh=True)

    def _draw(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("training", "epoch", "loss", "images/s"):
            table.add_column(name, justify="left" if name == "training" else "right")
        for row in self.board.snapshot()["running"][:MOST_ROWS]:
            table.add_row(row["name"], *row_words(row))
        waiting = sum(1 for key in self.board.plan.nodes if key not in self.board.clock.ended and key not in self.board.running)
        headline, rest = Text(self.board.headline(), style="bold"), Text(f"{waiting} stages waiting", style="dim")
        return Group(headline, table, rest, *self._results(), *(Text(f"failed: {line}", style="red") for line in self.board.failed[-3:]))

    def _results(self) -> list[Text | Table]:
        rows = self.board.results.rows()
        if not rows:
            return []
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("result so far", "runs", "accuracy", "vs baseline"):
            table.add_column(name, justify="left" if name == "result so far" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        more = len(self.board.results.newest) - len(rows)
        return [Text(""), table, *([Text(f"and {more} arms more: ablate report", style="dim")] if more else [])]

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.live.stop()


def row_words(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Epoch, loss and speed of a training, in words."""
    if row["loss"] is None:
        return "starting", "", ""
    epoch = "testing" if row["epoch"] >= row["epochs"] else f"{row['epoch']}/{row['epochs']}"
    return epoch, f"{row['loss']:.3f}", f"{row['rate']:.0f}"


class PlainView:
    """A line now and then."""

    def __init__(self, board: Board, console: Console) -> None:
        self.board, self.console = board, console
        self.said: dict[str, float] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event."""
        self.board.see(event)
        key, kind = event.get("stage", ""), event["kind"]
        if kind == "epoch" and time.monotonic() - self.said.get(key, 0.0) > LINE_EVERY:
            self.said[key] = time.monotonic()
            row = event["row"]
            epoch = f"epoch {event['epoch']}/{self.board.plan.nodes[key].job.until}"
            self._say(f"{self.board.name(key)}: {epoch}, loss {row['loss']:.3f}, {row['images_per_second']:.0f} images/s")
        elif kind == "finished":
            self._say(self._result(event["arm"], event["seed"]))
        elif kind == "failed":
            self._say(f"{self.board.name(key)}: failed ({event['failure']}): {event['message']}")

    def _result(self, arm: str, seed: int) -> str:
        value, difference = self.board.results.accuracies(arm).get(seed, math.nan), self.board.results.difference(arm)
        against = "" if math.isnan(difference) else f", {change(difference)} points to {self.board.results.baselines[arm]} so far"
        return f"{arm} seed {seed}: finished, accuracy {percent(value)} %{against}"

    def _say(self, text: str) -> None:
        self.console.print(f"{self.board.headline()} | {text}", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing to leave."""


def view(board: Board, console: Console) -> View:
    """The live table where stderr is a terminal, plain lines elsewhere."""
    return LiveView(board, console) if console.is_terminal else PlainView(board, console)
