"""The settings in which arms differ, from the changes of the plan and, where these do not tell, from what is recorded of the file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ablation.formatting import DASH, setting
from ablation.study.written import STAGE

UNKNOWN = object()  # what the plan's changes do not tell
OPTIONS = ("epochs", "train", "head", "backbone", "start", "restart")  # of a stage, in the order of the record of the file


def changed_settings(plan: Mapping[str, Any], arms: Sequence[str]) -> dict[str, dict[str, str]]:
    """setting -> arm -> its value, for the settings in which these arms differ; several values if the stages differ.

    Where an arm above is not in the plan, the record of the file has the values; a dash is one that nothing tells.
    """
    settings = _Settings(plan)
    first = settings.first_values(arms)
    by_setting = {path: {arm: settings.words(arm, path, old) for arm in arms} for path, old in first.items()}
    return {path: by_arm for path, by_arm in by_setting.items() if len(set(by_arm.values())) > 1}


@dataclass(frozen=True)
class _Settings:
    """What a recorded plan tells of its arms' settings."""

    plan: Mapping[str, Any]

    @cached_property
    def planned(self) -> dict[str, Mapping[str, Any]]:
        """The arms of the plan by name."""
        return {arm["name"]: arm for arm in self.plan["arms"]}

    @cached_property
    def written(self) -> Mapping[str, Any]:
        """What is recorded of the file; nothing in older plans."""
        recorded: Mapping[str, Any] = self.plan.get("written", {})
        return recorded

    def first_values(self, arms: Sequence[str]) -> dict[str, Any]:
        """The first arm's value of each setting that may differ: the old value of its first change, or the one in the record."""
        first: dict[str, Any] = {}
        for arm in self.planned.values():
            for path, (old, _) in arm["change"].items():
                first.setdefault(_without_stage(path), old)
        of_first = self._recorded("")
        for arm_name in arms:
            recorded = self._recorded(arm_name) if self._changed(arm_name, [], None) is UNKNOWN else {}
            unlike = [path for path, value in recorded.items() if value != of_first.get(path) and not path.endswith(STAGE)]
            first |= {_without_stage(path): of_first.get(_without_stage(path)) for path in unlike}
        return first

    def words(self, arm: str, path: str, first: Any) -> str:
        """`shuffle`, or `shuffle → class_balanced` if the arm's stages differ."""
        number = self._num_stages(arm)
        values = [self._of_stage(arm, path, first, place, number) for place in range(number)]
        words = [DASH if value is None else setting(value) for value in values]
        return words[0] if len(set(words)) == 1 else " → ".join(words)

    def _of_stage(self, arm: str, path: str, first: Any, place: int, number: int) -> Any:
        """The value in one stage of so many, by the changes of the plan or by the record of the file; None if it has none."""
        if path == "epochs" and number > 1:  # the arm's own epochs are those of all its stages
            value = self._changed(arm, [f"stages.{place}.{path}"], UNKNOWN)
        else:
            value = self._changed(arm, [f"stages.{place}.{path}", path], first)
        return self._recorded_of_stage(arm, path, place, number) if value is UNKNOWN else value

    def _num_stages(self, arm: str) -> int:
        """The arm's stages by what is recorded of the file, which may have them in its base; in older plans by the changes alone."""
        if arm in self.written.get("arms", {}):
            return 1 + sum(re.fullmatch(rf"stages\.\d+\.{STAGE}", name) is not None for name in self._recorded(arm))
        number = 1
        while self._changed(arm, [f"stages.{number}.epochs"], None) not in (None, UNKNOWN):
            number += 1
        return number

    # --- the changes of the plan -----------------------------------------------------------------------------------------------

    def _changed(self, arm: str, paths: Sequence[str], first: Any) -> Any:
        """What the arm, or the nearest one above it, sets under one of these paths; else `first`, or UNKNOWN if one above is unplanned."""
        place: str | None = arm
        while place is not None and place in self.planned:
            change = self.planned[place]["change"]
            values = [change[path][1] for path in paths if path in change]
            if values:
                return values[0]
            place = self.planned[place]["parent"]
        return first if place is None else UNKNOWN

    # --- the record of the file --------------------------------------------------------------------------------------------------

    def _recorded(self, arm: str) -> dict[str, Any]:
        """setting -> value of the arm, or of the first one, without what `--set` changed."""
        settings = {**self.written.get("first", {}), **self.written.get("arms", {}).get(arm, {}).get("settings", {})}
        return {path: value for path, value in settings.items() if value is not None and not self._is_set(path)}

    def _recorded_of_stage(self, arm: str, path: str, place: int, number: int) -> Any:
        """The value in one stage of so many; None if the record does not tell it."""
        settings = self._recorded(arm) if arm in self.written.get("arms", {}) else {}
        own = f"stages.{place}." if place < number - 1 else ""
        if path in OPTIONS:
            options = dict(zip(OPTIONS, settings.get(f"{own}{STAGE}", ())[1:], strict=False))
            return None if self._is_set(path) else options.get(path)
        techniques = [path[: dot.start()] for dot in re.finditer(r"\.", path)]
        is_other = any(f"{own}{name}.name" in settings for name in techniques if own and path != f"{name}.name")  # than in the last stage
        return settings.get(f"{own}{path}", None if is_other else settings.get(path))

    def _is_set(self, path: str) -> bool:
        """Whether `--set` changed the setting, a field of it, or the technique that it is a field of."""
        places = [_without_stage(place) for place, _ in self.written.get("sets", ())]
        return any(f"{_without_stage(path)}.".startswith(f"{place}.") for place in places)


def _without_stage(path: str) -> str:
    return path.split(".", 2)[2] if path.startswith("stages.") else path
