"""What a function is given beside its settings: the seed, its folders, and what it may hand back besides its metrics.

It works without a study, as in a notebook or a unit test: `train(Run(seed=0, folder="try"), lr=0.1)`.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

METRICS, CURVES, SAME, NOTES = "metrics.json", "curves.jsonl", "same.json", "notes.json"
ITEMS, PREDICTIONS = "items.json", "predictions.parquet"
MAX_STEP = 2**53  # the largest step, and time in milliseconds, of a curve: a store takes no larger whole numbers
HOLD = 10.0  # seconds that a run waits to be stopped, where it is to be stopped after a step


class Run:
    """One run of a function: `def train(run, *, lr: float = 0.1)`. All that is handed back lies in `out` as files.

    `seed` is the run's seed, with which Python's, NumPy's and torch's generators were seeded; `out` a folder for files to keep;
    `checkpoints` a folder that outlasts a run that is stopped, where the study says `resumes: true`.
    """

    def __init__(self, seed: int = 0, folder: str | Path = ".", checkpoints: str | Path | None = None) -> None:
        self.seed = seed
        self.out = Path(folder)
        self.checkpoints = Path(checkpoints) if checkpoints is not None else self.out / "checkpoints"
        self.out.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._same: dict[str, str] = {}
        self._notes: dict[str, None] = {}
        self._hold_after, self._steps = 0, set[int]()

    def seed_for(self, purpose: str) -> int:
        """A number for one purpose, such as "split": the same in every arm, another one for another seed or purpose; below 2**32."""
        text = f"{self.seed}/{purpose}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 32

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Show numbers while the run goes on, and draw them over their steps (epochs, say) in the report. Tensors are fine.

        What is no finite number is left out, and a note says so.
        """
        row: dict[str, Any] = {"step": _step(step), "time_ms": int(time.time() * 1000)}
        for name, value in values.items():
            number = number_of(value)
            if number is None or not math.isfinite(number):
                self._note(f"{name} was logged with a value that is no finite number, which is left out of its curve")
            else:
                row[str(name)] = number
        with (self.out / CURVES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._hold_after:
            self._hold(row["step"])

    def items(self, ids: Iterable[Any], scores: Mapping[str, Iterable[Any]], cluster: Iterable[Any] | None = None) -> None:
        """Hand back a score for each test item (image, sentence, row), by metric: `run.items(names, {"test/mae": errors})`.

        If their mean is the metric, arms are compared item by item. `cluster` says what items belong together, such as those of a patient.
        """
        columns = {"item": _plain_list(ids)} | {name: _plain_list(values) for name, values in scores.items()}
        columns |= {} if cluster is None else {"cluster": _plain_list(cluster)}
        _check_lengths("run.items", {name: len(column) for name, column in columns.items()})
        (self.out / ITEMS).write_text(json.dumps(columns), encoding="utf-8")

    def predictions(self, ids: Iterable[Any], label: Iterable[Any], predicted: Iterable[Any], logits: Any = None) -> None:
        """Hand back the class of each test item and the predicted one, by name or number, and the scores of all classes, if there are any.

        The study's file names the classes, under `task.classes`.
        """
        import pandas as pd

        table = {"item": _plain_list(ids), "label": _plain_list(label), "predicted": _plain_list(predicted)}
        _check_lengths("run.predictions", {name: len(column) for name, column in table.items()})
        frame = pd.DataFrame(table)
        if logits is not None:
            columns = pd.DataFrame(_plain_list(logits)).astype("float32")
            _check_lengths("run.predictions", {"item": len(frame), "logits": len(columns)})
            frame = frame.join(columns.rename(columns=lambda number: f"logit{number}"))
        frame.to_parquet(self.out / PREDICTIONS, index=False)

    def same(self, name: str, value: Any) -> None:
        """Have the report check that something is equal in all arms of a seed: `run.same("split", train_names)`.

        Any numbers, texts, lists, mappings and arrays; only a digest of them is kept.
        """
        text = json.dumps(plain(value), sort_keys=True, default=str)
        self._same[name] = hashlib.sha256(text.encode()).hexdigest()[:32]
        (self.out / SAME).write_text(json.dumps(self._same), encoding="utf-8")

    def latest(self, pattern: str) -> Path | None:
        """The file in `checkpoints` that was written last, of those that match, such as `last*.ckpt`; None where the run begins anew."""
        found = sorted(self.checkpoints.glob(pattern), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return found[-1] if found else None

    def _hold(self, step: int) -> None:
        """Wait to be stopped, if so many steps have been logged, as `ablate check-task` wants it: a quick run would end before."""
        self._steps.add(step)
        if len(self._steps) == self._hold_after:
            self._hold_after = 0
            time.sleep(HOLD)

    def _note(self, sentence: str) -> None:
        if sentence not in self._notes:
            self._notes[sentence] = None
            (self.out / NOTES).write_text(json.dumps(list(self._notes)), encoding="utf-8")


def number_of(value: Any) -> float | None:
    """A number, array or tensor with one value as a float; None if it is anything else."""
    try:
        value = value.item() if hasattr(value, "item") else value
        return None if isinstance(value, str | bytes | None) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def plain(value: Any) -> Any:
    """Nested data with arrays as lists and sets in order."""
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(part) for part in value), key=str)
    if isinstance(value, list | tuple | range):
        return [plain(part) for part in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def _plain_list(values: Any) -> list[Any]:
    """A sequence, array, tensor or series as a list of plain values."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return list(values.tolist() if hasattr(values, "tolist") else map(plain, values))


def _step(step: Any) -> int:
    number = number_of(step)
    if number is None or not number.is_integer() or abs(number) > MAX_STEP:
        raise ValueError(f"run.log: found step {step!r}; expected a whole number below 2**53, such as the epoch")
    return int(number)


def _check_lengths(where: str, lengths: Mapping[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"{where}: found columns of different lengths ({found}); expected one value for each item")
