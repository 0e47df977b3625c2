"""The pictures and tables that are made of a run's result for its page, where the result has classes."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONFUSION = "confusion_matrix"  # the name of the table and of the picture


class Pictures:
    """Draws into a folder of its own. No file is written twice, since the store may link to it."""

    def __init__(self) -> None:
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
        return {picture.name: picture} | self._distribution(result["digest"], result["classes"], result["counts"])

    def confusion(self, tables: Sequence[Path], classes: Sequence[str], title: str) -> Path:
        """The picture of the sum of confusion matrices."""
        from ablation.report import figures

        path = self.new_folder() / f"{CONFUSION}.png"
        figures.confusion_matrix_png(summed(tables), list(classes), path, title)
        return path

    def _distribution(self, digest: str, classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> dict[str, Path]:
        """The class distribution as a figure and a table, made once for all runs that saw the same data."""
        import pandas as pd

        from ablation.report import figures

        if digest not in self._distributions:
            folder = self.new_folder()
            figures.class_distribution_png(dict(counts), list(classes), folder / "class_distribution.png")
            pd.DataFrame({"class": list(classes), **counts}).to_csv(folder / "class_distribution.csv", index=False)
            self._distributions[digest] = folder  # once all is in it
        return {path.name: path for path in self._distributions[digest].iterdir()}


def summed(tables: Sequence[Path]) -> Any:
    """counts_CC: the sum of confusion matrices that lie in CSV files."""
    import numpy as np
    import pandas as pd

    return np.stack([pd.read_csv(path, index_col=0).to_numpy() for path in tables]).sum(axis=0)
