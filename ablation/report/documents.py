"""The report as a text, and as a folder with figures and CSV files beside it."""

import fnmatch
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablation.errors import ConfigError, unknown_name
from ablation.report import FORMATS
from ablation.report.metrics import FRACTION, is_lower_better, short_name, unit
from ablation.report.references import References, read
from ablation.report.sections import Content, Shown, made_by, sections
from ablation.report.sections.content import RECORDED
from ablation.report.tables import METRICS, Frames, Recorded, frames

if TYPE_CHECKING:
    from ablation.report.figures import Page

SUFFIXES = {"markdown": "md", "html": "html", "latex": "tex", "csv": "csv", "json": "json"}
WITH_FIGURES = ("markdown", "html")  # the forms that show them
VOLATILE = ("runs", "stages", "created", "command", "file", "provenance")  # of the plan: what another run of the same study changes
# frame -> the columns that are differences in points, or in nats where the row's metric is
DIFFERENCES = {
    "differences": ("mean", "sd", "low", "high"),
    "class_differences": ("mean", "sd", "low", "high"),
    "image_differences": ("mean", "low", "high"),
    "attribution": ("mean", "sd", "low", "high"),
    "effects": ("mean", "sd", "low", "high"),
    "conditions": ("difference", "difference_sd", "low", "high"),
}
WHOLE = ("mcnemar", "calibration")  # frames that hold no differences


def write(recorded: Recorded, format_name: str, output: Path | None, asked: Shown) -> str:
    """The document's text; with `output`, that folder holds the document, its figures and the CSV files."""
    if format_name not in FORMATS:
        raise unknown_name("--format", "format", format_name, FORMATS)
    content = gather(recorded, asked)
    if output is None:
        return _printed(content, format_name)
    make_folder(output)
    pages = pages_of(content)
    _draw(pages, output / "figures")
    content = with_figures(content, pages)
    for name, body in csv_files(content.frames, content.plan).items():
        (output / name).write_text(body, encoding="utf-8")
    told = text(content, format_name, _bytes(output, content))
    (output / f"report.{SUFFIXES[format_name]}").write_text(told, encoding="utf-8")
    return told


def _printed(content: Content, format_name: str) -> str:
    """The text alone; only a page of HTML holds its figures itself."""
    if format_name != "html":
        return text(content, format_name, {})
    with tempfile.TemporaryDirectory() as folder:
        pages = pages_of(content)
        (Path(folder) / "figures").mkdir()
        _draw(pages, Path(folder) / "figures")
        content = with_figures(content, pages)
        return text(content, format_name, _bytes(Path(folder), content))


def gather(recorded: Recorded, asked: Shown) -> Content:
    """What the document is made of: the arms that the globs choose, in the order asked for, with differences of that metric."""
    plan = recorded.plan
    found = read(Path(asked.reference), plan) if asked.reference else References()
    chosen = known_metric("--metric", asked.metric, recorded.runs)
    by = [] if asked.sort in ("", "arm") else [known_metric("--sort", asked.sort, recorded.runs)]
    names = tuple(dict.fromkeys([*METRICS, chosen, *by]))
    tidy = frames(recorded, chosen_arms(plan, asked.arms), names, found, chosen)
    tidy = replace(tidy, arms=in_order(tidy.arms, asked.sort))
    about = recorded.runs.reindex(columns=["run_id", *RECORDED]).astype({"run_id": str})
    return Content(recorded.study, plan, recorded.superseded, tidy, chosen, found, {}, replace(asked, metric=chosen), about)


def text(content: Content, format_name: str, images: Mapping[str, bytes]) -> str:
    """The document in one of FORMATS; `images` has the figures' bytes by the paths that the document names."""
    if format_name == "markdown":
        from ablation.report import markdown

        return markdown.render(content, sections(content))
    if format_name == "html":
        from ablation.report import html

        return f"<!-- {made_by(content)} -->\n{html.page(content, sections(content), images)}"
    if format_name == "latex":
        from ablation.report import latex

        return f"% {made_by(content)}\n{latex.document(content)}"
    if format_name == "csv":
        return content.frames.arms.to_csv(index=False)
    return as_json(content)


def known_metric(option: str, metric: str, runs: pd.DataFrame) -> str:
    """The metric's name in the store, whether it was given with `test/` or without."""
    known = dict.fromkeys([*METRICS, *(str(column) for column in runs.columns if str(column).startswith("test/"))])
    full = f"test/{short_name(metric)}"
    if full not in known:
        raise _unknown_metric(option, metric, [short_name(name) for name in known])
    return full


def _unknown_metric(option: str, metric: str, known: Sequence[str]) -> ConfigError:
    """Names the few metrics that every study has, not those of each class."""
    main = [*map(short_name, METRICS), *(["arm"] if option == "--sort" else [])]
    others = [name for name in known if name not in main]
    hint = unknown_name("", "metric", short_name(metric), [*main, *others]).problem.partition("Did you mean")[2]
    near = f" Did you mean{hint}" if hint else ""
    return ConfigError(
        option, f"unknown metric {metric!r}; expected one of {', '.join(main)}, or recall/CLASS, precision/CLASS, f1/CLASS.{near}"
    )


