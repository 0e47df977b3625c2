"""One's own training code as a kind of work for the engine. What a method needs is in a file of its own, imported when it is called."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.study.changes import flatten
from ablation.study.config import StudyFile
from ablation.study.metrics import Curve, Metric
from ablation.study.settings_schema import SettingsSchema
from ablation.study.task import OWN, CheckpointInterval, Emit, Folders, SavedStages
from ablation.tasks.own.definition import STEP, Definition, check_names, choices, declared, define, full_name
from ablation.tasks.own.words import WORDS
from ablation.techniques.technique import Technique, dump

if TYPE_CHECKING:
    from ablation.study.config import Arm, Study
    from ablation.tasks.own.planner import OwnPreparation

MEMORY_ADVICE = "settings that take less of it"
DECIMALS = 4  # of a curve's last value


@dataclass(frozen=True)
class Whole:
    """A run as the engine sees it: one stage of one epoch."""

    settings: Any
    epochs: int = 1
    first_epoch: int = 0


class OwnTraining:
    """The kind of work of files with a task; without a definition it is what a record can be read with."""

    name = OWN
    paths = None
    shares_devices = False
    has_own_defaults = True
    memory_advice = MEMORY_ADVICE
    words = WORDS

    def __init__(self, definition: Definition | None = None, base: Mapping[str, Any] | None = None) -> None:
        self.definition, self._base = definition, dict(base or {})

    @cached_property
    def schema(self) -> SettingsSchema:
        """The settings: a function's parameters, or what the base of a command sets. A function's module is imported here."""
        if self.definition is None:
            return SettingsSchema(Technique, Technique, whole_arm=(), required={}, paths=(), choices=())
        from ablation.tasks.own.settings import required_of, schema_of

        settings = schema_of(self.definition, self._base)
        required = dict.fromkeys(required_of(self.definition), "a value, since the function has no default for it")
        return SettingsSchema(settings, Technique, whole_arm=(), required=required, paths=(), choices=choices(self.definition))

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The curves that a command prints; what a function logs is not known before."""
        names = self.definition.curves if self.definition else ()
        return tuple(Curve(name, name, DECIMALS) for name in names if name != STEP)

    @property
    def declared(self) -> Mapping[str, Any]:
        """What the file says of its task, metrics and curves."""
        return declared(self.definition) if self.definition else {}

    def metrics(self, margin: float) -> tuple[Metric, ...]:
        """The declared metrics, each with its own margin."""
        return self.definition.metrics if self.definition else ()

    def stored_metric(self, written: str, classes: Sequence[str]) -> str:
        """The name in the store of a metric as a user may write it."""
        return full_name(written)

    # --- the file ------------------------------------------------------------------------------------------------------------

    def check_file(self, file: StudyFile, folder: Path) -> None:
        """Raise ConfigError for what is wrong with the task, the metrics and the curves, as far as no code is needed to tell."""
        check_names(file, define(file, folder))

    def of_file(self, file: StudyFile, folder: Path) -> "OwnTraining":
        """The task with the file's definition, and its base."""
        definition = define(file, folder)
        set_by_arms = {name: value for arm in (*file.ladder.values(), *file.variants.values()) for name, value in (arm or {}).items()}
        return OwnTraining(definition, (set_by_arms if definition.is_function else {}) | dict(file.base))

    def resolve(self, partial: Any, where: str, finish: Callable[[int, dict[str, Any]], dict[str, Any]]) -> tuple[Whole, ...]:
        """An arm is one stage."""
        from ablation.techniques.technique import build

        return (Whole(build(self.schema.settings, partial.settings)),)

    def in_force(self, stages: Sequence[Whole], number: int, *, begins: bool) -> dict[str, Any]:
        """The dotted settings."""
        return flatten(dump(stages[number].settings))

    def check_choice(self, arm: "Arm", arms: Mapping[str, "Arm"]) -> None:
        """Any arms can be compared by a metric that they all hand back."""

    def stage_options(self, stage: Whole) -> dict[str, Any]:
        """None: all that there is to say is settings."""
        return {}

    def stage_words(self, stage: Whole) -> str:
        """What is run, with its settings."""
        return self.definition.text if self.definition else ""

    def usual_options(self, options: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
        """None."""
        return {}

    # --- planning ------------------------------------------------------------------------------------------------------------

    def prepare(self, study: "Study", folders: Folders, device: str, progress: Callable[[str, int, int], None]) -> "OwnPreparation":
        """The preparation of one study: it looks at code and declared data."""
        from ablation.tasks.own.planner import OwnPreparation

        assert self.definition is not None, study.file
        return OwnPreparation(self.definition, study, folders, device)

    def stage_weights(self, folder: Path) -> Path:
        """No file: the code keeps what it wants kept."""
        return folder / "none"

    def saved_stages(self, folder: Path) -> SavedStages:
        """The runs that left checkpoints: none of their epochs counts, since the code says itself where it goes on."""
        return SavedStages({}, {path.parent.name: 0 for path in folder.glob("*/checkpoints*") if any(path.iterdir())})

    # --- running -------------------------------------------------------------------------------------------------------------

    @property
    def work_type(self) -> type:
        """One run."""
        from ablation.tasks.own.work import OwnWork

        return OwnWork

    def device_class(self, device: str) -> str:
        """The CPU, whichever it is, or a GPU with its name."""
        from ablation.tasks.own.keys import device_class

        return device_class(device)

    def start(self, device: str, num_jobs: int = 1) -> None:
        """Nothing: each run is a process of its own."""

    def run(self, work: Any, device: str, emit: Emit, should_stop: Callable[[], bool], interval: CheckpointInterval) -> None:
        """Carry out one run; see `run.run`."""
        from ablation.tasks.own.run import run

        run(work, device, emit, should_stop, interval)

    def epoch_values(self, request: Any, row: Mapping[str, Any]) -> dict[str, float]:
        """All numbers that the code told."""
        return dict(row["values"])
