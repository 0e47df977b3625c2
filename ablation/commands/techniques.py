"""`ablate techniques`, `check-technique` and `schema`: what a file may contain, and whether a technique fulfils its contract."""

import json
import sys

from ablation.commands.exit_codes import DONE, FAILED
from ablation.errors import ConfigError
from ablation.study import catalogue
from ablation.study.schema import study_schema
from ablation.study.task import load_task
from ablation.study.yamlfile import parse
from ablation.system.kept import kept
from ablation.tasks.own.schema import section_schemas
from ablation.techniques.technique import FAMILIES, allow_code, plugins


def techniques(name: str | None, *, as_page: bool) -> int:
    """Print the description of a technique or of a family, or a list of all of them."""
    if as_page and name is not None:
        raise ConfigError("NAME", f"found {name!r} beside --format markdown, the page of all techniques; expected only one of the two")
    sys.stdout.write(catalogue.markdown_page() if as_page else _terminal_text(name or ""))
    return DONE


def _terminal_text(name: str) -> str:
    """What a terminal shows; it is kept unless other packages have a part in it, since the families import torch."""

    def text() -> str:
        return catalogue.terminal_text(name) if name else catalogue.overview()

    return text() if any(plugins(family) for family in FAMILIES) else kept("catalogue", name, text)


def check_technique(family: str, technique: str, *, with_code: bool) -> int:
    """Print whether a technique fulfils its family's contract; return 1 if not."""
    from ablation.techniques import contracts

    if with_code:
        allow_code()
    results = list(contracts.check(catalogue.family_of(family), parse(technique, "TECHNIQUE")))
    print(contracts.report(results))
    return DONE if all(result.passed for result in results) else FAILED


def schema() -> int:
    """Print the JSON schema of the file."""
    print(json.dumps(study_schema(load_task().schema, section_schemas()), indent=1))
    return DONE
