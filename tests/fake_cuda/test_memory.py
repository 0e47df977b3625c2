"""How much of a device images may take, with the allocator of torch as it is."""

import json

SEEDS = """
import json, tempfile
from pathlib import Path
import torch
from ablation.training import datasets
from tests import tiny
from tests.tiny import Planned, run_job, write

tiny.CPU = torch.device("cuda", 0)
torch.set_num_threads(1)
images_of_rows, kinds = datasets.images_of_rows, []

def noted(*given):
    images = images_of_rows(*given)
    kinds.append(type(images).__name__)
    return images

datasets.images_of_rows = noted
base = {"data": "digits", "model": {"name": "test_efficientnet", "image_size": 64}, "batch_size": 64, "epochs": 1}
with tempfile.TemporaryDirectory() as folder:
    planned = Planned(write(folder, base=base | {"average": "none", "augment": []}), Path(folder) / "mlruns", seeds=[0, 1, 2])
    for job in planned.jobs():
        run_job(job, tiny.CPU, lambda _event: None, lambda: False)
print(json.dumps(kinds))
"""


def test_images_of_later_seeds_stay_on_the_device(python):
    """Though torch keeps what the first seed's training has freed, and the driver says that it is taken, the next seeds' images fit."""
    done = python("-c", SEEDS, bytes=120 * 2**20)
    assert done.status == 0, done.err
    assert json.loads(done.out) == ["ImagesInMemory"] * 6  # for training and for testing
