"""A study in one zip, without weights: how it is written, and how the report reads it."""

import contextlib
import io
import json
import math
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import pandas as pd

from ablation.errors import AblateError, StoreError
from ablation.report.frames.classes import CONFUSION
from ablation.report.frames.facts import CLASSIFIED, NOTHING, Needs, lacks_items, planned_facts
from ablation.report.frames.recorded import Packable
from ablation.study.metrics import has_own_code
from ablation.system.files import part_of

if TYPE_CHECKING:
    from ablation.tracking.recorded import Recorded as StoredStudy

FORMAT = 1
WHAT = "a study that ablate packed"
STUDY, CURVES, WRITTEN = "study.json", "curves.parquet", "experiments.yaml"  # the members that belong to no run
PREDICTIONS = "predictions.parquet"
PREDICTED: Needs = frozenset({"classes", "predictions"})
# a finished run's files -> the facts that a study needs for its runs to have them
KEPT: Mapping[str, Needs] = {
    PREDICTIONS: PREDICTED,
    "config.yaml": NOTHING,
    "classification_report.txt": PREDICTED,
    CONFUSION: CLASSIFIED,
    "class_distribution.csv": frozenset({"classes", "counts"}),
}
ITEMS = "items.parquet"
LOG = "log.txt"
OF_ITEMS = (ITEMS, PREDICTIONS)
OPTIONAL = (*OF_ITEMS, LOG)  # files that a run of one's own training code may have
ERROR = "error.txt"  # of a run that failed because of a bug
PLAN_WORDS = ("study", "seeds", "arms", "runs")
RUN_WORDS = ("arm", "seed", "status", "key", "run_id", "start", "end", "reason", "chosen")
CURVE_COLUMNS = ["run_id", "metric", "step", "value", "time"]
EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of all members, so that the same store gives the same bytes
# Limits against zips that would fill the memory; members of packed studies stay far below them.
MOST_BYTES, MOST_TIMES, MOST_NUMBERS, FREE_BYTES = 2**31, 200, 5 * 10**8, 2**24


class DamagedError(StoreError):
    """A zip, or a member of one, that cannot be read."""


def write(recorded: Packable, points: pd.DataFrame, written: bytes, target: Path, *, predictions: bool = True) -> None:
    """Write the study into the zip `target`, in one step; `points` are all of its curves', and `written` is the study's file.

    Without `predictions`, and scores, of single items the plan in it says so, and the report leaves out what is made of them. Raises
    StoreError if the record lacks a file of a run, and AblateError if another file would be lost.
    """
    _check_replaceable(target, recorded.study)
    plan = recorded.plan if predictions else {**recorded.plan, "predictions": False}
    beside = part_of(target)
    try:
        with ZipFile(beside, "w", ZIP_DEFLATED) as archive:
            for name, content in sorted(_members(recorded, points, plan, written)):
                archive.writestr(_entry(name), content if isinstance(content, bytes) else content.read_bytes())
        beside.replace(target)
    except OSError as error:
        raise AblateError(f"{target} cannot be written ({error.strerror}); expected a place in a folder that can be written") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _check_replaceable(target: Path, study: str) -> None:
    """Raise AblateError if there is a file already that is no zip of this study."""
    with contextlib.suppress(StoreError):
        if not target.is_file() or read(target).study == study:
            return
    raise AblateError(f"{target} is there already, and is no packed study {study}; expected another name, or an earlier zip of the study")


def _entry(name: str) -> ZipInfo:
    entry = ZipInfo(name, EPOCH)
    entry.compress_type, entry.create_system, entry.external_attr = ZIP_DEFLATED, 3, 0o644 << 16
    return entry


def _members(recorded: Packable, points: pd.DataFrame, plan: Mapping[str, Any], written: bytes) -> Iterator[tuple[str, bytes | Path]]:
    """Every member's name, with its bytes or the file that holds them."""
    description = {"format": FORMAT, "what": WHAT, "study": recorded.study, "plan": plan}
    description |= {"runs": _as_data(recorded.runs), "superseded": list(recorded.superseded)}
    yield STUDY, json.dumps(description, indent=1, allow_nan=False, ensure_ascii=False).encode()
    yield CURVES, points.to_parquet(index=False)
    yield WRITTEN, written
    for row in recorded.runs.to_dict("records"):
        for name, path in _files(recorded, plan, row).items():
            yield f"runs/{row['run_id']}/{name}", path


def stored_points(recorded: "StoredStudy") -> pd.DataFrame:
    """Every point of every curve of a study in a store: run_id, metric, step, value, time."""
    points_of = recorded.points if has_own_code(recorded.plan) else recorded.store.curves
    rows = [(run_id, point.name, point.step, point.value, point.time) for run_id in recorded.runs["run_id"] for point in points_of(run_id)]
    return pd.DataFrame(rows, columns=CURVE_COLUMNS).astype({"step": "int64", "value": "float64", "time": "int64"})


