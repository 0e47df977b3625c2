"""Whether a document still says what the store says."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.errors import ConfigError
from ablation.report import documents
from ablation.report.sections import Content, Shown
from ablation.report.sections.content import MADE_BY
from ablation.report.tables import Recorded

OPTION = "--check"
MOST_LINES = 40
EXPECTED = "expected a report that ablate report wrote"
# what another `ablate run` that trains nothing changes: where the numbers come from, and pictures, which are drawn from them
VOLATILE = (
    r"<details><summary>Provenance</summary>.*?\n</details>",  # Markdown
    r'<h\d id="provenance">.*?</details>',  # HTML
    r"^% provenance: [^\n]*\n",  # LaTeX
    r"(?<=data:image/)[^\"')]*",
)


@dataclass(frozen=True)
class Document:
    """A report that lies in a file: its form, its text, and what was asked for when it was made."""

    form: str
    text: str
    study: str | None
    asked: Shown
    has_figures: bool


def check(recorded: Recorded, path: Path, found: Document) -> tuple[int, str]:
    """How many lines of the document, read from `path`, differ from what the store says now, and the first of them as a diff."""
    if found.study not in (None, recorded.study):
        raise ConfigError(OPTION, f"{path} is a report of the study {found.study}; expected one of {recorded.study}")
    content = documents.gather(recorded, found.asked)
    ours = lines(found.form, found.text)
    theirs = lines(found.form, _rendered(content, found, path))
    return differing(ours, theirs), diff(ours, theirs, path)


def read(path: Path, form: str | None, asked: Shown) -> Document:
    """The report in that file; what was asked for is in it, but for a CSV file, which has no place for it and takes `asked`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(OPTION, f"cannot read {path} ({error}); {EXPECTED}") from None
    if path.suffix == ".csv":
        return _of_form(Document("csv", text, None, asked, has_figures=False), path, form)
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
    whole = _loaded(path, text)
    return _document(path, "json", text, whole.get("made_by"))


def _document(path: Path, form: str, text: str, about: Any) -> Document:
    """The document, with what it says of how it was made."""
    kinds = {"study": str, "metric": str, "arms": list, "sort": str, "only_changed": bool, "reference": str, "figures": bool}
    if not isinstance(about, Mapping) or not all(isinstance(about.get(name), kind) for name, kind in kinds.items()):
        raise ConfigError(OPTION, f"{path} does not say how it was made; {EXPECTED}")
    asked = Shown(about["metric"], tuple(map(str, about["arms"])), about["sort"], about["only_changed"], about["reference"])
    return Document(form, text, about["study"], asked, about["figures"])


def _rendered(content: Content, found: Document, path: Path) -> str:
    """The same document from the store, its pictures named but not drawn."""
    if found.form == "csv":
        files = documents.csv_files(content.frames, content.plan)
        return files.get(path.name, files["report.csv"])
    if not found.has_figures:
        return documents.text(content, found.form, {})
    content = documents.with_figures(content, documents.pages_of(content))
    images = {picture: b"" for pages in content.figures.values() for picture, _ in pages}
    return documents.text(content, found.form, images)


def lines(form: str, text: str) -> list[str]:
    """The document's lines without what is volatile."""
    if form == "json":
        whole = json.loads(text, parse_float=str)  # as written: two texts may be one number
        return json.dumps({name: value for name, value in whole.items() if name != "provenance"}, indent=1, ensure_ascii=False).splitlines()
    for pattern in VOLATILE:
        text = re.sub(pattern, "", text, flags=re.DOTALL | re.MULTILINE)
    return text.splitlines()


def differing(ours: list[str], theirs: list[str]) -> int:
    """How many lines are not the same, one that was changed counting once."""
    if ours == theirs:
        return 0
    blocks = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
    return sum(max(last - first, after - before) for kind, first, last, before, after in blocks if kind != "equal")


def diff(ours: list[str], theirs: list[str], path: Path) -> str:
    """What differs, as a unified diff that is not too long."""
    found = list(difflib.unified_diff(ours, theirs, str(path), "the store", n=0, lineterm=""))
    return "\n".join([*found[:MOST_LINES], *(["..."] if len(found) > MOST_LINES else [])])
