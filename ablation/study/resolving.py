"""From the file to its arms: each with its settings and stages resolved, its parent and its change."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablation.errors import ConfigError, nearest, unknown_name
from ablation.formatting import worded
from ablation.study.changes import change, flatten
from ablation.study.config import Arm, Choice, Overrides, Study, load
from ablation.study.overrides import PartialArm, apply_overrides, canonical, is_position
from ablation.study.specs import ArmSpec, arm_specs, settings_of
from ablation.study.task import Task, load_task
from ablation.techniques.technique import build, dump

Sets = Sequence[tuple[str, Any]]  # --set PATH=VALUE


def load_study(path: str | Path, profile: str | None = None, sets: Sets = ()) -> Study:
    """The study in a file, its arms resolved; `sets` are (dotted path, value) over everything.

    Raises ConfigError with the dotted path in the file for whatever is wrong in it.
    """
    task = load_task()
    file = load(path, task.schema)
    bases = [("base", file.base)]
    name, seeds, groups = file.study, file.seeds, file.groups
    if profile is not None:
        if profile not in file.profiles:
            raise unknown_name("profiles", "profile", profile, file.profiles)
        chosen = file.profiles[profile]
        bases.append((f"profiles.{profile}.base", chosen.base))
        name, seeds, groups = f"{name}.{profile}", chosen.seeds or seeds, chosen.groups or groups
    arms = _Resolver(task, sets).arms(arm_specs(file), bases, file.conditions)
    if any(name.partition(".")[0] == "data" for _, overrides in bases[1:] for name in overrides):
        arms = [replace(arm, published={}) for arm in arms]  # they were measured on other data than this profile's
    return Study(name, Path(path).resolve(), tuple(seeds), groups, file.margin, file.keep, tuple(arms), task.name)


class _Resolver:
    """Resolves arms under the schema of one kind of work, every --set over them."""

    def __init__(self, task: Task, sets: Sets) -> None:
        self.task, self.schema, self.sets = task, task.schema, sets
        self.used: set[str] = set()  # the paths of --set that some arm has a place for

    def arms(
        self, specs: Mapping[str, ArmSpec], bases: Sequence[tuple[str, Overrides]], conditions: Mapping[str, Overrides | None]
    ) -> list[Arm]:
        """The arms of these specs, over the base of the file, of the profile and of their condition."""
        by_condition: dict[str | None, PartialArm] = {None: self._base(bases)}
        for name, own in conditions.items():
            by_condition[name] = self._applied(by_condition[None], settings_of(own or {}), f"conditions.{name}")
        plain = {name: self._arm(spec, by_condition[spec.condition], ()) for name, spec in specs.items()}
        _check_changes(specs, plain, self.task)
        arms = {name: self._arm(spec, by_condition[spec.condition], self.sets) for name, spec in specs.items()} if self.sets else plain
        self._check_used(arms)
        for arm in arms.values():
            if arm.choice is not None:
                self.task.check_choice(arm, arms)
        return list(_related(arms, self.task))

    def _applied(self, partial: PartialArm, overrides: Mapping[str, Any], where: str) -> PartialArm:
        return apply_overrides(partial, overrides, where, self.schema)

    def _base(self, bases: Sequence[tuple[str, Overrides]]) -> PartialArm:
        """The base, and the profile's over it."""
        (where, base), *others = bases
        for needed, expected in self.schema.required.items():
            if needed not in base and not any(needed in other for _, other in others):
                raise ConfigError(f"{where}.{needed}", f"is missing; expected {expected}")
        whole = {name: value for name, value in base.items() if "." not in name}
        unknown = [name for name in whole if name not in (*self.schema.names, "stages")]
        if unknown:
            raise unknown_name(where, "setting", unknown[0], [*self.schema.names, "stages"])
        required = [(name, value) for _, other in others for name, value in other.items() if name in self.schema.required]
        replaced = {name: value for name, value in required if name not in whole}
        settings = {name: value for name, value in {**replaced, **whole}.items() if name != "stages"}
        partial = PartialArm(canonical(settings, where, self.schema))
        rest = {name: value for name, value in base.items() if "." in name or name == "stages"}
        for place, overrides in [(where, rest), *others]:
            partial = self._applied(partial, overrides, place)
        return partial

    def _arm(self, spec: ArmSpec, base: PartialArm, sets: Sets) -> Arm:
        partial = base
        for where, overrides in spec.overrides:
            partial = self._applied(partial, overrides, where)
        for path, value in sets:
            partial = self._with_set(partial, path, value)
        where = spec.overrides[-1][0] if spec.overrides else "base"
        return Arm(
            name=spec.name,
            kind=spec.kind,
            parent=spec.parent,
            baseline=None,
            condition=spec.condition,
            settings=build(self.schema.settings, partial.settings),
            stages=self.task.resolve(partial, where, lambda number, settings: self._stage_with_sets(number, settings, sets)),
            label=spec.words.get("label", ""),
            note=spec.words.get("note", ""),
            published=self._published(spec.words.get("published", {}), where),
            cumulative=spec.cumulative,
            choice=self._directed(spec.choice),
            factors=spec.factors,
        )

    def _published(self, figures: object, where: str) -> dict[str, float]:
        """Published figures of the headline metric by their report, checked."""
        is_percent = self.task.metrics(0)[0].unit == "percent"
        if not isinstance(figures, Mapping) or not all(_is_figure(value, is_percent=is_percent) for value in figures.values()):
            expected = f"expected figures{' in percent' if is_percent else ''} by their report, such as {{A: 84.22}}"
            raise ConfigError(f"{where}.published", f"found {figures!r}; {expected}")
        return {str(name): float(value) for name, value in figures.items()}

    def _directed(self, choice: Choice | None) -> Choice | None:
        """The choice with the direction of its metric."""
        if choice is None:
            return None
        lower = {metric.name.partition("/")[2] for metric in self.task.metrics(0) if metric.better == "lower"}
        return replace(choice, is_lower_better=choice.metric in lower)

    # --- --set ---------------------------------------------------------------------------------------------------------------

    def _with_set(self, partial: PartialArm, path: str, value: Any) -> PartialArm:
        """The arm with one --set over it; one field of a technique is set only in arms whose technique has that field."""
        if not self._has(partial, path):
            return partial
        self.used.add(path)
        return self._applied(partial, {path: value}, "--set")

    def _stage_with_sets(self, number: int, settings: dict[str, Any], sets: Sets) -> dict[str, Any]:
        """One stage's settings with every --set over them, in the order of the command."""
        for path, value in sets:
            top, _, rest = path.partition(".")
            own, _, name = rest.partition(".")
            if top != "stages":
                name = "" if path == "epochs" else path
            elif own != str(number) or name.partition(".")[0] not in self.schema.names or name == "epochs":
                name = ""
            if name and self._has(PartialArm(settings), name):
                self.used.add(path)
                settings = self._applied(PartialArm(settings), {name: value}, "--set").settings
        return settings

    def _has(self, partial: PartialArm, path: str) -> bool:
        """Whether the arm has a place for this path; a field of a stage's technique is known only once the stage is resolved."""
        top, *rest = path.split(".")
        if top == "stages" and rest:
            return is_position(rest[0], partial.stages) and (len(rest) < 3 or rest[1] in self.schema.whole_arm)
        here: Any = partial.settings
        for part in (top, *rest) if rest else ():
            if isinstance(here, list | tuple) and is_position(part, here):
                here = here[int(part)]
            elif isinstance(here, Mapping) and part in here:
                here = here[part]
            else:
                return False
        return True

    def _check_used(self, arms: Mapping[str, Arm]) -> None:
        """Raise for a --set that no arm has a place for."""
        for path, _ in self.sets:
            if path not in self.used:
                stages = [(i, flatten(dump(stage.settings))) for arm in arms.values() for i, stage in enumerate(arm.stages)]
                known = {name for _, settings in stages for name in settings}
                known |= {f"stages.{i}.{name}" for i, settings in stages for name in settings}
                raise ConfigError(f"--set.{path}", f"no arm has such a field.{nearest(path, known)}")


