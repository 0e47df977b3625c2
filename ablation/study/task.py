"""What the engine asks of a kind of work: the Protocols through which planning, running, tracking and reports use it.

A task is loaded by its name, so nothing here imports one. What a study's file says of its own task is found by `of_file`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ablation.study.metrics import Curve, Metric
from ablation.study.settings_schema import SettingsSchema
from ablation.system import fencing

TASKS = {"images": "ablation.tasks.images", "own": "ablation.tasks.own"}  # name -> the module that defines it as `TASK`
DEFAULT = "images"  # of files without a task, and of recorded plans that name none
OWN = "own"  # of files with one

Emit = Callable[[dict[str, Any]], None]


# --- stages ------------------------------------------------------------------------------------------------------------------


class Stage(Protocol):
    """A part of an arm's training with one set of settings; equal stages compare equal."""

    @property
    def settings(self) -> Any:
        """The resolved settings."""

    @property
    def epochs(self) -> int:
        """The length in epochs."""

    @property
    def first_epoch(self) -> int:
        """The number of epochs that the arm trains before it."""


# --- running -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckpointInterval:
    """How often a checkpoint is written: every so many epochs, or every so many seconds if `seconds` is set."""

    epochs: int = 1
    seconds: float = 0.0

    def is_due(self, epoch: int, since: float) -> bool:
        """Whether a checkpoint is due after this epoch of the stage, if the last one was written `since` seconds ago."""
        return since >= self.seconds if self.seconds else epoch % self.epochs == 0


EVERY_EPOCH = CheckpointInterval()


Interrupted = fencing.Interrupted
Fenced = fencing.Fenced


class CodeChanged(Exception):  # noqa: N818  it is no error
    """The code in this process, which started after the study was planned, is not the code that the keys were computed from."""


# --- planning ----------------------------------------------------------------------------------------------------------------


class Step(Protocol):
    """One stage of one arm and seed, with the identity of its results."""

    @property
    def epochs(self) -> int:
        """The length in epochs."""

    @property
    def first_epoch(self) -> int:
        """The number of epochs that the arm trains before it."""

    @property
    def group(self) -> str:
        """The identity without the length: steps of one group share their first epochs if the keys after these are equal."""

    @property
    def environment(self) -> str:
        """The identity of the code, package versions and device that compute it."""

    @property
    def kind(self) -> str:
        """Steps of the same kind are expected to be equally fast."""

    @property
    def products(self) -> frozenset[str]:
        """What must be kept at its end beside the weights."""

    @property
    def continuation(self) -> frozenset[str]:
        """What must also be kept if a later step continues from it."""

    @property
    def carries_on(self) -> bool:
        """Whether it continues from the previous step's `continuation`."""

    def key(self, epochs: int) -> str:
        """The key of its state after so many epochs."""


class Request(Protocol):
    """The results that one run needs: their identity, and how to compute them, which only the task reads."""

    @property
    def key(self) -> str:
        """The identity of the results."""

    @property
    def content(self) -> str:
        """The identity without the code, package versions and device."""


class Branch(Protocol):
    """A part of a step that is trained in one go, as the tree of shared work has it."""

    @property
    def steps(self) -> Sequence[Any]:
        """The steps of all arms that share it, as the task returned them."""

    @property
    def seed(self) -> int:
        """The seed of the runs."""

    @property
    def begin(self) -> int:
        """The number of epochs of the step that come before it."""

    @property
    def end(self) -> int:
        """The number of epochs of the step at its end."""

    @property
    def parent(self) -> str:
        """The key of the branch that it continues, or ""."""

    @property
    def is_same_step(self) -> bool:
        """Whether the parent is an earlier part of the same step."""

    @property
    def is_carried_on(self) -> bool:
        """Whether a later branch continues from its `continuation`."""

    @property
    def is_wanted(self) -> bool:
        """Whether a run that still has to be computed needs it."""

    @property
    def requests(self) -> Sequence[Any]:
        """The results that are computed at its end."""

    @property
    def arms(self) -> Sequence[str]:
        """The selected arms that need it; its time counts for the first of them."""


@dataclass(frozen=True)
class Cost:
    """What a branch costs: the seconds of one worker, how many of these go to testing, and the items (images) of an epoch."""

    seconds: float
    testing: float
    items: int


