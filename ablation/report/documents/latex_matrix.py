"""Which rungs of the ladder each arm has, as columns of marks."""

import re
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
REPLACED = r"$\circ$"
MOST_IN_MARKS = 0.3  # of the text's width, before the headers of marks are written upwards


def rungs_in(plan: Mapping[str, Any], arms: Sequence[str]) -> dict[str, list[str]]:
    """arm -> the rungs in it, in the order of the ladder, for arms of MATRIX_KINDS; the first rung is in all of them and is left out.

    An arm of which something above it is not in the plan is left out, since nothing tells what that sets.
    """
    planned = {arm["name"]: arm for arm in plan["arms"]}
    order = list(planned)
    members = {name: _members(planned, name) for name in arms if _is_whole(planned, name)}
    return {name: sorted(rungs, key=order.index) for name, rungs in members.items() if rungs <= planned.keys()}


def _is_whole(planned: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    """Whether all that is above the arm is in the plan."""
    parent = planned[name]["parent"]
    return not parent or (parent in planned and _is_whole(planned, parent))


def _members(planned: Mapping[str, Mapping[str, Any]], name: str) -> set[str]:
    arm = planned[name]
    above = _members(planned, arm["parent"]) if arm["parent"] in planned and arm["kind"] in MATRIX_KINDS else set()
    factors = arm.get("factors") or {}
    if arm["kind"] == "drop_one":
        return above - {factors["without"]}
    if arm["kind"] == "add_one":
        return above | {factors["with"]}
    if arm["kind"] == "grid":
        return above | {rung for rung, level in factors.items() if level == "with"}
    return above | ({name} if arm["parent"] else set())


def replaced_in(plan: Mapping[str, Any], members: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """arm -> those of its rungs of which a later rung replaces a setting, wherever in the training."""
    planned = {arm["name"]: arm for arm in plan["arms"]}
    first = _first_values(plan["arms"])
    values = {name: _values(planned, name, first) for name in members}
    return {name: [rung for rung in rungs if not _holds(planned[rung]["change"], values[name])] for name, rungs in members.items()}


Place = tuple[str, str]  # the stage's number, or nothing for all stages, and the setting


def _place(path: str) -> Place:
    """Of a changed setting. The epochs of a stage are no part of a setting of all stages."""
    found = re.fullmatch(r"stages\.(\d+)\.(.+)", path)
    return (found[1], found[2]) if found and found[2] != "epochs" else ("", path)


def _first_values(arms: Sequence[Mapping[str, Any]]) -> dict[Place, Any]:
    """The values before any rung, of all settings that a rung changes."""
    first: dict[Place, Any] = {}
    for path, (old, _) in (item for arm in arms if arm["kind"] == "ladder" for item in arm["change"].items()):
        stage, setting = _place(path)
        if ("", setting) not in first:
            first.setdefault((stage, setting), old)
    return first


def _values(planned: Mapping[str, Mapping[str, Any]], name: str, first: Mapping[Place, Any]) -> dict[Place, Any]:
    """The arm's values: those of its parent with its changes; a change of all stages ends what single stages had."""
    parent = planned[name]["parent"]
    values = dict(_values(planned, parent, first) if parent in planned else first)
    for path, (_, new) in planned[name]["change"].items():
        stage, setting = _place(path)
        values = {place: value for place, value in values.items() if stage or place[1] != setting} | {(stage, setting): new}
    return values


def _holds(change: Mapping[str, Sequence[Any]], values: Mapping[Place, Any]) -> bool:
    """Whether every setting of the change still has its new value, in all stages that it was set for."""
    return all(value == new for path, (_, new) in change.items() for value in _at(_place(path), values))


def _at(place: Place, values: Mapping[Place, Any]) -> list[Any]:
    """The values at that place: of all stages, or of its own, which is that of all stages unless it has one."""
    stage, setting = place
    if not stage:
        return [value for (_, name), value in values.items() if name == setting]
    return [values[found] for found in (place, ("", setting)) if found in values][:1]


def marks_of(members: Mapping[str, Sequence[str]], rungs: Sequence[str], replaced: Mapping[str, Sequence[str]]) -> list[Column]:
    """A column for each rung, with a mark for each arm that has it; many or long headers are written upwards."""
    heads = [escaped(rung) for rung in rungs]
    is_upright = sum(width(head) + GAP for head in heads) > MOST_IN_MARKS * TEXT
    yes = f"\\{PREFIX}Yes{{}}"
    cells = [
        [(REPLACED if rung in replaced[arm] else yes if rung in of_arm else "", "") for arm, of_arm in members.items()] for rung in rungs
    ]
    return [Column(head, of_rung, is_upright=is_upright) for head, of_rung in zip(heads, cells, strict=True)]
