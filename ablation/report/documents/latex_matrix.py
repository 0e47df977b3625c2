"""Which rungs of the ladder each arm has, as columns of marks."""

from collections.abc import Mapping, Sequence
from typing import Any

from ablation.report.documents.latex_layout import GAP, TEXT, Column, width
from ablation.report.documents.latex_text import PREFIX, escaped

MATRIX_KINDS = ("ladder", "drop_one", "add_one", "grid")
# the check mark of amssymb if the paper loads it, else a drawn one, so that no package is needed for it
YES = (
    rf"\providecommand{{\{PREFIX}Yes}}{{\ifdefined\checkmark\checkmark\else{{\setlength{{\unitlength}}{{1ex}}\thicklines"
    r"\begin{picture}(1.3,1)\qbezier(0,.55)(.2,.35)(.4,.05)\qbezier(.4,.05)(.7,.7)(1.2,1.3)\end{picture}}\fi}"
)
MOST_IN_MARKS = 0.3  # of the text's width, before the headers of marks are written upwards


def rungs_in(plan: Mapping[str, Any], arms: Sequence[str]) -> dict[str, list[str]]:
    """arm -> the rungs in it, in the order of the ladder, for arms of MATRIX_KINDS; the first rung is in all of them and is left out."""
    planned = {arm["name"]: arm for arm in plan["arms"]}
    order = list(planned)
    return {name: sorted(_members(planned, name), key=order.index) for name in arms}


def _members(planned: Mapping[str, Mapping[str, Any]], name: str) -> set[str]:
    arm = planned[name]
    above = _members(planned, arm["parent"]) if arm["parent"] and arm["kind"] in MATRIX_KINDS else set()
    factors = arm.get("factors") or {}
    if arm["kind"] == "drop_one":
        return above - {factors["without"]}
    if arm["kind"] == "add_one":
        return above | {factors["with"]}
    if arm["kind"] == "grid":
        return above | {rung for rung, level in factors.items() if level == "with"}
    return above | ({name} if arm["parent"] else set())


def marks_of(members: Mapping[str, Sequence[str]], rungs: Sequence[str]) -> list[Column]:
    """A column for each rung, with a mark for each arm that has it; many or long headers are written upwards."""
    heads = [escaped(rung) for rung in rungs]
    is_upright = sum(width(head) + GAP for head in heads) > MOST_IN_MARKS * TEXT
    mark = f"\\{PREFIX}Yes{{}}"
    cells = [[(mark if rung in of_arm else "", "") for of_arm in members.values()] for rung in rungs]
    return [Column(head, of_rung, is_upright=is_upright) for head, of_rung in zip(heads, cells, strict=True)]
