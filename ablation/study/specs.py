"""The arms that a file writes or implies, each as the overrides that it lays over the base."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from ablation.errors import ConfigError, unknown_name
from ablation.study.config import Choice, Overrides, StudyFile, Sweep

WORDS = ("of", "label", "note", "published", "arms")  # what an arm says beside settings
MAX_ARMS = 10_000
MAX_NAME = 200


@dataclass(frozen=True)
class ArmSpec:
    """An arm before it is resolved: the overrides of the base, in order, each with its place in the file."""

    name: str
    kind: str
    parent: str | None
    overrides: tuple[tuple[str, Overrides], ...]
    written: bool = False  # whether it is an error that it changes nothing
    words: Mapping[str, Any] = field(default_factory=dict)
    condition: str | None = None
    cumulative: str = ""
    choice: Choice | None = None
    factors: Mapping[str, str] = field(default_factory=dict)


def arm_specs(file: StudyFile) -> dict[str, ArmSpec]:
    """Every arm of the file by name, those of its conditions last."""
    return _conditioned(_specs(file), file.conditions)


def _specs(file: StudyFile) -> dict[str, ArmSpec]:
    rungs = list(_ladder(file))
    specs: dict[str, ArmSpec] = {}
    for spec in itertools.chain(rungs, _derived(file, rungs[0].name), _without(file, rungs), _with(file, rungs), _subsets(file, rungs)):
        _add(specs, spec, spec.overrides[-1][0])
    return {name: replace(spec, overrides=_all_overrides(spec, specs)) for name, spec in specs.items()}


def _add(specs: dict[str, ArmSpec], spec: ArmSpec, where: str) -> None:
    """Take one more arm in, whose name must be new and such that `--arm` can choose it."""
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


def _ladder(file: StudyFile) -> Iterator[ArmSpec]:
    parent: str | None = None
    names: list[str] = []
    for name, own in file.ladder.items():
        spec = _spec(name, "ladder", f"ladder.{name}", own or {}, parent)
        names += [name] if parent else []
        yield replace(spec, written=parent is not None, cumulative="+".join(names))
        parent = name


def _derived(file: StudyFile, first: str) -> Iterator[ArmSpec]:
    """Variants and sweep points, each over the arm that it is `of`."""
    for name, written in file.variants.items():
        own = written or {}
        yield replace(_spec(name, "variant", f"variants.{name}", own, str(own.get("of", first))), written=True)
    for name, sweep in file.sweeps.items():
        yield from _points(name, sweep, sweep.of or first)


def _points(name: str, sweep: Sweep, of: str) -> Iterator[ArmSpec]:
    where, common = f"sweeps.{name}", dict(sweep.model_extra or {})
    _check_words(common, (), where, "a sweep as a whole")
    axes = [list(_axis(axis, points, f"{where}.over.{axis}")) for axis, points in sweep.over.items()]
    if not axes or not all(axes):
        raise ConfigError(f"{where}.over", "has no points; expected at least one axis with one value")
    if math.prod(map(len, axes)) > MAX_ARMS:
        raise ConfigError(f"{where}.over", f"makes more than {MAX_ARMS:,} arms; expected fewer")
    points = []
    for point in itertools.product(*axes):
        words = [_words(own, place) for _, place, own in point]
        if len(words) > 1 and any("published" in one for one in words):
            raise ConfigError(f"{where}.over", "has published figures, which belong to one arm, on axes that are crossed; expected none")
        joined = {word: ", ".join(one[word] for one in words if word in one) for word in ("label", "note")}
        overrides = ((where, common), *((place, settings_of(own)) for _, place, own in point))
        labels = [label for label, _, _ in point]
        factors = dict(zip(sweep.over, labels, strict=True))
        points.append(ArmSpec("/".join([name, *labels]), "sweep", of, overrides, words={**words[0], **joined}, factors=factors))
    yield from points
    if sweep.choose != "none":
        choice = Choice(sweep.choose.removeprefix("val/"), tuple(spec.name for spec in points))
        yield ArmSpec(f"{name}/best", "sweep", of, points[0].overrides, choice=choice)


def _axis(axis: str, points: object, where: str) -> Iterator[tuple[str, str, Overrides]]:
    """The points of an axis as (label, place, settings): a mapping has labels, a list gives values to the setting that the axis names."""
    if isinstance(points, Mapping):
        for label, own in points.items():
            if not isinstance(own, Mapping):
                raise ConfigError(f"{where}.{label}", f"found {own!r}; expected the settings of this point, such as {{loss: focal}}")
            _check_words(own, ("label", "note", "published"), f"{where}.{label}", "a point of a sweep")
            yield str(label), f"{where}.{label}", dict(own)
        return
    if not isinstance(points, list):
        raise ConfigError(where, f"found {points!r}; expected a list of values, or a mapping from labels to settings")
    for value in points:
        if isinstance(value, list) or (isinstance(value, Mapping) and set(value) != {"name"}):
            raise ConfigError(where, f"found {value!r}, which has no short name; expected a mapping from labels to settings")
        label = value["name"] if isinstance(value, Mapping) else value
        yield (str(label).lower() if isinstance(label, bool) else str(label)), where.removesuffix(f".{axis}"), {axis: value}


def _without(file: StudyFile, rungs: list[ArmSpec]) -> Iterator[ArmSpec]:
    for name in file.drop_one:
        position = _position(name, rungs, "drop_one")
        if position == 0:
            raise ConfigError("drop_one", f"found {name!r}, the first rung, which has none to leave out; expected a rung below it")
        for dropped in rungs[1 : position + 1]:
            overrides = tuple(own for rung in rungs[: position + 1] if rung is not dropped for own in rung.overrides)
            yield ArmSpec(f"{name}/without-{dropped.name}", "drop_one", name, overrides, factors={"without": dropped.name})


def _with(file: StudyFile, rungs: list[ArmSpec]) -> Iterator[ArmSpec]:
    for name in file.add_one:
        position = _position(name, rungs, "add_one")
        if position == len(rungs) - 1:
            raise ConfigError("add_one", f"found {name!r}, the last rung, below which there is none to add; expected a rung above it")
        below = tuple(own for rung in rungs[: position + 1] for own in rung.overrides)
        for added in rungs[position + 1 :]:
            yield ArmSpec(f"{name}/with-{added.name}", "add_one", name, below + added.overrides, factors={"with": added.name})


def _subsets(file: StudyFile, rungs: list[ArmSpec]) -> Iterator[ArmSpec]:
    if not file.grid.rungs:
        if file.grid.of:
            raise ConfigError("grid.rungs", "is missing; expected the rungs whose subsets are made")
        return
    of = _position(file.grid.of or rungs[0].name, rungs, "grid.of")
    positions = [_position(name, rungs, "grid.rungs") for name in file.grid.rungs]
    for position in positions:
        if position <= of or positions.count(position) > 1:
            raise ConfigError(
                "grid.rungs", f"found {rungs[position].name!r}; expected each rung once, and only rungs below {rungs[of].name!r}"
            )
    if 2 ** len(positions) > MAX_ARMS:
        raise ConfigError("grid.rungs", f"{len(positions)} rungs have more than {MAX_ARMS:,} subsets; expected fewer")
    below = tuple(own for rung in rungs[: of + 1] for own in rung.overrides)
    members = [rungs[position] for position in sorted(positions)]
    for size in range(1, len(members) + 1):
        for subset in itertools.combinations(members, size):
            overrides = below + tuple(own for rung in subset for own in rung.overrides)
            factors = {rung.name: "with" if rung in subset else "without" for rung in members}
            yield ArmSpec("grid/" + "+".join(rung.name for rung in subset), "grid", rungs[of].name, overrides, factors=factors)


def _position(name: str, rungs: list[ArmSpec], where: str) -> int:
    names = [rung.name for rung in rungs]
    if name not in names:
        raise unknown_name(where, "rung", name, names)
    return names.index(name)


def _spec(name: str, kind: str, where: str, own: Overrides, parent: str | None) -> ArmSpec:
    allowed = ("label", "note", "published") + (("of",) if kind == "variant" else ())
    _check_words(own, allowed, where, "a rung" if kind == "ladder" else "a variant")
    return ArmSpec(name, kind, parent, ((where, settings_of(own)),), words=_words(own, where))


def _check_words(own: Mapping[str, Any], allowed: Sequence[str], where: str, what: str) -> None:
    for word in WORDS:
        if word in own and word not in allowed:
            expected = f"{', '.join(allowed)} or settings" if allowed else "settings"
            raise ConfigError(f"{where}.{word}", f"is nothing that {what} can have; expected {expected}")


def settings_of(own: Overrides) -> Overrides:
    """The settings among what an arm or a condition says."""
    return {name: value for name, value in own.items() if name not in WORDS}


def _words(own: Mapping[str, Any], where: str) -> dict[str, Any]:
    words = {word: own[word] for word in ("label", "note", "published") if word in own}
    for word in ("label", "note"):
        if not isinstance(words.get(word, ""), str):
            raise ConfigError(f"{where}.{word}", f"found {words[word]!r}; expected text")
    return words


def _all_overrides(spec: ArmSpec, specs: Mapping[str, ArmSpec]) -> tuple[tuple[str, Overrides], ...]:
    """The overrides of the arms that this one stands on, the lowest first, and its own."""
    line = [spec]
    while line[-1].kind in ("ladder", "variant", "sweep") and line[-1].parent is not None:
        where, parent = f"{line[-1].overrides[0][0]}.of", line[-1].parent
        if parent not in specs:
            raise unknown_name(where, "arm", parent, specs)
        names = [one.name for one in line]
        if parent in names:
            raise ConfigError(where, f"goes in a circle: {' of '.join([*names, parent])}")
        if specs[parent].choice is not None:
            raise ConfigError(where, f"found {parent!r}, which is another arm for every seed; expected an arm with settings of its own")
        line.append(specs[parent])
    return tuple(own for one in reversed(line) for own in one.overrides)


def _conditioned(specs: dict[str, ArmSpec], conditions: Mapping[str, Overrides | None]) -> dict[str, ArmSpec]:
    """The specs, and after them those of every condition: the same overrides over another base, compared within the condition."""
    everything = dict(specs)
    for condition, own in conditions.items():
        where = f"conditions.{condition}"
        _check_words(own or {}, ("arms",), where, "a condition")
        globs = (own or {}).get("arms", ["*"])
        if not isinstance(globs, list) or not globs or not all(isinstance(glob, str) for glob in globs):
            raise ConfigError(f"{where}.arms", f"found {globs!r}; expected a list of arms")
        chosen = select_names(specs, globs, f"{where}.arms")
        for name in chosen:
            spec, full = specs[name], f"{condition}/{name}"
            parent = spec.parent
            while parent is not None and parent not in chosen:
                parent = specs[parent].parent
            parent = f"{condition}/{parent}" if parent else name
            choice = _choice_within(spec, condition, chosen, where)
            _add(
                everything,
                replace(spec, name=full, kind="condition", parent=parent, condition=condition, written=False, choice=choice),
                where,
            )
    return everything


def _choice_within(spec: ArmSpec, condition: str, chosen: Sequence[str], where: str) -> Choice | None:
    """The choice among the condition's own arms."""
    if spec.choice is None:
        return None
    left_out = [name for name in spec.choice.among if name not in chosen]
    if left_out:
        raise ConfigError(f"{where}.arms", f"has {spec.name!r}, but not {left_out[0]!r}, out of which it chooses; expected both")
    return replace(spec.choice, among=tuple(f"{condition}/{name}" for name in spec.choice.among))


def select_names(names: Iterable[str], globs: Sequence[str], where: str) -> list[str]:
    """The names that match any of the globs, in their own order; a glob that matches none is an error."""
    names = list(names)
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            raise unknown_name(where, "arm", glob, names)
    return [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]
