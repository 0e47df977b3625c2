"""`ablate techniques`, `check-technique` and `schema`: what a file may contain, and whether a technique fulfils its contract."""

import json
import sys

from ablation.commands.exit_codes import DONE, FAILED
from ablation.study import catalogue
from ablation.study.schema import study_schema
from ablation.study.task import load_task
from ablation.study.yamlfile import parse
from ablation.techniques.technique import allow_code


def techniques(name: str | None, *, as_page: bool) -> int:
    """Print the description of a technique or of a family, or a list of all of them."""
    sys.stdout.write(catalogue.markdown_page() if as_page else catalogue.terminal_text(name) if name else catalogue.overview())
    return DONE


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
    print(json.dumps(study_schema(load_task().schema), indent=1))
    return DONE
