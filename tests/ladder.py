"""The quick matrix's ladder with one seed, for tests that carry it out in several ways and compare what comes of it."""

import shutil
from pathlib import Path

from benchmarks.campaign import LADDER

FILE = "experiments.yaml"


def write(folder):
    """Put the study's file into the folder; the words of a command that stand for the ladder."""
    shutil.copyfile(Path(__file__).parent.parent / FILE, folder / FILE)
    return [FILE, "--profile", "quick", "--seed", "0", *(word for arm in LADDER for word in ("--arm", arm))]
