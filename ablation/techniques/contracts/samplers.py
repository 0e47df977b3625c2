"""What samplers promise. Shapes: N images, C classes."""

import torch

from ablation.techniques.contracts.contract import Spec, contract, expect
from ablation.techniques.contracts.inputs import NUM_CLASSES, seeded
from ablation.techniques.technique import make


@contract("samplers")
def draws_as_many_images_as_there_are(family_name: str, spec: Spec) -> None:
    """An epoch has as many positions as there are training images, each of an image, so that no arm trains for more updates."""
    technique = make(family_name, spec)
    for labels_N in (torch.tensor([0, 0, 1, 2, 1]), torch.tensor([0, 1, 2]), torch.tensor([0, 0, 2, 2, 2])):
        for epoch in (0, 9):
            positions_N = technique(labels_N, NUM_CLASSES, epoch, 10, seeded())
            expect(positions_N.dtype == torch.int64, f"positions are of {positions_N.dtype}; expected torch.int64")
            expect(positions_N.shape == labels_N.shape, f"found {tuple(positions_N.shape)} positions of {len(labels_N)} images")
            expect(bool(((positions_N >= 0) & (positions_N < len(labels_N))).all()), f"found the positions {positions_N.tolist()}")


@contract("samplers")
def says_whether_its_length_counts(family_name: str, spec: Spec) -> None:
    """A sampler whose epochs differ by how many there are has `depends_on_length`, or trainings of other lengths would share them."""
    technique, counts_C = make(family_name, spec), torch.tensor([60, 30, 10])
    labels_N = torch.repeat_interleave(torch.arange(NUM_CLASSES), counts_C)
    for epoch in (0, 5, 9):
        ten_N, twenty_N = (technique(labels_N, NUM_CLASSES, epoch, num_epochs, seeded()) for num_epochs in (10, 20))
        is_alike = torch.equal(ten_N, twenty_N) or technique.depends_on_length
        expect(is_alike, f"epoch {epoch} is another one of 20 epochs than of 10, and depends_on_length is False; expected True")


@contract("samplers")
def tells_its_probabilities(family_name: str, spec: Spec) -> None:
    """`probabilities_C` are float64 chances that sum to 1, with 0 for a class that has no images."""
    technique = make(family_name, spec)
    for counts_C in (torch.tensor([300, 20, 1]), torch.tensor([300.0, 0.0, 20.0]), torch.tensor([7, 7, 7])):
        for epoch, num_epochs in ((0, 1), (0, 10), (9, 10)):
            p_C = technique.probabilities_C(counts_C, epoch, num_epochs)
            expect(p_C.dtype == torch.float64, f"probabilities are of {p_C.dtype}; expected torch.float64")
            expect(abs(float(p_C.sum()) - 1) < 1e-9 and bool((p_C >= 0).all()), f"found {p_C.tolist()} for {counts_C.tolist()} images")
            expect(not p_C[counts_C == 0].any(), "a class without images has a chance")


@contract("samplers")
def draws_by_its_probabilities(family_name: str, spec: Spec) -> None:
    """The classes' shares of an epoch are `probabilities_C`, up to chance."""
    technique, counts_C = make(family_name, spec), torch.tensor([6000, 3000, 1000])
    labels_N = torch.repeat_interleave(torch.arange(NUM_CLASSES), counts_C)
    for epoch in (0, 9):
        positions_N = technique(labels_N, NUM_CLASSES, epoch, 10, seeded())
        shares_C = torch.bincount(labels_N[positions_N], minlength=NUM_CLASSES).double() / len(labels_N)
        p_C = technique.probabilities_C(counts_C, epoch, 10)
        is_far_C = (shares_C - p_C).abs() > 6 * (p_C * (1 - p_C) / len(labels_N)).sqrt() + 1e-9
        expect(not is_far_C.any(), f"epoch {epoch} has the shares {shares_C.tolist()}, and probabilities_C says {p_C.tolist()}")
