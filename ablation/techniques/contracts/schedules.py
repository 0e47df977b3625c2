"""What schedules of the learning rate promise."""

import math

from ablation.techniques.contracts.contract import Spec, contract, expect
from ablation.techniques.technique import make


@contract("schedules")
def gives_rates(family_name: str, spec: Spec) -> None:
    """Every epoch's rate is finite and not below 0, and stays as it is once the span is over."""
    technique = make(family_name, spec)
    warmup_epochs = int(getattr(technique, "warmup_epochs", 0))
    for span in (1, 2, 30):
        rates = [technique(epoch, span, 0.1) for epoch in range(span + 3 + warmup_epochs)]
        expect(all(math.isfinite(rate) and rate >= 0 for rate in rates), f"the rates over {span} epochs are {rates}")
        expect(len(set(rates[-3:])) == 1, f"after its span of {span} the rates are {rates[-3:]}; expected one")
