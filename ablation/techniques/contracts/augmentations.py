"""What augmentations promise. Shapes: B images, C channels, H height, W width."""

import torch

from ablation.techniques.contracts.contract import Spec, contract, expect
from ablation.techniques.contracts.inputs import call, inputs, seeded
from ablation.techniques.technique import make


@contract("augmentations")
def draws_one_row_per_image(family_name: str, spec: Spec) -> None:
    """Every table of an augmentation has a row for each image of the epoch."""
    lengths = {name: len(table) for name, table in make(family_name, spec).draw(seeded(), 7).items()}
    expect(all(length == 7 for length in lengths.values()), f"the tables for 7 images have {lengths} rows")


@contract("augmentations")
def gives_images_back(family_name: str, spec: Spec) -> None:
    """Images keep their shape (a resizing gives the asked one) and type, are finite, and pixels stay between 0 and 1."""
    technique, tensors = make(family_name, spec), inputs()
    expect(technique.works_on in ("pixels", "resize", "input"), f"works_on is {technique.works_on!r}; expected pixels, resize or input")
    (images_BCHW,) = call(family_name, technique, tensors)
    expected_shape = (6, 3, 16, 16) if technique.works_on == "resize" else tuple(tensors["images_BCHW"].shape)
    expect(tuple(images_BCHW.shape) == expected_shape, f"images have the shape {tuple(images_BCHW.shape)}; expected {expected_shape}")
    expect(images_BCHW.dtype == torch.float32 and images_BCHW.isfinite().all(), "images are no finite float32 numbers")
    low, high = float(images_BCHW.min()), float(images_BCHW.max())
    expect(technique.works_on == "input" or (low >= 0 and high <= 1), f"pixels go from {low} to {high}; expected 0 to 1")


@contract("augmentations")
def treats_each_image_alone(family_name: str, spec: Spec) -> None:
    """What becomes of an image depends on its own rows, and not on the others of the batch."""
    technique, images_BCHW = make(family_name, spec), inputs()["images_BCHW"]
    if technique.works_on == "resize":
        together_BCHW, alone = technique.resize(images_BCHW, 16), [technique.resize(images_BCHW[i : i + 1], 16) for i in range(6)]
    else:
        draws = technique.draw(seeded(), 6)
        rows = [{name: table[i : i + 1] for name, table in draws.items()} for i in range(6)]
        together_BCHW, alone = technique(images_BCHW, draws), [technique(images_BCHW[i : i + 1], rows[i]) for i in range(6)]
    expect(torch.allclose(together_BCHW, torch.cat(alone), rtol=0, atol=1e-6), "an image alone becomes another than in a batch")