def in_order(arms: pd.DataFrame, column: str) -> pd.DataFrame:
    """The arms as the file has them, by name, or the best of a metric first; those without a number come last."""
    if not column:
        return arms
    if column == "arm":
        return arms.sort_values("arm", kind="stable", ignore_index=True)
    name = short_name(column)
    return arms.sort_values(f"{name}_mean", ascending=is_lower_better(name), kind="stable", na_position="last", ignore_index=True)


def chosen_arms(plan: Mapping[str, Any], globs: Sequence[str]) -> list[str]:
    """The arms that any of the globs matches; all of them where there is no glob."""
    names = [arm["name"] for arm in plan["arms"]]
    for glob in globs:
        if not any(fnmatch.fnmatchcase(name, glob) for name in names):
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


def pages_of(content: Content) -> "list[Page]":
    """The pages of figures that there are to draw."""
    from ablation.report import figures

    return figures.pages(content.frames, content.plan, content.metric)


def with_figures(content: Content, pages: "Sequence[Page]") -> Content:
    """The content with links to these pages, drawn or not."""
    links: dict[str, list[tuple[str, str]]] = {}
    for page in pages:
        links.setdefault(page.what, []).append((f"figures/{page.name}.png", page.alt))
    return replace(content, figures=links)


def _draw(pages: "Sequence[Page]", folder: Path) -> None:
    """The pages' files, in that folder."""
    from ablation.report import figures

    figures.write(pages, folder)


def _bytes(folder: Path, content: Content) -> dict[str, bytes]:
    """path -> bytes of the figures that the document names, and of the same as SVG."""
    paths = [path for pages in content.figures.values() for path, _ in pages]
    return {name: (folder / name).read_bytes() for path in paths for name in (path, path.removesuffix("png") + "svg")}


def csv_files(tidy: Frames, plan: Mapping[str, Any]) -> dict[str, str]:
    """File name -> its text: a file per frame, `report.csv` being the one with a row per arm."""
    tables = {"report": tidy.arms, "runs": tidy.runs, "per_class": tidy.per_class}
    tables |= {name: getattr(tidy, name) for name in (*DIFFERENCES, *WHOLE)}
    texts = {f"{name}.csv": table.to_csv(index=False) for name, table in tables.items()}
    return texts | {"confusion.csv": _confusion_text(tidy.confusion, list(plan["classes"]))}


def _confusion_text(confusion: Mapping[str, npt.NDArray[np.int64]], classes: Sequence[str]) -> str:
    """A line per arm, true and predicted class; made arm by arm, since a thousand classes make a million lines of each."""
    names_C = np.array(classes, dtype=object)
    true, predicted = np.repeat(names_C, len(classes)), np.tile(names_C, len(classes))
    texts = [pd.DataFrame(columns=["arm", "true", "predicted", "count"]).to_csv(index=False)]
    for arm, counts_CC in confusion.items():
        cells = pd.DataFrame({"arm": arm, "true": true, "predicted": predicted, "count": counts_CC.ravel()})
        texts.append(cells.to_csv(index=False, header=False))
    return "".join(texts)


def as_json(content: Content) -> str:
    """Everything as one JSON object: fractions (NLL: nats) with all their digits, differences too, and null where there is no number."""
    tidy, plan = content.frames, content.plan
    whole = {
        "made_by": json.loads(made_by(content).partition("report ")[2]),
        "study": content.study,
        "metric": content.metric,
        "plan": {name: value for name, value in plan.items() if name not in VOLATILE},
        "arms": _fractions(tidy.arms),
        "runs": _fractions(tidy.runs),
        "per_class": _fractions(tidy.per_class),
        "averages": _fractions(tidy.averages),
        **{name: _rows(_as_fractions(getattr(tidy, name), columns)) for name, columns in DIFFERENCES.items()},
        **{name: _rows(getattr(tidy, name)) for name in WHOLE},
        "confusion": {arm: counts_CC.tolist() for arm, counts_CC in tidy.confusion.items()},
        "curves": _fractions(tidy.curves),
        "unmatched": list(content.references.unmatched),
        "superseded": list(content.superseded),
        "provenance": {name: plan.get(name) for name in VOLATILE if name not in ("runs", "stages")},
    }
    return "{\n" + ",\n".join(f"{_dumped(name)}: {_laid_out(value)}" for name, value in _without_nan(whole).items()) + "\n}\n"


def _laid_out(value: Any) -> str:
    """A table with a line per row, so that it is short and its changes can be read; anything else on one line."""
    is_table = isinstance(value, list) and value and isinstance(value[0], dict)
    return "[\n" + ",\n".join(map(_dumped, value)) + "\n]" if is_table else _dumped(value)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)


def _fractions(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The frame's rows, points turned into fractions."""
    points = [column for column in frame.columns if column.endswith("_points")]
    turned = frame.assign(**{column: frame[column] / 100 for column in points})
    return _rows(turned.rename(columns={column: column.removesuffix("_points") for column in points}))


def _as_fractions(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The same for a frame whose columns hold points unless the row's metric is told in nats."""
    names = frame["metric"] if "metric" in frame else pd.Series("recall", index=frame.index)
    scale = names.map(lambda name: 0.01 if unit(str(name)) is FRACTION else 1.0).astype(float)
    return frame.assign(**{column: frame[column].astype(float) * scale for column in columns})


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    if value is pd.NaT or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