def _files(recorded: Packable, plan: Mapping[str, Any], row: Mapping[Any, Any]) -> dict[str, Path]:
    """A run's artifacts by name: those of KEPT if it is finished, otherwise the error, if there is one."""
    run_id = str(row["run_id"])
    if row["status"] != "FINISHED":
        return _there(recorded, run_id, [ERROR])
    facts = planned_facts(plan)
    kept = [name for name, needs in KEPT.items() if needs <= facts and not (needs and has_own_code(recorded.plan))]
    try:
        first = recorded.artifact(run_id, kept[0])
        beside = {name: first.parent / name for name in kept}  # one request to the store per run, if its artifacts are a folder
        files = {name: path if path.exists() else recorded.artifact(run_id, name) for name, path in beside.items()}
        return files | _optional(recorded, plan, run_id)
    except StoreError as error:
        raise StoreError(f"{row['arm']} seed {row['seed']} cannot be packed: {error}") from None


def _optional(recorded: Packable, plan: Mapping[str, Any], run_id: str) -> dict[str, Path]:
    """What one's own training code may have handed back of a run."""
    names = (LOG, *(() if lacks_items(plan) else OF_ITEMS)) if has_own_code(plan) else ()
    return _there(recorded, run_id, names)


def _there(recorded: Packable, run_id: str, names: Sequence[str]) -> dict[str, Path]:
    """Those of the run's files that it has."""
    found = {}
    for name in names:
        try:
            found[name] = recorded.artifact(run_id, name)
        except DamagedError:
            raise
        except StoreError:
            continue
    return found


