"""`ablate techniques`, `check-technique` and `schema`: what a file may say, and whether one's own technique keeps its family's contract."""

import json
import sys

from ablation.commands.exit_codes import DONE, FAILED
from ablation.study import catalogue
from ablation.study.schema import study_schema
from ablation.study.task import load_task
from ablation.study.yamlfile import parse
from ablation.techniques.technique import allow_code


def techniques(name: str | None, *, as_page: bool) -> int:
    """Print what there is to know of a technique, of a family, or of all of them."""
    sys.stdout.write(catalogue.markdown() if as_page else catalogue.terminal(name) if name else catalogue.overview())
    return DONE


def check_technique(family: str, technique: str, *, with_code: bool) -> int:
    """Print how a technique fares with its family's contract; 1 where it breaks it."""
    from ablation.techniques import contracts

    if with_code:
        allow_code()
    results = list(contracts.check(catalogue.family_of(family), parse(technique, "TECHNIQUE")))
    print(contracts.report(results))
    return DONE if all(one.passed for one in results) else FAILED


def schema() -> int:
    """Print the JSON schema of the file."""
    print(json.dumps(study_schema(load_task().schema), indent=1))
    return DONE
