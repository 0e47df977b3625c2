"""The arms that a file writes or implies, each as its overrides of the base."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from ablation.errors import ConfigError, unknown_name
from ablation.study.changes import flatten, is_same
from ablation.study.config import Choice, Overrides, StudyFile, Sweep

NON_SETTINGS = ("of", "label", "note", "published", "arms")  # the keys of an arm that are no settings
MAX_ARMS = 10_000
MAX_NAME = 200


@dataclass(frozen=True)
class ArmSpec:
    """An arm before it is resolved: its overrides of the base, in order, each with its place in the file."""

    name: str
    kind: str
    parent: str | None
    overrides: tuple[tuple[str, Overrides], ...]
    written: bool = False  # written in the file, on top of another arm: an error if it changes nothing
    annotations: Mapping[str, Any] = field(default_factory=dict)  # label, note and published figures
    condition: str | None = None
    cumulative: str = ""
    choice: Choice | None = None
    factors: Mapping[str, str] = field(default_factory=dict)


def arm_specs(file: StudyFile) -> dict[str, ArmSpec]:
    """name -> spec of every arm of the file, those of its conditions last."""
    return _with_conditions(_specs(file), file.conditions)


def _specs(file: StudyFile) -> dict[str, ArmSpec]:
    rungs = list(_ladder_arms(file))
    specs: dict[str, ArmSpec] = {}
    for spec in itertools.chain(
        rungs, _variants_and_sweeps(file, rungs[0].name), _drop_one_arms(file, rungs), _add_one_arms(file, rungs), _grid_arms(file, rungs)
    ):
        _add(specs, spec, spec.kind if spec.kind in ("drop_one", "add_one", "grid") else spec.overrides[-1][0])
    return {name: replace(spec, overrides=_inherited_overrides(spec, specs)) for name, spec in specs.items()}


def _add(specs: dict[str, ArmSpec], spec: ArmSpec, where: str) -> None:
    """Add an arm; its name must be new, and such that `--arm` can select it."""
    if spec.name in specs:
        raise ConfigError(where, f"two arms are named {spec.name!r}; expected each name once")
    if not spec.name.isprintable() or not all(part.strip() == part != "" for part in spec.name.split("/")) or set(spec.name) & set("*?[]"):
        raise ConfigError(
            where, f"found the name {spec.name!r}; expected printable letters, without spaces around them and without * ? [ ]"
        )
    if len(spec.name) > MAX_NAME:
        raise ConfigError(where, f"found a name of {len(spec.name)} letters; expected at most {MAX_NAME}")
    if len(specs) == MAX_ARMS:
        raise ConfigError(where, f"makes more than {MAX_ARMS:,} arms; expected fewer")
    specs[spec.name] = spec


def _ladder_arms(file: StudyFile) -> Iterator[ArmSpec]:
    parent: str | None = None
    names: list[str] = []
    for name, rung in file.ladder.items():
        spec = _spec(name, "ladder", f"ladder.{name}", rung or {}, parent)
        names += [name] if parent else []
        yield replace(spec, written=parent is not None, cumulative="+".join(names))
        parent = name


def _check_one_part(name: str, where: str, kind: str) -> None:
    """Raise ConfigError if a name before the slash of its arms has a slash itself, so that its family could not be told from another."""
    if "/" in name:
        raise ConfigError(where, f"has a slash in its name; expected a {kind}'s name without, such as {name.replace('/', '-')}")


def _variants_and_sweeps(file: StudyFile, first: str) -> Iterator[ArmSpec]:
    """Variants and sweep points, each on top of the arm that it is `of`."""
    for name, variant in file.variants.items():
        variant_overrides = variant or {}
        yield replace(_spec(name, "variant", f"variants.{name}", variant_overrides, str(variant_overrides.get("of", first))), written=True)
    for name, sweep in file.sweeps.items():
        yield from _sweep_arms(name, sweep, sweep.of or first)


def _sweep_arms(name: str, sweep: Sweep, of: str) -> Iterator[ArmSpec]:
    where, common = f"sweeps.{name}", dict(sweep.model_extra or {})
    _check_one_part(name, where, "sweep")
    _check_non_settings(common, (), where, "a sweep as a whole")
    axes = [list(_axis_points(axis, points, f"{where}.over.{axis}")) for axis, points in sweep.over.items()]
    if not axes or not all(axes):
        raise ConfigError(f"{where}.over", "has no points; expected at least one axis with one value")
    if math.prod(map(len, axes)) > MAX_ARMS:
        raise ConfigError(f"{where}.over", f"makes more than {MAX_ARMS:,} arms; expected fewer")
    specs = []
    for point in itertools.product(*axes):
        annotations = [_annotations(point_overrides, place) for _, place, point_overrides in point]
        if len(annotations) > 1 and any("published" in point_annotations for point_annotations in annotations):
            raise ConfigError(f"{where}.over", "has published figures, which belong to one arm, on axes that are crossed; expected none")
        joined = {
            key: ", ".join(point_annotations[key] for point_annotations in annotations if key in point_annotations)
            for key in ("label", "note")
        }
        overrides = _by_depth([(where, common), *((place, settings_of(point_overrides)) for _, place, point_overrides in point)])
        _check_axes(point)
        labels = [label for label, _, _ in point]
        factors = dict(zip(sweep.over, labels, strict=True))
        specs.append(ArmSpec("/".join([name, *labels]), "sweep", of, overrides, annotations={**annotations[0], **joined}, factors=factors))
    yield from specs
    if sweep.choose != "none":
        choice = Choice(sweep.choose.removeprefix("val/"), tuple(spec.name for spec in specs))
        yield ArmSpec(f"{name}/best", "sweep", of, specs[0].overrides, choice=choice)


def _check_axes(point: Sequence[tuple[str, str, Overrides]]) -> None:
    """Raise ConfigError if two axes give a setting different values, of which one would count and both stand in the arm's name."""
    values: dict[str, Any] = {}
    for label, place, overrides in point:
        for name, value in flatten(settings_of(overrides)).items():
            if name not in values:
                values[name] = value
            elif not is_same(values[name], value):
                problem = f"the point {label} sets {name} to {value}, and another axis sets it to {values[name]}"
                raise ConfigError(place, f"{problem}; expected each setting on one axis")


