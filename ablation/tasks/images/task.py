"""Image classification as a kind of work for the engine. What a method needs is in a file of its own, imported when it is called."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.errors import ConfigError, TrainingError
from ablation.study.changes import flatten
from ablation.study.config import StudyFile, check_names
from ablation.study.metrics import Curve, Metric
from ablation.study.task import CheckpointInterval, Emit, Folders, SavedStages, Words
from ablation.system import fencing
from ablation.system.digests import digest, file_digest
from ablation.system.identity import place
from ablation.tasks.images.metrics import CURVES, metrics, stored_metric
from ablation.tasks.images.schema import MEMORY_ADVICE, SCHEMA
from ablation.techniques.technique import dump
from ablation.training.settings import Stage, StageOptions, implied_restarts

if TYPE_CHECKING:
    from ablation.study.config import Arm, Study
    from ablation.tasks.images.preparation import ImagePreparation
    from ablation.training.work import TrainingWork

LOCK = "lock"  # of a stage's folder, which `run.run` takes again while that is held here: that file's code is in the keys of trainings
WORDS = Words(
    to_do="to train",
    part="stage",
    parts_title="Stages (arms in one line share it)",
    listed="every arm's change, every run and stage",
    row="epoch",
    running="training",
    stopping="stopping after this epoch",
)


class ImageClassification:
    """The kind of work of files without a task."""

    name = "images"
    schema = SCHEMA
    paths = SCHEMA.paths
    shares_devices = True
    has_own_defaults = False
    curves: tuple[Curve, ...] = CURVES
    words = WORDS
    memory_advice = MEMORY_ADVICE
    declared: Mapping[str, Any] = {}  # all is settings, groups and a margin

    def metrics(self, margin: float) -> tuple[Metric, ...]:
        """The metrics to compare; `margin` is the study's, in points."""
        return metrics(margin)

    def stored_metric(self, written: str, classes: Sequence[str]) -> str:
        """The name in the store of a metric as a user may write it: `test/recall/cat` of `sensitivity/cat`."""
        return stored_metric(written, classes)

    # --- the file ------------------------------------------------------------------------------------------------------------

    def check_file(self, file: StudyFile, folder: Path) -> None:
        """Raise ConfigError for a metric that no run has."""
        check_names(file, SCHEMA)

    def of_file(self, file: StudyFile, folder: Path) -> "ImageClassification":
        """The same for every file."""
        return self

    def resolve(self, partial: Any, where: str, finish: Callable[[int, dict[str, Any]], dict[str, Any]]) -> tuple[Stage, ...]:
        """An arm's stages, with lengths in epochs and restarts resolved."""
        from ablation.tasks.images.stages import resolve_stages

        return resolve_stages(partial, where, finish, SCHEMA)

    def in_force(self, stages: Sequence[Stage], number: int, *, begins: bool) -> dict[str, Any]:
        """The dotted settings in force in a stage, and the options of its beginning, except restarts that the others imply."""
        stage = stages[number]
        implied = implied_restarts(is_new=number > 0 and stage.train != stages[number - 1].train, head=stage.head)
        settings = {name: value for name, value in dump(stage.settings).items() if name != "epochs"}
        options = {
            "train": stage.train,
            "head": stage.head if begins else "keep",
            "backbone": stage.backbone,
            "start": stage.start if begins else "weights",
            "restart": [name for name in stage.restart if begins and name not in implied],
        }
        return flatten(settings) | options

    def check_choice(self, arm: "Arm", arms: Mapping[str, "Arm"]) -> None:
        """Raise if the points of a choice do not share their validation images."""
        if arm.choice is not None and len({arms[name].settings.data for name in arm.choice.among}) > 1:
            sweep = arm.name.removeprefix(f"{arm.condition}/").removesuffix("/best")
            raise ConfigError(
                f"sweeps.{sweep}.choose",
                "its points differ in data, so each would be judged on other validation images; expected one data, or choose: none",
            )

    def stage_options(self, stage: Stage) -> dict[str, Any]:
        """The options of a resolved stage, without its settings."""
        return {name: getattr(stage, name) for name in StageOptions.model_fields}

    def stage_words(self, stage: Stage) -> str:
        """The same in words."""
        restart = f", restarts {', '.join(stage.restart)}" if stage.first_epoch and stage.restart else ""
        trains = f"trains {stage.train}, backbone in {stage.backbone} mode, head {stage.head}"
        return f"{stage.epochs} epochs, {trains}, starts from {stage.start}{restart}"

    def usual_options(self, options: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
        """The options of a stage if the file sets none, after a stage with the options `before`."""
        is_new = before is None or options["train"] != before["train"]
        return {
            "train": "all",
            "head": "keep",
            "start": "weights",
            "restart": list(implied_restarts(is_new=is_new, head=options["head"])),
            "backbone": "eval" if options["train"] == "head" else "train",
        }

    # --- planning ------------------------------------------------------------------------------------------------------------

    def prepare(self, study: "Study", folders: Folders, device: str, progress: Callable[[str, int, int], None]) -> "ImagePreparation":
        """The preparation of one study on a device: it decodes data, finds weights and times steps."""
        import torch

        from ablation.tasks.images.preparation import ImagePreparation

        return ImagePreparation(study, folders, torch.device(device), progress)

    def stage_weights(self, folder: Path) -> Path:
        """The file with the weights of a finished stage, in the folder of that stage."""
        from ablation.training.checkpoints import FINAL

        return folder / FINAL

    def saved_stages(self, folder: Path) -> SavedStages:
        """The records of the checkpoints in the folder of all stages."""
        from ablation.training import checkpoints

        finals = {path.parent.name: checkpoints.read_record(path) for path in folder.glob(f"*/{checkpoints.FINAL}")}
        partial = {path.parent.name: checkpoints.read_record(path) for path in folder.glob(f"*/{checkpoints.CHECKPOINT}")}
        return SavedStages(
            {key: frozenset(record["products"]) for key, record in finals.items() if record},
            {key: int(record["epoch"]) for key, record in partial.items() if record},
        )

    # --- running -------------------------------------------------------------------------------------------------------------

    @property
    def work_type(self) -> type:
        """Some epochs of a stage, and the tests at their end."""
        from ablation.training.work import TrainingWork

        return TrainingWork

    def device_class(self, device: str) -> str:
        """The CPU with its capability, or a GPU with its name."""
        import torch

        from ablation.training.planned_device import device_name

        return device_name(torch.device(device))

    def start(self, device: str, num_jobs: int = 1) -> None:
        """Import torch, timm and scikit-learn, and set the threads, the device, and how many jobs share it."""
        import sklearn.metrics  # noqa: F401  imported now, as the next line, while the coordinator still plans
        import torch

        from ablation.tasks.images import run  # noqa: F401
        from ablation.techniques.models import registry
        from ablation.training.devices import set_up_process

        registry()
        set_up_process(torch.device(device), num_jobs)

    def run(self, work: Any, device: str, emit: Emit, should_stop: Callable[[], bool], interval: CheckpointInterval) -> None:
        """Train and test, when the stage's folder is free; see `run.run`."""
        import torch

        from ablation.tasks.images.run import run

        _check_weights(work)
        with fencing.held(work.stages / work.key, should_stop, (LOCK,)):
            run(_apart(work), torch.device(device), emit, should_stop, interval)

    def epoch_values(self, request: Any, row: Mapping[str, Any]) -> dict[str, float]:
        """An epoch's numbers that belong to the run: those without an average, and of the watched splits those of the run's average.

        Only runs that select their epoch on the test images get what these gave after each epoch; other runs that share the training
        do not.
        """
        values: dict[str, float] = {}
        averaged: dict[str, dict[str, dict[str, float]]] = {}  # split -> average -> curve -> value
        for name, value in row["values"].items():
            curve, _, average = name.partition("|")
            if average:
                averaged.setdefault(curve.rpartition("/")[0], {}).setdefault(average, {})[curve] = value
            else:
                values[name] = value
        for split, by_average in averaged.items():
            if split == "val" or request.settings.select == "best_on_test":
                values |= by_average.get(_own_average(request.average, by_average), {})
        return values


def _check_weights(work: "TrainingWork") -> None:
    """Raise TrainingError if the weights that a training starts from are other ones than when it was planned."""
    file = work.weights_file
    if file is not None and not work.parent and file.exists() and file_digest(file) != work.weights_digest:
        reason = f"the weights in {file} were changed after the study was planned"
        raise TrainingError("data", f"{reason}; ablate run plans with them as they are now")


def _apart(work: "TrainingWork") -> "TrainingWork":
    """The work with features that it shares only on this host and with trainings of as many starts, where an engine starts them.

    A process that computes shared features holds a lock, and nothing tells on another host that it has been given up.
    """
    if work.features is None or not fencing.is_named():
        return work
    return replace(work, features=work.features / digest([place(), fencing.identity()[1]])[:16])


def _own_average(average: str, known_averages: Iterable[str]) -> str:
    """The average itself, or in stages before it began one of the same kind."""
    same_kind = [name for name in known_averages if name.partition("@")[0] == average.partition("@")[0]]
    return average if average in same_kind else next(iter(same_kind), "")
