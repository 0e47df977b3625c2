"""`ablate report`: print it, write it, compare an earlier one with the store, or follow a run."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ablation.commands.exit_codes import DONE, FAILED
from ablation.commands.recorded import open_recorded
from ablation.commands.report_watch import watch, write
from ablation.commands.screen import print_study
from ablation.errors import ConfigError
from ablation.tracking.recorded import Recorded
from ablation.tracking.store import Store

if TYPE_CHECKING:
    from ablation.report.sections import Shown


@dataclass(frozen=True)
class ReportOptions:
    """The options of `ablate report`; `document_format`, the document's format, is None if not given."""

    document_format: str | None
    output: Path | None
    arms: Sequence[str]
    metric: str
    sort: str | None
    only_changed: bool
    reference: Path | None
    columns: str | None = None


def report_on(file: Path | None, profile: str | None, options: ReportOptions, *, check: Path | None, watching: bool) -> int:
    """Print a study's report, write it into a folder, compare an earlier one with the store, or show the table as it fills."""
    if check is not None and (watching or options.output is not None):
        raise ConfigError("--check", f"found it beside {'--watch' if watching else '--output'}; expected it alone, since it writes nothing")
    if options.columns is not None and (check is not None or options.document_format != "latex"):
        where = "beside --check, which reads them in the file" if check is not None else f"with {options.document_format or 'markdown'}"
        raise ConfigError("--columns", f"found it {where}; expected it with --format latex, whose tables have columns to choose")
    _check_used(options, watching=watching)
    if watching:
        return watch(lambda: open_recorded(file, profile), options)
    if check is not None:
        return _check_report(file, profile, check, options)
    recorded = open_recorded(file, profile)
    if options.document_format == "text" and options.output is None:
        print_study(recorded, _shown(options))
        return DONE
    text = write(recorded, options)
    if options.output is None:
        sys.stdout.write(text)
    else:
        Console(stderr=True).print(f"written to {options.output}", highlight=False)
    return DONE


def _check_used(options: ReportOptions, *, watching: bool) -> None:
    """Raise ConfigError for an option that would have no effect with the others."""
    given = {"--only-changed": options.only_changed, "--reference": options.reference is not None}
    useless = next((name for name, is_given in given.items() if is_given), "")
    if useless and options.document_format in ("latex", "csv"):
        raise ConfigError(
            useless, f"found it with --format {options.document_format}, which has no place for it; expected markdown or html"
        )
    if watching and options.output is None and (useless or options.document_format):
        raise ConfigError("--watch", f"found {useless or '--format'} beside it; expected --output DIR too, where the report goes")


def _shown(options: ReportOptions) -> "Shown":
    """The options as documents know them."""
    from ablation.report.sections import Shown

    reference = str(options.reference) if options.reference else ""
    return Shown(options.metric, tuple(options.arms), options.sort or "", options.only_changed, reference)


def _check_report(file: Path | None, profile: str | None, path: Path, options: ReportOptions) -> int:
    """Print to stderr whether the document still agrees with the store; return 1 if not.

    The study is the one that the document names, unless the command line names one.
    """
    from ablation.report.documents.check import check, read

    document = read(path, options.document_format, _shown(options))
    given = {"--metric": options.metric, "--arm": options.arms, "--sort": options.sort, "--only-changed": options.only_changed}
    unused = [name for name, value in (given | {"--reference": options.reference}).items() if value]
    if unused and document.study is not None:
        raise ConfigError("--check", f"found {unused[0]} beside it; expected it alone, since {path} says how it was made")
    study_in_document = document.study if file is None and profile is None else None
    recorded = (
        Store.open(make=False).recorded(study_in_document, content=document.options.content)
        if study_in_document
        else open_recorded(file, profile)
    )
    if document.study is None and isinstance(recorded, Recorded):  # which have no place for their options
        document = replace(document, options=replace(document.options, notes=recorded.notes))
    num_differing, diff = check(recorded, path, document)
    if not num_differing:
        print(f"{path} matches the store", file=sys.stderr)
        return DONE
    print(
        f"{diff}\n{path} does not match the store: {num_differing} {'line differs' if num_differing == 1 else 'lines differ'}",
        file=sys.stderr,
    )
    return FAILED
