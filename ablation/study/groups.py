"""The groups of classes by their training counts: many, medium and few."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ablation.errors import ConfigError, unknown_name

NAMES = ("many", "medium", "few")
Groups = dict[str, tuple[int, ...]]


def resolve(groups: Any, counts_C: Sequence[int], classes: Sequence[str]) -> Groups:
    """group -> the numbers of its classes, in order; a class is in at most one group.

    `groups` is "thirds" (by rank of the training counts; a remainder goes to the middle, and classes with equal counts, which have the
    mean of their ranks, are together), or a mapping from many, medium and few to a
    bound on the counts (">100", "<20", ">=20") or to a list of classes. Without `medium`, the classes that are left are medium.
    """
    if groups == "thirds":
        return _thirds(counts_C)
    if not isinstance(groups, Mapping):
        raise ConfigError("groups", f"found {groups!r}; expected thirds, or a mapping with many, medium and few")
    for name in groups:
        if name not in NAMES:
            raise unknown_name("groups", "group", str(name), NAMES)
    members_by_group = {name: _members(rule, counts_C, classes, f"groups.{name}") for name, rule in groups.items()}
    if "medium" not in members_by_group and "many" in members_by_group and "few" in members_by_group:
        members_by_group["medium"] = tuple(c for c in range(len(classes)) if c not in members_by_group["many"] + members_by_group["few"])
    members = [c for name in members_by_group for c in members_by_group[name]]
    repeated = [c for c in members if members.count(c) > 1]
    if repeated:
        raise ConfigError("groups", f"the class {classes[repeated[0]]!r} is named twice; expected it in one group")
    return {name: members_by_group.get(name, ()) for name in NAMES}


def _thirds(counts_C: Sequence[int]) -> Groups:
    _, inverse_C, sizes = np.unique(-np.asarray(counts_C), return_inverse=True, return_counts=True)
    ranks_C = (np.cumsum(sizes) - (sizes + 1) / 2)[inverse_C]  # from 0
    third = len(counts_C) // 3
    many_C, few_C = ranks_C < third, ranks_C >= len(counts_C) - third
    return {name: tuple(np.flatnonzero(is_in_C).tolist()) for name, is_in_C in zip(NAMES, (many_C, ~many_C & ~few_C, few_C), strict=True)}


def _members(rule: Any, counts_C: Sequence[int], classes: Sequence[str], where: str) -> tuple[int, ...]:
    if rule == []:
        raise ConfigError(where, "found an empty list; expected at least one class, or no such group")
    if isinstance(rule, list):
        return tuple(_class_number(name, classes, where) for name in rule)
    bound = re.fullmatch(r"\s*(>=|<=|>|<)\s*(\d+)\s*", rule) if isinstance(rule, str) else None
    if bound is None:
        raise ConfigError(where, f"found {rule!r}; expected a bound on the training counts such as '>100', or a list of classes")
    sign, limit = bound[1], int(bound[2])
    holds = {">": np.greater, "<": np.less, ">=": np.greater_equal, "<=": np.less_equal}[sign]
    return tuple(np.flatnonzero(holds(np.asarray(counts_C), limit)).tolist())


def _class_number(name: Any, classes: Sequence[str], where: str) -> int:
    is_number = isinstance(name, int) and not isinstance(name, bool) and str(name) not in classes
    if is_number and any(re.fullmatch(r"[+-]?\d+(\.\d+)?", known) for known in classes):
        example = f"expected a class in quotes, such as {classes[0]!r}"
        raise ConfigError(where, f"found the number {name}, but the classes are called by numbers; {example}")
    if is_number and 0 <= name < len(classes):
        return int(name)
    if str(name) not in classes:
        raise unknown_name(where, "class", str(name), classes)
    return list(classes).index(str(name))