def _as_data(runs: pd.DataFrame) -> dict[str, Any]:
    """The frame as plain data: each column's values and type, with null for NaN."""
    return {
        "types": {name: str(column.dtype) for name, column in runs.items()},
        "values": {name: [_plain(value) for value in column.tolist()] for name, column in runs.items()},
        "order": list(runs.columns),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _as_frame(data: Mapping[str, Any]) -> pd.DataFrame:
    """The frame that `_as_data` wrote."""
    columns = {}
    for name in data["order"]:
        values, kind = data["values"][name], data["types"][name]
        numbers = [float("nan") if value is None else float(value) for value in values] if kind == "float64" else values
        columns[name] = pd.Series(numbers, dtype=kind if kind in ("float64", "int64") else "object").infer_objects()
    return pd.DataFrame(columns)


# --- reading -----------------------------------------------------------------------------------------------------------------


def read(path: Path) -> "Packed":
    """The study in a zip; raises StoreError if it is missing, damaged, no packed study, or of a newer version."""
    archive = _Archive(path)
    description = archive.description()
    runs = _checked(path, description)
    return Packed(description["study"], description["plan"], runs, list(description["superseded"]), archive)


def _checked(path: Path, description: Any) -> pd.DataFrame:
    """The runs in a zip's description, once it is checked that the report can read it."""
    if not isinstance(description, dict) or description.get("what") != WHAT:
        raise _foreign(path)
    if description.get("format") != FORMAT:
        problem = f"found the packed study {path} in format {description.get('format')!r}; expected {FORMAT}"
        raise StoreError(f"{problem}: a newer ablate wrote it, and reads it")
    try:
        plan = description["plan"]
        lacking = [word for word in PLAN_WORDS if word not in plan]
        runs = _as_frame(description["runs"])
        lacking += [word for word in RUN_WORDS if word not in runs]
        for part, words in (("arms", ("name", "parent", "labels")), ("runs", ("arm", "seed", "key"))):
            lacking += dict.fromkeys(word for entry in plan.get(part, ()) for word in words if word not in entry)
        lacking += [word for word in ("study", "superseded") if word not in description]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StoreError(f"{path} cannot be read as a packed study: its table of runs is damaged") from None
    if lacking:
        raise StoreError(f"{path} cannot be read as a packed study: it has no {', '.join(lacking)}")
    return runs


def _foreign(path: Path) -> StoreError:
    return StoreError(f"{path} is no packed study; expected a zip that ablate pack wrote")


class _Archive:
    """A zip. Only members with known names are read, and none that is larger than a packed study's can be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._one_sentence():
            self._zip = ZipFile(path)

    def description(self) -> Any:
        """Its description of the study."""
        try:
            return json.loads(self.bytes_of(STUDY))
        except KeyError:
            raise _foreign(self.path) from None
        except (ValueError, RecursionError):
            raise self._damaged(STUDY) from None

    def bytes_of(self, name: str) -> bytes:
        """A member's bytes; raises KeyError if there is none of that name."""
        entry = self._zip.getinfo(name)
        self._check(entry)
        with self._one_sentence():
            return self._zip.read(entry)

    def table(self, name: str) -> pd.DataFrame:
        """A member that is a parquet table; raises KeyError if there is none of that name."""
        import pyarrow
        from pyarrow import parquet

        content = self.bytes_of(name)
        try:
            whole = parquet.ParquetFile(io.BytesIO(content))
            groups = [whole.metadata.row_group(i) for i in range(whole.metadata.num_row_groups)]
            if sum(group.column(i).num_values for group in groups for i in range(group.num_columns)) > MOST_NUMBERS:
                raise self._too_large(name)
            table: pd.DataFrame = whole.read().to_pandas()
        except (pyarrow.ArrowException, OSError, ValueError):
            raise self._damaged(name) from None
        return table

    @contextlib.contextmanager
    def _one_sentence(self) -> Iterator[None]:
        """Turn the exceptions of zipfile into a StoreError of one sentence."""
        try:
            yield
        except FileNotFoundError:
            raise StoreError(f"there is no file {self.path}; expected a zip that ablate pack wrote") from None
        except (BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise self._damaged(problem or type(error).__name__, "") from None

    def _damaged(self, what: str, how: str = " is damaged") -> DamagedError:
        return DamagedError(f"{self.path} cannot be read as a packed study: {what}{how}")

    def _check(self, entry: ZipInfo) -> None:
        if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise self._damaged(entry.filename, " is compressed in another way than ours")
        if entry.file_size > min(MOST_BYTES, max(FREE_BYTES, MOST_TIMES * entry.compress_size)):
            raise self._too_large(entry.filename)

    def _too_large(self, name: str) -> StoreError:
        return StoreError(f"{self.path} is not read: {name} would take far more memory than a study's does")


@dataclass(frozen=True, eq=False)
class Packed:
    """A study in a zip, as the report reads one in a store; the files of its runs are read on demand."""

    study: str
    plan: Mapping[str, Any]
    runs: pd.DataFrame
    superseded: Sequence[str]
    archive: _Archive = field(repr=False)

    @property
    def written(self) -> bytes:
        """The study's file."""
        try:
            return self.archive.bytes_of(WRITTEN)
        except KeyError:
            raise self._lacks(WRITTEN) from None

    def predictions(self, run_id: str) -> pd.DataFrame:
        """The run's predictions: index, label, predicted, logits."""
        table: pd.DataFrame = self._of_run(run_id, PREDICTIONS, self.archive.table)
        return table

    def items(self, run_id: str) -> pd.DataFrame | None:
        """The run's scores per item; None if none were packed."""
        try:
            name = f"runs/{run_id}/{ITEMS}"
            return self.archive.table(name) if run_id in set(self.runs["run_id"]) else None
        except KeyError:
            return None

    def curves(self, run_ids: Sequence[str]) -> pd.DataFrame:
        """Every point of every curve of these runs: run_id, metric, step, value."""
        return self.points(run_ids)[CURVE_COLUMNS[:-1]]

    def all_points(self) -> pd.DataFrame:
        """Every point of every run's curves with its time."""
        return self.points(list(self.runs["run_id"]))

    def points(self, run_ids: Sequence[str]) -> pd.DataFrame:
        """These points with their times, in milliseconds."""
        try:
            table = self.archive.table(CURVES)
        except KeyError:
            raise self._lacks(CURVES) from None
        if not set(CURVE_COLUMNS) <= set(table.columns):
            raise StoreError(f"{self.archive.path} cannot be read as a packed study: {CURVES} lacks a column")
        known = dict(iter(table.groupby("run_id", sort=False)))
        wanted = [known[run_id] for run_id in run_ids if run_id in known]
        return pd.concat(wanted, ignore_index=True)[CURVE_COLUMNS] if wanted else pd.DataFrame(columns=CURVE_COLUMNS)

    def artifact(self, run_id: str, name: str) -> Path:
        """A file of a run, in a folder that is deleted with this object; raises StoreError if it was not packed."""
        content = self._of_run(run_id, name, self.archive.bytes_of)
        folder = Path(tempfile.mkdtemp(prefix="ablate-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        path = folder / name
        path.write_bytes(content)
        return path

    def _of_run(self, run_id: str, name: str, reader: Any) -> Any:
        if name not in (*KEPT, *OPTIONAL, ERROR) or run_id not in set(self.runs["run_id"]):
            raise self._lacks(f"{name} of the run {run_id}")
        try:
            return reader(f"runs/{run_id}/{name}")
        except KeyError:
            raise self._lacks(f"{name} of the run {run_id}") from None

    def _lacks(self, what: str) -> StoreError:
        return StoreError(f"the packed study {self.archive.path} has no {what}")
