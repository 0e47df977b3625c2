"""Loading a study: its arms with their settings and stages resolved, their parents and their changes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablation.errors import ConfigError, nearest, unknown_name
from ablation.formatting import worded
from ablation.study.changes import changes_between, flatten
from ablation.study.config import Arm, Choice, Overrides, Study, load, task_of, text_hash
from ablation.study.effects import Layers, check_effects, place_in_stages, place_of
from ablation.study.implied import with_techniques
from ablation.study.overridden import LENGTH, NO_LENGTH, check_arms, check_conditions, check_lengths, has_counts_alone
from ablation.study.overrides import PartialArm, apply_overrides, canonical, is_position
from ablation.study.published import check_percent, checked_figures
from ablation.study.specs import ArmSpec, arm_specs, settings_of
from ablation.study.task import Task
from ablation.techniques.technique import build, dump

Sets = Sequence[tuple[str, Any]]  # --set PATH=VALUE


def load_study(path: str | Path, profile: str | None = None, sets: Sets = (), *, is_recorded: bool = False) -> Study:
    """The study in a file, its arms resolved; `sets` are pairs (dotted path, value) that override everything.

    Settings without effect are refused, but for those of an arm that `is_recorded`: it may have been the control of others.
    Raises ConfigError, with the dotted path in the file, if anything in it is wrong.
    """
    file, content = load(path), Path(path).read_bytes()
    task = task_of(file).of_file(file, Path(path).resolve().parent)
    bases = [("base", file.base)]
    name, seeds, groups, metric = file.study, file.seeds, file.groups, file.metric
    if profile is not None:
        if profile not in file.profiles:
            raise unknown_name("profiles", "profile", profile, file.profiles)
        selected_profile = file.profiles[profile]
        bases.append((f"profiles.{profile}.base", selected_profile.base))
        name, seeds, groups = f"{name}.{profile}", selected_profile.seeds or seeds, selected_profile.groups or groups
        metric = selected_profile.metric or metric
    resolver = _Resolver(task, sets, is_recorded=is_recorded)
    if profile is not None and (seeds, groups, metric) == (file.seeds, file.groups, file.metric):
        resolver.check_profile(profile, bases)
    arms = resolver.arms(arm_specs(file), bases, file.conditions)
    if any(name.partition(".")[0] == "data" for _, overrides in bases[1:] for name in overrides):
        arms = [replace(arm, published={}) for arm in arms]  # they were measured on other data than the profile's
        resolver.plain = [replace(arm, published={}) for arm in resolver.plain]
    about_file = (tuple(resolver.plain), tuple(sets), text_hash(file), metric, content)
    return Study(name, Path(path).resolve(), tuple(seeds), groups, file.margin, file.keep, tuple(arms), task, *about_file)


class _Resolver:
    """Resolves arms with the schema of a task, and applies every --set to them."""

    def __init__(self, task: Task, sets: Sets, *, is_recorded: bool) -> None:
        self.is_recorded = is_recorded
        self.task, self.schema, self.sets = task, task.schema, sets
        self.is_percent = task.metrics(0)[0].unit == "percent"  # the headline metric, of which figures are published
        self.plain: Sequence[Arm] = ()  # the arms without any --set
        self.completed: set[tuple[str, int]] = set()  # layers of arms, of which a field stands for a technique
        self.used: set[str] = set()  # the paths of --set that at least one arm has
        self.stages: dict[str, Sequence[Overrides]] = {}  # arm -> its stages as they are written, with each --set that came so far
        self.below: dict[str | None, Layers] = {}  # by condition, what lies below the layers of an arm itself

    def arms(
        self, specs: Mapping[str, ArmSpec], bases: Sequence[tuple[str, Overrides]], conditions: Mapping[str, Overrides | None]
    ) -> list[Arm]:
        """The arms of these specs, on top of the file's base, the profile's and their condition's."""
        by_condition: dict[str | None, PartialArm] = {None: self._base(bases)}
        self.below = {None: bases} | {name: [*bases, (f"conditions.{name}", overrides or {})] for name, overrides in conditions.items()}
        for name, condition_overrides in conditions.items():
            by_condition[name] = self._apply(by_condition[None], settings_of(condition_overrides or {}), f"conditions.{name}")
        plain = {name: self._arm(spec, by_condition[spec.condition], ()) for name, spec in specs.items()}
        _check_changes(specs, plain, self.task)
        if not self.is_recorded:
            self._check_effects(specs, plain, bases, conditions, by_condition)
        if self.is_percent:
            check_percent((spec.overrides[-1][0], plain[name].published) for name, spec in specs.items() if spec.condition is None)
        self.plain = list(plain.values())
        arms = {name: self._arm(spec, by_condition[spec.condition], self.sets) for name, spec in specs.items()} if self.sets else plain
        self._check_used(arms)
        for arm in arms.values():
            if arm.choice is not None:
                self.task.check_choice(arm, arms)
        return list(_with_relations(arms, self.task))

    def _check_effects(
        self,
        specs: Mapping[str, ArmSpec],
        arms: Mapping[str, Arm],
        bases: Sequence[tuple[str, Overrides]],
        conditions: Mapping[str, Overrides | None],
        by_condition: Mapping[str | None, PartialArm],
    ) -> None:
        """Raise ConfigError for what is written and has no effect."""
        check_arms(specs, arms, self.stages)
        check_conditions(specs, arms, self.stages, {name: (overrides or {}, by_condition[name]) for name, overrides in conditions.items()})
        check_lengths(bases[1:], arms, self.stages)
        if self.schema.families:  # which know what changes nothing
            check_effects(specs, arms, bases, conditions)

    def _apply(self, partial: PartialArm, overrides: Mapping[str, Any], where: str) -> PartialArm:
        return apply_overrides(partial, overrides, where, self.schema)

    def _base(self, bases: Sequence[tuple[str, Overrides]]) -> PartialArm:
        """The file's base with the profile's on top."""
        (where, base), *profile_bases = bases
        for setting, expected in self.schema.required.items():
            if setting not in base and not any(setting in profile_overrides for _, profile_overrides in profile_bases):
                raise ConfigError(f"{where}.{setting}", f"is missing; expected {expected}")
        undotted = {name: value for name, value in base.items() if "." not in name}
        unknown = [name for name in undotted if name not in self.schema.arm_keys]
        if unknown:
            raise unknown_name(where, "setting", unknown[0], self.schema.arm_keys)
        required_overrides = [
            (name, value)
            for _, profile_overrides in profile_bases
            for name, value in profile_overrides.items()
            if name in self.schema.required
        ]
        missing_required = {name: value for name, value in required_overrides if name not in undotted}
        settings = {name: value for name, value in {**missing_required, **undotted}.items() if name != "stages"}
        partial = PartialArm(canonical(settings, where, self.schema))
        remaining = {name: value for name, value in base.items() if "." in name or name == "stages"}
        for overrides_place, overrides in [(where, remaining), *profile_bases]:
            partial = self._apply(partial, overrides, overrides_place)
        return partial

    def check_profile(self, profile: str, bases: Sequence[tuple[str, Overrides]]) -> None:
        """Raise ConfigError for a profile that sets something, and all of it as the base has it."""
        whole = all(setting in bases[0][1] for setting in self.schema.required)
        if bases[1][1] and whole and self._base(bases) == self._base(bases[:1]):
            raise ConfigError(
                f"profiles.{profile}", "changes nothing against the base; expected a setting that differs, or no such profile"
            )

    def _arm(self, spec: ArmSpec, base: PartialArm, sets: Sets) -> Arm:
        partial = base
        for i, (where, _) in enumerate(spec.overrides):
            partial = self._apply(partial, self._completed(spec, i, partial), where)
        for path, value in sets:
            partial = self._with_set(partial, path, value)
        self.stages[spec.name] = partial.stages
        where = spec.overrides[-1][0] if spec.overrides else "base"
        return Arm(
            name=spec.name,
            kind=spec.kind,
            parent=spec.parent,
            baseline=None,
            condition=spec.condition,
            settings=build(self.schema.settings, partial.settings),
            stages=self._stages(spec, partial, where, sets),
            label=spec.annotations.get("label", ""),
            note=spec.annotations.get("note", ""),
            published=checked_figures(spec.annotations.get("published", {}), where, is_percent=self.is_percent),
            cumulative=spec.cumulative,
            choice=self._with_direction(spec.choice),
            factors=spec.factors,
        )

    def _stages(self, spec: ArmSpec, partial: PartialArm, where: str, sets: Sets) -> tuple[Any, ...]:
        """The arm's stages; an error is at the place that sets what it is about, which may lie below the arm, or be a --set."""
        try:
            return tuple(self.task.resolve(partial, where, lambda number, settings: self._stage_with_sets(number, settings, sets)))
        except ConfigError as error:
            path = error.path.removeprefix(f"{where}.")
            layers = [*self.below[spec.condition], *spec.overrides, *(("--set", {name: value}) for name, value in sets)]
            is_of_stage = path == error.path or path.partition(".")[0] == "stages"
            place = place_in_stages(layers, partial.stages_at, error.path) if is_of_stage else place_of(layers, path)
            raise ConfigError(place, error.problem) from None

    def _completed(self, spec: ArmSpec, number: int, partial: PartialArm) -> Overrides:
        """One of the arm's layers; in a sweep, a field of a technique that is none stands for that technique.

        Under a condition it does where it does for the plain arm, so that a condition that unsets a technique is still an error.
        """
        where, overrides = spec.overrides[number]
        layer = spec.name.removeprefix(f"{spec.condition}/"), number
        if not where.startswith("sweeps.") or (spec.condition and layer not in self.completed):
            return overrides
        named = [path for place, others in spec.overrides if place.startswith("sweeps.") for path in others]
        completed = with_techniques(partial.settings, overrides, named, where, self.schema)
        if completed != overrides:
            self.completed.add(layer)
        return completed

    def _with_direction(self, choice: Choice | None) -> Choice | None:
        """The choice, knowing whether a lower value of its metric is better."""
        if choice is None:
            return None
        better = {metric.name: metric.better for metric in self.task.metrics(0)}
        names = (f"validation/{choice.metric}", f"test/{choice.metric}")  # where only one of both is compared, the other is better alike
        return replace(choice, is_lower_better=next((better[name] for name in names if name in better), "higher") == "lower")

    # --- --set ---------------------------------------------------------------------------------------------------------------

    def _with_set(self, partial: PartialArm, path: str, value: Any) -> PartialArm:
        """The arm with one --set applied; the field of a technique is set only if the arm's technique has that field."""
        if not self._has_path(partial, path):
            return partial
        self.used.add(path)
        return self._apply(partial, {path: value}, "--set")

    def _stage_with_sets(self, number: int, settings: dict[str, Any], sets: Sets) -> dict[str, Any]:
        """One stage's settings with every --set applied, in the order of the command line."""
        for path, value in sets:
            first, _, rest = path.partition(".")
            stage_number, _, name = rest.partition(".")
            if first != "stages":
                name = "" if path == "epochs" else path
            elif stage_number != str(number) or name.partition(".")[0] not in self.schema.names or name == "epochs":
                name = ""
            if name and self._has_path(PartialArm(settings), name):
                self.used.add(path)
                settings = self._apply(PartialArm(settings), {name: value}, "--set").settings
        return settings

    def _has_path(self, partial: PartialArm, path: str) -> bool:
        """Whether the arm has this path; the fields of a stage's techniques are known only once the stage is resolved."""
        first, *rest = path.split(".")
        if first == "stages" and rest:
            return is_position(rest[0], partial.stages) and (len(rest) < 3 or rest[1] in self.schema.whole_arm)
        value: Any = partial.settings
        for part in (first, *rest) if rest else ():
            if isinstance(value, list | tuple) and is_position(part, value):
                value = value[int(part)]
            elif isinstance(value, Mapping) and part in value:
                value = value[part]
            else:
                return False
        return True

    def _check_used(self, arms: Mapping[str, Arm]) -> None:
        """Raise ConfigError for a --set whose path no arm has."""
        for path, _ in self.sets:
            if path not in self.used:
                stages = [(i, flatten(dump(stage.settings))) for arm in arms.values() for i, stage in enumerate(arm.stages)]
                known = {name for _, settings in stages for name in settings}
                known |= {f"stages.{i}.{name}" for i, settings in stages for name in settings}
                raise ConfigError(f"--set.{path}", f"no arm has such a field.{nearest(path, known)}")
            if path == LENGTH and all(has_counts_alone(stages) for stages in self.stages.values()):
                raise ConfigError(f"--set.{path}", f"changes nothing, because {NO_LENGTH}")


