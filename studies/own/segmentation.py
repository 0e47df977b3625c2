"""Segmentation of generated images by a small network: a training loop as one writes it, with validation, checkpoints and resuming.

Shapes: B batch, H height, W width.
"""

from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SIZE, PATIENTS, EACH = 16, 24, 4  # pixels, and images of each patient


def images_and_masks():
    """Noisy discs whose brightness is the patient's, with the masks to be found; the same in every run."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    images, masks = [], []
    for _ in range(PATIENTS):
        brightness = rng.uniform(0.3, 1.2)
        for _ in range(EACH):
            row, column, radius = rng.uniform(4, 12), rng.uniform(4, 12), rng.uniform(2, 5)
            mask = (y - row) ** 2 + (x - column) ** 2 < radius**2
            images.append(brightness * mask + rng.normal(0, 0.6, mask.shape))
            masks.append(mask)
    return torch.tensor(np.array(images), dtype=torch.float32)[:, None], torch.tensor(np.array(masks), dtype=torch.float32)[:, None]


def split(seed):
    """The patients of each image, and the images for training, validation and test; no patient is in two of them."""
    patients = np.repeat(np.arange(PATIENTS), EACH)
    order = np.random.default_rng(seed).permutation(PATIENTS)
    parts = [np.flatnonzero(np.isin(patients, chosen)) for chosen in (order[:12], order[12:16], order[16:])]
    return patients, *parts


def loss_of(scores_B1HW, masks_B1HW, kind):
    """The cross-entropy, and with `dice` the overlap beside it."""
    entropy = functional.binary_cross_entropy_with_logits(scores_B1HW, masks_B1HW)
    if kind == "ce":
        return entropy
    found_B1HW = scores_B1HW.sigmoid()
    overlap = (found_B1HW * masks_B1HW).sum((1, 2, 3)) / (found_B1HW + masks_B1HW).sum((1, 2, 3)).clamp(min=1)
    return entropy + 1 - 2 * overlap.mean()


def iou_B(network, images_B1HW, masks_B1HW):
    """The intersection over union of each image."""
    with torch.no_grad():
        found_B1HW = network(images_B1HW) > 0
    wanted_B1HW = masks_B1HW > 0
    shared_B = (found_B1HW & wanted_B1HW).sum((1, 2, 3))
    return (shared_B / (found_B1HW | wanted_B1HW).sum((1, 2, 3)).clamp(min=1)).numpy()


def train(run, *, lr: float = 1e-2, loss: Literal["ce", "dice"] = "ce", width: int = 8, epochs: int = 6):
    """Train one network; the mean intersection over union of the test images."""
    torch.manual_seed(run.seed)  # also without this line: ablate has seeded Python, numpy and torch
    torch.set_num_threads(1)
    images, masks = images_and_masks()
    patients, training, validation, test = split(run.seed_for("split"))
    run.same("split", training)  # the report checks that all arms of a seed have it

    network = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1))
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    begun = 0
    if found := run.latest("*.pt"):  # what an earlier attempt left: a stopped run goes on from there
        saved = torch.load(found, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        begun = saved["epoch"]

    for epoch in range(begun + 1, epochs + 1):
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(run.seed_for(f"order {epoch}")))
        for batch in order.split(8):
            chosen = training[batch.numpy()]
            value = loss_of(network(images[chosen]), masks[chosen], loss)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        run.log(epoch, {"train/loss": value.item(), "val/iou": iou_B(network, images[validation], masks[validation]).mean()})
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        torch.save(state, run.checkpoints / "new")
        (run.checkpoints / "new").rename(run.checkpoints / f"{epoch:03}.pt")  # whole or not at all

    scores = iou_B(network, images[test], masks[test])
    run.items(test, {"test/iou": scores}, cluster=patients[test])
    return {"test/iou": scores.mean()}
