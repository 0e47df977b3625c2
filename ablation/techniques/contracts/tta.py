"""What techniques of several views at test time promise. Shapes: B images, C classes or channels, H height, W width."""

import torch

from ablation.techniques.contracts.contract import Spec, contract, expect
from ablation.techniques.contracts.inputs import inputs
from ablation.techniques.technique import make


@contract("tta")
def equal_views_are_one_view(family_name: str, spec: Spec) -> None:
    """Where all views agree, the combined decision is theirs."""
    technique, logits_BC = make(family_name, spec), inputs()["logits_BC"]
    scores_BC = technique.combine(torch.stack([logits_BC] * len(technique.views())))
    expect(scores_BC.shape == logits_BC.shape, f"the scores have the shape {tuple(scores_BC.shape)}")
    expect(torch.equal(scores_BC.argmax(1), logits_BC.argmax(1)), "equal views are decided otherwise together")


@contract("tta")
def views_are_images(family_name: str, spec: Spec) -> None:
    """Every view is an image of the same shape with pixels between 0 and 1, and can be told from the others."""
    technique, images_BCHW = make(family_name, spec), inputs()["images_BCHW"]
    expect(len(set(technique.views())) == len(technique.views()), "two of its views are equal")
    for view in technique.views():
        viewed_BCHW = view(images_BCHW)
        expect(viewed_BCHW.shape == images_BCHW.shape, f"a view has the shape {tuple(viewed_BCHW.shape)}")
        expect(bool(((viewed_BCHW >= 0) & (viewed_BCHW <= 1 + 1e-6)).all()), "a view has pixels outside of 0 to 1")
