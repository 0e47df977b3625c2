"""What a function is given, as it works without a study too."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import ablation
from ablation.system.randomness import key
from ablation.tasks.own.handle import Run, number_of, plain


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_it_is_of_the_package(tmp_path):
    assert ablation.Run is Run
    assert "Run" in ablation.__all__


def test_it_costs_nothing_to_import():
    """Neither a library nor another part of ours than the rooms' names."""
    code = "import sys; from ablation import Run; print({m.partition('.')[0] for m in sys.modules} & set(sys.argv[1:]), len(sys.modules))"
    heavy = ["pandas", "numpy", "torch", "pydantic", "mlflow", "yaml"]
    printed = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True).stdout
    assert printed.startswith("set() ")


def test_it_works_in_a_notebook(tmp_path):
    """With a folder that is made, and nothing else."""
    run = Run(seed=4, folder=tmp_path / "a" / "try")
    assert (run.seed, run.out, run.checkpoints) == (4, tmp_path / "a" / "try", tmp_path / "a" / "try" / "checkpoints")
    assert run.checkpoints.is_dir()
    assert Run(folder=str(tmp_path), checkpoints=str(tmp_path / "c")).checkpoints == tmp_path / "c"


def test_seeds_for_purposes_are_keyed_draws(tmp_path):
    """The draw that all of the tool uses, in the range that NumPy and scikit-learn take."""
    for seed, purpose in ((0, "split"), (1, "split"), (0, "weights")):
        assert Run(seed, tmp_path).seed_for(purpose) == key(seed, purpose) >> 31
        np.random.default_rng(Run(seed, tmp_path).seed_for(purpose))
        np.random.RandomState(Run(seed, tmp_path).seed_for(purpose))
    assert Run(0, tmp_path).seed_for("split") != Run(0, tmp_path).seed_for("other") != Run(1, tmp_path).seed_for("other")


def test_curves_take_what_is_a_number(tmp_path):
    """Tensors, arrays and NumPy's numbers; anything else is left out, and one note says so."""
    run = Run(folder=tmp_path)
    values = {"a": torch.tensor(1.5, requires_grad=True), "b": np.float32(2), "c": np.array([3]), "d": torch.tensor([4.0]), "e": True}
    run.log(torch.tensor(1), values | {"text": "1", "none": None, "two": torch.zeros(2), "nan": float("nan")})
    run.log(np.int64(2), {"nan": float("inf")})
    rows = [json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines()]
    assert [row.pop("time_ms") > 1e12 for row in rows] == [True, True]
    assert rows == [{"step": 1, "a": 1.5, "b": 2.0, "c": 3.0, "d": 4.0, "e": 1.0}, {"step": 2}]
    assert [note.partition(" ")[0] for note in read(tmp_path, "notes.json")] == ["text", "none", "two", "nan"]


@pytest.mark.parametrize("step", ["x", 1.5, None, float("nan"), [1, 2], 2**60])
def test_a_step_is_a_whole_number(tmp_path, step):
    with pytest.raises(ValueError, match=r"^run.log: found step .*; expected a whole number below 2..53, such as the epoch$"):
        Run(folder=tmp_path).log(step, {})


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor, pd.Series])
def test_items_take_any_column(tmp_path, make):
    run = Run(folder=tmp_path)
    run.items(make([3, 4]), {"mae": make([0.5, 1.5])}, cluster=make([0, 0]))
    assert read(tmp_path, "items.json") == {"item": [3, 4], "mae": [0.5, 1.5], "cluster": [0, 0]}


def test_items_and_predictions_are_of_one_length(tmp_path):
    run = Run(folder=tmp_path)
    with pytest.raises(ValueError, match=r"run.items: found columns of different lengths \(item 2, mae 1\); expected one value"):
        run.items(["a", "b"], {"mae": [1]})
    with pytest.raises(ValueError, match=r"run.predictions: .*\(item 1, label 1, predicted 2\)"):
        run.predictions(["a"], [0], [0, 1])
    with pytest.raises(ValueError, match=r"run.predictions: .*\(item 1, logits 2\)"):
        run.predictions(["a"], [0], [0], logits=np.zeros((2, 3)))


def test_predictions_are_a_table(tmp_path):
    run = Run(folder=tmp_path)
    run.predictions(["a", "b"], ["cat", "dog"], np.array(["dog", "dog"]), logits=torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    table = pd.read_parquet(tmp_path / "predictions.parquet")
    assert table.to_dict("list") == {
        "item": ["a", "b"],
        "label": ["cat", "dog"],
        "predicted": ["dog", "dog"],
        "logit0": [1.0, 3.0],
        "logit1": [2.0, 4.0],
    }
    run.predictions(["a"], [0], [1])
    assert list(pd.read_parquet(tmp_path / "predictions.parquet")) == ["item", "label", "predicted"]


def test_what_is_the_same_has_a_digest(tmp_path):
    """Equal data have equal ones, in any form; the order of a list counts, that of a set and of a mapping does not."""
    run = Run(folder=tmp_path)
    values = {"list": ["a", "b"], "tuple": ("a", "b"), "array": np.array(["a", "b"]), "turned": ["b", "a"]}
    values |= {"set": {"a", "b"}, "frozen": frozenset(["b", "a"]), "map": {"x": 1, "y": {2}}, "pam": {"y": {2}, "x": 1}}
    values |= {"numbers": torch.arange(3), "range": range(3)}
    for name, value in values.items():
        run.same(name, value)
    same = read(tmp_path, "same.json")
    assert same["list"] == same["tuple"] == same["array"] == same["set"] == same["frozen"] != same["turned"]
    assert same["map"] == same["pam"]
    assert same["numbers"] == same["range"]
    assert all(len(value) == 32 for value in same.values())


def test_the_latest_checkpoint(tmp_path):
    run = Run(folder=tmp_path)
    assert run.latest("*.ckpt") is None
    for name, time in (("last-v1.ckpt", 3), ("last.ckpt", 2), ("other.pt", 9)):
        (run.checkpoints / name).touch()
        os.utime(run.checkpoints / name, (time, time))
    assert run.latest("last*.ckpt") == run.checkpoints / "last-v1.ckpt"


@pytest.mark.parametrize(("value", "number"), [("1", None), (b"1", None), (None, None), ({}, None), (10**400, None), (np.int8(3), 3.0)])
def test_numbers(value, number):
    assert number_of(value) == number


def test_plain_data():
    assert plain({1: np.float64(2), "a": {"x"}}) == {"1": 2.0, "a": ["x"]}
    assert math.isnan(number_of(np.nan))
