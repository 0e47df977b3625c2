"""The report's frames as CSV files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablation.report.frames.facts import classes_of
from ablation.report.frames.tables import Frames, has_frame

FRAMES = (
    "runs",
    "per_class",
    "differences",
    "class_differences",
    "image_differences",
    "item_differences",
    "attribution",
    "effects",
    "conditions",
    "mcnemar",
    "calibration",
)
FILES = {"report": "arms", **dict(zip(FRAMES, FRAMES, strict=True))}  # file -> frame


def arms_text(frames: Frames, notes: Sequence[str] = ()) -> str:
    """The file with one row per arm; what its reader must know is in a column of its own."""
    return frames.arms.assign(**({"notes": "; ".join(notes)} if notes else {})).to_csv(index=False)


def csv_files(frames: Frames, plan: Mapping[str, Any], notes: Sequence[str] = ()) -> dict[str, str]:
    """File name -> its text, for every frame that the study has; `report.csv` has one row per arm."""
    facts = frames.facts(plan)
    texts = {f"{file}.csv": getattr(frames, frame).to_csv(index=False) for file, frame in FILES.items() if has_frame(facts, frame)}
    texts["report.csv"] = arms_text(frames, notes)
    return texts | ({"confusion.csv": _confusion_text(frames.confusion, classes_of(plan))} if has_frame(facts, "confusion") else {})


def _confusion_text(confusion: Mapping[str, npt.NDArray[np.int64]], classes: list[str]) -> str:
    """One line per arm, true and predicted class; arm by arm, since a thousand classes give a million lines each."""
    names_C = np.array(classes, dtype=object)
    true, predicted = np.repeat(names_C, len(classes)), np.tile(names_C, len(classes))
    texts = [pd.DataFrame(columns=["arm", "true", "predicted", "count"]).to_csv(index=False)]
    for arm, counts_CC in confusion.items():
        cells = pd.DataFrame({"arm": arm, "true": true, "predicted": predicted, "count": counts_CC.ravel()})
        texts.append(cells.to_csv(index=False, header=False))
    return "".join(texts)
