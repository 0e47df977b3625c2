"""A regression on scikit-learn's diabetes data. `fit` is called once for each arm and seed, each time in a new process."""

from typing import Literal

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import train_test_split


def fit(
    run,
    *,
    learning_rate: float = 0.1,
    max_iter: int = 100,
    max_depth: int = 6,
    loss: Literal["squared_error", "absolute_error"] = "squared_error",
):
    """Fit a model to two thirds of the patients; the mean absolute errors on the others."""
    features, target = load_diabetes(return_X_y=True)
    split = run.seed_for("split")  # of this seed, whatever the arm: all arms have the same test patients
    train, held_out = train_test_split(np.arange(len(target)), test_size=1 / 3, random_state=split)
    validation, test = train_test_split(held_out, test_size=2 / 3, random_state=split)

    model = HistGradientBoostingRegressor(
        learning_rate=learning_rate, max_iter=max_iter, max_depth=max_depth, loss=loss, random_state=run.seed
    )
    model.fit(features[train], target[train])
    errors = np.abs(model.predict(features) - target)

    run.items(test, {"test/mae": errors[test]})  # one score for each test patient, so that the report can resample them
    return {"test/mae": errors[test].mean(), "val/mae": errors[validation].mean()}
