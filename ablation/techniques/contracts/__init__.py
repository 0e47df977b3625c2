"""What every technique of a family promises, as checks that built-ins and a user's own techniques are held to; no technique lives here."""

from ablation.techniques.contracts.contract import CONTRACTS, Contract, ContractError, Result, check, checks, report
from ablation.techniques.contracts.inputs import CALLS

# Importing a file adds its contracts to CONTRACTS. The order is that of the lines that `ablate check-technique` prints.
# isort: off
from ablation.techniques.contracts import every_family
from ablation.techniques.contracts import losses
from ablation.techniques.contracts import class_weights
from ablation.techniques.contracts import smoothing
from ablation.techniques.contracts import samplers
from ablation.techniques.contracts import mixing
from ablation.techniques.contracts import augmentations
from ablation.techniques.contracts import optimizers
from ablation.techniques.contracts import schedules
from ablation.techniques.contracts import averages
from ablation.techniques.contracts import classifiers
from ablation.techniques.contracts import posthoc
from ablation.techniques.contracts import tta
from ablation.techniques.contracts import longtail
from ablation.techniques.contracts import models
# isort: on

__all__ = [
    "CALLS",
    "CONTRACTS",
    "Contract",
    "ContractError",
    "Result",
    "augmentations",
    "averages",
    "check",
    "checks",
    "class_weights",
    "classifiers",
    "every_family",
    "longtail",
    "losses",
    "mixing",
    "models",
    "optimizers",
    "posthoc",
    "report",
    "samplers",
    "schedules",
    "smoothing",
    "tta",
]
