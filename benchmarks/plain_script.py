"""One arm of the matrix as a plain script trains it: timm, torchvision's transforms on PIL images, DataLoader workers, autocast, EMA.

This is what `ablate` is measured against. It imports nothing of it, shares nothing between arms, and looks at the test images after
each epoch, as such scripts do. Its last line is JSON: accuracy, seconds, images per second of training.

    python benchmarks/plain_script.py --data cifar10 --root data --image-size 32 --epochs 2 --sampler class_balanced --mix mixup
"""

import argparse
import copy
import io
import json
import math
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from torchvision import transforms
from torchvision.transforms import functional as TF


def parser():
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--data", choices=["cifar10", "digits", "npz"], default="cifar10")
    p.add_argument("--root", default="data", help="the folder with CIFAR-10's parquet shards or python batches; of npz the file")
    p.add_argument("--largest", type=int, default=5000)
    p.add_argument("--smallest", type=int, default=500)
    p.add_argument("--model", default="efficientnet_b0")
    p.add_argument("--image-size", type=int, default=224)
    p.add_argument("--pretrained", action="store_true")
    p.add_argument("--drop-path", type=float, default=0.1)
    p.add_argument("--flips", type=int, default=1, help="1: random flips, horizontal and vertical")
    p.add_argument("--degrees", type=float, default=15)
    p.add_argument("--scale", type=float, nargs=2, default=(0.8, 1.2))
    p.add_argument("--erase", type=float, default=0.25)
    p.add_argument("--epochs", type=int, default=30)
    p.add_argument("--batch-size", type=int, default=128)
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument("--final-lr", type=float, default=1e-6)
    p.add_argument("--weight-decay", type=float, default=0.05)
    p.add_argument("--ema", type=float, default=0.9999, help="0: none")
    p.add_argument("--ema-warmup", action="store_true")
    p.add_argument("--select", choices=["last", "best_on_test"], default="last")
    p.add_argument("--sampler", choices=["shuffle", "class_balanced"], default="shuffle")
    p.add_argument("--mix", choices=["none", "mixup", "cutmix"], default="none")
    p.add_argument("--alpha", type=float, default=0.4)
    p.add_argument("--mix-lambda", type=float, default=0, help="a fixed weight in place of Beta(alpha, alpha)")
    p.add_argument("--mix-only-tail", action="store_true", help="only pairs with an image of the last three classes")
    p.add_argument("--smoothing", type=float, default=0)
    p.add_argument("--spread", choices=["others", "all"], default="others")
    p.add_argument("--tta", choices=["none", "hflip", "vflip", "flips", "rotate", "scale"], default="none")
    losses = ["cross_entropy", "weighted_cross_entropy", "balanced_softmax", "focal", "class_balanced", "class_balanced_focal"]
    p.add_argument("--loss", choices=losses, default="cross_entropy")
    p.add_argument("--head-epochs", type=int, default=0, help="the last epochs train the classifier alone, on a frozen backbone")
    p.add_argument("--head-loss", choices=losses, default="cross_entropy")
    p.add_argument("--head-sampler", choices=["shuffle", "class_balanced"], default="shuffle")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    p.add_argument("--channels-last", action="store_true", help="as timm's training script offers")
    p.add_argument("--fused", action="store_true", help="the fused optimizer")
    return p


# --- data ---------------------------------------------------------------------------------------------------------------


class Images(Dataset):
    """PIL images with their labels, transformed one by one."""

    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i])), int(self.labels[i])


def load(args):
    """Training and test images as uint8 N x H x W x 3, and their labels; the training images cut to a linear long tail."""
    readers = {"digits": lambda _: digits(), "npz": npz, "cifar10": cifar10}
    (images, labels), test = readers[args.data](Path(args.root))
    rng = np.random.default_rng(args.seed)
    counts = np.rint(np.linspace(args.largest, args.smallest, labels.max() + 1)).astype(int)
    kept = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate(counts)]
    kept = np.concatenate(kept)
    return (images[kept], labels[kept]), test


def digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found = load_digits()
    images = np.repeat(np.rint(found.images * (255 / 16)).astype(np.uint8)[..., None], 3, axis=3)
    parts = train_test_split(images, found.target, test_size=0.2, stratify=found.target, random_state=0)
    return (parts[0], parts[2]), (parts[1], parts[3])


def npz(file):
    with np.load(file) as found:
        return tuple((found[f"{part}_images"], found[f"{part}_labels"]) for part in ("train", "test"))


