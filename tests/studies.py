"""Study files written for a test, and a context in which they can be planned without data."""

from pathlib import Path

import yaml

from ablation.data.account import Account
from ablation.study.resolving import load_study
from ablation.tasks.images.context import PlanContext, Source
from ablation.tasks.images.planner import ImagePlanner

CLASSES = tuple("abcdefghij")
BASE = {"data": "digits", "model": {"name": "test_efficientnet", "image_size": 32}, "epochs": 6}


def write(folder, name="study.yaml", base=BASE, seeds=(0, 1), **sections):
    """The file of a study; a section that is None is left out."""
    whole = {"study": "s", "seeds": list(seeds) if seeds is not None else None, "base": base} | sections
    path = folder / name
    path.write_text(yaml.safe_dump({name: value for name, value in whole.items() if value is not None}, sort_keys=False))
    return path


def study(folder, profile=None, sets=(), **sections):
    """The study of such a file."""
    return load_study(write(folder, **sections), profile, sets)


def arms(folder, profile=None, sets=(), **sections):
    """Its arms by name."""
    return {arm.name: arm for arm in study(folder, profile, sets, **sections).arms}


def source(counts=(140, 126, 112, 98, 84, 70, 56, 42, 28, 14), digest="data", validation=0):
    """The data of every arm and seed."""
    return Source(Path("data"), digest, tuple(counts), tuple(counts), (36,) * len(counts), validation, CLASSES[: len(counts)])


def context(data=None, weights="random", device="cpu", precision="fp32", tail=(8, 9)):
    """What a plan needs to know, made up."""
    known = data or source()
    known_account = Account(
        "digits", "drawn: 20 % of the training images", known.classes, {"training": known.counts}, 0, "8 x 8 pixels", ()
    )
    return PlanContext(
        source=lambda arm, seed: known,
        account=lambda arm, seed: known_account,
        weights=lambda model: (weights, None),
        precision=lambda name: precision,
        device_class=device,
        tail=lambda counts, classes: tail,
        stages=Path("stages"),
        results=Path("results"),
        features=Path("features"),
    )


def planner(study, known=None):
    """What turns a study into trainings, what it needs to know being made up."""
    return ImagePlanner(study, known or context())
