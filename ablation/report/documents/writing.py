"""Writes the report as a text, or into a folder with its figures and CSV files."""

import contextlib
import fnmatch
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ablation.errors import ConfigError, unknown_name
from ablation.report import FORMATS
from ablation.report.documents.csv import arms_text, csv_files
from ablation.report.documents.terminal_text import Screen
from ablation.report.frames.asked import known_metric
from ablation.report.frames.facts import lacking_metric
from ablation.report.frames.own import compared_plan, own_code
from ablation.report.frames.recorded import Recorded
from ablation.report.frames.references import References, read
from ablation.report.frames.tables import has_many_runs, tidy_frames
from ablation.report.metrics import MetricTable, metrics_of, short_name
from ablation.report.sections import Content, Shown, made_by, sections
from ablation.report.sections.content import RECORDED
from ablation.report.statistics import best
from ablation.study.written import about_sets
from ablation.system.beside import beside
from ablation.system.paths import user_file, user_folder
from ablation.tracking.messages import first_line

if TYPE_CHECKING:
    from ablation.report.figures import Page

SUFFIXES = {"markdown": "md", "html": "html", "latex": "tex", "csv": "csv", "json": "json", "text": "txt"}

with_plain_texts = pd.option_context("mode.string_storage", "python")  # those of Arrow take longer for every text that is looked at


@with_plain_texts
def write(recorded: Recorded, format_name: str, output: Path | None, options: Shown) -> str:
    """The document's text; with `output`, that folder holds the document, its figures and the CSV files."""
    if format_name not in FORMATS:
        raise unknown_name("--format", "format", format_name, FORMATS)
    if format_name == "text":
        from ablation.report.documents import terminal

        terminal.check_options(options)
        if output is None:  # predictions are not read for it
            return f"{terminal.of_record(recorded, options, Screen()).plain}\n"
    content = gather(recorded, options, _import_figures if output or format_name == "html" else None)
    if options.columns:
        from ablation.report.documents.latex_columns import chosen

        chosen(content)  # raises for an unknown one before anything is drawn
    if output is None:
        return _printed(content, format_name)
    make_folder(output)
    many = has_many_runs(content.frames.runs)
    tables = beside(partial(csv_files, content.frames, content.plan, content.about), worth=many)
    pages = _pages(content)
    # As if all of them could be drawn; HTML has their bytes in it.
    early = beside(partial(_documents, with_figures(content, pages), format_name, output), worth=many and format_name != "html")
    try:
        content = _with_drawn(content, pages, output / "figures")
        documents = _documents(content, format_name, output) if content.options.undrawn else early()
        for name, document in {**tables(), **documents}.items():
            (output / name).write_text(document, encoding="utf-8")
    except OSError as error:
        raise ConfigError("--output", f"cannot write {error.filename or output} ({error.strerror}); expected files that can be") from None
    return next(iter(documents.values()))


def _documents(content: Content, format_name: str, output: Path) -> dict[str, str]:
    """File name -> its text, of the document in that folder with its figures."""
    images = _bytes(output, content) if format_name == "html" else {}
    return {name: text(part, format_name, images) for name, part in _files(content, format_name)}


def _files(content: Content, format_name: str) -> Iterator[tuple[str, Content]]:
    """The files of the document in a folder, and what each is made of: one, but for LaTeX, whose numbers have their own."""
    if format_name != "latex":
        yield f"report.{SUFFIXES[format_name]}", content
        return
    from ablation.report.documents import latex

    for name, part in latex.FILES.items():
        yield name, replace(content, options=replace(content.options, part=part))


def _printed(content: Content, format_name: str) -> str:
    """The text alone; only an HTML page contains its figures."""
    if format_name != "html":
        return text(content, format_name, {})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "figures").mkdir()
        pages = [replace(page, column=None) for page in _pages(content) if page.is_shown]
        content = _with_drawn(content, pages, Path(folder) / "figures")
        return text(content, format_name, _bytes(Path(folder), content))


def text(content: Content, format_name: str, images: Mapping[str, bytes]) -> str:
    """The document in one of FORMATS; `images` has the figures' bytes by their paths in the document."""
    if format_name == "markdown":
        from ablation.report.documents import markdown

        return markdown.render(content, sections(content))
    if format_name == "html":
        from ablation.report.documents import html

        return f"<!-- {made_by(content)} -->\n{html.page(content, sections(content), images)}"
    if format_name == "latex":
        from ablation.report.documents import latex

        return f"% {made_by(content)}\n{latex.document(content)}"
    if format_name == "text":
        from ablation.report.documents import terminal

        return f"{terminal.of_content(content, Screen()).plain}\n"
    if format_name == "csv":
        return arms_text(content.frames, content.about)
    from ablation.report.documents import json

    return json.document(content)


# --- what is asked for ---------------------------------------------------------------------------------------------------------


