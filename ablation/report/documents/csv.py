"""The report's frames as CSV files."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablation.report.frames.plan import classes_of, facts_of
from ablation.report.frames.tables import Frames, has_frame

FILES = {"report": "arms", "runs": "runs", "per_class": "per_class"}  # file -> frame, where it is not the frame's name
NAMED = (
    "differences",
    "class_differences",
    "image_differences",
    "attribution",
    "effects",
    "conditions",
    "mcnemar",
    "calibration",
)


def arms_text(frames: Frames) -> str:
    """The one file with a row per arm."""
    return frames.arms.to_csv(index=False)


def csv_files(frames: Frames, plan: Mapping[str, Any]) -> dict[str, str]:
    """File name -> its text: a file per frame that the study has, `report.csv` being the one with a row per arm."""
    facts = facts_of(plan, frames.runs, frames.curves)
    names = {file: frame for file, frame in (FILES | {name: name for name in NAMED}).items() if has_frame(facts, frame)}
    texts = {f"{file}.csv": getattr(frames, frame).to_csv(index=False) for file, frame in names.items()}
    return texts | ({"confusion.csv": _confusion_text(frames.confusion, classes_of(plan))} if has_frame(facts, "confusion") else {})


def _confusion_text(confusion: Mapping[str, npt.NDArray[np.int64]], classes: list[str]) -> str:
    """A line per arm, true and predicted class; made arm by arm, since a thousand classes make a million lines of each."""
    names_C = np.array(classes, dtype=object)
    true, predicted = np.repeat(names_C, len(classes)), np.tile(names_C, len(classes))
    texts = [pd.DataFrame(columns=["arm", "true", "predicted", "count"]).to_csv(index=False)]
    for arm, counts_CC in confusion.items():
        cells = pd.DataFrame({"arm": arm, "true": true, "predicted": predicted, "count": counts_CC.ravel()})
        texts.append(cells.to_csv(index=False, header=False))
    return "".join(texts)