# --- how arms are related ----------------------------------------------------------------------------------------------------


def _check_changes(specs: Mapping[str, ArmSpec], arms: Mapping[str, Arm], task: Task) -> None:
    """Raise ConfigError if an arm that the file writes, or a condition, changes nothing."""
    for spec in specs.values():
        if spec.written and spec.parent and not changes_between(arms[spec.parent], arms[spec.name], task):
            raise ConfigError(
                spec.overrides[-1][0], f"changes nothing against {spec.parent!r}; expected a setting that differs, or no such arm"
            )
    for name, kind in dict.fromkeys((spec.name.partition("/")[0], spec.kind) for spec in specs.values() if spec.kind == "sweep"):
        points = [spec for spec in specs.values() if spec.kind == kind and spec.name.startswith(f"{name}/") and spec.parent]
        if not any(changes_between(arms[point.parent], arms[point.name], task) for point in points if point.parent):
            raise ConfigError(f"sweeps.{name}", f"changes nothing against {points[0].parent!r} in any point; expected a value that differs")
    for condition in dict.fromkeys(spec.condition for spec in specs.values() if spec.condition):
        names = [spec.name for spec in specs.values() if spec.condition == condition]
        if not any(changes_between(arms[name.removeprefix(f"{condition}/")], arms[name], task) for name in names):
            raise ConfigError(
                f"conditions.{condition}", "changes nothing in any arm; expected a setting that differs, or no such condition"
            )


