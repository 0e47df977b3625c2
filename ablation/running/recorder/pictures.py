"""The pictures and tables that are made of a run's result for its page, where the result has classes."""

import errno
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.errors import StoreError
from ablation.tracking.messages import first_line

CONFUSION = "confusion_matrix"  # the name of the table and of the picture


class Pictures:
    """Draws into a folder of its own. No file is written twice, since the store may link to it.

    A picture that cannot be drawn is left out of a record that is complete without it; `problem` says why the first one could not.
    """

    def __init__(self) -> None:
        self.problem = ""
        self._folder = tempfile.TemporaryDirectory(prefix="ablate-")
        self._distributions: dict[str, Path] = {}  # by the data's digest

    def close(self) -> None:
        """Delete the folder."""
        self._folder.cleanup()

    def new_folder(self) -> Path:
        """A folder for files that are about to become artifacts."""
        return Path(tempfile.mkdtemp(dir=self._folder.name))

    def of_result(self, result: Mapping[str, Any], folder: Path, title: str) -> dict[str, Path]:
        """The files by name: the confusion matrix of a result's folder, and the class distribution of its data."""
        if not (folder / f"{CONFUSION}.csv").exists():
            return {}
        picture = self.confusion([folder / f"{CONFUSION}.csv"], result["classes"], title)
        return ({picture.name: picture} if picture else {}) | self._distribution(result["digest"], result["classes"], result["counts"])

    def confusion(self, tables: Sequence[Path], classes: Sequence[str], title: str) -> Path | None:
        """The picture of the sum of confusion matrices, if it can be drawn."""
        path, counts_CC = self.new_folder() / f"{CONFUSION}.png", summed(tables)

        def draw() -> None:
            from ablation.report import figures

            figures.confusion_matrix_png(counts_CC, list(classes), path, title)

        return path if self.is_done(draw) else None

    def is_done(self, draw: Callable[[], None]) -> bool:
        """Whether a picture could be drawn or shown: whatever a library of pictures, its fonts or its settings say."""
        try:
            draw()
        except StoreError:  # the store is away: tried again later
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


def summed(tables: Sequence[Path]) -> Any:
    """counts_CC: the sum of confusion matrices that lie in CSV files."""
    import numpy as np
    import pandas as pd

    return np.stack([pd.read_csv(path, index_col=0).to_numpy() for path in tables]).sum(axis=0)
