"""The inputs that techniques are tried on, and one call of a technique of each family.

Shapes: N or B images, C classes or channels, F features, H height, W width, V views.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ablation.techniques.mixing import Classes

NUM_CLASSES = 3
PRIOR = (30.0, 20.0, 10.0)  # training images per class


def inputs(device: str = "cpu") -> dict[str, Tensor]:
    """Six images of three classes and what comes with them; `labels_N` are those of a training set of five."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "images_BCHW": torch.rand(6, 3, 8, 10, generator=generator),
        "others_BCHW": torch.rand(6, 3, 8, 10, generator=generator),
        "logits_BC": torch.randn(6, NUM_CLASSES, generator=generator),
        "targets_BC": torch.eye(NUM_CLASSES)[torch.tensor([0, 1, 2, 0, 0, 1])],
        "others_BC": torch.eye(NUM_CLASSES)[torch.tensor([2, 2, 1, 0, 2, 1])],
        "counts_C": torch.tensor(PRIOR),
        "tail_C": torch.tensor([False, False, True]),
        "labels_N": torch.tensor([0, 0, 1, 2, 1]),
        "features_NF": torch.rand(5, 4, generator=generator),
        "features_BF": torch.rand(6, 4, generator=generator),
    }
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def seeded(seed: int = 1) -> torch.Generator:
    """A CPU generator."""
    return torch.Generator().manual_seed(seed)


def moved(tables: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The tables on the device."""
    return {name: table.to(device) for name, table in tables.items()}


def call(family_name: str, technique: Any, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """What a technique computes of the inputs, on their device."""
    return CALLS[family_name](technique, tensors)


def fitted(technique: Any) -> Any:
    """The technique with its number fitted, where it needs that."""
    scores_NC = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.5], [0.0, 1.0, 2.0]])
    return technique.fitted(scores_NC, torch.tensor([0, 1, 2, 2])) if technique.needs_validation else technique


def classifier_layer(technique: Any) -> nn.Module:
    """The classifier in the place of a linear layer from four features to three classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer: nn.Module = technique(nn.Linear(4, NUM_CLASSES))
    return layer


def _call_augmentation(technique: Any, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    images_BCHW = tensors["images_BCHW"]
    if technique.works_on == "resize":
        return (technique.resize(images_BCHW, 16),)
    return (technique(images_BCHW, moved(technique.draw(seeded(), len(images_BCHW)), images_BCHW.device)),)


def _call_class_weights(technique: Any, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return (technique(tensors["counts_C"]),)


def _call_classifier(technique: Any, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return (classifier_layer(technique).to(tensors["features_BF"].device)(tensors["features_BF"]),)


def _call_loss(technique: Any, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    state = moved(technique.state(NUM_CLASSES, seeded()), tensors["logits_BC"].device)
    technique.advance(state, tensors["targets_BC"])
    sampled_C = torch.ones_like(tensors["counts_C"])
    loss_without_state = technique(tensors["logits_BC"], tensors["targets_BC"], tensors["counts_C"], sampled_C)
    return loss_without_state, technique(tensors["logits_BC"], tensors["targets_BC"], tensors["counts_C"], sampled_C, state)


def _call_mixing(technique: Any, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    batch_size, device = len(tensors["images_BCHW"]), tensors["images_BCHW"].device
    rows = {name: table[1] for name, table in moved(technique.draw(seeded(), 4, batch_size), device).items()}
    second_batch = (tensors["others_BCHW"], tensors["others_BC"]) if technique.second is not None else None
    classes = Classes(tensors["counts_C"], tensors["tail_C"])
    return tuple(technique(tensors["images_BCHW"], tensors["targets_BC"], rows, classes, second_batch))


def _call_posthoc(technique: Any, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return (fitted(technique)(tensors["logits_BC"], tensors["counts_C"]),)


def _call_sampler(technique: Any, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return (technique(tensors["labels_N"], NUM_CLASSES, 0, 10, seeded()),)


def _call_smoothing(technique: Any, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return (technique(tensors["targets_BC"], tensors["counts_C"]),)


def _call_tta(technique: Any, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    logits_VBC = torch.stack([tensors["logits_BC"]] * len(technique.views()))
    return technique.combine(logits_VBC), *(view(tensors["images_BCHW"]) for view in technique.views())


CALLS: dict[str, Callable[[Any, Mapping[str, Tensor]], tuple[Tensor, ...]]] = {
    "augmentations": _call_augmentation,
    "class_weights": _call_class_weights,
    "classifiers": _call_classifier,
    "losses": _call_loss,
    "mixing": _call_mixing,
    "posthoc": _call_posthoc,
    "samplers": _call_sampler,
    "smoothing": _call_smoothing,
    "tta": _call_tta,
}