def _by_depth(layers: Sequence[tuple[str, Overrides]]) -> tuple[tuple[str, Overrides], ...]:
    """The layers of one point of a sweep, whole techniques before their fields, in whichever order the axes stand."""
    depths = sorted({name.count(".") for _, overrides in layers for name in overrides})
    parts = [
        (place, {name: value for name, value in overrides.items() if name.count(".") == depth})
        for depth in depths
        for place, overrides in layers
    ]
    return (layers[0][0], {}), *(part for part in parts if part[1])


def _axis_points(axis: str, points: object, where: str) -> Iterator[tuple[str, str, Overrides]]:
    """The points of an axis as (label, place in the file, settings).

    A mapping gives a label to the settings of each point; a list gives values of the setting that the axis names.
    """
    if isinstance(points, Mapping):
        for label, point_overrides in points.items():
            if not isinstance(point_overrides, Mapping):
                raise ConfigError(
                    f"{where}.{label}", f"found {point_overrides!r}; expected the settings of this point, such as {{loss: focal}}"
                )
            _check_non_settings(point_overrides, ("label", "note", "published"), f"{where}.{label}", "a point of a sweep")
            yield str(label), f"{where}.{label}", dict(point_overrides)
        return
    if not isinstance(points, list):
        raise ConfigError(where, f"found {points!r}; expected a list of values, or a mapping from labels to settings")
    if axis in NON_SETTINGS:
        raise ConfigError(
            where, f"{axis!r} is no setting; expected an axis that is called like a setting, or a mapping from labels to settings"
        )
    for value in points:
        if isinstance(value, list) or (isinstance(value, Mapping) and set(value) != {"name"}):
            raise ConfigError(where, f"found {value!r}, which has no short name; expected a mapping from labels to settings")
        label = value["name"] if isinstance(value, Mapping) else value
        yield (str(label).lower() if isinstance(label, bool) else str(label)), where.removesuffix(f".{axis}"), {axis: value}