def gather(recorded: Recorded, options: Shown, meanwhile: Callable[[], None] | None = None) -> Content:
    """The content of the document: the arms that match the globs, in the chosen order, with differences of the chosen metric.

    `meanwhile` is done here while other processes compute.
    """
    plan, metrics = compared_plan(recorded.plan, recorded.runs), metrics_of(recorded.plan)
    references = (
        read(user_file(options.reference, "--reference", "a CSV file of published figures"), plan) if options.reference else References()
    )
    metric = known_metric("--metric", options.metric, plan, recorded.runs)
    by = [] if options.sort in ("", "arm") else [known_metric("--sort", options.sort, plan, recorded.runs)]
    names = tuple(dict.fromkeys([*metrics.full_names, metric, *by]))
    frames = tidy_frames(recorded, chosen_arms(plan, options.arms), names, references, metric, meanwhile)
    options = replace(options, sort=short_name(by[0]) if by else options.sort)
    frames = replace(frames, arms=in_order(frames.arms, options.sort, metrics, frames.runs))
    provenance = recorded.runs.reindex(columns=["run_id", *RECORDED]).astype({"run_id": str})
    own = own_code(plan, recorded.runs, frames.runs, list(frames.arms["arm"]))
    notes = dict.fromkeys([*options.notes, about_sets(plan), *lacking_metric(plan, frames.runs, metric, metrics.words(metric))])
    options = replace(options, metric=metric, notes=tuple(filter(None, notes)))
    return Content(recorded.study, plan, recorded.superseded, frames, metric, references, {}, options, provenance, own)


def in_order(arms: pd.DataFrame, column: str, metrics: MetricTable, runs: pd.DataFrame) -> pd.DataFrame:
    """The arms in the order of the file, by name, or the best of a metric first.

    Complete arms that can be ranked, by their labels, are so by their means over the seeds that all of them have; then come the others by
    their own means, which are of other seeds or too good, and last those without a number.
    """
    if not column:
        return arms
    if column == "arm":
        return arms.sort_values("arm", kind="stable", ignore_index=True)
    name = short_name(column)
    rivals = best.complete_values(runs, best.rankable(arms), metrics.full_name(name))
    seeds = best.shared_seeds(rivals)
    means = {arm: best.mean_over(by_seed, seeds) for arm, by_seed in rivals.items()} if seeds else {}
    keys = pd.DataFrame({"is_other": ~arms["arm"].isin(means), "mean": arms["arm"].map(means).fillna(arms[f"{name}_mean"])})
    keys["is_unknown"], keys["mean"] = keys["mean"].isna(), keys["mean"] if metrics.is_lower_better(name) else -keys["mean"]
    return arms.loc[keys.sort_values(["is_unknown", "is_other", "mean"], kind="stable").index].reset_index(drop=True)


def chosen_arms(plan: Mapping[str, Any], globs: Sequence[str]) -> list[str]:
    """The arms that match any of the globs; all arms if there is no glob."""
    names = [arm["name"] for arm in plan["arms"]]
    for glob in globs:
        if not any(fnmatch.fnmatchcase(name, glob) for name in names):
            raise unknown_name("--arm", "arm", glob, names)
    return [name for name in names if not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)]


# --- figures and folders ---------------------------------------------------------------------------------------------------------


def make_folder(output: Path) -> None:
    """Make the folder and its `figures`; raises ConfigError if that fails."""
    user_folder(output, "--output")
    try:
        (output / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            "--output", f"cannot make the folder {output} ({error.strerror}); expected a folder that can be written"
        ) from None


def _import_figures() -> None:
    """Matplotlib takes a while; whether it works is told by who draws."""
    with contextlib.suppress(Exception):
        import ablation.report.figures  # noqa: F401


def pages_of(content: Content) -> "list[Page]":
    """The pages of figures to draw."""
    from ablation.report import figures

    return figures.pages(content.frames, content.plan, content.metric)


def with_figures(content: Content, pages: "Sequence[Page]") -> Content:
    """The content with links to those of these pages that documents show, drawn or not."""
    links: dict[str, list[tuple[str, str]]] = {}
    for page in (page for page in pages if page.is_shown):
        links.setdefault(page.what, []).append((f"figures/{page.name}.png", page.alt))
    return replace(content, figures=links)


def _pages(content: Content) -> "list[Page]":
    """The pages of figures to draw; without a matplotlib that works there are none."""
    try:
        return pages_of(content)
    except Exception as error:  # numbers are shown without figures
        print(f"no figure could be drawn, and the report goes without ({first_line(error)})", file=sys.stderr)
        return []


def _with_drawn(content: Content, pages: "Sequence[Page]", folder: Path) -> Content:
    """The content with the pages that could be written into that folder."""
    if not pages:
        return content
    from ablation.report import figures

    drawn = figures.write(pages, folder)
    names = {page.name for page in drawn}
    undrawn = tuple(page.name for page in pages if page.name not in names)
    return with_figures(replace(content, options=replace(content.options, undrawn=undrawn)), drawn)


def _bytes(folder: Path, content: Content) -> dict[str, bytes]:
    """path -> bytes of the figures that the document names, as PNG and as SVG."""
    paths = [path for pages in content.figures.values() for path, _ in pages]
    return {name: (folder / name).read_bytes() for path in paths for name in (path, path.removesuffix("png") + "svg")}
