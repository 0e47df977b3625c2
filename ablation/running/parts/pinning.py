"""Which split of a plan its parts keep to: the one that whoever came first has made."""

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from ablation.planning.parts import identity, shares
from ablation.planning.plan import Plan
from ablation.running.parts.split import SPLIT, Split, read, splits


def pinned(parts: Path, plan: Plan, num_parts: int, device: str, arms: Sequence[str] = (), seeds: Sequence[int] = ()) -> Split:
    """The split of a plan into so many parts, made by whoever comes first; `arms` and `seeds` are those by which it was selected.

    A part that begins later, when some of the runs are computed or recorded, finds it, and so takes the share that was meant for it.
    """
    for split in covering(parts, plan, device):
        if len(split.shares) == num_parts:
            return split
    folder = parts / plan.study.name / f"{identity(plan, num_parts)}-{num_parts}"
    keys = [[run.key for run in share] for share in shares(plan, num_parts)]
    selection = {"arms": list(arms), "seeds": list(seeds)}
    _make_once(folder, {"study": plan.study.name, "device": device, "shares": keys, "created": time.time(), **selection})
    return read(folder)


def covering(parts: Path, plan: Plan, device: str) -> list[Split]:
    """The splits that have every run that is still to be computed, the newest first."""
    wanted = {run.key for run in plan.waiting if run.choice is None}
    found = [split for split in splits(parts, plan.study.name) if split.device == device]
    return [split for split in reversed(found) if wanted <= {key for keys in split.shares for key in keys}]


def _make_once(folder: Path, about: object) -> None:
    """Make the folder of a split, with its file, unless another process has made it first: on no file system can both be the first."""
    draft = folder.parent.parent / f".{uuid.uuid4().hex}.part"
    draft.mkdir(parents=True)
    (draft / SPLIT).write_text(json.dumps(about), encoding="utf-8")
    try:
        _renamed(draft, folder)
    except OSError:
        shutil.rmtree(draft)
        if not folder.is_dir():
            raise


def _renamed(draft: Path, folder: Path) -> None:
    """Rename a draft, also where the last split of the study is deleted just now, and its folder with it."""
    for _ in range(3):
        folder.parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            draft.rename(folder)
            return
    draft.rename(folder)