def _drop_one_arms(file: StudyFile, rungs: list[ArmSpec]) -> Iterator[ArmSpec]:
    for name in file.drop_one:
        position = _rung_position(name, rungs, "drop_one")
        if position == 0:
            raise ConfigError("drop_one", f"found {name!r}, the first rung, which has none to leave out; expected a rung below it")
        for dropped in rungs[1 : position + 1]:
            overrides = tuple(override for rung in rungs[: position + 1] if rung is not dropped for override in rung.overrides)
            yield ArmSpec(f"{name}/without-{dropped.name}", "drop_one", name, overrides, factors={"without": dropped.name})


def _add_one_arms(file: StudyFile, rungs: list[ArmSpec]) -> Iterator[ArmSpec]:
    for name in file.add_one:
        position = _rung_position(name, rungs, "add_one")
        if position == len(rungs) - 1:
            raise ConfigError("add_one", f"found {name!r}, the last rung, below which there is none to add; expected a rung above it")
        base_overrides = tuple(override for rung in rungs[: position + 1] for override in rung.overrides)
        for added in rungs[position + 1 :]:
            yield ArmSpec(f"{name}/with-{added.name}", "add_one", name, base_overrides + added.overrides, factors={"with": added.name})


def _grid_arms(file: StudyFile, rungs: list[ArmSpec]) -> Iterator[ArmSpec]:
    if not file.grid.rungs:
        if file.grid.of:
            raise ConfigError("grid.rungs", "is missing; expected the rungs whose subsets are made")
        return
    base_position = _rung_position(file.grid.of or rungs[0].name, rungs, "grid.of")
    positions = [_rung_position(name, rungs, "grid.rungs") for name in file.grid.rungs]
    for position in positions:
        if position <= base_position or positions.count(position) > 1:
            raise ConfigError(
                "grid.rungs", f"found {rungs[position].name!r}; expected each rung once, and only rungs below {rungs[base_position].name!r}"
            )
    if 2 ** len(positions) > MAX_ARMS:
        raise ConfigError("grid.rungs", f"{len(positions)} rungs have more than {MAX_ARMS:,} subsets; expected fewer")
    base_overrides = tuple(override for rung in rungs[: base_position + 1] for override in rung.overrides)
    chosen_rungs = [rungs[position] for position in sorted(positions)]
    for size in range(1, len(chosen_rungs) + 1):
        for subset in itertools.combinations(chosen_rungs, size):
            overrides = base_overrides + tuple(override for rung in subset for override in rung.overrides)
            factors = {rung.name: "with" if rung in subset else "without" for rung in chosen_rungs}
            yield ArmSpec("grid/" + "+".join(rung.name for rung in subset), "grid", rungs[base_position].name, overrides, factors=factors)


def _rung_position(name: str, rungs: list[ArmSpec], where: str) -> int:
    names = [rung.name for rung in rungs]
    if name not in names:
        raise unknown_name(where, "rung", name, names)
    return names.index(name)


def _spec(name: str, kind: str, where: str, definition: Overrides, parent: str | None) -> ArmSpec:
    allowed = ("label", "note", "published") + (("of",) if kind == "variant" else ())
    _check_non_settings(definition, allowed, where, "a rung" if kind == "ladder" else "a variant")
    return ArmSpec(name, kind, parent, ((where, settings_of(definition)),), annotations=_annotations(definition, where))


