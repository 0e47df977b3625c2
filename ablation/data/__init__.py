"""Images and labels: the sources, the cache of decoded images, and the split of a seed. Augmentations are in `techniques`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablation.data.cache import Dataset, open_dataset, prepare
    from ablation.data.splits import Split, split

__all__ = ["Dataset", "Split", "open_dataset", "prepare", "split"]

_HOMES = {
    "Dataset": "ablation.data.cache",
    "open_dataset": "ablation.data.cache",
    "prepare": "ablation.data.cache",
    "Split": "ablation.data.splits",
    "split": "ablation.data.splits",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use: a decoding process imports this package too, and needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ablation.data' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
