"""How well scores rank the images of a class above all others: curves of ROC and of precision over recall, with their areas.

Shapes: N test images, C classes, T distinct scores, G points of a common grid.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ablation.training.ranking import log_odds  # as in the recorded AUROC and average precision

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

GRID = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class Ranking:
    """One run's curves by class on a common grid, and their areas; NaN for a class without images, or with all of them.

    `tpr_CG` is the sensitivity over the share of false alarms, `precision_CG` the precision over the recall.
    """

    tpr_CG: Floats
    precision_CG: Floats
    auroc_C: Floats
    average_precision_C: Floats


def ranking(labels_N: Ints, scores_NC: npt.NDArray[np.float32]) -> Ranking:
    """The curves of every class, one against the rest, by the same log-odds as the recorded metrics; images with equal ones are one step.

    Fawcett, "An introduction to ROC analysis", 2006. The average precision is the sum of precisions times steps of recall, as
    scikit-learn's, which interpolates nothing. Raises ValueError if a score is not finite.
    """
    curves = [_of_class(labels_N == place, odds_N) for place, odds_N in enumerate(log_odds(scores_NC).T)]
    tpr, precision, auroc, average = zip(*curves, strict=True)
    return Ranking(np.stack(tpr), np.stack(precision), np.array(auroc), np.array(average))


def _of_class(is_class_N: npt.NDArray[np.bool_], scores_N: Floats) -> tuple[Floats, Floats, float, float]:
    num_inside = int(is_class_N.sum())
    if num_inside in (0, len(is_class_N)):
        nothing = np.full(len(GRID), np.nan)
        return nothing, nothing, float("nan"), float("nan")
    order = np.argsort(-scores_N, kind="stable")
    last_T = np.flatnonzero(np.append(np.diff(scores_N[order]) != 0, True))
    hits_T = np.cumsum(is_class_N[order])[last_T]
    false_T = 1 + last_T - hits_T
    recall_T, alarms_T = hits_T / num_inside, false_T / (len(is_class_N) - num_inside)
    precision_T = hits_T / (hits_T + false_T)
    heights_T = np.append(0, recall_T)
    auroc = float(np.sum(np.diff(np.append(0, alarms_T)) * (heights_T[1:] + heights_T[:-1]) / 2))
    average = float(np.sum(np.diff(heights_T) * precision_T))
    # on the grid: a step of false alarms at its upper end, and the precision of the first threshold that reaches a recall
    tpr_G = np.interp(GRID, np.append(0, alarms_T), np.append(0, recall_T))
    precision_G = precision_T[np.searchsorted(recall_T, GRID - 1e-12)]
    return tpr_G, precision_G, auroc, average