def _with_relations(arms: Mapping[str, Arm], task: Task) -> Iterator[Arm]:
    """The arms with their change, their baseline, and the first arm with the same stages."""
    names_by_stages: dict[tuple[Any, ...], str] = {}
    baselines: dict[str | None, str] = {}
    for name, arm in arms.items():
        first_alike = names_by_stages.setdefault(arm.stages, name) if arm.choice is None else name
        baseline = baselines.setdefault(arm.condition, name)
        changes = _choice_changes(arms, arm, task) if arm.choice else changes_between(arms[arm.parent], arm, task) if arm.parent else {}
        yield replace(
            arm, change=changes, baseline=baseline if baseline != name else None, same_as=first_alike if first_alike != name else None
        )


def _choice_changes(arms: Mapping[str, Arm], arm: Arm, task: Task) -> dict[str, tuple[Any, Any]]:
    """What all points of a choice change in the same way, and the values among which it chooses."""
    assert arm.parent is not None, arm
    assert arm.choice is not None, arm
    parent = arms[arm.parent]
    parents = parent.choice.among if parent.choice else [arm.parent] * len(arm.choice.among)  # a choice is compared point by point
    pairs = zip(parents, arm.choice.among, strict=True)
    changes_of_points = [changes_between(arms[of], arms[name], task) for of, name in pairs]
    changes = {}
    for name in dict.fromkeys(name for point_changes in changes_of_points for name in point_changes):
        old = next(point_changes[name][0] for point_changes in changes_of_points if name in point_changes)
        values = [point_changes[name][1] if name in point_changes else old for point_changes in changes_of_points]
        distinct = [value for i, value in enumerate(values) if value not in values[:i]]
        changes[name] = (
            old,
            distinct[0] if len(distinct) == 1 else f"the best of {', '.join(map(worded, distinct))} by val/{arm.choice.metric}",
        )
    return changes
