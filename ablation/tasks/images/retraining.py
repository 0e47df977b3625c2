"""Trains a recorded training's first epoch again, in memory: neither the store nor the folders are changed."""

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
from ablation.training.devices import set_up_process
from ablation.training.loop import State, train_epochs
from ablation.training.settings import WATCHERS, Stage
from ablation.training.states import initial_state, make_setup
from ablation.training.work import TrainingWork


class _StepLimitReachedError(Exception):
    """Raised to end a training after a number of steps."""


@dataclass(frozen=True)
class Trained:
    """The result of a repeated training: the first epoch's mean loss (NaN if it was not finished), the number of steps and the weights."""

    loss: float
    steps: int
    weights: Mapping[str, Tensor]


def first_epoch(study: Study, seed: int, preparation: ImagePreparation) -> TrainingWork:
    """The first epoch of the arm's first stage, without averages and tests; nothing is saved."""
    arm = study.arms[0]
    stage, source = arm.stages[0], preparation.source(arm, seed)
    no_folder = Path(os.devnull)
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
        weights_digest="",
        tail=preparation.tail(source.group_counts, source.classes) if stage.settings.mix.needs_tail else (),
        stages=no_folder,
        results=no_folder,
        code="",
        features=None,
        num_sharers=0,
    )


def train(work: TrainingWork, device: torch.device, max_steps: int = 0) -> Trained:
    """Train the work's first epoch in memory, or only its first `max_steps` steps."""
    with _settings_of_worker(work, device):
        setup = make_setup(work, device)
        state = initial_state(work, setup)
        if max_steps:  # with the plain step, as `deterministic` is: the replays of a captured step cannot be counted
            settings = setup.stage.settings.model_copy(update={"deterministic": True, "compile": False})
            setup = replace(setup, stage=replace(setup.stage, settings=settings))
        num_steps = 0

        def count(*_: object) -> None:
            nonlocal num_steps
            num_steps += 1
            if num_steps == max_steps:
                raise _StepLimitReachedError

        state.optimizer.register_step_post_hook(count)
        with contextlib.suppress(_StepLimitReachedError):
            train_epochs(setup, state, 1, lambda _: None)
        return Trained(_loss(state), num_steps, _weights(state.model))


def _loss(state: State) -> float:
    return float(state.history[-1]["values"]["train/loss"]) if state.history else float("nan")


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in sorted(model.state_dict().items())}


@contextlib.contextmanager
def _settings_of_worker(work: TrainingWork, device: torch.device) -> Iterator[None]:
    """A context with the settings that a worker makes before it trains, since bits depend on them."""
    threads, is_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    set_up_process(device)
    torch.use_deterministic_algorithms(work.stage.settings.deterministic)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(is_deterministic)
        torch.set_num_threads(threads)


def hash_of(weights: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits that identify the weights to the bit."""
    digest_of_weights = hashlib.sha256()
    for name, tensor in weights.items():
        digest_of_weights.update(name.encode())
        digest_of_weights.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest_of_weights.hexdigest()[:16]


def environment_of(stages: Sequence[Stage], device: str) -> str:
    """The environment in a run's key: that of each stage in turn, and that of its test."""
    environment = ""
    for stage in stages:
        watchers = [getattr(stage.settings, name) for name in WATCHERS if name != "select"]
        training_techniques = [technique for technique in keys.techniques_of(stage.settings) if technique not in watchers]
        environment = digest([environment, keys.environment(training_techniques, device)])
    settings = stages[-1].settings
    return digest([environment, keys.test_environment([settings.average, settings.tta, settings.posthoc], device)])
