"""Whether a recorded run comes out again: its first epoch is trained in memory, and nothing of the store is touched."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from rich.console import Console
from torch import Tensor, nn

from ablation import keys
from ablation.config import WATCHERS, Stage, Study, split_stage
from ablation.errors import AblateError, ConfigError, unknown_name
from ablation.looking import DONE, FAILED, study_name
from ablation.matrix import load_study
from ablation.preparation import Preparation, Workspace, devices
from ablation.techniques.technique import allow_code
from ablation.tracking.store import Recorded, Store
from ablation.training.loop import State, train_epochs
from ablation.worker import THREADS, Job, device_name, first_state
from ablation.yamlfile import read

LEAST_SPREAD = 0.01  # of the loss, or of the weights' length: two trainings may be alike by chance
FREE = "statistical: CUDA without deterministic: true gives other bits each time"


class _EnoughError(Exception):
    """So many steps are done."""


@dataclass(frozen=True)
class Row:
    """What is recorded of the run."""

    id: str
    key: str
    content: str
    device: str
    digest: str


@dataclass(frozen=True)
class Trained:
    """What came out of training again: the first epoch's mean loss (NaN where it was not ended), its steps and weights."""

    loss: float
    steps: int
    weights: Mapping[str, Tensor]


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
    preparation = Preparation(study, Workspace(store.root), device, lambda *_: None)
    job = _job(study, seed, preparation)
    found = preparation.source(study.arms[0], seed).digest
    for difference in _differences(row, study, device_name(device), found):
        Console(stderr=True).print(difference, markup=False, highlight=False, soft_wrap=True)
    if steps:
        agrees, told = _compared_steps(job, device, steps)
    else:
        agrees, told = _compared_losses(job, device, _recorded_loss(store, row), row.device)
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
    whole = written["settings"]
    own = [{name: value for name, value in split_stage(stage)[1].items() if value != whole[name]} for stage in written["stages"]]
    base = {**whole, "stages": [split_stage(stage)[0] | changed for stage, changed in zip(written["stages"], own, strict=True)]}
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
    elif keys.with_environment(row.content, _environment(study.arms[0].stages, device)) != row.key:
        yield "code or versions have changed since it was recorded: compared all the same"
    if digest != row.digest:
        yield "the images or their split have changed since it was recorded: compared all the same"


def _environment(stages: Sequence[Stage], device: str) -> str:
    """The environment of a run's key: of each stage in turn, and of its test."""
    found = ""
    for stage in stages:
        watching = [getattr(stage.settings, name) for name in WATCHERS if name != "select"]
        trained = [one for one in keys.techniques_of(stage.settings) if one not in watching]
        found = keys.digest([found, keys.environment(trained, device)])
    settings = stages[-1].settings
    return keys.digest([found, keys.test_environment([settings.average, settings.tta, settings.posthoc], device)])


# --- training again --------------------------------------------------------------------------------------------------------------


def _job(study: Study, seed: int, preparation: Preparation) -> Job:
    """The first epoch of the arm's first stage; what only watches is left out, and nothing is kept."""
    arm = study.arms[0]
    stage, source = arm.stages[0], preparation.source(arm, seed)
    nowhere = Path(os.devnull)
    return Job(
        key="",
        stage=stage,
        seed=seed,
        until=1,
        parent="",
        parent_average="",
        parent_classifier=stage.settings.classifier,
        same_stage=False,
        tracked=(),
        keep_optimizer=False,
        evaluations=(),
        dataset=source.dataset,
        weights_file=preparation.weights(stage.settings.model)[1],
        tail=preparation.tail(source.counts, source.classes) if stage.settings.mix.needs_tail else (),
        stages=nowhere,
        results=nowhere,
        code="",
        shelf=None,
        sharers=0,
    )


def train(job: Job, device: torch.device, most: int = 0) -> Trained:
    """The job's first epoch trained in memory, or of it the first steps where `most` is given."""
    with _like_a_worker(job, device):
        setup, state = first_state(job, device)
        if most:  # step by step, as `deterministic` is: a captured step does not tell of its replays
            settings = setup.stage.settings.model_copy(update={"deterministic": True, "compile": False})
            setup = replace(setup, stage=replace(setup.stage, settings=settings))
        done = 0

        def count(*_: object) -> None:
            nonlocal done
            done += 1
            if done == most:
                raise _EnoughError

        state.optimizer.register_step_post_hook(count)
        with contextlib.suppress(_EnoughError):
            train_epochs(setup, state, 1, lambda _: None)
        return Trained(_loss(state), done, _weights(state.model))


def _loss(state: State) -> float:
    return float(state.history[-1]["loss"]) if state.history else float("nan")


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in sorted(model.state_dict().items())}


@contextlib.contextmanager
def _like_a_worker(job: Job, device: torch.device) -> Iterator[None]:
    """What a worker sets before it trains, since bits depend on it, and afterwards as it was."""
    threads, is_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(job.stage.settings.deterministic)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(is_deterministic)
        torch.set_num_threads(threads)


def hash_of(weights: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits that identify the weights to the bit."""
    found = hashlib.sha256()
    for name, tensor in weights.items():
        found.update(name.encode())
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


# --- comparing -------------------------------------------------------------------------------------------------------------------


def _gives_equal_bits(job: Job, device: torch.device) -> bool:
    """Whether equal trainings on this device give equal bits."""
    return device.type == "cpu" or job.stage.settings.deterministic


def _compared_losses(job: Job, device: torch.device, recorded: float, recorded_on: str) -> tuple[bool, str]:
    """Whether the first epoch's loss comes out as recorded, and a sentence."""
    first = train(job, device).loss
    if not _gives_equal_bits(job, device):
        return alike(recorded, first, train(job, device).loss, FREE)
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


def _compared_steps(job: Job, device: torch.device, steps: int) -> tuple[bool, str]:
    """Whether two trainings of the first steps agree, and a sentence."""
    first, second = train(job, device, steps), train(job, device, steps)
    after = f"after {first.steps} {'step' if first.steps == 1 else 'steps'}"
    hashes = hash_of(first.weights), hash_of(second.weights)
    if hashes[0] == hashes[1]:
        return True, f"agrees with itself: {after} two trainings have the same weights, {hashes[0]} (bit-exact)"
    distance = _distance(first.weights, second.weights)
    told = f"{after} two trainings have the weights {hashes[0]} and {hashes[1]}, {distance:.2g} of their length apart"
    if _gives_equal_bits(job, device):
        return False, f"does not agree with itself: {told} (expected bit-exact on {device_name(device)})"
    agrees = distance <= LEAST_SPREAD
    words = "agrees with itself" if agrees else "does not agree with itself"
    return agrees, f"{words}: {told} ({FREE}; allowed is {LEAST_SPREAD})"


def _distance(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """How far apart two sets of weights are, as a share of the first's length."""
    apart = sum(float((first[name].double() - second[name].double()).square().sum()) for name in first)
    length = sum(float(tensor.double().square().sum()) for tensor in first.values())
    return (apart / length) ** 0.5 if length else float(apart > 0)
