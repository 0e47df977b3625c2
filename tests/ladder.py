"""Rungs of the quick matrix's ladder with one seed, for tests that carry them out in several ways and compare what comes of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILE = "experiments.yaml"
ARMS = ("baseline", "tta", "decoupling")  # neither technique, all of them, and two stages
PRINTED = "printed"  # beside the file: what the command printed on stdout


def write(folder):
    """Put the study's file into the folder; the words of a command that stand for the ladder."""
    shutil.copyfile(ROOT / FILE, folder / FILE)
    return [FILE, "--profile", "quick", "--seed", "0", *(word for arm in ARMS for word in ("--arm", arm))]


def carry_out(folder, database):
    """Put the ladder into the folder, and have it carried out there by processes of this machine."""
    command = [sys.executable, "-m", "ablation", "run", *write(folder), "--device", "cpu", "--jobs", "1"]
    (folder / "mlruns").mkdir()
    shutil.copyfile(database, folder / "mlruns" / "mlflow.db")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / PRINTED).write_text(done.stdout)