def _is_figure(value: object, *, is_percent: bool) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and (not is_percent or 0 <= value <= 100)


# --- how arms are related ----------------------------------------------------------------------------------------------------


def _check_changes(specs: Mapping[str, ArmSpec], arms: Mapping[str, Arm], task: Task) -> None:
    """Raise for a written arm, or a condition, that changes nothing."""
    for spec in specs.values():
        if spec.written and spec.parent and not change(arms[spec.parent], arms[spec.name], task):
            raise ConfigError(
                spec.overrides[-1][0], f"changes nothing against {spec.parent!r}; expected a setting that differs, or no such arm"
            )
    for condition in dict.fromkeys(spec.condition for spec in specs.values() if spec.condition):
        names = [spec.name for spec in specs.values() if spec.condition == condition]
        if not any(change(arms[name.removeprefix(f"{condition}/")], arms[name], task) for name in names):
            raise ConfigError(
                f"conditions.{condition}", "changes nothing in any arm; expected a setting that differs, or no such condition"
            )


def _related(arms: Mapping[str, Arm], task: Task) -> Iterator[Arm]:
    """The arms with their change, their baseline, and the first arm that resolves alike."""
    first: dict[tuple[Any, ...], str] = {}
    baselines: dict[str | None, str] = {}
    for name, arm in arms.items():
        same = first.setdefault(arm.stages, name) if arm.choice is None else name
        baseline = baselines.setdefault(arm.condition, name)
        changes = _chosen_change(arms, arm, task) if arm.choice else change(arms[arm.parent], arm, task) if arm.parent else {}
        yield replace(arm, change=changes, baseline=baseline if baseline != name else None, same_as=same if same != name else None)


def _chosen_change(arms: Mapping[str, Arm], arm: Arm, task: Task) -> dict[str, tuple[Any, Any]]:
    """What all points of a choice change alike, and the values between which it chooses."""
    assert arm.parent is not None, arm
    assert arm.choice is not None, arm
    points = [change(arms[arm.parent], arms[name], task) for name in arm.choice.among]
    changes = {}
    for name in dict.fromkeys(name for point in points for name in point):
        old = next(point[name][0] for point in points if name in point)
        values = [point[name][1] if name in point else old for point in points]
        different = [value for i, value in enumerate(values) if value not in values[:i]]
        changes[name] = (
            old,
            different[0] if len(different) == 1 else f"the best of {', '.join(map(worded, different))} by val/{arm.choice.metric}",
        )
    return changes