def cifar10(root):
    folder = root / "cifar10" if (root / "cifar10").is_dir() else root
    shards = {part: sorted(folder.glob(f"{part}-*.parquet")) for part in ("train", "test")}
    if not shards["train"]:
        from torchvision.datasets import CIFAR10

        return tuple(
            (part.data, np.array(part.targets)) for part in (CIFAR10(root, train=train, download=False) for train in (True, False))
        )
    import pandas as pd

    found = []
    for part in ("train", "test"):
        table = pd.concat([pd.read_parquet(shard) for shard in shards[part]])
        images = np.stack([np.asarray(Image.open(io.BytesIO(one["bytes"])).convert("RGB")) for one in table["img"]])
        found.append((images, table["label"].to_numpy()))
    return tuple(found)


def train_transform(args, mean, std):
    """The course reports' transforms, image by image."""
    flips = [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip()] if args.flips else []
    return transforms.Compose(
        [
            *flips,
            transforms.RandomAffine(args.degrees, scale=tuple(args.scale)),
            transforms.Resize((args.image_size, args.image_size), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
            transforms.RandomErasing(args.erase, scale=(0.02, 0.2), value="random"),
        ]
    )


def test_transform(args, mean, std):
    size = (args.image_size, args.image_size)
    return transforms.Compose(
        [transforms.Resize(size, transforms.InterpolationMode.BICUBIC), transforms.ToTensor(), transforms.Normalize(mean, std)]
    )


def train_loader(args, dataset, sampler_name):
    sampler = None
    if sampler_name == "class_balanced":
        weights = 1 / np.bincount(dataset.labels)[dataset.labels]
        sampler = WeightedRandomSampler(torch.from_numpy(weights), len(dataset))
    how = {"num_workers": args.workers, "persistent_workers": args.workers > 0, "pin_memory": args.device.startswith("cuda")}
    return DataLoader(dataset, args.batch_size, shuffle=sampler is None, sampler=sampler, drop_last=True, **how)


# --- techniques ---------------------------------------------------------------------------------------------------------


def mixed(args, images, targets):
    """Images and soft targets, mixed within the batch."""
    if args.mix == "none":
        return images, targets
    partner = torch.randperm(len(images), device=images.device)
    lam = args.mix_lambda or float(np.random.beta(args.alpha, args.alpha))
    if args.mix == "mixup":
        return lam * images + (1 - lam) * images[partner], lam * targets + (1 - lam) * targets[partner]
    height, width = images.shape[-2:]
    tall, wide = int(height * math.sqrt(1 - lam)), int(width * math.sqrt(1 - lam))
    y, x = np.random.randint(height), np.random.randint(width)
    top, bottom = max(0, y - tall // 2), min(height, y + tall // 2)
    left, right = max(0, x - wide // 2), min(width, x + wide // 2)
    share = (bottom - top) * (right - left) / (height * width)
    taking = torch.ones(len(images), dtype=torch.bool, device=images.device)
    if args.mix_only_tail:
        tail = targets.argmax(1) >= targets.shape[1] - 3
        taking = tail | tail[partner]
    boxed = images.clone()
    boxed[:, :, top:bottom, left:right] = images[partner][:, :, top:bottom, left:right]
    blended = (1 - share) * targets + share * targets[partner]
    return torch.where(taking[:, None, None, None], boxed, images), torch.where(taking[:, None], blended, targets)


def smoothed(targets, epsilon, spread):
    if not epsilon:
        return targets
    if spread == "all":
        return targets * (1 - epsilon) + epsilon / targets.shape[1]
    return targets * (1 - epsilon) + (1 - targets) * epsilon / (targets.shape[1] - 1)


def loss_of(name, logits, targets, counts):
    """The batch's loss under soft targets, normalised by the sum of the weighted targets."""
    weights = torch.ones_like(counts)
    if name == "weighted_cross_entropy":
        weights = 1 / counts
    elif name.startswith("class_balanced"):
        weights = 1 / (1 - 0.9999**counts)
    if name == "balanced_softmax":
        logits = logits + counts.log()
    log_p = F.log_softmax(logits, 1)
    losses = -log_p
    if name.endswith("focal"):
        losses = (1 - log_p.exp()) ** 2 * losses
    shares = targets * weights
    return (losses * shares).sum() / shares.sum()


def views(name, images):
    """The ways to look at a batch of normalised images."""
    if name == "hflip":
        return [images, images.flip(3)]
    if name == "vflip":
        return [images, images.flip(2)]
    if name == "flips":
        return [images, images.flip(3), images.flip(2), images.flip(2, 3)]
    if name == "rotate":
        return [images, *(TF.rotate(images, angle, transforms.InterpolationMode.BILINEAR) for angle in (-15, 15))]
    if name == "scale":
        return [images, *(TF.affine(images, 0, [0, 0], factor, [0, 0], transforms.InterpolationMode.BILINEAR) for factor in (0.9, 1.1))]
    return [images]


class Ema:
    """The exponential moving average of a model's weights and buffers."""

    def __init__(self, model, decay, warmup):
        self.model, self.decay, self.warmup, self.updates = copy.deepcopy(model).eval(), decay, warmup, 0

    @torch.no_grad()
    def update(self, model):
        self.updates += 1
        decay = min(self.decay, 1 - self.updates ** (-2 / 3)) if self.warmup else self.decay
        for mean, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            mean.copy_(decay * mean + (1 - decay) * value if mean.is_floating_point() else value)


# --- training -----------------------------------------------------------------------------------------------------------


def autocast(args):
    return torch.autocast("cuda", torch.bfloat16) if args.device.startswith("cuda") else nullcontext()


@torch.no_grad()
def evaluate(args, model, loader, tta="none"):
    """Accuracy and mean recall."""
    model.eval()
    right, total = torch.zeros(10), torch.zeros(10)
    for images, labels in loader:
        images = images.to(args.device)
        with autocast(args):
            logits = torch.stack([model(view).float() for view in views(tta, images)]).mean(0)
        is_right = (logits.argmax(1).cpu() == labels).float()
        right.index_add_(0, labels, is_right)
        total.index_add_(0, labels, torch.ones(len(labels)))
    return {"accuracy": float(right.sum() / total.sum()), "balanced_accuracy": float((right / total.clamp(min=1))[total > 0].mean())}


def train_epoch(args, model, optimizer, loader, counts, loss_name, ema, is_head):
    """Images seen, and the mean loss."""
    model.train(not is_head)
    seen, losses = 0, []
    for images, labels in loader:
        images, targets = images.to(args.device, non_blocking=True), F.one_hot(labels.to(args.device), len(counts)).float()
        if args.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if not is_head:
            images, targets = mixed(args, images, targets)
        targets = smoothed(targets, args.smoothing, args.spread)
        optimizer.zero_grad()
        with autocast(args):
            logits = model(images)
        loss = loss_of(loss_name, logits.float(), targets, counts)
        loss.backward()
        optimizer.step()
        if ema:
            ema.update(model)
        seen += len(images)
        losses.append(loss.item())
    return seen, sum(losses) / len(losses)


def main(argv=None):
    args = parser().parse_args(argv)
    began = time.perf_counter()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    (images, labels), (test_images, test_labels) = load(args)
    model = timm.create_model(args.model, pretrained=args.pretrained, drop_path_rate=args.drop_path)
    model.reset_classifier(10)  # drawn as torch does: timm would draw it several times as wide, which starts slower
    model = model.to(args.device)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    mean, std = model.default_cfg["mean"], model.default_cfg["std"]
    train_set = Images(images, labels, train_transform(args, mean, std))
    test_loader = DataLoader(Images(test_images, test_labels, test_transform(args, mean, std)), 256, num_workers=args.workers)
    counts = torch.bincount(torch.from_numpy(labels).long(), minlength=10).float().to(args.device)
    found, seen, seconds, history, best = {}, 0, 0.0, [], None
    stages = [(args.epochs - args.head_epochs, args.loss, args.sampler, False), (args.head_epochs, args.head_loss, args.head_sampler, True)]
    for epochs, loss_name, sampler, is_head in stages:
        if not epochs:
            continue
        trained = model.get_classifier().parameters() if is_head else model.parameters()
        if is_head:
            model.requires_grad_(False)
            model.get_classifier().requires_grad_(True)
        optimizer = torch.optim.AdamW(trained, lr=args.lr, weight_decay=args.weight_decay, fused=args.fused or None)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, args.final_lr)
        ema = Ema(model, args.ema, args.ema_warmup) if args.ema else None
        loader = train_loader(args, train_set, sampler)
        for _ in range(epochs):
            start = time.perf_counter()
            number, loss = train_epoch(args, model, optimizer, loader, counts, loss_name, ema, is_head)
            if args.device.startswith("cuda"):
                torch.cuda.synchronize()
            spent = time.perf_counter() - start
            seconds, seen = seconds + spent, seen + number
            schedule.step()
            found = evaluate(args, ema.model if ema else model, test_loader)
            history.append({"loss": loss, "images_per_second": number / spent, **found})
            if args.select == "best_on_test" and (best is None or found["accuracy"] > best[0]):
                best = found["accuracy"], copy.deepcopy(ema.model if ema else model)
    tested = best[1] if best else ema.model if ema else model
    if args.tta != "none" or best:
        found = evaluate(args, tested, test_loader, args.tta)
    result = {
        **found,
        "images_per_second": seen / seconds,
        "seconds": time.perf_counter() - began,
        "epochs": args.epochs,
        "history": history,
    }
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
