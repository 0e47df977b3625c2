"""What the engine asks of a kind of work: the Protocol behind which planning, running, tracking and reports stand.

Image classification (`tasks/images`) is the one kind there is. A task is found by its name, so that nothing here imports it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from ablation.techniques.technique import Nested, Technique

TASKS = {"images": "ablation.tasks.images"}  # name -> the module whose `TASK` it is
DEFAULT = "images"  # where neither the file nor a recorded plan names one

Emit = Callable[[dict[str, Any]], None]


# --- metrics -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """A final number of a run, and how it is compared.

    `unit` is "percent" for a fraction that is told in percent, its differences in points; any other word is told as it is. `margin` is
    the difference, in the unit of differences, below which two arms are called equal; without one no equivalence is claimed.
    """

    name: str  # as the store has it
    title: str
    better: Literal["higher", "lower"] = "higher"
    unit: str = "percent"
    margin: float | None = None
    table: str = "comparison"  # the report's table that has its column
    is_headline: bool = False  # whether summaries of arms have it; the first of them is what verdicts go by


def metric_rows(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    """The metrics as plain data, for a recorded plan."""
    return [asdict(metric) for metric in metrics]


@dataclass(frozen=True)
class Curve:
    """A number of each epoch that is shown while a run trains: its name in the store, its title, its decimals."""

    name: str
    title: str
    decimals: int


# --- settings ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SettingsSchema:
    """What a study's file may set for a kind of work."""

    settings: type[Technique]  # everything that an arm sets
    stage_options: type[Technique]  # what a stage says beside settings
    whole_arm: tuple[str, ...]  # the settings that no stage may change
    required: Mapping[str, str]  # the settings that a base must have -> what is expected there
    paths: tuple[tuple[str, str], ...]  # (setting, field) of the paths among them, which start at the file
    choices: tuple[str, ...]  # the metrics by which a sweep may choose a point, as `choose` names them
    inner_families: Mapping[str, str] = field(default_factory=dict)  # path of a technique within a technique -> its family

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the settings."""
        return tuple(self.settings.model_fields)

    @property
    def option_names(self) -> tuple[str, ...]:
        """The names of what a stage says beside settings."""
        return tuple(self.stage_options.model_fields)

    @property
    def families(self) -> dict[str, str]:
        """Where a technique stands in the settings -> its family."""
        nested = {
            name: mark.family for name, field in self.settings.model_fields.items() for mark in field.metadata if isinstance(mark, Nested)
        }
        return nested | dict(self.inner_families)


class Stage(Protocol):
    """A stretch of an arm's work with one set of settings; equal stages are one."""

    @property
    def settings(self) -> Any:
        """Its settings, resolved."""

    @property
    def epochs(self) -> int:
        """Its length."""

    @property
    def first_epoch(self) -> int:
        """The epochs of the arm before it."""


# --- running -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckpointInterval:
    """How often a checkpoint is written: after so many epochs, or so many seconds where these are given."""

    epochs: int = 1
    seconds: float = 0.0

    def is_due(self, epoch: int, since: float) -> bool:
        """Whether one is written after this epoch of the stage, the last having been `since` seconds ago."""
        return since >= self.seconds if self.seconds else epoch % self.epochs == 0


EVERY_EPOCH = CheckpointInterval()


class Interrupted(Exception):  # noqa: N818  it is no error
    """The user asked to stop; the last epoch is saved."""


class CodeChanged(Exception):  # noqa: N818  it is no error
    """This process, which began after the study was planned, has other code than the keys say."""


# --- planning ----------------------------------------------------------------------------------------------------------------


class Step(Protocol):
    """One stage of one arm and seed, identified."""

    @property
    def epochs(self) -> int:
        """Its length."""

    @property
    def first_epoch(self) -> int:
        """The epochs of the arm before it."""

    @property
    def group(self) -> str:
        """What identifies it whatever its length: steps of one group share their first epochs if the keys there are equal."""

    @property
    def environment(self) -> str:
        """The identity of the code, versions and device that compute it."""

    @property
    def kind(self) -> str:
        """Steps of one kind are expected to be equally fast."""

    @property
    def products(self) -> frozenset[str]:
        """What its end must keep beside the weights."""

    @property
    def continuation(self) -> frozenset[str]:
        """What its end must keep beside them where later work carries on from it."""

    @property
    def carries_on(self) -> bool:
        """Whether it takes the `continuation` of the step before."""

    def key(self, epochs: int) -> str:
        """The key of its state after that many epochs."""


class Request(Protocol):
    """One run's numbers: what identifies them, and, for the task alone, how they are computed."""

    @property
    def key(self) -> str:
        """What identifies them."""

    @property
    def content(self) -> str:
        """The same whatever the code, versions and device."""


class Branch(Protocol):
    """A stretch of a step that is worked through in one go, as the planner found it in the tree."""

    @property
    def steps(self) -> Sequence[Any]:
        """The steps of all arms that share it, as the task made them."""

    @property
    def seed(self) -> int:
        """The seed."""

    @property
    def begin(self) -> int:
        """The epochs of the step before it."""

    @property
    def end(self) -> int:
        """The epochs of the step at its end."""

    @property
    def parent(self) -> str:
        """The key of the branch that it goes on from, or ""."""

    @property
    def is_same_step(self) -> bool:
        """Whether that is an earlier part of the same step."""

    @property
    def is_carried_on(self) -> bool:
        """Whether a later branch takes its `continuation`."""

    @property
    def is_wanted(self) -> bool:
        """Whether something has to be computed for a run that needs it."""

    @property
    def requests(self) -> Sequence[Any]:
        """The numbers that are computed at its end."""

    @property
    def arms(self) -> Sequence[str]:
        """The selected arms that need it, the first being the one on whose account its time goes."""