class Planner(Protocol):
    """Turns the arms of one study into work, given what the preparation looked up."""

    def steps(self, arm: Any, seed: int) -> tuple[Step, ...]:
        """The arm's steps in order; raises AblateError if its data or weights cannot be loaded."""

    def request(self, arm: Any, seed: int, steps: Sequence[Any]) -> Request:
        """The results that the arm's run needs after the last of its steps."""

    def inputs(self, arm: Any, seed: int) -> dict[str, str]:
        """What the results of a run depend on besides its settings, each by its name: data, weights, device, versions ..."""

    def works(self, branches: Mapping[str, Any]) -> dict[str, Any]:
        """key -> what a worker needs for that branch; only the task looks into it."""

    def cost(self, branch: Any, epochs: int, seconds_per_item: float) -> Cost:
        """The cost of so many more epochs of a branch, and of the tests at its end."""

    def labels(self, arm: Any, arms: Mapping[str, Any], seed: int) -> dict[str, str]:
        """label -> its reason in words, for the labels of the arm that a reader must know: bundle, budget, lag ..."""

    def metric(self, arm: Any, seed: int) -> tuple[str, str]:
        """The name in the store of the metric that the study goes by, and why, in a clause; raises ConfigError if no run will have it."""

    def facts(self, arm: Any, seeds: Sequence[int]) -> dict[str, Any]:
        """What the plan records, for the report, about the data that all arms share."""

    def data(self, arms: Iterable[Any], seed: int, most_images: int | None = None) -> list[dict[str, Any]]:
        """What was found in the data: of each data set the `summary`, the `findings` (each a `sentence`) and the `arms` that use it."""

    def arm_facts(self, arm: Any) -> dict[str, Any]:
        """What the plan records about one arm."""

    def dataset(self, arm: Any) -> tuple[str, str]:
        """The name and the location of the data that an arm's runs use."""

    def disk(self, works: Iterable[Any], num_results: int, arm: Any, seed: int) -> float:
        """The bytes on disk that these works will leave, with so many results like the arm's."""

    def remarks(self, works: Sequence[Any]) -> list[str]:
        """Remarks on how this work will be done, shown before it starts."""

    def lacks(self, request: Any, result: Path) -> str:
        """What the folder of a result lacks of what is to be kept now, in a word; or nothing."""

    def notes(self, arms: Iterable[Any]) -> list[str]:
        """What a reader of the report must know about how the numbers were computed."""


class Folders(Protocol):
    """The folders of a study's work, beside the store."""

    @property
    def stages(self) -> Path:
        """Holds a folder for each stage, named by its key."""

    @property
    def results(self) -> Path:
        """Holds a folder for each computed run, named by its key."""

    @property
    def data(self) -> Path:
        """Holds the decoded data sets."""

    @property
    def speeds(self) -> Path:
        """The file with the measured seconds per item, by kind of step."""

    def features(self, study: str) -> Path:
        """The folder that the trainings of a study share while it runs."""


class Preparation(Protocol):
    """Looks up what a study needs from outside (data, weights, speed), each thing once."""

    @property
    def planner(self) -> Planner:
        """The planner that turns arms into work."""

    @property
    def imported_code(self) -> str:
        """The identity of code of the user's that this process has imported and cannot import anew; empty if there is none to look at."""

    def check(self, arms: Iterable[Any], seeds: Iterable[int]) -> None:
        """Raise AblateError now for what would otherwise stop a run at its start."""

    def check_starts(self, arms: Iterable[Any], seed: int, *, is_here: bool = True) -> None:
        """Start each kind of arm once, so that what cannot start is found before training; not `is_here`: it starts on other machines."""

    def seconds_per_item(self, step: Any) -> float:
        """Seconds per item (image) of a step on one worker, measured by a short probe."""


@dataclass(frozen=True)
class SavedStages:
    """The saved stages by key: the products of finished ones, and the epoch reached by those with a checkpoint."""

    finished: Mapping[str, frozenset[str]]
    partial: Mapping[str, int]


@dataclass(frozen=True)
class Words:
    """What a kind of work is called in plans and while it runs."""

    to_do: str  # what happens to its parts: `to train`
    part: str  # what a job is called: `stage`
    parts_title: str  # of the list of them
    listed: str  # what the long form of a plan lists
    row: str  # what a row of a run's history is called: `epoch`
    running: str  # the head of the column with what is under way
    stopping: str  # said when the user asks to stop
    is_counted: bool = True  # whether the number of rows is known before they are there
    next_steps: Mapping[str, str] = field(default_factory=dict)  # kind of failure -> what to do, where that is not what it is for others


