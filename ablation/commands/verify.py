"""Whether a recorded run comes out again: its first epoch is trained in memory, and nothing of the store is touched."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from rich.console import Console
from torch import Tensor

from ablation.commands.exit_codes import DONE, FAILED
from ablation.commands.recorded import study_name
from ablation.errors import AblateError, ConfigError, unknown_name
from ablation.planning.workspace import Workspace
from ablation.study.config import Study
from ablation.study.overrides import split_stage
from ablation.study.resolving import load_study
from ablation.study.task import DEFAULT, load_task
from ablation.study.yamlfile import read
from ablation.tasks.images import keys
from ablation.tasks.images.preparation import ImagePreparation
from ablation.tasks.images.retraining import environment_of, first_epoch, hash_of, train
from ablation.techniques.technique import allow_code
from ablation.tracking.store import Recorded, Store
from ablation.training.devices import device_name, devices
from ablation.training.work import TrainingWork

LEAST_SPREAD = 0.01  # of the loss, or of the weights' length: two trainings may be alike by chance
FREE = "statistical: CUDA without deterministic: true gives other bits each time"


@dataclass(frozen=True)
class Row:
    """What is recorded of the run."""

    id: str
    key: str
    content: str
    device: str
    digest: str


def verify(arm: str, seed: int, file: Path | None, profile: str | None, *, steps: int, with_code: bool) -> int:
    """Print whether the run's first epoch comes out as recorded, or with `steps` whether two trainings agree; 1 where not."""
    if file is not None and file.suffix == ".zip":
        raise ConfigError("--file", f"found {file}; expected the study's file, since a zip holds no images to train on")
    if with_code:
        allow_code(*([file.parent] if file else []))
    store = Store.open(make=False)
    recorded = store.recorded(study_name(file, profile, store))
    row = _row(recorded, arm, seed)
    study = _study(recorded, row, file.resolve().parent if file else Path.cwd())
    device = devices("cpu" if row.device.startswith("cpu") else "auto")[0]
    preparation = ImagePreparation(study, Workspace(store.root), device, lambda *_: None)
    work = first_epoch(study, seed, preparation)
    digest = preparation.source(study.arms[0], seed).digest
    for difference in _differences(row, study, device_name(device), digest):
        Console(stderr=True).print(difference, markup=False, highlight=False, soft_wrap=True)
    if steps:
        agrees, told = _compared_steps(work, device, steps)
    else:
        agrees, told = _compared_losses(work, device, _recorded_loss(store, row), row.device)
    print(f"{recorded.study}: {arm} seed {seed}: {told}")
    return DONE if agrees else FAILED


# --- what is recorded ----------------------------------------------------------------------------------------------------------


def _row(recorded: Recorded, arm: str, seed: int) -> Row:
    """The run's record, that of the chosen arm where it stands for another's; raises where it has not finished."""
    names = [one["name"] for one in recorded.plan["arms"]]
    if arm not in names:
        raise unknown_name("ARM", "arm", arm, names)
    rows = recorded.runs[(recorded.runs["arm"] == arm) & (recorded.runs["status"] == "FINISHED")]
    if seed not in set(rows["seed"]):
        there = ", ".join(str(one) for one in sorted(rows["seed"])) or "none"
        raise ConfigError("SEED", f"found {seed}; {arm} has finished with {there}")
    found = rows[rows["seed"] == seed].to_dict("records")[0]
    if found["chosen"]:
        return _row(recorded, found["chosen"], seed)
    tags = next(run["tags"] for run in recorded.store.runs_of(recorded.study) if run["run_id"] == found["run_id"])
    return Row(found["run_id"], found["key"], tags["ablation.content"], found["device"], found["digest"])


def _study(recorded: Recorded, row: Row, folder: Path) -> Study:
    """A study of the one arm as it was run, whatever its file says by now; relative paths start at `folder`."""
    written = read(recorded.artifact(row.id, "config.yaml"))
    whole, schema = written["settings"], load_task(recorded.plan.get("task", DEFAULT)).schema
    stages = []
    for stage in written["stages"]:
        options, settings = split_stage(stage, schema)
        stages.append(options | {name: value for name, value in settings.items() if value != whole[name]})
    base = {**whole, "stages": stages}
    file = {"study": recorded.study, "seeds": [written["seed"]], "base": base, "groups": recorded.plan["groups"]}
    with tempfile.TemporaryDirectory() as beside:
        path = Path(beside) / "experiments.yaml"
        path.write_text(yaml.safe_dump(file, sort_keys=False, allow_unicode=True), encoding="utf-8")
        study = load_study(path)
    return replace(study, file=folder / "experiments.yaml")


