"""Pictures as MLflow's page shows them in its grid: each with a thumbnail beside it, under names that say what and when."""

import time
import uuid
from collections.abc import Mapping
from pathlib import Path

LARGEST = 256  # pixels, the longer side of a thumbnail


def make(picture: Path, target: Path) -> None:
    """Write a picture without transparency, and its thumbnail beside it, as MLflow's client does; the target may be the picture."""
    from PIL import Image

    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    size = (LARGEST, int(height * (LARGEST / width))) if width > height else (int(width * (LARGEST / height)), LARGEST)
    image.save(target)
    image.resize(size).save(_beside(target))


def named(picture: Path, key: str, folder: Path) -> Mapping[str, Path]:
    """A picture and its thumbnail by the names that MLflow's page knows; those of a picture that lacks one are made in the folder."""
    beside = _beside(picture)
    if not beside.exists() or beside.stat().st_mtime_ns < picture.stat().st_mtime_ns:
        make(picture, folder / picture.name)
        picture = folder / picture.name
    name = f"{key}+step+0+timestamp+{int(time.time() * 1000)}+{uuid.uuid4()}"
    return {f"{name}.png": picture, f"{name}+compressed.webp": _beside(picture)}


def _beside(picture: Path) -> Path:
    return picture.with_suffix(".webp")
