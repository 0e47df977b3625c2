"""What a run hands back is checked: one message for each mistake."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ablation.errors import TrainingError
from ablation.study.metrics import Metric
from ablation.tasks.own.definition import Definition, Source
from ablation.tasks.own.returned import curve_row, read, states_before

METRICS = (Metric("test/mae", "mae", "lower", ""), Metric("test/f1", "f1"), Metric("validation/mae", "mae", "lower", ""))
VALUES = {"mae": 2.0, "f1": 0.5, "val/mae": 3.0}


def handed_back(out, *, classes=(), function="", sources=None, names=None, printed=None, metrics=VALUES, before=None, **files):
    """What is read of these files in a folder; items as JSON are a function's."""
    function = function or ("m:f" if "items_json" in files else "")
    definition = Definition(folder=out, command=() if function else ("x",), function=function, metrics=METRICS, classes=classes)
    definition = Definition(**{**vars(definition), "sources": sources or {}, "names": names or {}})
    if metrics is not None:
        (out / "metrics.json").write_text(metrics if isinstance(metrics, str) else json.dumps(metrics))
    for name, content in files.items():
        path = out / name.replace("_", ".")
        if isinstance(content, str):
            path.write_text(content)
        elif path.suffix == ".parquet":
            pd.DataFrame(content).to_parquet(path)
        else:
            path.write_text(json.dumps(content))
    return read(definition, out, printed or {}, before or {})


def problem(out, **options):
    with pytest.raises(TrainingError) as caught:
        handed_back(out, **options)
    return f"{caught.value.kind}: {caught.value.message}"


def test_metrics_come_by_any_of_their_names(tmp_path):
    """As they are declared, or as they are stored."""
    expected = {"test/mae": 2.0, "test/f1": 0.5, "validation/mae": 3.0}
    assert handed_back(tmp_path).metrics == expected
    back = handed_back(tmp_path, metrics=expected | {"epochs": 3, "note": "x"})
    assert back.metrics == expected
    assert back.notes == ("also handed back, and not declared: epochs, note",)


@pytest.mark.parametrize("order", [1, -1])
def test_a_metric_under_two_names_is_the_declared_one(tmp_path, order):
    """Frameworks hand back the loss of the training beside that of the test: which comes last does not matter."""
    back = handed_back(tmp_path, metrics=VALUES | dict([("mae", 9.0), ("test/mae", 2.0)][::order]), names={"test/mae": "test/mae"})
    assert back.metrics["test/mae"] == 2.0
    assert back.notes == ("also handed back, and not declared: mae",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"metrics": None},
            "data: metrics.json was not written; expected it in {out}, with test/mae, or what to read it from under metrics.mae.from",
        ),
        ({"metrics": {"mea": 1, "f1": 1}}, "data: metrics.json lacks test/mae; found mea, f1. Did you mean 'mea'?"),
        ({"metrics": {}}, "data: metrics.json lacks test/mae; found nothing"),
        ({"metrics": VALUES | {"f1": float("nan")}}, "nan: test/f1 is nan; expected a finite number"),
        ({"metrics": VALUES | {"f1": float("-inf")}}, "nan: test/f1 is -inf; expected a finite number"),
        ({"metrics": VALUES | {"f1": "0.5"}}, "data: test/f1 is '0.5'; expected a number"),
        ({"metrics": VALUES | {"f1": None}}, "data: test/f1 is None; expected a number"),
        ({"metrics": VALUES | {"f1": True}}, "data: test/f1 is True; expected a number"),
        ({"metrics": [1]}, "data: metrics.json holds a list; expected a mapping of names"),
        ({"metrics": "{"}, "data: metrics.json cannot be read: Expecting property name enclosed in double quotes"),
        ({"function": "m:f", "metrics": None}, "data: m:f did not return test/mae; found nothing"),
        ({"function": "m:f", "metrics": '"float"'}, "data: m:f returned float; expected its metrics, such as {'test/mae': 0.5}"),
        ({"function": "m:f", "metrics": '"NoneType"'}, "data: m:f returned nothing; expected its metrics, such as {'test/mae': 0.5}"),
        (
            {"function": "m:f", "items_json": {"item": [1, 1], "mae": [1, 1]}},
            "data: run.items has the item '1' more than once; expected each once",
        ),
        ({"same_json": "[]"}, "data: same.json holds a list; expected a mapping of names"),
    ],
)
def test_mistakes_in_metrics(tmp_path, options, message):
    assert problem(tmp_path, **options).startswith(message)


