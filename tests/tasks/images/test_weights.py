"""Weights from a file: what a study trains from is what it was planned with."""

import pytest
import timm
from safetensors.torch import save_file

from ablation.tasks.images.preparation import ImagePreparation
from tests.tiny import write

MODEL = {"name": "test_efficientnet", "weights": "w.safetensors", "image_size": 32}


def save(folder, shift):
    """The file of weights, each of them moved by so much."""
    tensors = timm.create_model(MODEL["name"]).state_dict()
    save_file({name: (tensor + shift).contiguous() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}, folder)


@pytest.mark.parametrize("shift", [0, 0.01])
def test_weights_that_were_replaced_after_planning_are_not_trained(ablate, monkeypatch, shift):
    """They would be recorded under the digest of the others; equal ones, written anew, are the same."""
    weights = ablate.folder / "w.safetensors"
    save(weights, 0)
    check_starts = ImagePreparation.check_starts

    def replaced_then(*args, **options):
        check_starts(*args, **options)
        tensors = weights.read_bytes()
        save(weights, shift) if shift else weights.write_bytes(tensors)

    monkeypatch.setattr(ImagePreparation, "check_starts", replaced_then)
    done = ablate("run", write(ablate.folder, base={"model": MODEL, "epochs": 1}, ladder={"baseline": {}}))
    assert done.status == (1 if shift else 0)
    assert (f"the weights in {weights} were changed after the study was planned" in " ".join(done.err.split())) == bool(shift)
    assert bool(done.epochs) != bool(shift)
