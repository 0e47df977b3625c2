"""Small image sources made by the tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from ablation.data import open_dataset, prepare
from ablation.data.raster import INSPECTION
from ablation.techniques.technique import make


def silent(what, done, total):
    """Progress that nobody watches."""


def opened(spec, base: Path, image_size: int = 16):
    """The dataset of a source's YAML form, cached under base/cache."""
    return open_dataset(prepare(make("data", spec), image_size, base, base / "cache", silent))


def distinct_images(number: int) -> np.ndarray:
    """The inspections of so many images of 20 x 16 pixels, no two of which are equal."""
    inspections_N = np.zeros(number, dtype=INSPECTION)
    inspections_N["digest"] = np.arange(number, dtype="<u8").repeat(2).view("V16")
    inspections_N["width"], inspections_N["height"], inspections_N["bits"], inspections_N["high"] = 20, 16, 8, 255
    return inspections_N


def found(spec, base: Path, image_size: int = 16):
    """The files that a source finds, in the form that its YAML form gives."""
    return make("data", spec)(base, image_size)


def picture(seed: int, width: int = 20, height: int = 16) -> Image.Image:
    """A random RGB image."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def save(path: Path, image: Image.Image | None = None, **options) -> Path:
    """The image (a grey one by default) written to path, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (20, 16), (90, 90, 90))).save(path, **options)
    return path


def class_tree(root: Path, counts: dict[str, int], pattern: str = "{i}.png") -> Path:
    """root/CLASS/0.png ... with as many images as counts says."""
    for seed, (name, count) in enumerate(counts.items()):
        for i in range(count):
            save(root / name / pattern.format(i=i), picture(1000 * seed + i))
    return root
