"""What mixings of images promise. Shapes: B images, C classes or channels, H height, W width."""

import torch

from ablation.techniques.contracts.contract import Spec, are_close, contract, expect
from ablation.techniques.contracts.inputs import call, inputs, seeded
from ablation.techniques.technique import make


@contract("mixing")
def keeps_shapes_and_sums(family_name: str, spec: Spec) -> None:
    """Images keep their shape, and each row of targets its sum, also in a batch of one."""
    technique = make(family_name, spec)
    for batch_size in (6, 1):
        tensors = {name: tensor[:batch_size] if "_B" in name else tensor for name, tensor in inputs().items()}
        images_BCHW, targets_BC = call(family_name, technique, tensors)
        expect(images_BCHW.shape == tensors["images_BCHW"].shape, f"images have the shape {tuple(images_BCHW.shape)}")
        expect(images_BCHW.dtype == tensors["images_BCHW"].dtype, f"images are of {images_BCHW.dtype}")
        expect(targets_BC.shape == tensors["targets_BC"].shape, f"targets have the shape {tuple(targets_BC.shape)}")
        expect(are_close(targets_BC.sum(1), torch.ones(batch_size)), f"rows of targets sum to {targets_BC.sum(1).tolist()}; expected 1")
        expect(bool((targets_BC >= 0).all()), "a target is below 0")


@contract("mixing")
def draws_one_row_per_batch(family_name: str, spec: Spec) -> None:
    """Every table of a mixing has a row for each batch of the epoch, and the loop can ask whether an epoch is mixed."""
    technique = make(family_name, spec)
    lengths = {name: len(table) for name, table in technique.draw(seeded(), 5, 4).items()}
    expect(all(length == 5 for length in lengths.values()), f"the tables for 5 batches have {lengths} rows")
    expect(isinstance(technique.is_on(0, 10), bool), f"is_on says {technique.is_on(0, 10)!r}; expected True or False")


@contract("mixing")
def says_whether_its_length_counts(family_name: str, spec: Spec) -> None:
    """A mixing that is on or off by how many epochs there are has `depends_on_length`, or trainings of other lengths would share it."""
    technique = make(family_name, spec)
    is_alike = all(technique.is_on(epoch, 10) == technique.is_on(epoch, 20) for epoch in range(10))
    expect(is_alike or technique.depends_on_length, "is_on depends on how many epochs there are, and depends_on_length is False")
