"""What smoothings of targets promise. Shapes: B images, C classes."""

import torch

from ablation.techniques.contracts.contract import Spec, are_close, contract, expect
from ablation.techniques.contracts.inputs import NUM_CLASSES, PRIOR, seeded
from ablation.techniques.technique import make


@contract("smoothing")
def keeps_the_sum_of_targets(family_name: str, spec: Spec) -> None:
    """Each row of targets keeps its sum, also where all classes are of one size, and has no number below 0."""
    technique = make(family_name, spec)
    for counts_C in (torch.tensor(PRIOR), torch.full((NUM_CLASSES,), 10.0)):
        for targets_BC in (torch.eye(NUM_CLASSES), torch.rand(4, NUM_CLASSES, generator=seeded()).softmax(1)):
            smoothed_BC = technique(targets_BC, counts_C)
            expect(smoothed_BC.shape == targets_BC.shape, f"the targets have the shape {tuple(smoothed_BC.shape)}")
            expect((smoothed_BC >= 0).all(), f"a target is {smoothed_BC.min():.6f}; expected 0 or more")
            sums_B = smoothed_BC.sum(1)
            expect(are_close(sums_B, torch.ones_like(sums_B)), f"rows of targets sum to {sums_B.tolist()}; expected 1")
