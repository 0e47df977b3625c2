"""The report as a text, and as a folder with figures and CSV files beside it."""

import fnmatch
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from ablation.errors import ConfigError, unknown_name
from ablation.report import FORMATS
from ablation.report.markdown import Content, document
from ablation.report.metrics import short_name
from ablation.report.references import References, read
from ablation.report.tables import METRICS, Frames, Recorded, frames, train_counts


def write(recorded: Recorded, format_name: str, output: Path | None, metric: str, arms: Sequence[str], *, references: Path | None) -> str:
    """The document's text; with `output`, that folder holds the document, its figures and the CSV files."""
    if format_name not in FORMATS:
        raise unknown_name("--format", "format", format_name, FORMATS)
    content = gather(recorded, metric, arms, references)
    if output is None:
        return text(content, format_name)
    make_folder(output)
    content = replace(content, figures=draw(content, output))
    for name, body in csv_files(content.frames, content.plan).items():
        (output / name).write_text(body, encoding="utf-8")
    if format_name != "csv":
        (output / f"report.{'md' if format_name == 'markdown' else format_name}").write_text(text(content, format_name), encoding="utf-8")
    return text(content, format_name)


def gather(recorded: Recorded, metric: str, arms: Sequence[str], references: Path | None) -> Content:
    """What the document is made of: the arms that the globs choose, with differences of that metric."""
    found = read(references, recorded.plan) if references else References()
    chosen = known_metric(metric, recorded.runs)
    shown = chosen_arms(recorded.plan, arms)
    tidy = frames(recorded, shown, tuple(dict.fromkeys([*METRICS, chosen])), found)
    return Content(recorded.study, recorded.plan, recorded.superseded, tidy, chosen, found)


def text(content: Content, format_name: str) -> str:
    """The document in one of FORMATS."""
    if format_name == "markdown":
        return document(content)
    if format_name == "csv":
        return content.frames.arms.to_csv(index=False)
    return as_json(content)


def known_metric(metric: str, runs: pd.DataFrame) -> str:
    """The metric's name in the store, whether it was given with `test/` or without."""
    known = dict.fromkeys([*METRICS, *(str(column) for column in runs.columns if str(column).startswith("test/"))])
    full = f"test/{short_name(metric)}"
    if full not in known:
        raise unknown_name("--metric", "metric", metric, known)
    return full


def chosen_arms(plan: Mapping[str, Any], globs: Sequence[str]) -> list[str]:
    """The arms that any of the globs matches; all of them where there is no glob."""
    names = [arm["name"] for arm in plan["arms"]]
    for glob in globs:
        if not fnmatch.filter(names, glob):
            raise unknown_name("--arm", "arm", glob, names)
    return [name for name in names if not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)]


def make_folder(output: Path) -> None:
    """The folder and its `figures`, or one sentence that says why not."""
    try:
        (output / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            "--output", f"cannot make the folder {output} ({error.strerror}); expected a folder that can be written"
        ) from None


def draw(content: Content, output: Path) -> dict[str, list[str]]:
    """The figures drawn into the folder, as links from the document."""
    from ablation.report import figures

    plan, folder = content.plan, output / "figures"
    counts = {f"train (seed {plan['seeds'][0]})": train_counts(plan), "test": plan["test_counts"]}
    drawn = {
        "classes": [figures.class_distribution_png(counts, plan["classes"], folder / "classes.png")],
        "confusion": figures.confusion_pages(content.frames.confusion, plan["classes"], folder),
        "curves": figures.curve_pages(content.frames.curves, folder),
    }
    return {what: [path.relative_to(output).as_posix() for path in paths] for what, paths in drawn.items()}


def csv_files(tidy: Frames, plan: Mapping[str, Any]) -> dict[str, str]:
    """File name -> its text: the arms, the runs, the per-class figures and the confusion counts."""
    classes = list(plan["classes"])
    cells = [
        pd.DataFrame(
            {
                "arm": arm,
                "true": [name for name in classes for _ in classes],
                "predicted": classes * len(classes),
                "count": counts_CC.ravel(),
            }
        )
        for arm, counts_CC in tidy.confusion.items()
    ]
    confusion = pd.concat(cells) if cells else pd.DataFrame(columns=["arm", "true", "predicted", "count"])
    tables = {"report.csv": tidy.arms, "runs.csv": tidy.runs, "per_class.csv": tidy.per_class, "confusion.csv": confusion}
    return {name: table.to_csv(index=False) for name, table in tables.items()}


def as_json(content: Content) -> str:
    """Everything as one JSON object: fractions (NLL: nats) with all their digits, differences too, and null where there is no number."""
    tidy = content.frames
    whole = {
        "study": content.study,
        "metric": content.metric,
        "plan": {name: value for name, value in content.plan.items() if name != "runs"},
        "arms": _fractions(tidy.arms),
        "runs": _fractions(tidy.runs),
        "per_class": _fractions(tidy.per_class),
        "averages": _fractions(tidy.averages),
        "confusion": {arm: counts_CC.tolist() for arm, counts_CC in tidy.confusion.items()},
        "curves": _fractions(tidy.curves),
        "unmatched": list(content.references.unmatched),
        "superseded": list(content.superseded),
    }
    return json.dumps(_without_nan(whole), indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _fractions(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The frame's rows, points turned into fractions."""
    points = [column for column in frame.columns if column.endswith("_points")]
    turned = frame.assign(**{column: frame[column] / 100 for column in points})
    rows = turned.rename(columns={column: column.removesuffix("_points") for column in points}).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    if value is pd.NaT or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
