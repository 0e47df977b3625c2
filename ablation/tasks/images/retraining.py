"""A recorded training's first epoch trained again, in memory: nothing of the store or the folders is touched."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ablation.study.config import Study
from ablation.system.digests import digest
from ablation.tasks.images import keys
from ablation.tasks.images.preparation import ImagePreparation
from ablation.training.devices import THREADS
from ablation.training.loop import State, train_epochs
from ablation.training.settings import WATCHERS, Stage
from ablation.training.states import begin, make_setup
from ablation.training.work import TrainingWork


class _EnoughError(Exception):
    """So many steps are done."""


@dataclass(frozen=True)
class Trained:
    """What came out of training again: the first epoch's mean loss (NaN where it was not ended), its steps and weights."""

    loss: float
    steps: int
    weights: Mapping[str, Tensor]


def first_epoch(study: Study, seed: int, preparation: ImagePreparation) -> TrainingWork:
    """The first epoch of the arm's first stage; what only watches is left out, and nothing is kept."""
    arm = study.arms[0]
    stage, source = arm.stages[0], preparation.source(arm, seed)
    nowhere = Path(os.devnull)
    return TrainingWork(
        key="",
        stage=stage,
        seed=seed,
        end_epoch=1,
        parent="",
        parent_average="",
        parent_classifier=stage.settings.classifier,
        is_same_stage=False,
        tracked=(),
        keep_optimizer=False,
        requests=(),
        dataset=source.dataset,
        weights_file=preparation.weights(stage.settings.model)[1],
        tail=preparation.tail(source.counts, source.classes) if stage.settings.mix.needs_tail else (),
        stages=nowhere,
        results=nowhere,
        code="",
        features=None,
        num_sharers=0,
    )


def train(work: TrainingWork, device: torch.device, most: int = 0) -> Trained:
    """The work's first epoch trained in memory, or of it the first steps where `most` is given."""
    with _like_a_worker(work, device):
        setup = make_setup(work, device)
        state = begin(work, setup)
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
    return float(state.history[-1]["values"]["train/loss"]) if state.history else float("nan")


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in sorted(model.state_dict().items())}


@contextlib.contextmanager
def _like_a_worker(work: TrainingWork, device: torch.device) -> Iterator[None]:
    """What a worker sets before it trains, since bits depend on it, and afterwards as it was."""
    threads, is_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(work.stage.settings.deterministic)
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


def environment_of(stages: Sequence[Stage], device: str) -> str:
    """The environment of a run's key: of each stage in turn, and of its test."""
    environment = ""
    for stage in stages:
        watching = [getattr(stage.settings, name) for name in WATCHERS if name != "select"]
        trained = [technique for technique in keys.techniques_of(stage.settings) if technique not in watching]
        environment = digest([environment, keys.environment(trained, device)])
    settings = stages[-1].settings
    return digest([environment, keys.test_environment([settings.average, settings.tta, settings.posthoc], device)])