def test_all_metrics_that_are_lacking_are_told_at_once(tmp_path):
    """A metric by its name in the file, a pattern as it stands there."""
    sources = {"validation/mae": Source(pattern=r"val (\d+)")}
    names = {"test/mae": "mae", "validation/mae": "val/mae"}
    told = "data: metrics.json lacks mae; found loss; metrics.json lacks test/f1; found loss; "
    told += r"val/mae: nothing that was printed matches 'val (\d+)'"
    assert problem(tmp_path, metrics={"loss": 1}, sources=sources, names=names).startswith(told)


@pytest.mark.parametrize(
    ("content", "at", "message"),
    [
        ({"eval": {"maa": 1}}, "eval.mae", "test/mae: log.json has no 'mae' of eval.mae; found maa. Did you mean 'maa'?"),
        ({"eval": 3}, "eval.mae", "test/mae: log.json has no 'mae' of eval.mae; found a number"),
        ({"eval": [1, 2]}, "eval.5", "test/mae: log.json has no '5' of eval.5; found 0, 1, -2, -1"),
        ({"eval": "x"}, "eval", "test/mae is 'x'; expected a number"),
    ],
)
def test_mistakes_in_files_with_values(tmp_path, content, at, message):
    assert problem(tmp_path, sources={"test/mae": Source(file="log.json", at=at)}, log_json=content) == f"data: {message}"


def test_values_come_from_files_and_from_what_is_printed(tmp_path):
    sources = {"test/mae": Source(file="log.json", at="eval.-1.mae"), "test/f1": Source(pattern="f1 (x)")}
    back = handed_back(tmp_path, sources=sources, printed={"test/f1": " 1e-1 "}, log_json={"eval": [{"mae": 9}, {"mae": 4}]})
    assert back.metrics == {"test/mae": 4.0, "test/f1": 0.1, "validation/mae": 3.0}


def test_a_file_that_the_run_did_not_write_is_none_of_its_own(tmp_path):
    """One of an earlier run beside the study is as it was before; a command that is told {out} must write it there."""
    sources = {"test/mae": Source(file="log.json", at="mae")}
    (tmp_path / "log.json").write_text('{"mae": 4}')
    definition = Definition(folder=tmp_path, command=("x",), metrics=METRICS, sources=sources)
    before = states_before(definition)
    with pytest.raises(TrainingError, match=r"log\.json is not of this run, which did not write it"):
        read(definition, tmp_path, {}, before)
    (out := tmp_path / "out").mkdir()
    told = replace(definition, command=("x", "{out}"))
    assert states_before(told) == {}
    with pytest.raises(TrainingError, match=r"there is no log\.json in \{out\}"):
        read(told, out, {}, {})


# --- items -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "parquet", "csv"])
def test_items_come_in_any_form(tmp_path, form):
    columns = {"item": ["b", "a"], "mae": [1.0, 3.0], "test/f1": [0.0, 1.0], "cluster": ["7", "7"]}
    text = pd.DataFrame(columns).to_csv(index=False)
    back = handed_back(tmp_path, **{f"items_{form}": text if form == "csv" else columns})
    assert back.items.to_dict("list") == {"item": ["b", "a"], "test/mae": [1.0, 3.0], "test/f1": [0.0, 1.0], "cluster": ["7", "7"]}
    assert back.notes == ()


