"""`ablate verify`: train the first epoch of a recorded run again, in memory, and compare; the store is not touched."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from rich.console import Console
from torch import Tensor

from ablation.commands.exit_codes import DONE, FAILED
from ablation.commands.last_run import folder_of
from ablation.commands.recorded import check_images, open_recorded
from ablation.errors import AblateError, ConfigError, unknown_name
from ablation.planning.workspace import INPUTS, Workspace
from ablation.study.config import Study
from ablation.study.overrides import split_stage
from ablation.study.resolving import load_study
from ablation.study.task import DEFAULT, load_task
from ablation.study.yamlfile import read
from ablation.tasks.images import keys
from ablation.tasks.images.planner import NO_CLASS
from ablation.tasks.images.preparation import ImagePreparation
from ablation.tasks.images.retraining import environment_of, first_epoch, hash_of, train
from ablation.techniques.technique import allow_code
from ablation.tracking.recorded import Recorded
from ablation.tracking.store import Store
from ablation.training.device_option import devices
from ablation.training.devices import device_name
from ablation.training.work import TrainingWork

MIN_TOLERANCE = 0.01  # as a share of the loss, or of the weights' norm: two trainings may be equal by chance
NOT_BIT_EXACT = "statistical: CUDA without deterministic: true gives different bits each time"


@dataclass(frozen=True)
class RecordedRun:
    """What is recorded about a run."""

    id: str
    key: str
    content: str
    device: str
    digest: str
    weights: str  # the beginning of the digest of what its model started from; "" if that is not recorded


def verify(arm: str, seed: int, file: Path | None, profile: str | None, *, steps: int, with_code: bool) -> int:
    """Print whether the run's first epoch comes out as recorded or, with `steps`, whether two trainings agree; return 1 if not."""
    if file is not None and file.suffix == ".zip":
        raise ConfigError("--file", f"found {file}; expected the study's file, since a zip holds no images to train on")
    store = Store.open(make=False)
    recorded = open_recorded(file, profile)
    folder = folder_of(recorded.study, file)
    if with_code:
        allow_code(folder)
    assert isinstance(recorded, Recorded), recorded
    check_images(recorded.plan, "verify", f"ablate check-task {file or 'FILE'} runs it twice and compares")
    run = _recorded_run(recorded, arm, seed)
    study = _recorded_study(recorded, run, folder)
    device = devices("cpu" if run.device.startswith("cpu") else "auto")[0]
    preparation = ImagePreparation(study, Workspace(store.root), device, lambda *_: None)
    work = first_epoch(study, seed, preparation)
    for change in _changes_since(run, study, device_name(device), preparation):
        Console(stderr=True).print(change, markup=False, highlight=False, soft_wrap=True)
    if steps:
        agrees, message = _compare_steps(work, device, steps)
    else:
        agrees, message = _compare_losses(work, device, _recorded_loss(store, run), run.device)
    print(f"{recorded.study}: {arm} seed {seed}: {message}")
    return DONE if agrees else FAILED


# --- what is recorded ----------------------------------------------------------------------------------------------------------


def _recorded_run(recorded: Recorded, arm: str, seed: int) -> RecordedRun:
    """The record of the run, or of the arm that it chose; raises ConfigError if the run has not finished."""
    names = [recorded_arm["name"] for recorded_arm in recorded.plan["arms"]]
    if arm not in names:
        raise unknown_name("ARM", "arm", arm, names)
    rows = recorded.runs[(recorded.runs["arm"] == arm) & (recorded.runs["status"] == "FINISHED")]
    if seed not in set(rows["seed"]):
        finished_seeds = ", ".join(str(finished_seed) for finished_seed in sorted(rows["seed"])) or "none"
        raise ConfigError("SEED", f"found {seed}; expected one of the finished seeds of {arm}: {finished_seeds}")
    row = rows[rows["seed"] == seed].to_dict("records")[0]
    if row["chosen"]:
        return _recorded_run(recorded, row["chosen"], seed)
    tags = next(run["tags"] for run in recorded.store.runs_of(recorded.study) if run["run_id"] == row["run_id"])
    weights = json.loads(tags.get(INPUTS, "{}")).get("weights", "")
    return RecordedRun(row["run_id"], row["key"], tags["ablation.content"], row["device"], row["digest"], weights)


def _recorded_study(recorded: Recorded, run: RecordedRun, folder: Path) -> Study:
    """A study of only this arm as it was run, whatever its file says now; relative paths start at `folder`."""
    recorded_config = read(recorded.artifact(run.id, "config.yaml"))
    arm_settings, schema = recorded_config["settings"], load_task(recorded.plan.get("task", DEFAULT)).schema
    stages = []
    for i, stage in enumerate(recorded_config["stages"]):
        options, settings = split_stage(stage, f"stages.{i}", schema)
        stages.append(options | {name: value for name, value in settings.items() if value != arm_settings[name]})
    base = {**arm_settings, "stages": stages}
    classes_by_group = {name: classes or NO_CLASS for name, classes in recorded.plan["groups"].items()}
    groups = recorded.plan.get("written", {}).get("groups", classes_by_group)  # the rule, since an arm's tail goes by its own counts
    study_file = {"study": recorded.study, "seeds": [recorded_config["seed"]], "base": base, "groups": groups}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "experiments.yaml"
        path.write_text(yaml.safe_dump(study_file, sort_keys=False, allow_unicode=True), encoding="utf-8")
        study = load_study(path, is_recorded=True)
    return replace(study, file=folder / "experiments.yaml")