# --- the task ------------------------------------------------------------------------------------------------------------------


class Task(Protocol):
    """One kind of work."""

    @property
    def name(self) -> str:
        """The name of the task in `TASKS`."""

    @property
    def schema(self) -> SettingsSchema:
        """The settings that an arm may set."""

    @property
    def shares_devices(self) -> bool:
        """Whether several jobs may share a GPU, as many as is worth while."""

    @property
    def has_own_defaults(self) -> bool:
        """Whether a setting that no file has can get another value by an edit of the user's code."""

    @property
    def paths(self) -> tuple[tuple[str, str], ...] | None:
        """(setting, field) of file paths, which are relative to the file; None: those of one folder cannot start at another."""

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The numbers of an epoch that are shown while a run trains."""

    def check_file(self, file: Any, folder: Path) -> None:
        """Raise ConfigError for names in a study's file that this kind of work does not have. It imports no code of the file."""

    def of_file(self, file: Any, folder: Path) -> "Task":
        """The task as a study's file defines it; raises ConfigError if it cannot be used."""

    @property
    def declared(self) -> Mapping[str, Any]:
        """What a study's file declares beside arms and their settings, by dotted name: the task, metrics, curves."""

    @property
    def words(self) -> Words:
        """What its parts are called."""

    @property
    def memory_advice(self) -> str:
        """Which setting takes less memory, for a message."""

    def metrics(self, margin: float) -> tuple[Metric, ...]:
        """The metrics that are compared; `margin` is the study's, in points."""

    def stored_metric(self, written: str, classes: Sequence[str]) -> str:
        """The name in the store of a metric as a user may write it; of one that is unknown as it is written, after `test/`."""

    def resolve(self, partial: Any, where: str, finish: Callable[[int, dict[str, Any]], dict[str, Any]]) -> tuple[Any, ...]:
        """The stages of a partly resolved arm; `finish(number, settings)` returns the final settings of each."""

    def in_force(self, stages: Sequence[Any], number: int, *, begins: bool) -> dict[str, Any]:
        """The dotted settings in force in a stage; with `begins`, also what happens at its start."""

    def check_choice(self, arm: Any, arms: Mapping[str, Any]) -> None:
        """Raise ConfigError if the arms among which `arm` chooses cannot be compared."""

    def stage_options(self, stage: Any) -> dict[str, Any]:
        """The options of a resolved stage beside its settings."""

    def stage_words(self, stage: Any) -> str:
        """The options of a resolved stage, in words."""

    def usual_options(self, options: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
        """A stage's options if the file says nothing about them; `before` are those of the previous stage, None for the first."""

    def prepare(self, study: Any, folders: Folders, device: str, progress: Callable[[str, int, int], None]) -> Preparation:
        """The preparation of one study on a device."""

    def stage_weights(self, folder: Path) -> Path:
        """The file with the weights of a finished stage, in the folder of that stage."""

    def saved_stages(self, folder: Path) -> SavedStages:
        """The stages that are saved in this folder."""

    @property
    def work_type(self) -> type:
        """The dataclass of its works, every field of which pydantic can write as JSON and read again."""

    def device_class(self, device: str) -> str:
        """The class of a device: results of two classes have different keys."""

    def start(self, device: str, num_jobs: int = 1) -> None:
        """Prepare a process for its jobs on a device: do slow imports, and set what the bits of results depend on.

        So many jobs share the device; it is called again before each job.
        """

    def run(self, work: Any, device: str, emit: Emit, should_stop: Callable[[], bool], interval: CheckpointInterval) -> None:
        """Do the work. Results appear in their folders only when complete; events hold only names and numbers.

        Raises Interrupted, Fenced, CodeChanged or AblateError; anything else is a bug.
        """

    def epoch_values(self, request: Any, row: Mapping[str, Any]) -> dict[str, float]:
        """name in the store -> value, for those of an epoch's numbers that belong to the run's curves."""


@cache
def load_task(name: str = DEFAULT) -> Task:
    """The task with this name."""
    task: Task = import_module(TASKS[name]).TASK
    return task