def _check_non_settings(definition: Mapping[str, Any], allowed: Sequence[str], where: str, owner: str) -> None:
    for key in NON_SETTINGS:
        if key in definition and key not in allowed:
            expected = f"{', '.join(allowed)} or settings" if allowed else "settings"
            raise ConfigError(f"{where}.{key}", f"is not allowed in {owner}; expected {expected}")


def settings_of(definition: Overrides) -> Overrides:
    """The settings in the definition of an arm or a condition."""
    return {name: value for name, value in definition.items() if name not in NON_SETTINGS}


def _annotations(definition: Mapping[str, Any], where: str) -> dict[str, Any]:
    annotations = {key: definition[key] for key in ("label", "note", "published") if key in definition}
    for key in ("label", "note"):
        if not isinstance(annotations.get(key, ""), str):
            raise ConfigError(f"{where}.{key}", f"found {annotations[key]!r}; expected text")
    return annotations


def _inherited_overrides(spec: ArmSpec, specs: Mapping[str, ArmSpec]) -> tuple[tuple[str, Overrides], ...]:
    """The overrides of the arm's ancestors, the first ancestor's first, and then its own."""
    ancestry = [spec]
    while ancestry[-1].kind in ("ladder", "variant", "sweep") and ancestry[-1].parent is not None:
        where, parent = f"{ancestry[-1].overrides[0][0]}.of", ancestry[-1].parent
        if parent not in specs:
            raise unknown_name(where, "arm", parent, specs)
        names = [ancestor.name for ancestor in ancestry]
        if parent in names:
            raise ConfigError(where, f"goes in a circle: {' of '.join([*names, parent])}")
        if specs[parent].choice is not None:
            raise ConfigError(where, f"found {parent!r}, which is a different arm for each seed; expected an arm with settings of its own")
        ancestry.append(specs[parent])
    return tuple(override for ancestor in reversed(ancestry) for override in ancestor.overrides)


def _with_conditions(specs: dict[str, ArmSpec], conditions: Mapping[str, Overrides | None]) -> dict[str, ArmSpec]:
    """The specs, followed by those of every condition: the same overrides over another base, compared within the condition."""
    all_specs = dict(specs)
    for condition, condition_overrides in conditions.items():
        where = f"conditions.{condition}"
        _check_one_part(condition, where, "condition")
        _check_non_settings(condition_overrides or {}, ("arms",), where, "a condition")
        globs = (condition_overrides or {}).get("arms", ["*"])
        if not isinstance(globs, list) or not globs or not all(isinstance(glob, str) for glob in globs):
            raise ConfigError(f"{where}.arms", f"found {globs!r}; expected a list of arms")
        chosen = select_names(specs, globs, f"{where}.arms")
        for name in chosen:
            spec, full_name = specs[name], f"{condition}/{name}"
            parent = spec.parent
            while parent is not None and parent not in chosen:
                parent = specs[parent].parent
            parent = f"{condition}/{parent}" if parent else name
            choice = _choice_within(spec, condition, chosen, where)
            _add(
                all_specs,
                replace(spec, name=full_name, kind="condition", parent=parent, condition=condition, written=False, choice=choice),
                where,
            )
    return all_specs


def _choice_within(spec: ArmSpec, condition: str, chosen: Sequence[str], where: str) -> Choice | None:
    """The spec's choice, now among the condition's own arms."""
    if spec.choice is None:
        return None
    left_out = [name for name in spec.choice.among if name not in chosen]
    if left_out:
        raise ConfigError(f"{where}.arms", f"has {spec.name!r}, but not {left_out[0]!r}, out of which it chooses; expected both")
    return replace(spec.choice, among=tuple(f"{condition}/{name}" for name in spec.choice.among))


def select_names(names: Iterable[str], globs: Sequence[str], where: str) -> list[str]:
    """The names that match any of the globs, in the order of the names; a glob that matches none is an error."""
    names = list(names)
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            raise unknown_name(where, "arm", glob, names)
    return [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]
