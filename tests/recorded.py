"""A small study, recorded once for a module of tests that only look at it."""

import shutil
import sys

import pytest
from click.testing import CliRunner

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
    with pytest.MonkeyPatch.context() as patch:
        from ablation import cli

        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        patch.setattr("ablation.running.executors.local.LocalExecutor", InlineExecutor)
        file = write(folder, **layers)
        command = ["run", str(file), *words]
        patch.setattr(sys, "argv", ["ablate", *command])
        done = CliRunner().invoke(cli.cli, command)
        assert done.exit_code in (0, 1), done.stderr
    return file