def _recorded_loss(store: Store, run: RecordedRun) -> float:
    losses = [point.value for point in store.curves(run.id) if (point.name, point.step) == ("train/loss", 0)]
    if not losses:
        raise AblateError(
            "the record has no loss of the first epoch, so there is nothing to compare with; --steps compares two trainings with each other"
        )
    return losses[0]


def _changes_since(run: RecordedRun, study: Study, device: str, preparation: ImagePreparation) -> Iterator[str]:
    """A sentence for each thing that has changed since the run was recorded."""
    if device != run.device:
        yield f"recorded on {run.device}, trained again on {device}: compared anyway"
    elif keys.with_environment(run.content, environment_of(study.arms[0].stages, device)) != run.key:
        yield "code or versions have changed since it was recorded: compared anyway"
    arm, seed = study.arms[0], study.seeds[0]
    if not preparation.weights(arm.settings.model)[0].startswith(run.weights):
        yield "the weights that the model starts from have changed since it was recorded: compared anyway"
    if preparation.source(arm, seed).digest != run.digest:
        yield "the images or their split have changed since it was recorded: compared anyway"


# --- comparing -------------------------------------------------------------------------------------------------------------------


def _gives_equal_bits(work: TrainingWork, device: torch.device) -> bool:
    """Whether the same training gives the same bits each time on this device."""
    return device.type == "cpu" or work.stage.settings.deterministic


def _compare_losses(work: TrainingWork, device: torch.device, recorded: float, recorded_on: str) -> tuple[bool, str]:
    """(whether the first epoch's loss comes out as recorded, a sentence about it)."""
    first = train(work, device).loss
    if not _gives_equal_bits(work, device):
        return compare_statistically(recorded, first, train(work, device).loss, NOT_BIT_EXACT)
    if device_name(device) != recorded_on:
        return compare_statistically(recorded, first, first, "statistical: another class of device rounds differently")
    return compare_exactly(recorded, first, recorded_on)


def compare_exactly(recorded: float, retrained: float, device: str) -> tuple[bool, str]:
    """(whether two losses have the same bits, a sentence about it)."""
    promise = f"bit-exact, as the record allows on the same class of device ({device})"
    if retrained == recorded:
        return True, f"agrees: the first epoch's loss is {retrained!r}, as recorded ({promise})"
    return False, f"does not agree: the first epoch's loss is {retrained!r}, but {recorded!r} was recorded (expected {promise})"


def compare_statistically(recorded: float, first: float, second: float, reason: str) -> tuple[bool, str]:
    """(whether the recorded loss is within the spread of two trainings, a sentence about it); `reason` says why it need not be equal."""
    middle = (first + second) / 2
    tolerance = max(3 * abs(first - second), MIN_TOLERANCE * abs(middle))
    description = (
        f"the first epoch's loss is {first:.6g} and {second:.6g}, {recorded:.6g} was recorded, a difference of {tolerance:.2g} is allowed"
    )
    agrees = abs(recorded - middle) <= tolerance
    return agrees, f"{'agrees' if agrees else 'does not agree'}: {description} ({reason})"


def _compare_steps(work: TrainingWork, device: torch.device, steps: int) -> tuple[bool, str]:
    """(whether two trainings of the first steps agree, a sentence about it)."""
    first, second = train(work, device, steps), train(work, device, steps)
    after = f"after {first.steps} {'step' if first.steps == 1 else 'steps'}"
    hashes = hash_of(first.weights), hash_of(second.weights)
    if hashes[0] == hashes[1]:
        return True, f"agrees with itself: {after} two trainings have the same weights, {hashes[0]} (bit-exact)"
    distance = _distance(first.weights, second.weights)
    description = f"{after} two trainings have the weights {hashes[0]} and {hashes[1]}, {distance:.2g} of their length apart"
    if _gives_equal_bits(work, device):
        return False, f"does not agree with itself: {description} (expected bit-exact on {device_name(device)})"
    agrees = distance <= MIN_TOLERANCE
    verdict = "agrees with itself" if agrees else "does not agree with itself"
    return agrees, f"{verdict}: {description} ({NOT_BIT_EXACT}; {MIN_TOLERANCE} is allowed)"


def _distance(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """The distance between two sets of weights, as a share of the norm of the first."""
    squared_distance = sum(float((first[name].double() - second[name].double()).square().sum()) for name in first)
    squared_length = sum(float(tensor.double().square().sum()) for tensor in first.values())
    return (squared_distance / squared_length) ** 0.5 if squared_length else float(squared_distance > 0)
