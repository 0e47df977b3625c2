"""What a run hands back, read from the files in its folder and checked: metrics, scores of items, predictions, what is the same."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.errors import TrainingError, nearest
from ablation.study.metrics import TEST_ITEMS
from ablation.system.digests import digest
from ablation.tasks.own.definition import PREFIX, Definition, Source, full_name
from ablation.tasks.own.handle import CURVES, ITEMS, MAX_STEP, METRICS, NOTES, PREDICTIONS, SAME
from ablation.tasks.own.patterns import number_in

if TYPE_CHECKING:
    import pandas as pd

ITEM, CLUSTER, LABEL, PREDICTED, GROUP, LOGIT = "item", "cluster", "label", "predicted", "group", "logit"
TEXTS = (ITEM, CLUSTER, GROUP, LABEL, PREDICTED)
ITEM_FILES = (ITEMS, "items.parquet", "items.csv")
PREDICTION_FILES = (PREDICTIONS, "predictions.csv")
OF_FUNCTION = frozenset({ITEMS, NOTES})  # files that only the methods of a run write; a command's of these names are its own
HANDED_BACK = frozenset({METRICS, CURVES, SAME, *OF_FUNCTION, *ITEM_FILES, *PREDICTION_FILES})  # which are no more than what is recorded
CLOSE = 1e-5  # of a metric, by which the mean of its items may differ: sums in single precision do
State = tuple[int, int, int] | None  # of a file: which it is, when it was written, its size; None if there is none
NONE = type(None).__name__
BY_METHOD = {ITEMS: "run.items", PREDICTIONS: "run.predictions"}  # how a function hands back what lies in these files


@dataclass(frozen=True)
class Returned:
    """What came back of one run; `items` and `predictions` are tables, if there are any."""

    metrics: Mapping[str, float]
    items: "pd.DataFrame | None" = None
    predictions: "pd.DataFrame | None" = None
    same: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def handed_back(definition: Definition) -> frozenset[str]:
    """The names of the files in {out} of which the record has all that they say."""
    return HANDED_BACK if definition.is_function else HANDED_BACK - OF_FUNCTION


def states_before(definition: Definition) -> dict[str, State]:
    """The states of the files beside the study from which metrics are read, before a run begins."""
    files = [source.file for source in definition.sources.values() if source.file] if definition.reads_its_folder else []
    return {file: _state(definition.folder / file) for file in files}


def _state(path: Path) -> State:
    if not path.is_file():
        return None
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def read(definition: Definition, out: Path, printed: Mapping[str, str], before: Mapping[str, State]) -> Returned:
    """What a run left in `out` and beside the study, where files were in the states `before`, and what patterns found in what it printed.

    Raises TrainingError: "nan" for a metric that is no finite number, "data" for whatever is missing or cannot be used.
    """
    metrics, notes = _metrics(definition, out, printed, before)
    items, predictions = _items(definition, out), _predictions(definition, out)
    identified = items if items is not None else predictions
    same = {name: digest(value) for name, value in _mapping(out / SAME).items()}
    if identified is not None and ITEM in identified:
        same[TEST_ITEMS] = digest(sorted(identified[ITEM]))
    notes += [] if items is None else _means_that_differ(items, metrics)
    told = _json(out / NOTES) if definition.is_function and (out / NOTES).exists() else []
    return Returned(metrics, items, predictions, same, (*map(str, told), *notes))


class _Lacking(TrainingError):  # noqa: N818  it is told with the others that are lacking
    """A metric that did not come back."""


def _wrong(message: str) -> TrainingError:
    return TrainingError("data", message)


def _lacking(message: str) -> TrainingError:
    return _Lacking("data", message)


def _meant(name: str, known: Iterable[str]) -> str:
    """The sentence with the nearest known name, after a full stop; "" if none is near."""
    meant = nearest(name, known)
    return f".{meant}" if meant else ""


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _wrong(f"{path.name} cannot be read: {error}; expected JSON") from None


def _mapping(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping; an empty one where there is no file."""
    value = _json(path) if path.exists() else {}
    if not isinstance(value, dict):
        raise _wrong(f"{path.name} holds {_kind(value)}; expected a mapping of names")
    return value


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")


# --- metrics ---------------------------------------------------------------------------------------------------------------------


