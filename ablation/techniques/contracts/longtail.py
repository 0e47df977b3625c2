"""What long tails of a training set promise. Shapes: C classes."""

import numpy as np

from ablation.techniques.contracts.contract import Spec, contract, expect
from ablation.techniques.technique import make


@contract("longtail")
def counts_images(family_name: str, spec: Spec) -> None:
    """Each class has a whole number of images from 0 on, the available counts staying as they are."""
    technique, available_C = make(family_name, spec), np.array([500, 500, 500, 500])
    counts_C = technique(available_C)
    expect(counts_C.shape == available_C.shape and counts_C.dtype.kind == "i", f"found {counts_C!r}; expected four whole numbers")
    expect(bool((counts_C >= 0).all()), f"found {counts_C.tolist()}")
    expect(available_C.tolist() == [500] * 4, "the available counts were changed")
    expect(technique.indices in ("seeded", "historical"), f"indices is {technique.indices!r}; expected seeded or historical")
