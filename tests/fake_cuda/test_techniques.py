"""Every technique on the stand-in for CUDA: captured and plain, without a wait or a mixed device within an epoch; and faults are seen.

Every twenty-fourth setting is tried, and some always; with ABLATE_FAKE_CUDA=all in the environment all of them are, which takes minutes.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.fake_cuda import build
from tests.fake_cuda.settings import every_setting

MODES = ("captured", "plain")
ALWAYS = ("baseline", "precision/fp16", "data/read from the disk", "classifiers/new head, mixed features")
SETTINGS = list(every_setting())
SAMPLE = [name for number, name in enumerate(SETTINGS) if number % 24 == 0 or name in ALWAYS]
TRIED = SETTINGS if os.environ.get("ABLATE_FAKE_CUDA") == "all" else SAMPLE
# How each planted fault is seen, captured and plain; where that is None, it does no harm.
SEEN = {
    "on_the_host": ("Expected all tensors to be on the same device", "Expected all tensors to be on the same device"),
    "looked_at": ("waits for the device at techniques/losses.py", "waits for the device at techniques/losses.py"),
    "made_on_the_host": ("waits for the device at techniques/losses.py", "waits for the device at techniques/losses.py"),
    "drawn_by_python": ("a number that changes from step to step is Python's at techniques/losses.py", None),
    "chosen_by_value": ("waits for the device at", "waits for the device at"),
    "unpinned": ("Cannot copy between CPU and CUDA tensors during CUDA graph capture", None),
    "mixed_types": ("expected mat1 and mat2 to have the same dtype", "expected mat1 and mat2 to have the same dtype"),
    "augmentation that looks": ("waits for the device at training/images.py", None),
}


def outcomes(library, *arguments):
    """What the trials in a process on the stand-in tell, by name and mode."""
    command = [sys.executable, "-m", "tests.fake_cuda.trials", *arguments]
    done = subprocess.run(command, env=build.environment(library), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return {(outcome["name"], outcome["mode"]): outcome["problems"] for outcome in told}


@pytest.fixture(scope="module")
def tried(library):
    return outcomes(library, ",".join(MODES), *TRIED)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TRIED)
def test_it_keeps_to_the_device(tried, name, mode):
    """Trained and tested without an error, with the step expected, and with nothing that a device would not forgive."""
    assert tried[name, mode] == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", SEEN)
def test_a_planted_fault_is_seen(tried, fault, mode):
    """The trials above find what they look for."""
    words = SEEN[fault][MODES.index(mode)]
    problems = tried.get((f"planted/{fault}", mode), [])
    assert any(words in problem for problem in problems) if words else problems == []
    assert not any("weights are restored" in problem for problem in problems)
