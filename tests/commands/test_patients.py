"""Data whose images are of patients: what is recorded, said and counted of them."""

import csv
import json

import numpy as np
import pandas as pd
import pytest

from ablation.tracking.store import Store
from tests.data.image_sources import class_tree
from tests.tiny import write

PATIENTS, EACH = 16, 3
WORDS = "16 patients, none in two splits"


@pytest.fixture
def patients(ablate):
    """A study of two classes of images, three of each patient; the patients are named in a CSV file."""
    class_tree(ablate.folder / "images", {"cat": PATIENTS * EACH // 2, "dog": PATIENTS * EACH // 2}, "{i}.png")
    with (ablate.folder / "images.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "label", "patient_id"])
        rows.writerows([f"{kind}/{i}.png", kind, f"{kind}{i // EACH}"] for kind in ("cat", "dog") for i in range(PATIENTS * EACH // 2))
    data = {"name": "csv", "file": "images.csv", "root": "images", "group": "patient_id", "test": 0.4, "validation": 0.2}
    layers = {"base": {"data": data, "batch_size": 4, "epochs": 1}, "variants": {"cb": {"sampler": "class_balanced"}}}
    return write(ablate.folder, **layers)


def test_they_are_counted_and_named(ablate, patients):
    """In the account of the data and in the plan, with their numbers in each split."""
    assert WORDS in ablate("data", patients).out
    plan = json.loads(ablate("plan", patients, "--json").out)
    clusters = plan["clusters"]
    assert (clusters["name"], clusters["shared"]) == ("patient", 0)
    assert clusters["train"] + clusters["validation"] + clusters["test"] == PATIENTS
    assert clusters["test"] * EACH == sum(plan["test_counts"])
    assert clusters["validation"] * EACH == sum(plan["validation_counts"])


def test_the_record_has_the_patient_of_each_test_image(ablate, patients):
    """As a number beside the predictions, of which the report's intervals over test images are made."""
    assert ablate("run", patients).status == 0
    store = Store.open()
    clusters = store.recorded("tiny").plan["clusters"]
    run = next(run for run in store.runs_of("tiny") if run["tags"]["ablation.kind"] == "run")
    table = pd.read_parquet(store.artifact(run["run_id"], "predictions.parquet"))
    assert table["group"].dtype == np.int64
    assert table.groupby("group").size().tolist() == [EACH] * clusters["test"]
    assert (table.groupby("group")["label"].nunique() == 1).all()
    text = ablate("report").out
    assert WORDS in text
    assert f"The {clusters['test']} patients of the test images are drawn whole" in text
    assert "p, seed by seed" in text
    assert "whole patients at a time" in ablate("compare", "cb", "baseline").out


def test_other_data_have_no_groups(ablate):
    """The digits' predictions have the columns that they always had, and nothing is said of groups."""
    file = write(ablate.folder)
    assert ablate("run", file).status == 0
    store = Store.open()
    run = next(run for run in store.runs_of("tiny") if run["tags"]["ablation.kind"] == "run")
    table = pd.read_parquet(store.artifact(run["run_id"], "predictions.parquet"))
    assert list(table.columns) == ["index", "label", "predicted", *(f"logit/{digit}" for digit in range(10))]
    assert "clusters" not in store.recorded("tiny").plan