@dataclass(frozen=True)
class Cost:
    """What a branch takes: seconds of one worker in all, those of testing among them, and the images or the like of an epoch."""

    seconds: float
    testing: float
    items: int


class Planner(Protocol):
    """How one study's arms become work, given what was looked up outside."""

    def steps(self, arm: Any, seed: int) -> tuple[Step, ...]:
        """The arm's chain; raises AblateError where its data or weights cannot be had."""

    def request(self, arm: Any, seed: int, steps: Sequence[Any]) -> Request:
        """The numbers that the arm's run wants of the chain's end."""

    def works(self, branches: Mapping[str, Any]) -> dict[str, Any]:
        """What a worker needs for each branch, by key; nobody but the task looks into it."""

    def cost(self, branch: Any, epochs: int, seconds_per_item: float) -> Cost:
        """What it takes to work through so many more epochs of a branch, and to test at its end."""

    def labels(self, arm: Any, arms: Mapping[str, Any], seed: int) -> dict[str, str]:
        """The arm's honest labels, each with the reason in words."""

    def facts(self, arm: Any, seeds: Sequence[int]) -> dict[str, Any]:
        """What the plan records for the report of the data that all arms share."""

    def arm_facts(self, arm: Any) -> dict[str, Any]:
        """What it records of one arm."""

    def dataset(self, arm: Any, seed: int) -> tuple[str, str, str]:
        """The name, the digest and the place of the data that a run sees."""

    def disk(self, works: Iterable[Any], num_results: int, arm: Any, seed: int) -> float:
        """The bytes that these works and so many results, each like that of the arm, will leave."""

    def remarks(self, works: Sequence[Any]) -> list[str]:
        """What there is to say, before it is done, of how this work is done."""

    def notes(self, arms: Iterable[Any]) -> list[str]:
        """What a reader of the report must know of how the numbers came about."""


class Folders(Protocol):
    """Where work is kept beside the store."""

    @property
    def stages(self) -> Path:
        """A folder per stage, by key."""

    @property
    def results(self) -> Path:
        """A folder per computed run, by key."""

    @property
    def data(self) -> Path:
        """The decoded data sets."""

    def features(self, study: str) -> Path:
        """What trainings of one study share while it is run."""


class Preparation(Protocol):
    """What is looked up of the outside, each thing once."""

    @property
    def planner(self) -> Planner:
        """Turns arms into work with it."""

    @property
    def device_class(self) -> str:
        """The class of device that bits depend on."""

    def check(self, arms: Iterable[Any], seeds: Iterable[int]) -> None:
        """Find before anything else what would stop a run at its start."""

    def check_starts(self, arms: Iterable[Any], seed: int) -> None:
        """Begin each kind of arm once, so that what cannot begin is found before training."""

    def seconds_per_item(self, step: Any) -> float:
        """Seconds per image or the like of a step on one worker, by a short probe."""


@dataclass(frozen=True)
class SavedStages:
    """What the folder of stages holds: the products of finished ones, and the epochs of those with a checkpoint, by key."""

    finished: Mapping[str, frozenset[str]]
    partial: Mapping[str, int]


# --- the task ------------------------------------------------------------------------------------------------------------------


class Task(Protocol):
    """One kind of work."""

    @property
    def name(self) -> str:
        """Its name in `TASKS`."""

    @property
    def schema(self) -> SettingsSchema:
        """The settings that an arm may set."""

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The numbers of an epoch that are shown while a run trains."""

    def metrics(self, margin: float) -> tuple[Metric, ...]:
        """What is compared; `margin` is the study's, in points."""

    def resolve(self, partial: Any, where: str, finish: Callable[[int, dict[str, Any]], dict[str, Any]]) -> tuple[Any, ...]:
        """An arm's stages out of what is resolved of it so far; `finish` has the last word on each stage's settings."""

    def in_force(self, stages: Sequence[Any], number: int, *, begins: bool) -> dict[str, Any]:
        """The dotted settings in force in a stage, with what happens where it begins."""

    def check_choice(self, arm: Any, arms: Mapping[str, Any]) -> None:
        """Raise ConfigError where the arms among which one chooses cannot be compared."""

    def stage_options(self, stage: Any) -> dict[str, Any]:
        """What a resolved stage says beside its settings."""

    def stage_words(self, stage: Any) -> str:
        """The same in words."""

    def usual_options(self, options: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
        """A stage's options where the file says nothing of them, after a stage with the options `before`, or first."""

    def prepare(self, study: Any, folders: Folders, device: str, progress: Callable[[str, int, int], None]) -> Preparation:
        """What looks things up for one study on a device."""

    def saved_stages(self, folder: Path) -> SavedStages:
        """What the folder of all stages holds."""

    def start(self, device: str) -> None:
        """Ready a process for its jobs on a device: import what takes long, and set what bits depend on."""

    def run(self, work: Any, device: str, emit: Emit, should_stop: Callable[[], bool], interval: CheckpointInterval) -> None:
        """Do the work; results appear whole in their folders, and every event is names and numbers.

        Raises Interrupted, CodeChanged or AblateError; anything else is a bug.
        """

    def epoch_values(self, request: Any, row: Mapping[str, Any]) -> dict[str, float]:
        """Of an epoch's numbers those that belong to a run's curves, by their names in the store."""


@cache
def load_task(name: str = DEFAULT) -> Task:
    """The task of that name."""
    task: Task = import_module(TASKS[name]).TASK
    return task
