"""Checks whether a document still agrees with the store."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.errors import ConfigError
from ablation.report.documents import writing
from ablation.report.documents.csv import csv_files
from ablation.report.frames.recorded import Recorded
from ablation.report.sections import Content, Shown
from ablation.report.sections.content import EDITION, MADE_BY
from ablation.tracking.messages import first_line

OPTION = "--check"
PLAIN = {".csv": "csv", ".txt": "text"}  # suffix -> the form, of those that do not say how they were made
MOST_LINES = 40
EXPECTED = "expected a report that ablate report wrote"
# what changes if `ablate run` runs again without training anything: by which command, and when, it was planned; and pictures, which are not
# drawn again
VOLATILE = (
    r"^(% provenance: |<p>)?Planned \d{4}[^\n]*\n",  # LaTeX, HTML, Markdown
    r"^  ablate run (?:[^\n]*\\\n)*[^\n]*\n",  # a terminal's text: the command, which names the file's folder
    r"(?<=data:image/)[^\"')]*",
    # the command has the name of the file
    r"(?<=To claim more: )(`[^`]*`|<code>.*?</code>)",
)


@dataclass(frozen=True)
class Document:
    """A report in a file: its form, its text, and the options it was made with."""

    form: str
    text: str
    study: str | None
    options: Shown
    has_figures: bool
    edition: int = EDITION  # of its layout, if it is Markdown or HTML


@writing.with_plain_texts
def check(recorded: Recorded, path: Path, document: Document) -> tuple[int, str]:
    """The number of lines of the document at `path` that differ from what the store says now, and the first of them as a diff."""
    if document.study not in (None, recorded.study):
        raise ConfigError(OPTION, f"{path} is a report of the study {document.study}; expected one of {recorded.study}")
    content = writing.gather(recorded, document.options)
    written = lines(document.form, document.text)
    stored = lines(document.form, _rendered(content, document, path))
    if document.edition != EDITION and document.form in ("markdown", "html") and written != stored:
        found = f"{path} has the layout of another version of ablate (edition {document.edition})"
        raise ConfigError(OPTION, f"{found}; expected edition {EDITION}: write it again with ablate report --output")
    return differing(written, stored), diff(written, stored, path)


def read(path: Path, form: str | None, options: Shown) -> Document:
    """The report in that file. It contains its options, except for CSV files and plain texts, which take `options`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(OPTION, f"cannot read {path} ({error}); {EXPECTED}") from None
    if path.suffix in PLAIN:
        return _of_form(Document(PLAIN[path.suffix], text, None, options, has_figures=False), path, form)
    if text.lstrip().startswith("{"):
        return _of_form(_json(path, text), path, form)
    first = re.match(rf"(<!--|%) {MADE_BY}(\{{.*\}})( -->)?\s*$", text.partition("\n")[0])
    if first is None:
        raise ConfigError(OPTION, f"{path} does not say in its first line how it was made; {EXPECTED}")
    is_page = re.search(r"<html[\s>]", text[:5000], re.IGNORECASE)
    kind = "latex" if first[1] == "%" else "html" if is_page else "markdown"
    return _of_form(_document(path, kind, text, _loaded(path, first[2])), path, form)


def _of_form(document: Document, path: Path, form: str | None) -> Document:
    if form not in (None, document.form):
        raise ConfigError(OPTION, f"{path} is {document.form}; expected {form}, as --format says")
    return document


def _loaded(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigError(OPTION, f"{path} is not as it was written: what it was made by cannot be read; {EXPECTED}") from None


def _json(path: Path, text: str) -> Document:
    parts = _loaded(path, text)
    return _document(path, "json", text, parts.get("made_by"))


def _document(path: Path, form: str, text: str, made_by: Any) -> Document:
    """The document, with the options in its text."""
    kinds = {"study": str, "metric": str, "arms": list, "sort": str, "only_changed": bool, "reference": str, "figures": bool}
    if not isinstance(made_by, Mapping) or not all(isinstance(made_by.get(name), kind) for name, kind in kinds.items()):
        raise ConfigError(OPTION, f"{path} does not say how it was made; {EXPECTED}")
    common = (made_by["metric"], tuple(map(str, made_by["arms"])), made_by["sort"], made_by["only_changed"], made_by["reference"])
    notes, undrawn, columns = (tuple(map(str, made_by.get(name, ()))) for name in ("notes", "undrawn", "columns"))
    plan, part = (str(made_by.get(name, "")) for name in ("content", "part"))
    options = Shown(*common, notes=notes, content=plan, undrawn=undrawn, columns=columns, part=part)
    edition = made_by.get("edition", 1)
    return Document(form, text, made_by["study"], options, made_by["figures"], edition if isinstance(edition, int) else 1)


def _rendered(content: Content, document: Document, path: Path) -> str:
    """The same document made from the store, with pictures named but not drawn."""
    if document.form == "csv":
        files = csv_files(content.frames, content.plan, content.about)
        return files.get(path.name, files["report.csv"])
    if not document.has_figures:
        return writing.text(content, document.form, {})
    try:
        pages = writing.pages_of(content)
    except Exception as error:  # whatever a matplotlib that does not work raises
        raise ConfigError(OPTION, f"cannot name the figures of {path} ({first_line(error)}); expected a matplotlib that works") from None
    content = writing.with_figures(content, [page for page in pages if page.name not in document.options.undrawn])
    images = {picture: b"" for pages in content.figures.values() for picture, _ in pages}
    return writing.text(content, document.form, images)


def lines(form: str, text: str) -> list[str]:
    """The document's lines without the volatile parts."""
    if form == "json":
        parts = json.loads(text, parse_float=str)  # as strings: different texts may be the same number
        return json.dumps({name: value for name, value in parts.items() if name != "provenance"}, indent=1, ensure_ascii=False).splitlines()
    for pattern in VOLATILE:
        text = re.sub(pattern, "", text, flags=re.DOTALL | re.MULTILINE)
    return text.splitlines()


def differing(written: list[str], stored: list[str]) -> int:
    """The number of lines that differ; a changed line counts once."""
    if written == stored:
        return 0
    blocks = difflib.SequenceMatcher(None, written, stored, autojunk=False).get_opcodes()
    return sum(max(last - first, after - before) for kind, first, last, before, after in blocks if kind != "equal")


def diff(written: list[str], stored: list[str], path: Path) -> str:
    """The differences as a unified diff, cut after MOST_LINES lines."""
    differences = list(difflib.unified_diff(written, stored, str(path), "the store", n=0, lineterm=""))
    return "\n".join([*differences[:MOST_LINES], *(["..."] if len(differences) > MOST_LINES else [])])
