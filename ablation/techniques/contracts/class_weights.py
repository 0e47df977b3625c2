"""What class weights promise. Shapes: C classes."""

import torch

from ablation.techniques.contracts.contract import Spec, contract, expect
from ablation.techniques.contracts.inputs import NUM_CLASSES
from ablation.techniques.technique import make


@contract("class_weights")
def weighs_every_class(family_name: str, spec: Spec) -> None:
    """Each class has a positive, finite weight in float32."""
    weights_C = make(family_name, spec)(torch.tensor([1000.0, 10.0, 1.0]))
    expect(weights_C.shape == (NUM_CLASSES,) and weights_C.dtype == torch.float32, f"found {weights_C}; expected three float32 numbers")
    expect(bool((weights_C.isfinite() & (weights_C > 0)).all()), f"found {weights_C.tolist()}; expected numbers above 0")
