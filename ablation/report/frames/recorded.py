"""A recorded study, in a store or in a zip, as the report reads it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd


class Packable(Protocol):
    """What is packed of a recorded study, beside its curves."""

    @property
    def study(self) -> str:
        """The study's name."""

    @property
    def plan(self) -> Mapping[str, Any]:
        """The newest recorded plan."""

    @property
    def runs(self) -> pd.DataFrame:
        """One row per arm and seed of that plan that has an MLflow run, with its final metrics."""

    @property
    def superseded(self) -> Sequence[str]:
        """The recorded runs that are not in the newest plan."""

    def artifact(self, run_id: str, name: str) -> Path:
        """The local path of a file of the run; raises StoreError if it has none of that name."""


class Recorded(Packable, Protocol):
    """A recorded study, as the report reads it."""

    def predictions(self, run_id: str) -> pd.DataFrame:
        """The test images' index, label, predicted class and scores."""

    def items(self, run_id: str) -> pd.DataFrame | None:
        """The test items' scores: item, a column for each metric, and the cluster where there is one; None if the run has none.

        It is asked of one's own training code only.
        """

    def curves(self, run_ids: list[str]) -> pd.DataFrame:
        """run_id, metric, step and value of every point of every curve."""