def _metrics(
    definition: Definition, out: Path, printed: Mapping[str, str], before: Mapping[str, State]
) -> tuple[dict[str, float], list[str]]:
    """Every declared metric, and notes on others that came back too; raises TrainingError with all that were not found."""
    written = _written_metrics(definition, out / METRICS)
    values, lacking = dict[str, float](), list[str]()
    for metric in definition.metrics:
        name, source = definition.shown(metric.name), definition.sources.get(metric.name)
        try:
            if source is None:
                values[metric.name] = _checked(name, _named(definition, metric.name, written, out))
            elif source.pattern:
                values[metric.name] = _matched(name, source, printed.get(metric.name))
            else:
                values[metric.name] = _checked(name, _in_file(name, source, definition, out, before))
        except _Lacking as error:
            lacking.append(error.message)
    if lacking:
        raise _wrong("; ".join(dict.fromkeys(lacking)))
    taken = {_spelling(definition, metric.name, written) for metric in definition.metrics}
    others = [name for name in written if name not in taken]
    return values, [f"also handed back, and not declared: {', '.join(others)}"] if others else []


def _spelling(definition: Definition, name: str, written: Mapping[str, Any]) -> str | None:
    """How a metric is called in what came back, which may have `loss` and `test/loss`; None if it is not there."""
    spellings = [spelling for spelling in written if full_name(spelling) == name]
    return next((spelling for spelling in (definition.shown(name), name, *spellings) if spelling in spellings), None)


def _written_metrics(definition: Definition, path: Path) -> dict[str, Any]:
    if definition.is_function and path.exists():
        value = _json(path)
        if not isinstance(value, dict):  # the name of its type
            example = f"{{{definition.shown(definition.metrics[0].name)!r}: 0.5}}"
            raise _wrong(f"{definition.text} returned {'nothing' if value == NONE else value}; expected its metrics, such as {example}")
    return _mapping(path)


def _named(definition: Definition, name: str, written: Mapping[str, Any], out: Path) -> object:
    """A metric as it came back: as the file declares it, else by its full name or another spelling of it."""
    if (spelling := _spelling(definition, name, written)) is not None:
        return written[spelling]
    name = definition.shown(name)
    found = f"found {', '.join(written)}" if written else "found nothing"
    if definition.is_function:
        raise _lacking(f"{definition.text} did not return {name}; {found}{_meant(name.removeprefix(PREFIX), written)}")
    if not (out / METRICS).exists():
        expected = f"expected it in {{out}}, with {name}, or what to read it from under metrics.{name.removeprefix(PREFIX)}.from"
        raise _lacking(f"{METRICS} was not written; {expected}")
    raise _lacking(f"{METRICS} lacks {name}; {found}{_meant(name.removeprefix(PREFIX), written)}")


