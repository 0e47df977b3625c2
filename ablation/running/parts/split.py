"""The split of a plan into parts, as a folder that all of them see: whose the runs are, and a log of each part."""

import json
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.errors import AblateError
from ablation.planning.parts import identity, shares
from ablation.planning.plan import Plan
from ablation.system.files import write_json

SPLIT, JOBS, STOP = "split.json", "jobs.json", "stop"


@dataclass(frozen=True)
class Split:
    """Some folder with the split of one study's plan: `shares[i]` are the keys of the runs of part i + 1."""

    folder: Path
    study: str
    device: str  # the class of device that it was planned for, on which bits depend
    shares: tuple[tuple[str, ...], ...]

    @property
    def name(self) -> str:
        """What tells it from every other split, of any study."""
        return f"{self.study}-{self.folder.name}"

    def log(self, part: int) -> Path:
        """The file with the events of a part, counted from 1."""
        return self.folder / f"part-{part}.jsonl"

    def output(self, part: int) -> Path:
        """The file with what a part printed, where an engine started it."""
        return self.folder / f"part-{part}.out"

    @property
    def is_stopped(self) -> bool:
        """Whether all parts shall end at their next epoch."""
        return (self.folder / STOP).exists()

    def ask_to_stop(self) -> None:
        """Have all parts end at their next epoch."""
        (self.folder / STOP).touch()

    def go_on(self) -> None:
        """Let parts begin again after they were asked to stop."""
        (self.folder / STOP).unlink(missing_ok=True)

    # --- what was submitted to an engine ---------------------------------------------------------------------------------

    @property
    def jobs(self) -> dict[str, Any]:
        """The engine's settings, and its `submitted` jobs, each with its `id` and `parts`; empty if none ever was."""
        try:
            jobs: dict[str, Any] = json.loads((self.folder / JOBS).read_text(encoding="utf-8"))
        except OSError:
            return {}
        return jobs

    def note_job(self, engine: dict[str, Any], job: str, parts: Sequence[int]) -> None:
        """Keep what was submitted, so that any machine with the folder can ask for it and end it."""
        submitted = [*self.jobs.get("submitted", []), {"id": job, "parts": list(parts), "time": time.time()}]
        write_json(self.folder / JOBS, {**engine, "submitted": submitted})


def pinned(parts: Path, plan: Plan, num_parts: int, device: str) -> Split:
    """The split of a plan into so many parts, made by whoever comes first.

    A part that begins later, when some of the runs are computed or recorded, finds it, and so takes the share that was meant for it.
    """
    for split in covering(parts, plan, device):
        if len(split.shares) == num_parts:
            return split
    folder = parts / plan.study.name / f"{identity(plan, num_parts)}-{num_parts}"
    folder.mkdir(parents=True, exist_ok=True)
    keys = [[run.key for run in share] for share in shares(plan, num_parts)]
    _write_once(folder / SPLIT, {"study": plan.study.name, "device": device, "shares": keys, "created": time.time()})
    return read(folder)


def covering(parts: Path, plan: Plan, device: str) -> list[Split]:
    """The splits that have every run that is still to be computed, the newest first."""
    wanted = {run.key for run in plan.waiting if run.choice is None}
    found = [split for split in splits(parts, plan.study.name) if split.device == device]
    return [split for split in reversed(found) if wanted <= {key for keys in split.shares for key in keys}]


def _write_once(path: Path, data: object) -> None:
    """Write a file unless another process has written it first."""
    draft = path.with_suffix(f".{uuid.uuid4().hex[:12]}.part")
    draft.write_text(json.dumps(data), encoding="utf-8")
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        draft.replace(path)
    draft.unlink(missing_ok=True)


def read(folder: Path) -> Split:
    """The split that lies in a folder; raises AblateError if none does."""
    try:
        about = json.loads((folder / SPLIT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise AblateError(f"found no split of a study in {folder}; expected its {SPLIT}, as ablate run writes it") from None
    return Split(folder, about["study"], about["device"], tuple(tuple(keys) for keys in about["shares"]))


def splits(parts: Path, study: str = "*") -> list[Split]:
    """Every split of a study, or of all studies, the newest last."""
    found = sorted(parts.glob(f"{study}/*/{SPLIT}"), key=lambda path: path.stat().st_mtime)
    return [read(path.parent) for path in found]
