"""The pictures and tables that are made of a run's result for its page, where the result has classes."""

import contextlib
import errno
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from ablation.errors import StoreError
from ablation.system import sealed, signals
from ablation.tracking import thumbnails
from ablation.tracking.messages import first_line

CONFUSION = "confusion_matrix"  # the name of the table and of the picture
MOST_PROCESSES = 4  # that draw

Draw = Callable[
    [Sequence[Path], Sequence[str] | Path, str, Path], None
]  # of tables, classes or the file that has them, a title; into a file


class Pictures:
    """Draws into a folder of its own. No file is written twice, since the store may link to it.

    A picture that cannot be drawn is left out of a record that is complete without it; `problem` says why the first one could not.
    """

    def __init__(self) -> None:
        self.problem = ""
        self._folder = tempfile.TemporaryDirectory(prefix="ablate-")
        self._distributions: dict[str, Path] = {}  # by the data's digest
        self._pool: ProcessPoolExecutor | None = None
        self._is_broken = False  # whether a process of it was killed
        self._asked: dict[tuple[Path, str], tuple[Future[None], Path]] = {}  # pictures being drawn, by table and title

    def close(self) -> None:
        """End the processes that draw, and delete the folder."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()

    def new_folder(self) -> Path:
        """A folder for files that are about to become artifacts."""
        return Path(tempfile.mkdtemp(dir=self._folder.name))

    def ask(self, folder: Path, title: str) -> None:
        """Have the picture of a result drawn by another process, before `of_result` wants it."""
        if (folder / f"{CONFUSION}.csv").exists():
            self._ask(draw_confusion, [folder / f"{CONFUSION}.csv"], folder / sealed.RESULT, title)

    def ask_sum(self, tables: Sequence[Path], classes: Sequence[str], title: str) -> None:
        """The same of a sum of confusion matrices, before `of_sum` wants it."""
        self._ask(draw_sum, tables, classes, title)

    def _ask(self, draw: Draw, tables: Sequence[Path], classes: Sequence[str] | Path, title: str) -> None:
        path = self.new_folder() / f"{CONFUSION}.png"
        with contextlib.suppress(BrokenExecutor), signals.blocked():
            if not self._is_broken:
                self._asked[tables[0], title] = self._processes().submit(draw, tables, classes, title, path), path

    def _processes(self) -> ProcessPoolExecutor:
        """The processes that draw, which end with this one; begun by whoever asks, one after another as there is more to draw."""
        if self._pool is None:
            context, number = multiprocessing.get_context("spawn"), max(1, min(MOST_PROCESSES, (os.cpu_count() or 1) // 2))
            self._pool = ProcessPoolExecutor(number, context, signals.die_with_parent, (os.getpid(),))
        return self._pool

    def of_result(self, result: Mapping[str, Any], folder: Path, title: str) -> dict[str, Path]:
        """The files by name: the confusion matrix of a result's folder, and the class distribution of its data."""
        if not (folder / f"{CONFUSION}.csv").exists():
            return {}
        picture = self._drawn(draw_confusion, [folder / f"{CONFUSION}.csv"], result["classes"], title)
        return ({picture.name: picture} if picture else {}) | self._distribution(result["digest"], result["classes"], result["counts"])

    def of_sum(self, tables: Sequence[Path], classes: Sequence[str], title: str) -> Path | None:
        """The picture of the sum of confusion matrices, with a thumbnail, if it can be drawn."""
        return self._drawn(draw_sum, tables, classes, title)

    def _drawn(self, draw: Draw, tables: Sequence[Path], classes: Sequence[str], title: str) -> Path | None:
        """What was asked for, or else is drawn here."""
        asked, path = self._asked.pop((tables[0], title), None), self.new_folder() / f"{CONFUSION}.png"
        if asked and not asked[0].cancel():
            try:
                return asked[1] if self.is_done(asked[0].result) else None
            except BrokenExecutor:  # somebody has killed a process that draws
                self._is_broken = True
        return path if self.is_done(lambda: draw(tables, classes, title, path)) else None

    def is_done(self, draw: Callable[[], None]) -> bool:
        """Whether a picture could be drawn or shown: whatever a library of pictures, its fonts or its settings say."""
        try:
            draw()
        except (StoreError, BrokenExecutor):  # the store is away, or who draws: tried again
            raise
        except Exception as error:  # decoration: nothing that counts waits for it
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # the rest of the record has no room either: tried again later
            self.problem = self.problem or first_line(f"{type(error).__name__}: {error}")
            return False
        return True

    def _distribution(self, digest: str, classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> dict[str, Path]:
        """The class distribution as a figure and a table, made once for all runs that saw the same data."""
        import pandas as pd

        def draw() -> None:
            from ablation.report import figures

            figures.class_distribution_png(dict(counts), list(classes), picture)

        if digest not in self._distributions:
            folder = self.new_folder()
            picture = folder / "class_distribution.png"
            if not self.is_done(draw):
                picture.unlink(missing_ok=True)
            pd.DataFrame({"class": list(classes), **counts}).to_csv(folder / "class_distribution.csv", index=False)
            self._distributions[digest] = folder  # once all is in it
        return {path.name: path for path in self._distributions[digest].iterdir()}


def draw_confusion(tables: Sequence[Path], classes: Sequence[str] | Path, title: str, path: Path) -> None:
    """Draw the sum of confusion matrices, of these classes or those in the file of a result."""
    from ablation.report import figures

    names = json.loads(classes.read_text(encoding="utf-8"))["classes"] if isinstance(classes, Path) else classes
    figures.confusion_matrix_png(summed(tables), list(names), path, title)


def draw_sum(tables: Sequence[Path], classes: Sequence[str] | Path, title: str, path: Path) -> None:
    """Draw it with its thumbnail."""
    draw_confusion(tables, classes, title, path)
    thumbnails.make(path, path)


def summed(tables: Sequence[Path]) -> Any:
    """counts_CC: the sum of confusion matrices that lie in CSV files."""
    import numpy as np
    import pandas as pd

    return np.stack([pd.read_csv(path, index_col=0).to_numpy() for path in tables]).sum(axis=0)