def test_test_items_are_the_same_in_any_order(tmp_path):
    """Their digest is that of their names, as numbers or as texts."""
    folders = [tmp_path / str(i) for i in range(3)]
    for folder in folders:
        folder.mkdir()
    first, second, other = (
        handed_back(folder, items_json={"item": ids, "mae": [1.0, 3.0]}).same
        for folder, ids in zip(folders, ([1, 2], ["2", "1"], [1, 3]), strict=True)
    )
    assert first == second != other
    assert set(first) == {"test items"}


def test_a_mean_that_is_no_metric_is_noted(tmp_path):
    back = handed_back(tmp_path, items_json={"item": [1, 2], "mae": [1.0, 3.0 + 1e-7], "f1": [0.5, 0.6]})
    assert back.notes == ("test/f1: the mean of the items, 0.55, is not the metric, 0.5, so its items are not bootstrapped",)


def test_a_metric_that_looks_rounded_is_told_as_that(tmp_path):
    back = handed_back(tmp_path, items_json={"item": [1, 2], "mae": [2.0004, 2.0], "f1": [0.5, 0.5]})
    assert back.notes[0].endswith("2.0002, is not the metric, 2, so its items are not bootstrapped; it looks rounded: expected all digits")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"items": [1], "mae": [1.0]}, "run.items has no column 'item'; found items, mae. Did you mean 'items'?"),
        ({"item": [1, 2, 1], "mae": [1.0] * 3}, "run.items has the item '1' more than once; expected each once"),
        ({"item": [1, None], "mae": [1.0] * 2}, "run.items has rows without item; expected one in each"),
        ({"item": [], "mae": []}, "run.items has no rows; expected one for each test item"),
        ({"item": [1], "mae": [1.0], "cluster": [""]}, "run.items has rows without cluster; expected one in each"),
        (
            {"item": ["a", "b"], "mae": [1.0, float("nan")]},
            "run.items: the test/mae of item 'b' is nan; expected a finite number for each item",
        ),
        (
            {"item": ["a", "b"], "mae": [1.0, "x"]},
            "run.items: the test/mae of item 'b' is 'x'; expected a finite number for each item",
        ),
        (
            {"item": [1], "maa": [1.0]},
            "run.items has a column 'test/maa', which is no declared metric; expected test/mae, test/f1, validation/mae."
            " Did you mean 'test/mae'?",
        ),
        ({"item": [1], "mae": [1.0], "test/mae": [1.0]}, "run.items has two columns for test/mae; expected one"),
        ({"item": [1]}, "run.items has no scores; expected a column for one of test/mae, test/f1, validation/mae"),
        ({"item": [1, 2], "mae": [1.0]}, "items.json cannot be read: All arrays must be of the same length"),
    ],
)
def test_mistakes_in_items(tmp_path, columns, message):
    assert problem(tmp_path, items_json=columns) == f"data: {message}"


def test_files_that_only_a_function_hands_back_are_a_command_s_own(tmp_path):
    """Whatever it has in them."""
    for name in ("items.json", "notes.json"):
        (tmp_path / name).write_text("5")
    back = handed_back(tmp_path)
    assert (back.items, back.notes) == (None, ())


@pytest.mark.parametrize("name", ["items_parquet", "items_csv", "predictions_parquet"])
def test_tables_that_cannot_be_read(tmp_path, name):
    (tmp_path / name.replace("_", ".")).write_bytes(b"\0\xff")
    message = problem(tmp_path, classes=("a",))
    assert message.startswith("data: " + name.replace("_", "."))


# --- predictions -------------------------------------------------------------------------------------------------------------


