"""Trains settings on the stand-in for CUDA, captured and plain, and tells what a device would not forgive; run in a process on it.

    python -m tests.fake_cuda.trials captured,plain NAME ...     # one line of JSON for each setting and mode, and for planted faults

Told are: a wait for the device within an epoch; a number of Python's that changes from step to step, of which a graph would repeat the
first; launches beside a capture, and copies from pageable memory within one; weights that are restored beside work that still changes
them; another step than expected; and whatever is raised.
"""

import ctypes
import json
import os
import random
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablation.techniques import augmentations, losses
from ablation.training import accelerated, captured, checkpoints, frozen, loop, pixels
from ablation.training.datasets import dataset_and_split, images_on_device
from ablation.training.devices import set_up_process
from ablation.training.verified import Snapshot
from tests import tiny
from tests.fake_cuda.counters import PAGEABLE, STRAY
from tests.fake_cuda.settings import BASE, every_setting
from tests.tiny import Planned, run_job, write

CUDA = torch.device("cuda", 0)
WAITS_OF_AN_EPOCH = 10  # for copies that open it; what waits in each batch waits more often
FOR_WANT_OF_NUMBERS = "posthoc.temperature: found no best temperature"

fake = ctypes.CDLL(os.environ["LD_PRELOAD"])
fake.fake_cuda_not_awaited.restype = ctypes.c_long
fake.fake_cuda_count.restype, fake.fake_cuda_last_offence.restype = ctypes.c_long, ctypes.c_char_p


def place(stack):
    """The innermost line of ours in a stack."""
    ours = [frame for frame in stack if "/ablation/" in frame.filename]
    return f"{ours[-1].filename.rpartition('/ablation/')[2]}:{ours[-1].lineno}" if ours else "?"


# --- who waits for the device within an epoch ----------------------------------------------------------------------------------

LINES = Path(loop.__file__).read_text().splitlines()
BATCHES = range(
    1 + next(number for number, line in enumerate(LINES) if "for inputs, targets_BC in epoch_batches" in line),
    1 + next(number for number, line in enumerate(LINES) if "return float(total_loss) / len(epoch_data.slices)" in line),
)
set_mode = torch.cuda.set_sync_debug_mode


@contextmanager
def waits_noted():
    """A context that counts, by their places, the waits within the loop over batches; those of a verification do not count."""
    waits = Counter()

    def note(message, *_args, **_options):
        stack = traceback.extract_stack() if "synchronizing CUDA operation" in str(message) else []
        is_within = any(frame.name == "_train_epoch" and frame.lineno in BATCHES for frame in stack)
        if is_within and not any(frame.name == "first_verified" for frame in stack):
            waits[place(stack)] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode = lambda mode: set_mode("warn" if mode == "default" else mode)
        set_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode = set_mode
            set_mode("default")


# --- which of Python's numbers change from step to step ------------------------------------------------------------------------