def _recorded_loss(store: Store, row: Row) -> float:
    found = [point.value for point in store.curves(row.id) if (point.name, point.step) == ("train/loss", 0)]
    if not found:
        raise AblateError(
            "the record has no loss of the first epoch, so that there is nothing to compare with; --steps compares with itself"
        )
    return found[0]


def _differences(row: Row, study: Study, device: str, digest: str) -> Iterator[str]:
    """What is not as it was when the run was recorded, a sentence each."""
    if device != row.device:
        yield f"recorded on {row.device}, trained again on {device}: compared all the same"
    elif keys.with_environment(row.content, environment_of(study.arms[0].stages, device)) != row.key:
        yield "code or versions have changed since it was recorded: compared all the same"
    if digest != row.digest:
        yield "the images or their split have changed since it was recorded: compared all the same"


# --- comparing -------------------------------------------------------------------------------------------------------------------


def _gives_equal_bits(work: TrainingWork, device: torch.device) -> bool:
    """Whether equal trainings on this device give equal bits."""
    return device.type == "cpu" or work.stage.settings.deterministic


def _compared_losses(work: TrainingWork, device: torch.device, recorded: float, recorded_on: str) -> tuple[bool, str]:
    """Whether the first epoch's loss comes out as recorded, and a sentence."""
    first = train(work, device).loss
    if not _gives_equal_bits(work, device):
        return alike(recorded, first, train(work, device).loss, FREE)
    if device_name(device) != recorded_on:
        return alike(recorded, first, first, "statistical: another class of device rounds otherwise")
    return exact_losses(recorded, first, recorded_on)


def exact_losses(recorded: float, found: float, device: str) -> tuple[bool, str]:
    """Whether two losses have the same bits, and a sentence."""
    promise = f"bit-exact, as the record allows on the same class of device ({device})"
    if found == recorded:
        return True, f"agrees: the first epoch's loss is {found!r}, as recorded ({promise})"
    return False, f"does not agree: the first epoch's loss is {found!r}, recorded was {recorded!r} (expected {promise})"


def alike(recorded: float, first: float, second: float, why: str) -> tuple[bool, str]:
    """Whether a loss lies where two trainings that need not be equal to it would put it, and a sentence that says why they need not."""
    middle = (first + second) / 2
    allowed = max(3 * abs(first - second), LEAST_SPREAD * abs(middle))
    found = f"the first epoch's loss is {first:.6g} and {second:.6g}, recorded was {recorded:.6g}, allowed is a difference of {allowed:.2g}"
    agrees = abs(recorded - middle) <= allowed
    return agrees, f"{'agrees' if agrees else 'does not agree'}: {found} ({why})"


def _compared_steps(work: TrainingWork, device: torch.device, steps: int) -> tuple[bool, str]:
    """Whether two trainings of the first steps agree, and a sentence."""
    first, second = train(work, device, steps), train(work, device, steps)
    after = f"after {first.steps} {'step' if first.steps == 1 else 'steps'}"
    hashes = hash_of(first.weights), hash_of(second.weights)
    if hashes[0] == hashes[1]:
        return True, f"agrees with itself: {after} two trainings have the same weights, {hashes[0]} (bit-exact)"
    distance = _distance(first.weights, second.weights)
    told = f"{after} two trainings have the weights {hashes[0]} and {hashes[1]}, {distance:.2g} of their length apart"
    if _gives_equal_bits(work, device):
        return False, f"does not agree with itself: {told} (expected bit-exact on {device_name(device)})"
    agrees = distance <= LEAST_SPREAD
    words = "agrees with itself" if agrees else "does not agree with itself"
    return agrees, f"{words}: {told} ({FREE}; allowed is {LEAST_SPREAD})"


def _distance(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """How far apart two sets of weights are, as a share of the first's length."""
    apart = sum(float((first[name].double() - second[name].double()).square().sum()) for name in first)
    length = sum(float(tensor.double().square().sum()) for tensor in first.values())
    return (apart / length) ** 0.5 if length else float(apart > 0)
