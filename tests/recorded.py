"""A small study, recorded once for a module of tests that only look at it."""

import shutil
import sys

import pytest
from click.testing import CliRunner

from ablation.tracking.database import repoint
from tests.tiny import InlineExecutor, write

VALIDATED = {"data": {"name": "digits", "validation": 0.2, "longtail": {"name": "linear", "largest": 40, "smallest": 10}}}
ARMS = {
    "ladder": {"baseline": {}, "cb": {"sampler": "class_balanced"}},
    "variants": {
        "same": {"sampler": "class_balanced"},
        "views": {"tta": "flips"},
        "tau": {"posthoc": "tau_norm", "tta": {"name": "hflip", "average": "vote"}},
        "adjusted": {"posthoc": "logit_adjustment"},
        "means": {"posthoc": "ncm", "tta": "hflip"},
        "raw-means": {"posthoc": {"name": "ncm", "features": "raw"}},
        "cold": {"posthoc": "temperature"},
        "cosine": {"classifier": "cosine"},
        "scaled": {"stages": [{"epochs": 1}, {"epochs": 1, "train": "head", "classifier": "lws"}]},
        "blocks": {"augment": [{"name": "resize", "interpolation": "nearest"}]},
    },
    "sweeps": {"tilt": {"posthoc": "logit_adjustment", "over": {"posthoc.tau": [0.5, 2.0]}, "choose": "val/balanced_accuracy"}},
}


def record(folder, database, words=(), **layers):
    """Run a study in that folder, its trainings in this process; the study's file."""
    (folder / "mlruns").mkdir()
    shutil.copyfile(database, folder / "mlruns" / "mlflow.db")
    file = write(folder, **layers)
    assert run(file, *words) in (0, 1)
    return file


def run(file, *words, stop_after=0):
    """`ablate run` of the file in its folder, its trainings in this process, which a signal stops after so many epochs; the status."""
    with pytest.MonkeyPatch.context() as patch:
        from ablation import cli

        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(file.parent)
        patch.setattr("ablation.running.executors.local.LocalExecutor", InlineExecutor)
        patch.setattr(InlineExecutor, "stop_after", stop_after)
        command = ["run", str(file), *words]
        patch.setattr(sys, "argv", ["ablate", *command])
        return CliRunner().invoke(cli.cli, command).exit_code


def copied(made, folder):
    """Have in `folder` what is recorded in another one, as if it had been recorded there."""
    shutil.copytree(made, folder, dirs_exist_ok=True)
    repoint(folder / "mlruns")
