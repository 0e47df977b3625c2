"""What the user sees meanwhile: a live table in a terminal, plain lines elsewhere, and an honest time left."""

import time
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablation.plan import Node, Plan
from ablation.report.words import duration

REFRESH = 0.5  # seconds between two drawings
LINE_EVERY = 5.0  # seconds between two plain lines about one stage
MOST_ROWS = 20


class View(Protocol):
    """What shows events."""

    board: "Board"

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

    def see(self, event: Mapping[str, Any]) -> None:
        """Take note of an epoch's time, or of an end."""
        if event["kind"] == "epoch":
            self.epochs[event["stage"]] = self.epochs.get(event["stage"], 0) + 1
            self.spent[event["stage"]] = self.spent.get(event["stage"], 0.0) + event["row"]["seconds"]
        elif event["kind"] in ("done", "failed"):
            self.ended.add(event["stage"])

    @property
    def seconds_left(self) -> float:
        """Seconds until the end, were every slot busy."""
        estimated = sum(_per_epoch(self.nodes[key]) * count for key, count in self.epochs.items())
        factor = sum(self.spent.values()) / estimated if estimated else 1.0
        left = {key: self._left(key, factor) for key in self.nodes if key not in self.ended}
        return max(sum(left.values()) / self.num_slots, max(left.values(), default=0.0))

    def _left(self, key: str, factor: float) -> float:
        epochs = max(0, self.nodes[key].left - self.epochs.get(key, 0))
        own = self.spent[key] / self.epochs[key] if self.epochs.get(key) else factor * _per_epoch(self.nodes[key])
        return epochs * own + factor * self.nodes[key].testing


def _per_epoch(node: Node) -> float:
    return (node.seconds - node.testing) / node.left if node.left else 0.0


class Board:
    """The state of the matrix, from its events."""

    def __init__(self, plan: Plan, num_slots: int) -> None:
        self.plan, self.clock = plan, Clock(plan, num_slots)
        self.began = time.monotonic()
        self.running: dict[str, dict[str, Any]] = {}
        self.failed: list[str] = []
        self.results: set[str] = set()
        self.total = len({run.key for run in plan.waiting if run.choice is None})

    def see(self, event: Mapping[str, Any]) -> None:
        """Take one event."""
        self.clock.see(event)
        key, kind = event.get("stage", ""), event["kind"]
        if kind == "started":
            self.running[key] = {"epoch": 0, "rate": 0.0, "loss": None}
        elif kind == "epoch":
            self.running[key] |= {"epoch": event["epoch"], "rate": event["row"]["images_per_second"], "loss": event["row"]["loss"]}
        elif kind == "result":
            self.results.add(event["run"])
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
        return f"{len(self.results)}/{self.total} runs{failed} · {duration(time.monotonic() - self.began)} · about {duration(left)} left"


class LiveView:
    """A table that is drawn anew."""

    def __init__(self, plan: Plan, num_slots: int, console: Console) -> None:
        self.board = Board(plan, num_slots)
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
        return Group(headline, table, rest, *(Text(f"failed: {line}", style="red") for line in self.board.failed[-3:]))

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

    def __init__(self, plan: Plan, num_slots: int, console: Console) -> None:
        self.board, self.console = Board(plan, num_slots), console
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
        elif kind == "done":
            self._say(f"{self.board.name(key)}: done")
        elif kind == "failed":
            self._say(f"{self.board.name(key)}: failed ({event['failure']}): {event['message']}")

    def _say(self, text: str) -> None:
        self.console.print(f"{self.board.headline()} | {text}", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing to leave."""


def view(plan: Plan, num_slots: int, console: Console) -> View:
    """The live table where stderr is a terminal, plain lines elsewhere."""
    return LiveView(plan, num_slots, console) if console.is_terminal else PlainView(plan, num_slots, console)