class Numbers(TorchDispatchMode):
    """The operators of a step, each with the plain numbers that it is given and where."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        leaves = tree_leaves((args, kwargs or {}))
        plain = [leaf for leaf in leaves if isinstance(leaf, int | float) and not isinstance(leaf, bool)]
        self.seen.append((str(func), tuple(plain), place(traceback.extract_stack()[:-1])))
        return func(*args, **(kwargs or {}))


def changing_numbers(plain, batch):
    """The places at which two steps give the device different numbers; everything is put back."""
    snapshot, seen = Snapshot(plain), []
    for group in plain.optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=plain.device)
    for _ in range(3):  # the first makes the optimizer's state
        with Numbers() as found:
            plain(*batch)
        seen.append(found.seen)
    snapshot.undo()
    different = {where for one, other in zip(seen[1], seen[2], strict=False) if one != other for where in (one[2], other[2])}
    return different or ({"another number of operators"} if len(seen[1]) != len(seen[2]) else set())


# --- whether weights are restored beside work that still changes them --------------------------------------------------------


@contextmanager
def restoring_noted():
    """A context that lists how many launches on the stream of captures were not waited for, where weights were restored all the same."""
    restore, numbers = Snapshot.restore, []

    def noted(snapshot):
        streams = torch.cuda.current_stream().cuda_stream, captured._capture_stream(0).cuda_stream
        numbers.append(fake.fake_cuda_not_awaited(*map(ctypes.c_void_p, streams)))
        restore(snapshot)

    Snapshot.restore = noted
    try:
        yield numbers
    finally:
        Snapshot.restore = restore


# --- where a number would decide, which the stand-in does not have -----------------------------------------------------------------


def without_numbers():
    """Decisions by computed numbers are made as a device would make them: a backbone is frozen, and labels are counted on the host."""
    ends_with_classifier, bincount = frozen.ends_with_classifier, torch.bincount
    frozen.ends_with_classifier = lambda *given: ends_with_classifier(*given) or True
    torch.bincount = lambda labels_N, **options: bincount(labels_N.cpu(), **options).to(labels_N.device)


# --- one setting ---------------------------------------------------------------------------------------------------------------


def planned_study(folder, layer, mode):
    """A study of that setting; `deterministic` keeps the plain step."""
    base = BASE | ({"deterministic": True} if mode == "plain" else {})
    if "stages" in layer:
        return Planned(write(folder, "study", base=base, ladder={"arm": layer}), folder / "mlruns", arms=["arm"])
    return Planned(write(folder, "study", base=base | layer), folder / "mlruns")


@contextmanager
def special_conditions(name):
    """What some settings need to take another way: no room for images, or small chunks."""
    limit, chunk = pixels.memory_limit, losses.CHUNK
    pixels.memory_limit = (lambda _device: 0) if name.startswith("data/read") else limit
    losses.CHUNK = 2**8 if name.endswith("in chunks") else chunk
    try:
        yield
    finally:
        pixels.memory_limit, losses.CHUNK = limit, chunk
        images_on_device.cache_clear()
        dataset_and_split.cache_clear()


def trial(name, layer, mode):
    """A setting carried out on the stand-in: its problems in words, none if it is as it should be, and the steps that it took."""
    changing, verify = set(), accelerated.first_verified

    def verified(plain, possible, batch):
        changing.update(changing_numbers(plain, batch))
        return verify(plain, possible, batch)

    before, events = [fake.fake_cuda_count(which) for which in range(9)], []
    accelerated.first_verified = verified
    try:
        with tempfile.TemporaryDirectory() as folder, special_conditions(name), waits_noted() as waits, restoring_noted() as left:
            planned = planned_study(Path(folder), layer, mode)
            for job in planned.jobs():
                run_job(job, CUDA, events.append, lambda: False)
            finals = [node.job.work.stages / node.job.key / checkpoints.FINAL for node in planned.plan.nodes.values()]
            steps = [checkpoints.read(final).record["step"] for final in finals]
    except Exception as error:
        where = place(traceback.extract_tb(error.__traceback__))
        return {"name": name, "mode": mode, "steps": [], "problems": [f"{type(error).__name__}: {str(error)[:200]} at {where}"]}
    finally:
        accelerated.first_verified = verify
    counted = [fake.fake_cuda_count(which) - was for which, was in enumerate(before)]
    expected = "captured" if mode == "captured" and name != "precision/fp16" else "plain"
    problems = [f"the step is {step!r}" for step in steps if step != expected]
    problems += [f"weights are restored while {number} launches may still change them" for number in left if number]
    return {"name": name, "mode": mode, "steps": steps, "problems": problems + _problems(events, waits, changing, counted)}


def _problems(events, waits, changing, counted):
    num_epochs = sum(event["kind"] == "epoch" for event in events)
    untested = [event["message"] for event in events if event["kind"] == "untested" and FOR_WANT_OF_NUMBERS not in event["message"]]
    problems = [f"not tested: {message[:200]}" for message in untested]
    problems += [
        f"waits for the device at {where}, {times} times" for where, times in waits.items() if times > WAITS_OF_AN_EPOCH * num_epochs
    ]
    problems += [f"a number that changes from step to step is Python's at {where}" for where in sorted(changing)]
    if counted[STRAY] or counted[PAGEABLE]:
        problems.append(
            f"{fake.fake_cuda_last_offence().decode()}: {counted[STRAY]} beside a capture, {counted[PAGEABLE]} from pageable memory"
        )
    return problems


# --- planted faults --------------------------------------------------------------------------------------------------------------


def on_the_host(losses_BC):
    """A tensor of the host meets one of the device."""
    return losses_BC * torch.ones(losses_BC.shape[1])


def looked_at(losses_BC):
    """The host waits for a value."""
    return losses_BC * (1 + losses_BC.sum().item())


def made_on_the_host(losses_BC):
    """A tensor is copied from the host in each step."""
    return losses_BC * torch.tensor([2.0], device=losses_BC.device)


def drawn_by_python(losses_BC):
    """A number changes from step to step, which a graph would repeat."""
    return losses_BC * random.random()


def chosen_by_value(losses_BC):
    """The shape depends on values, for which the host waits."""
    return losses_BC + losses_BC[losses_BC > 1e9].sum()


def unpinned(losses_BC):
    """A copy that does not wait comes from memory that the device cannot read while it works."""
    return losses_BC * torch.ones(1).to(losses_BC.device, non_blocking=True)


def mixed_types(losses_BC):
    """A product of two types."""
    return (losses_BC.bfloat16() @ torch.eye(losses_BC.shape[1], device=losses_BC.device)).float()


FAULTS = (on_the_host, looked_at, made_on_the_host, drawn_by_python, chosen_by_value, unpinned, mixed_types)


def planted():
    """The trials of a loss and an augmentation with faults in them."""
    plain_losses, flip = losses.CrossEntropy.losses_BC, augmentations.HFlip.__call__
    for fault in FAULTS:
        losses.CrossEntropy.losses_BC = lambda *given, fault=fault, **options: fault(plain_losses(*given, **options))
        for mode in ("captured", "plain"):
            yield trial(f"planted/{fault.__name__}", {}, mode)
    losses.CrossEntropy.losses_BC = plain_losses
    augmentations.HFlip.__call__ = lambda self, images_BCHW, draws: images_BCHW + images_BCHW[draws["flipped"]].sum()
    yield trial("planted/augmentation that looks", {"augment": ["hflip"]}, "captured")
    augmentations.HFlip.__call__ = flip


def main(modes, *names):
    """Print a line for each trial of a setting, and for each of a fault that must be seen."""
    tiny.CPU = CUDA  # what a study is planned for
    torch.set_num_threads(1)
    set_up_process(CUDA)
    without_numbers()
    settings = every_setting()
    for outcome in chain((trial(name, settings[name], mode) for name in names for mode in modes.split(",")), planted()):
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
