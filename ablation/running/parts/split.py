"""The split of a plan into parts, as a folder that all of them see: whose the runs are, and a log of each part."""

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from ablation.errors import AblateError, os_words
from ablation.system.files import write_json

SPLIT, JOBS, FAILURES, WANTED, STOP = "split.json", "jobs.json", "failures.json", "wanted.json", "stop"


@dataclass(frozen=True)
class Split:
    """Some folder with the split of one study's plan: `shares[i]` are the keys of the runs of part i + 1."""

    folder: Path
    study: str
    device: str  # the class of device that it was planned for, on which bits depend
    shares: tuple[tuple[str, ...], ...]
    created: float  # seconds since 1970
    arms: tuple[str, ...] = ()  # by which arms and seeds of the study were selected where it was planned; empty: by none
    seeds: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What tells it from every other split, of any study, also from one of the same runs that was deleted: attempts count anew."""
        return f"{self.study}-{self.folder.name}-{self.created}"

    def output(self, part: int) -> Path:
        """The file with what a part printed, where an engine started it."""
        return self.folder / f"part-{part}.out"

    @property
    def is_stopped(self) -> bool:
        """Whether all parts shall end at their next epoch."""
        return (self.folder / STOP).exists()

    def ask_to_stop(self) -> str:
        """Have all parts end at their next epoch; why they cannot be told, as on a full disk, or empty."""
        try:
            (self.folder / STOP).touch()
        except OSError as error:
            return f"{self.folder / STOP} could not be written: {os_words(error)}"
        return ""

    def go_on(self) -> None:
        """Let parts begin again after they were asked to stop."""
        (self.folder / STOP).unlink(missing_ok=True)

    @property
    def wanted(self) -> frozenset[str]:
        """The keys of the runs that its jobs shall compute: all of them, unless a command has wanted fewer."""
        every = frozenset(key for keys in self.shares for key in keys)
        try:
            return every & frozenset(json.loads((self.folder / WANTED).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return every

    def want(self, keys: Collection[str]) -> None:
        """Have jobs that begin from now on compute these runs, as far as they are in their shares."""
        write_json(self.folder / WANTED, sorted(keys))

    @property
    def failures(self) -> dict[str, int]:
        """key of a run -> the attempt at its part in which it failed, as far as that was recorded."""
        try:
            failures: dict[str, int] = json.loads((self.folder / FAILURES).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return failures

    def note_failure(self, run: str, attempt: int) -> None:
        """Keep in which attempt a run failed, so that no clock of another host is asked whether that is recorded."""
        write_json(self.folder / FAILURES, self.failures | {run: attempt})

    # --- what was submitted to an engine ---------------------------------------------------------------------------------

    @property
    def jobs(self) -> dict[str, Any]:
        """The engine's settings, and its `submitted` jobs, each with its `id` and `parts`; empty if none ever was."""
        path = self.folder / JOBS
        try:
            jobs: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:  # to take it for none would submit all parts once more
            told = f"found no jobs of {self.study} in {path} ({error}); expected them as ablate run wrote them"
            raise AblateError(f"{told}; delete the file once the queue has no job of this study") from None
        return jobs

    def note_engine(self, engine: dict[str, Any]) -> None:
        """Keep the engine's settings, before anything is submitted to it."""
        if not self.jobs:
            write_json(self.folder / JOBS, engine)

    def note_job(self, engine: dict[str, Any], job: str, parts: Sequence[int]) -> None:
        """Keep what was submitted, so that any machine with the folder can ask for it and end it."""
        submitted = [*self.jobs.get("submitted", []), {"id": job, "parts": list(parts), "time": time.time()}]
        write_json(self.folder / JOBS, {**engine, "submitted": submitted})


def read(folder: Path) -> Split:
    """The split that lies in a folder; raises AblateError if none does."""
    try:
        about = json.loads((folder / SPLIT).read_text(encoding="utf-8"))
        shares, selection = tuple(tuple(keys) for keys in about["shares"]), (tuple(about.get(name, ())) for name in ("arms", "seeds"))
        return Split(folder, about["study"], about["device"], shares, about["created"], *selection)
    except (OSError, ValueError, KeyError, TypeError):
        raise AblateError(f"found no split of a study in {folder}; expected its {SPLIT}, as ablate run writes it") from None


def splits(parts: Path, study: str = "") -> list[Split]:
    """Every split of a study, or of all studies, the newest last."""
    found = []
    for path in parts.glob(f"{escape(study) if study else '*'}/*/{SPLIT}"):
        try:
            found.append(read(path.parent))
        except AblateError:
            if path.exists():  # else another process has just deleted it
                raise
    return sorted(found, key=lambda split: (split.created, split.folder.name))


def delete(folder: Path) -> None:
    """Delete the folder of a split, for all who look at once, and that of its study if it was the last."""
    with contextlib.suppress(OSError):
        trash = folder.parents[1] / f".{uuid.uuid4().hex}.part"
        folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
        folder.parent.rmdir()