def test_predictions_are_numbers_of_classes_in_the_order_of_items(tmp_path):
    """By name or by number; logits, and groups or clusters, if there are any."""
    columns = {"item": ["c", "a", "b"], "label": ["dog", "cat", "cat"], "predicted": [0, 1, 0], "cluster": [5, 6, 7]}
    back = handed_back(tmp_path, classes=("cat", "dog"), predictions_parquet=columns | {"logit0": [0.1, 0.2, 0.3], "logit1": [1, 2, 3]})
    table = back.predictions
    assert table[["index", "label", "predicted"]].to_numpy().tolist() == [[0, 0, 1], [1, 0, 0], [2, 1, 0]]
    assert table["group"].tolist() == ["6", "7", "5"]
    assert table["logit1"].tolist() == [2.0, 3.0, 1.0]
    assert list(table) == ["index", "label", "predicted", "logit0", "logit1", "item", "group"]
    assert table["item"].tolist() == ["a", "b", "c"]
    assert table["logit0"].dtype == np.float32
    assert set(back.same) == {"test items"}


def test_logits_have_the_order_of_their_numbers_or_names(tmp_path):
    """Whatever the order of the columns: tools sort them by their letters."""
    classes = tuple(f"c{i}" for i in range(12))
    columns = {"label": [0, 1], "predicted": [0, 1]}
    for names in ([f"logit{i}" for i in range(12)], [f"logit_{name}" for name in classes]):
        logits = {name: [float(i), 0.0] for i, name in sorted(enumerate(names), key=lambda pair: pair[1])}
        table = handed_back(tmp_path, classes=classes, predictions_parquet=columns | logits).predictions
        assert [table[f"logit{i}"][0] for i in range(12)] == list(range(12))


def test_classes_called_by_numbers_are_names_or_places_throughout(tmp_path):
    """Not one here and the other there; where nothing tells, the run fails."""
    classes = ("1", "2", "3")
    for values, expected in (([1, 2, 3], [0, 1, 2]), ([0, 1, 2], [0, 1, 2])):
        table = handed_back(tmp_path, classes=classes, predictions_parquet={"label": values, "predicted": values}).predictions
        assert table["label"].tolist() == table["predicted"].tolist() == expected
    told = problem(tmp_path, classes=classes, predictions_parquet={"label": [1, 2], "predicted": [2, 2]})
    assert "found 1, 2, which may be names of classes or their numbers" in told


@pytest.mark.parametrize(
    ("columns", "classes", "message"),
    [
        ({"label": ["a"], "predicted": ["a"]}, (), "predictions.csv was handed back, and no classes are declared; expected their names"),
        ({"label": ["a"]}, ("a",), "predictions.csv has no column 'predicted'; found label"),
        (
            {"label": ["cat"], "predicted": ["cta"]},
            ("cat", "dog"),
            "predictions.csv: found 'cta' in predicted; expected a class of task.classes (cat, dog) or its number. Did you mean 'cat'?",
        ),
        ({"label": [2], "predicted": [0]}, ("cat", "dog"), "predictions.csv: found '2' in label"),
        ({"label": [0], "predicted": [0], "logit0": [1.0]}, ("a", "b"), "predictions.csv has 1 columns of logits; expected 2"),
        ({"label": [0], "predicted": [0], "logit0": ["x"]}, ("a",), "predictions.csv has logits that are no finite numbers"),
        ({"item": [1, 1], "label": [0, 0], "predicted": [0, 0]}, ("a",), "predictions.csv has the item '1' more than once"),
    ],
)
def test_mistakes_in_predictions(tmp_path, columns, classes, message):
    assert problem(tmp_path, classes=classes, predictions_csv=pd.DataFrame(columns).to_csv(index=False)).startswith(f"data: {message}")


# --- curves ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"step": 3, "loss": 0.5}', (3, None, {"loss": 0.5})),
        ('{"step": 3, "time_ms": 7, "loss": 1, "text": "x", "none": null, "nan": NaN}', (3, 7, {"loss": 1.0})),
        ('{"step": 3}', (3, None, {})),
        ('{"loss": 0.5}', None),
        ('{"step": "x"}', None),
        ('{"step": 1, "loss": [1]}', None),
        ("[1]", None),
        ("{", None),
    ],
)
def test_rows_of_curves(line, expected):
    assert curve_row(line) == expected
