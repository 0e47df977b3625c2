"""What averages of the weights promise."""

import torch

from ablation.techniques.contracts.contract import Spec, are_close, contract, expect
from ablation.techniques.technique import make


@contract("averages")
def keeps_a_share(family_name: str, spec: Spec) -> None:
    """The initial weights' share is between 0 and 1 and never grows; each update's decay is between 0 and 1."""
    technique = make(family_name, spec)
    shares = [technique.remaining(num_updates) for num_updates in (0, 1, 10, 1000, 10**6)]
    expect(all(0 <= share <= 1 for share in shares), f"the shares are {shares}")
    expect(shares == sorted(shares, reverse=True), f"the shares {shares} grow")
    decays = [technique.decay_at(update) for update in (1, 2, 10, 1000)]
    expect(all(0 <= decay <= 1 for decay in decays), f"the decays are {decays}")
    expect(isinstance(technique.averages, bool), f"averages is {technique.averages!r}; expected True or False")


@contract("averages")
def moves_by_its_decay(family_name: str, spec: Spec) -> None:
    """An update makes, in place, decay * average + (1 - decay) * weights, and copies what counts in whole numbers."""
    technique = make(family_name, spec)
    averaged, weights = [torch.tensor([1.0, 2.0]), torch.tensor(3)], [torch.tensor([5.0, -2.0]), torch.tensor(7)]
    decay = technique.decay_at(4)
    technique.update(averaged, weights, 4)
    expected = decay * torch.tensor([1.0, 2.0]) + (1 - decay) * torch.tensor([5.0, -2.0])
    expect(are_close(averaged[0], expected), f"the average is {averaged[0].tolist()}; expected {expected.tolist()}")
    expect(int(averaged[1]) == 7, f"a count is {int(averaged[1])}; expected 7, the weights' own")
    expect(weights[0].tolist() == [5.0, -2.0], "the weights were changed")
