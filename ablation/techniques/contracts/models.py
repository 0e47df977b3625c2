"""What models promise. Shapes: B images, C classes."""

import torch

from ablation.techniques.contracts.contract import Spec, contract, expect
from ablation.techniques.contracts.inputs import NUM_CLASSES, seeded
from ablation.techniques.technique import make


@contract("models")
def makes_a_model_by_the_seed(family_name: str, spec: Spec) -> None:
    """A model gives each image a score per class, its weights being a function of the seed alone."""
    technique = make(family_name, spec)
    first_model, second_model = (technique(NUM_CLASSES, 3) for _ in range(2))
    weights = zip(first_model.state_dict().values(), second_model.state_dict().values(), strict=True)
    are_equal = [torch.equal(first, second) for first, second in weights]
    expect(all(are_equal), "one seed made two different models")
    side = technique.image_size
    with torch.no_grad():
        scores_BC = first_model.eval()(torch.rand(2, 3, side, side, generator=seeded()))
    expect(scores_BC.shape == (2, NUM_CLASSES), f"the scores have the shape {tuple(scores_BC.shape)}")
    mean, deviation = technique.normalisation
    expect(
        len(mean) == len(deviation) == 3, f"the normalisation has {len(mean)} means and {len(deviation)} deviations; expected three each"
    )


@contract("models")
def has_one_classifier(family_name: str, spec: Spec) -> None:
    """`get_classifier` gives the last layer, without which the backbone's weights depend on no number of classes."""
    technique = make(family_name, spec)
    models = [technique(num_classes, 3) for num_classes in (NUM_CLASSES, NUM_CLASSES + 1)]
    backbones = []
    for model in models:
        classifier_ids = {id(tensor) for tensor in model.get_classifier().state_dict(keep_vars=True).values()}
        expect(classifier_ids, "get_classifier gives a layer without weights")
        tensors = model.state_dict(keep_vars=True)
        backbones.append({name: tensor for name, tensor in tensors.items() if id(tensor) not in classifier_ids})
    of_few_classes, of_more_classes = backbones
    are_equal = all(torch.equal(of_few_classes[name], of_more_classes[name]) for name in of_few_classes)
    expect(are_equal, "the backbone's weights depend on the number of classes")