def _checked(name: str, value: object) -> float:
    """The value of a metric as a number; raises TrainingError if it is none, or none that is finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(f"{name} is {value!r}; expected a number")
    if not math.isfinite(value):
        raise TrainingError("nan", f"{name} is {float(value)}; expected a finite number")
    return float(value)


def _matched(name: str, source: Source, text: str | None) -> float:
    if text is None:
        raise _lacking(f"{name}: nothing that was printed matches '{source.pattern}'; expected a line that does")
    number = number_in(text)
    if number is None:
        raise _wrong(f"{name}: its pattern matched {text!r}; expected a number")
    return _checked(name, number)


def _in_file(name: str, source: Source, definition: Definition, out: Path, before: Mapping[str, State]) -> object:
    """The value at a dotted place in a JSON file that the run has written: into `out` if it was told so, else beside the study."""
    path = (definition.folder if definition.reads_its_folder else out) / source.file
    where = "the study's folder" if definition.reads_its_folder else "{out}"
    if not path.is_file():
        raise _wrong(f"{name}: there is no {source.file} in {where}; expected the run to write it")
    if _state(path) == before.get(source.file):
        raise _wrong(f"{name}: {source.file} is not of this run, which did not write it; expected the run to write it")
    value = _json(path)
    for part in source.at.split("."):
        parts = value if isinstance(value, dict) else dict(_by_place(value)) if isinstance(value, list) else {}
        if part not in parts:
            found = ", ".join(map(str, list(parts)[:20])) or _kind(value)
            raise _wrong(f"{name}: {source.file} has no {part!r} of {source.at}; found {found}{_meant(part, map(str, parts))}")
        value = parts[part]
    return value


def _by_place(values: list[Any]) -> Iterable[tuple[str, Any]]:
    """The places of a list as texts, also from its end: `0`, `1`, `-1`."""
    yield from ((str(i), value) for i, value in enumerate(values))
    yield from ((str(i - len(values)), value) for i, value in enumerate(values))


# --- curves ----------------------------------------------------------------------------------------------------------------------


def curve_row(line: str) -> tuple[int, int | None, dict[str, float]] | None:
    """The step, the time in milliseconds if it is there, and the finite numbers of a line of `curves.jsonl`; None if it is no such line."""
    try:
        row = json.loads(line)
        step, time = int(row.pop("step")), row.pop("time_ms", None)
        values = {str(name): float(value) for name, value in row.items() if not isinstance(value, str | None) and math.isfinite(value)}
        moment = None if time is None else int(time)
        return (step, moment, values) if max(abs(step), abs(moment or 0)) <= MAX_STEP else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


# --- items -----------------------------------------------------------------------------------------------------------------------


def _table(out: Path, names: Iterable[str]) -> "tuple[str, pd.DataFrame] | tuple[str, None]":
    """The first of these files that is there, as a table in which what identifies is text."""
    name = next((name for name in names if (out / name).is_file()), "")
    if not name:
        return "", None
    import pandas as pd

    path = out / name
    try:
        if name.endswith(".csv"):
            return name, pd.read_csv(path, converters=dict.fromkeys(TEXTS, str), keep_default_na=False)  # an item may be called NA
        frame = pd.DataFrame(_json(path)) if name.endswith(".json") else pd.read_parquet(path)
    except (OSError, ValueError, TypeError) as error:  # also those of pyarrow and pandas
        raise _wrong(f"{name} cannot be read: {str(error).splitlines()[0]}") from None
    return name, frame


def _identified(name: str, frame: "pd.DataFrame", columns: Iterable[str]) -> "pd.DataFrame":
    """The table with texts in those of these columns that it has; raises TrainingError for an empty cell or an item that is there twice."""
    for column in [column for column in columns if column in frame]:
        if frame[column].isna().any() or (frame[column].astype(str) == "").any():
            raise _wrong(f"{name} has rows without {column}; expected one in each")
        frame = frame.assign(**{column: frame[column].astype(str).astype(object)})
    if not len(frame):
        raise _wrong(f"{name} has no rows; expected one for each test item")
    if ITEM in frame and not frame[ITEM].is_unique:
        double = frame[ITEM][frame[ITEM].duplicated()].iloc[0]
        raise _wrong(f"{name} has the item {double!r} more than once; expected each once")
    return frame


def _items(definition: Definition, out: Path) -> "pd.DataFrame | None":
    """The scores of items by the full names of their metrics."""
    name, frame = _table(out, [name for name in ITEM_FILES if definition.is_function or name not in OF_FUNCTION])
    if frame is None:
        return None
    name = BY_METHOD.get(name, name) if definition.is_function else name
    if ITEM not in frame:
        raise _wrong(f"{name} has no column {ITEM!r}; found {', '.join(map(str, frame))}{_meant(ITEM, map(str, frame))}")
    frame = _identified(name, frame, (ITEM, CLUSTER)).reset_index(drop=True)
    declared = [metric.name for metric in definition.metrics]
    frame = frame.rename(columns=lambda column: column if column in (ITEM, CLUSTER) else full_name(str(column)))
    scored = [str(column) for column in frame if column not in (ITEM, CLUSTER)]
    if not scored:
        raise _wrong(f"{name} has no scores; expected a column for one of {', '.join(declared)}")
    for metric in scored:
        if scored.count(metric) > 1:
            raise _wrong(f"{name} has two columns for {metric}; expected one")
        if metric not in declared:
            problem = f"{name} has a column {metric!r}, which is no declared metric; expected {', '.join(declared)}"
            raise _wrong(f"{problem}{_meant(metric, declared)}")
        frame[metric] = _scores(name, frame, metric)
    return frame[[ITEM, *scored, *([CLUSTER] if CLUSTER in frame else [])]]


def _scores(name: str, frame: "pd.DataFrame", metric: str) -> "pd.Series[float]":
    import numpy as np
    import pandas as pd

    scores = pd.to_numeric(frame[metric], errors="coerce").astype(float)
    is_finite = np.isfinite(scores.to_numpy())
    if not is_finite.all():
        row = int(is_finite.argmin())
        item, score = frame[ITEM].tolist()[row], frame[metric].tolist()[row]
        raise _wrong(f"{name}: the {metric} of item {item!r} is {score!r}; expected a finite number for each item")
    return scores


def _means_that_differ(items: "pd.DataFrame", metrics: Mapping[str, float]) -> list[str]:
    names = [name for name in metrics if name in items]
    return [
        f"{name}: the mean of the items, {mean:.8g}, is not the metric, {metrics[name]:.8g}, so its items are not bootstrapped{rounded}"
        for name, mean in ((name, float(items[name].mean())) for name in names)
        if not math.isclose(mean, metrics[name], rel_tol=CLOSE, abs_tol=1e-12)
        for rounded in ("; it looks rounded: expected all digits" if _is_rounded(metrics[name], mean) else "",)
    ]


def _is_rounded(value: float, exact: float) -> bool:
    """Whether a value is the exact one with fewer digits."""
    return any(round(exact, digits) == value for digits in range(1, 10))


# --- predictions -----------------------------------------------------------------------------------------------------------------


def _predictions(definition: Definition, out: Path) -> "pd.DataFrame | None":
    """The table of predictions in the order of its items: index, label and predicted as numbers of classes, logits, group, and item."""
    name, frame = _table(out, PREDICTION_FILES)
    if frame is None:
        return None
    name = BY_METHOD.get(name, name) if definition.is_function else name
    import pandas as pd

    if not definition.classes:
        raise _wrong(f"{name} was handed back, and no classes are declared; expected their names under task.classes")
    for column in (LABEL, PREDICTED):
        if column not in frame:
            raise _wrong(f"{name} has no column {column!r}; found {', '.join(map(str, frame))}{_meant(column, map(str, frame))}")
    frame = _identified(name, frame.rename(columns={CLUSTER: GROUP}), (ITEM, GROUP))
    frame = frame.sort_values(ITEM) if ITEM in frame else frame
    frame = frame.reset_index(drop=True)
    _check_numbers(definition, name, {_class_text(value) for column in (LABEL, PREDICTED) for value in frame[column].tolist()})
    classes = {column: _classes(definition, name, column, frame[column].tolist()) for column in (LABEL, PREDICTED)}
    kept = {column: frame[column] for column in (ITEM, GROUP) if column in frame}
    return pd.DataFrame({"index": range(len(frame)), **classes, **_logits(definition, name, frame), **kept})


def _check_numbers(definition: Definition, name: str, values: set[str]) -> None:
    """Raise TrainingError where classes are called by numbers that are not their places, and the values may be either."""
    names, places = {*definition.classes}, {str(i) for i in range(len(definition.classes))}
    if names & places and names != places and values <= names and values <= places:
        example = f"class {definition.classes[0]!r} is the class with the number 0"
        found = f"{name}: found {', '.join(sorted(values)[:5])}, which may be names of classes or their numbers"
        raise _wrong(f"{found} ({example}); expected other names")


def _classes(definition: Definition, name: str, column: str, values: list[Any]) -> list[int]:
    """The numbers of classes that are given by name, or else, if any value is no name, by number."""
    numbers = {text: i for i, text in enumerate(definition.classes)}
    if not {*map(_class_text, values)} <= numbers.keys():
        by_number = {str(i): i for i in range(len(numbers))}
        numbers = by_number if {*map(_class_text, values)} <= by_number.keys() else by_number | numbers
    for value in dict.fromkeys(map(_class_text, values)):
        if value not in numbers:
            known = ", ".join(definition.classes[:20])
            problem = f"{name}: found {value!r} in {column}; expected a class of task.classes ({known}) or its number"
            raise _wrong(f"{problem}{_meant(value, definition.classes)}")
    return [numbers[_class_text(value)] for value in values]


def _class_text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _logits(definition: Definition, name: str, frame: "pd.DataFrame") -> "dict[str, pd.Series[float]]":
    import numpy as np
    import pandas as pd

    columns = [column for column in frame if str(column).startswith(LOGIT)]
    if not columns:
        return {}
    if len(columns) != len(definition.classes):
        raise _wrong(f"{name} has {len(columns)} columns of logits; expected {len(definition.classes)}, one for each class")
    logits = frame[columns].apply(pd.to_numeric, errors="coerce").astype("float32")
    if not np.isfinite(logits.to_numpy()).all():
        raise _wrong(f"{name} has logits that are no finite numbers; expected one for each class and item")
    found = {str(column).removeprefix(LOGIT).strip("/_- "): logits[column] for column in columns}
    numbered = [f"{i}" for i in range(len(columns))]
    order = next((names for names in (numbered, list(definition.classes)) if {*names} == found.keys()), None)
    if order is None:
        expected = f"expected {LOGIT}0 to {LOGIT}{len(columns) - 1}, or names of classes after {LOGIT!r}"
        raise _wrong(f"{name} has the columns {', '.join(map(str, columns[:5]))}; {expected}")
    return {f"{LOGIT}{i}": found[column] for i, column in enumerate(order)}
