"""From the file to its arms: each with its stages, its parent and its change."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import Path
from typing import Any

from ablation.config import (
    RESTARTS,
    Arm,
    Draft,
    Layer,
    Settings,
    Stage,
    StageOptions,
    Study,
    StudyFile,
    canonical,
    dump,
    lay,
    load,
    split_stage,
)
from ablation.errors import ConfigError, unknown_name
from ablation.techniques.technique import build

WORDS = ("of", "label", "note", "published", "arms")  # what an arm says beside settings
WHOLE_ARM = ("data", "model", "classifier", "precision", "deterministic")  # what a stage may not change
Sets = Sequence[tuple[str, Any]]  # --set PATH=VALUE


@dataclass(frozen=True)
class _Spec:
    """An arm before it is resolved: the layers over the base, in order, each with its place in the file."""

    name: str
    kind: str
    parent: str | None
    layers: tuple[tuple[str, Layer], ...]
    written: bool = False  # whether it is an error that it changes nothing
    words: Mapping[str, Any] = field(default_factory=dict)
    condition: str | None = None
    cumulative: str = ""


def load_study(path: str | Path, profile: str | None = None, sets: Sets = ()) -> Study:
    """The study in a file, its arms resolved; `sets` are (dotted path, value) over everything.

    Raises ConfigError with the dotted path in the file for whatever is wrong in it.
    """
    file = load(path)
    layers: list[tuple[str, Layer]] = [("base", file.base)]
    name, seeds, groups = file.study, file.seeds, file.groups
    if profile is not None:
        if profile not in file.profiles:
            raise unknown_name("profiles", "profile", profile, file.profiles)
        chosen = file.profiles[profile]
        layers.append((f"profiles.{profile}.base", chosen.base))
        name, seeds, groups = f"{name}.{profile}", chosen.seeds or seeds, chosen.groups or groups
    arms = _resolve_all(_conditioned(_specs(file), file.conditions), layers, file.conditions, sets)
    if any("data" in layer for _, layer in layers[1:]):
        arms = [replace(arm, published={}) for arm in arms]  # they were measured on other data than this profile's
    return Study(name, Path(path).resolve(), tuple(seeds), groups, file.keep, tuple(arms))


# --- the arms that the file writes or implies -------------------------------------------------------------------------------


def _specs(file: StudyFile) -> dict[str, _Spec]:
    rungs = list(_ladder(file))
    specs: dict[str, _Spec] = {}
    for spec in itertools.chain(rungs, _derived(file, rungs[0].name), _without(file, rungs), _with(file, rungs), _subsets(file, rungs)):
        if spec.name in specs:
            raise ConfigError(spec.name, "two arms have this name; expected each name once")
        specs[spec.name] = spec
    return _joined(specs)


def _ladder(file: StudyFile) -> Iterator[_Spec]:
    parent: str | None = None
    names: list[str] = []
    for name, layer in file.ladder.items():
        spec = _spec(name, "ladder", f"ladder.{name}", layer, parent)
        names += [name] if parent else []
        yield replace(spec, written=parent is not None, cumulative="+".join(names))
        parent = name


def _derived(file: StudyFile, first: str) -> Iterator[_Spec]:
    """Variants and sweep points, each over the arm that it is `of`."""
    for name, layer in file.variants.items():
        yield replace(_spec(name, "variant", f"variants.{name}", layer, str((layer or {}).get("of", first))), written=True)
    for name, sweep in file.sweeps.items():
        where = f"sweeps.{name}"
        common = _settings(dict(sweep.model_extra or {}))
        axes = [list(_axis(axis, points, f"{where}.over.{axis}")) for axis, points in sweep.over.items()]
        if not axes or not all(axes):
            raise ConfigError(f"{where}.over", "has no points; expected at least one axis with one value")
        for point in itertools.product(*axes):
            layers = [(where, common), *((place, _settings(layer)) for _, place, layer in point)]
            words = {word: value for _, _, layer in point for word, value in layer.items() if word in WORDS}
            yield _Spec(
                "/".join([name, *(label for label, _, _ in point)]), "sweep", sweep.of or first, tuple(layers), words=_words(words, where)
            )


def _axis(axis: str, points: object, where: str) -> Iterator[tuple[str, str, Layer]]:
    """The points of an axis as (label, place, layer): a mapping has labels, a list gives values to the setting that the axis names."""
    if isinstance(points, Mapping):
        for label, layer in points.items():
            if not isinstance(layer, Mapping):
                raise ConfigError(f"{where}.{label}", f"found {layer!r}; expected the settings of this point, such as {{loss: focal}}")
            yield str(label), f"{where}.{label}", dict(layer)
        return
    if not isinstance(points, list):
        raise ConfigError(where, f"found {points!r}; expected a list of values, or a mapping from labels to settings")
    for value in points:
        if isinstance(value, list) or (isinstance(value, Mapping) and set(value) != {"name"}):
            raise ConfigError(where, f"found {value!r}, which has no short name; expected a mapping from labels to settings")
        label = value["name"] if isinstance(value, Mapping) else value
        yield (str(label).lower() if isinstance(label, bool) else str(label)), where, {axis: value}


def _without(file: StudyFile, rungs: list[_Spec]) -> Iterator[_Spec]:
    for name in file.drop_one:
        position = _position(name, rungs, "drop_one")
        for dropped in rungs[1 : position + 1]:
            layers = tuple(layer for rung in rungs[: position + 1] if rung is not dropped for layer in rung.layers)
            yield _Spec(f"{name}/without-{dropped.name}", "drop_one", name, layers)


def _with(file: StudyFile, rungs: list[_Spec]) -> Iterator[_Spec]:
    for name in file.add_one:
        position = _position(name, rungs, "add_one")
        below = tuple(layer for rung in rungs[: position + 1] for layer in rung.layers)
        for added in rungs[position + 1 :]:
            yield _Spec(f"{name}/with-{added.name}", "add_one", name, below + added.layers)


def _subsets(file: StudyFile, rungs: list[_Spec]) -> Iterator[_Spec]:
    of = file.grid.of or rungs[0].name
    below = tuple(layer for rung in rungs[: _position(of, rungs, "grid.of") + 1] for layer in rung.layers) if file.grid.rungs else ()
    chosen = [rungs[_position(name, rungs, "grid.rungs")] for name in file.grid.rungs]
    for size in range(1, len(chosen) + 1):
        for subset in itertools.combinations(chosen, size):
            layers = below + tuple(layer for rung in subset for layer in rung.layers)
            yield _Spec("grid/" + "+".join(rung.name for rung in subset), "grid", of, layers)


def _position(name: str, rungs: list[_Spec], where: str) -> int:
    names = [rung.name for rung in rungs]
    if name not in names:
        raise unknown_name(where, "rung", name, names)
    return names.index(name)


def _spec(name: str, kind: str, where: str, layer: Layer | None, parent: str | None) -> _Spec:
    layer = layer or {}
    if "arms" in layer or (kind == "ladder" and "of" in layer):
        word = "arms" if "arms" in layer else "of"
        raise ConfigError(where, f"found {word!r}, which a {kind} cannot have")
    return _Spec(name, kind, parent, ((where, _settings(layer)),), words=_words(layer, where))


def _settings(layer: Layer) -> Layer:
    return {name: value for name, value in layer.items() if name not in WORDS}


def _words(layer: Mapping[str, Any], where: str) -> dict[str, Any]:
    words = {word: layer[word] for word in ("label", "note", "published") if word in layer}
    for word in ("label", "note"):
        if not isinstance(words.get(word, ""), str):
            raise ConfigError(f"{where}.{word}", f"found {words[word]!r}; expected text")
    published = words.get("published", {})
    if not isinstance(published, Mapping) or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in published.values()):
        raise ConfigError(f"{where}.published", f"found {published!r}; expected figures in percent by their report, such as {{A: 84.22}}")
    return words


def _joined(specs: dict[str, _Spec]) -> dict[str, _Spec]:
    """The specs with the layers of the arm that each is `of` underneath their own."""

    def layers(spec: _Spec, above: tuple[str, ...]) -> tuple[tuple[str, Layer], ...]:
        if spec.name in above:
            raise ConfigError(f"{spec.kind}s.{spec.name}.of", f"goes in a circle: {' of '.join([*above, spec.name])}")
        own = spec.layers
        if spec.kind == "ladder":
            return (layers(specs[spec.parent], above) if spec.parent else ()) + own
        if spec.kind not in ("variant", "sweep"):
            return own
        if spec.parent not in specs:
            raise unknown_name(f"{own[0][0]}.of", "arm", str(spec.parent), specs)
        return layers(specs[spec.parent], (*above, spec.name)) + own

    return {name: replace(spec, layers=layers(spec, ())) for name, spec in specs.items()}


def _conditioned(specs: dict[str, _Spec], conditions: Mapping[str, Layer | None]) -> dict[str, _Spec]:
    """The specs, and after them those of every condition: the same layers over another base, compared within the condition."""
    everything = dict(specs)
    for condition, layer in conditions.items():
        globs = (layer or {}).get("arms", ["*"])
        if not isinstance(globs, list) or not all(isinstance(glob, str) for glob in globs):
            raise ConfigError(f"conditions.{condition}.arms", f"found {globs!r}; expected a list of arms")
        chosen = select_names(specs, globs, f"conditions.{condition}.arms")
        for name in chosen:
            spec, full = specs[name], f"{condition}/{name}"
            parent = spec.parent
            while parent is not None and parent not in chosen:
                parent = specs[parent].parent
            if full in everything:
                raise ConfigError(f"conditions.{condition}", f"two arms are named {full!r}; expected each name once")
            parent = f"{condition}/{parent}" if parent else name
            everything[full] = replace(spec, name=full, kind="condition", parent=parent, condition=condition, written=False)
    return everything


def select_names(names: Iterable[str], globs: Sequence[str], where: str) -> list[str]:
    """The names that match any of the globs, in their own order; a glob that matches none is an error."""
    names = list(names)
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            raise unknown_name(where, "arm", glob, names)
    return [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]


# --- resolving ---------------------------------------------------------------------------------------------------------------


def _resolve_all(
    specs: Mapping[str, _Spec], base: list[tuple[str, Layer]], conditions: Mapping[str, Layer | None], sets: Sets
) -> list[Arm]:
    bases: dict[str | None, Draft] = {None: _base(base)}
    for name, layer in conditions.items():
        bases[name] = lay(bases[None], _settings(layer or {}), f"conditions.{name}")
    used: set[str] = set()
    plain = {name: _resolve(spec, bases[spec.condition], (), used) for name, spec in specs.items()}
    _check_changes(specs, plain)
    arms = {name: _resolve(spec, bases[spec.condition], sets, used) for name, spec in specs.items()} if sets else plain
    for path, value in sets:
        if path not in used:
            first = next(iter(specs.values()))
            _lay_set(Draft(dump(arms[first.name].settings)), path, value, strictly=True)
    return list(_related(arms))


def _base(layers: list[tuple[str, Layer]]) -> Draft:
    """The draft of the base, and of the profile over it."""
    (where, layer), *others = layers
    for needed in ("data", "model"):
        if needed not in layer and not any(needed in other for _, other in others):
            raise ConfigError(
                f"{where}.{needed}",
                "is missing; expected "
                + ("a data set, such as cifar10" if needed == "data" else "a model, such as {name: efficientnet_b0}"),
            )
    whole = {name: value for name, value in layer.items() if "." not in name}
    unknown = [name for name in whole if name not in (*Settings.model_fields, "stages")]
    if unknown:
        raise unknown_name(where, "setting", unknown[0], [*Settings.model_fields, "stages"])
    replaced = {name: value for _, other in others for name, value in other.items() if name in ("data", "model") and name not in whole}
    draft = Draft(canonical({name: value for name, value in {**replaced, **whole}.items() if name != "stages"}, where))
    rest = {name: value for name, value in layer.items() if "." in name or name == "stages"}
    for place, other in [(where, rest), *others]:
        draft = lay(draft, other, place)
    return draft


def _resolve(spec: _Spec, base: Draft, sets: Sets, used: set[str]) -> Arm:
    draft = base
    for where, layer in spec.layers:
        draft = lay(draft, layer, where)
    for path, value in sets:
        draft = _lay_set(draft, path, value, used=used)
    where = spec.layers[-1][0] if spec.layers else "base"
    return Arm(
        name=spec.name,
        kind=spec.kind,
        parent=spec.parent,
        baseline=None,
        condition=spec.condition,
        settings=build(Settings, draft.settings),
        stages=resolve_stages(draft, where, lambda settings: _set_stage(settings, sets, used)),
        label=spec.words.get("label", ""),
        note=spec.words.get("note", ""),
        published={str(name): float(value) for name, value in spec.words.get("published", {}).items()},
        cumulative=spec.cumulative,
    )


def _lay_set(draft: Draft, path: str, value: Any, *, used: set[str] | None = None, strictly: bool = False) -> Draft:
    """The draft with one --set over it; one field of a technique is set only in arms whose technique has that field."""
    if strictly or _has(draft, path):
        draft = lay(draft, {path: value}, "--set")
        if used is not None:
            used.add(path)
    return draft


def _set_stage(settings: dict[str, Any], sets: Sets, used: set[str]) -> dict[str, Any]:
    for path, value in sets:
        if path != "epochs" and not path.startswith("stages"):
            settings = _lay_set(Draft(settings), path, value, used=used).settings
    return settings


def _has(draft: Draft, path: str) -> bool:
    top, *rest = path.split(".")
    if top == "stages" and rest:
        return rest[0].isdigit() and int(rest[0]) < len(draft.stages)
    if not rest:
        return True
    here: Any = draft.settings
    for part in (top, *rest):
        if isinstance(here, list | tuple) and part.isdigit() and int(part) < len(here):
            here = here[int(part)]
        elif isinstance(here, Mapping) and part in here:
            here = here[part]
        else:
            return False
    return True


def resolve_stages(
    draft: Draft, where: str, finish: Callable[[dict[str, Any]], dict[str, Any]] = lambda settings: settings
) -> tuple[Stage, ...]:
    """The stages of a draft, lengths in epochs and restarts worked out; `finish` has the last word on each stage's settings."""
    layers = draft.stages or ({},)
    options, settings = [], []
    for i, layer in enumerate(layers):
        place = f"{where}.stages.{i}" if draft.stages else where
        own, changed = split_stage(layer)
        options.append(_options(own, place, len(layers)))
        settings.append(build(Settings, finish(lay(Draft(draft.settings), changed, place).settings)))
        _check_stage(i, options, settings, {name.partition(".")[0] for name in changed}, place, last=i == len(layers) - 1)
    epochs = _lengths([option.epochs for option in options], draft.settings["epochs"])
    restarts = [_restarts(i, options) for i in range(len(layers))]
    stages = []
    for i, option in enumerate(options):
        begin = max(j for j in range(i + 1) if "schedule" in restarts[j])
        end = next((j for j in range(i + 1, len(layers)) if "schedule" in restarts[j]), len(layers))
        named = settings[i].schedule.epochs
        stages.append(
            Stage(
                settings=settings[i],
                epochs=epochs[i],
                first_epoch=sum(epochs[:i]),
                schedule_epoch=sum(epochs[begin:i]),
                schedule_span=named if isinstance(named, int) else sum(epochs[begin:end]),
                train=option.train,
                head=option.head,
                backbone=option.backbone if option.backbone != "auto" else ("eval" if option.train == "head" else "train"),
                start=option.start,
                restart=restarts[i],
            )
        )
    return tuple(stages)


def _options(layer: Layer, where: str, num_stages: int) -> StageOptions:
    try:
        options = build(StageOptions, layer)
    except ConfigError as error:
        raise error.under(where) from None
    if num_stages > 1 and options.epochs == "all":
        raise ConfigError(f"{where}.epochs", "is missing; expected a count, or a fraction of the arm's epochs such as 1/3")
    return options


def _check_stage(i: int, options: list[StageOptions], settings: list[Settings], changed: set[str], where: str, *, last: bool) -> None:
    for name in WHOLE_ARM:
        if name in changed:
            raise ConfigError(f"{where}.{name}", "cannot differ between stages; set it for the whole arm")
    for name in ("select", "tta", "posthoc"):
        if name in changed and not last:
            raise ConfigError(f"{where}.{name}", "acts on the last stage only; set it there")
    option = options[i]
    if i == 0:
        for name, value, default in (("head", option.head, "keep"), ("start", option.start, "weights")):
            if value != default:
                raise ConfigError(
                    f"{where}.{name}", f"found {value!r} in the first stage, before which there is none; expected {default!r}"
                )
        return
    if option.start == "average" and not settings[i - 1].average.averages:
        raise ConfigError(
            f"{where}.start", "found 'average', but the stage before keeps none; expected an average there, or start: weights"
        )
    carries_on = option.train == options[i - 1].train and "optimizer" not in option.restart
    if carries_on and settings[i].optimizer.name != settings[i - 1].optimizer.name:
        raise ConfigError(
            f"{where}.optimizer", "another optimizer cannot take over the state of the one before; expected restart: [optimizer]"
        )


def _restarts(i: int, options: list[StageOptions]) -> tuple[str, ...]:
    if i == 0 or options[i].train != options[i - 1].train:
        return RESTARTS
    return tuple(name for name in RESTARTS if name in options[i].restart)


def _lengths(lengths: Sequence[Any], total: int) -> list[int]:
    """Epochs of each stage; fractions are rounded at their running sum, so that stages of 2/3 and 1/3 add up to the whole."""
    epochs, done = [], Fraction(0)
    for one in lengths:
        if isinstance(one, int):
            epochs.append(one)
            continue
        fraction = Fraction(1) if one == "all" else Fraction(one)
        epochs.append(max(1, round((done + fraction) * total) - round(done * total)))
        done += fraction
    return epochs


# --- change ------------------------------------------------------------------------------------------------------------------


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names; lists of techniques by position, other lists as they are."""
    if isinstance(value, Mapping):
        return {k: v for name, part in value.items() for k, v in flatten(part, f"{path}.{name}" if path else str(name)).items()}
    if isinstance(value, list | tuple) and value and all(isinstance(part, Mapping) for part in value):
        return {k: v for i, part in enumerate(value) for k, v in flatten(part, f"{path}.{i}").items()}
    return {path: list(value) if isinstance(value, tuple) else value}


def change(parent: Arm, arm: Arm) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, leaf by leaf, stages unrolled: what differs throughout has its plain name, else that of its stage."""
    ends = [[stage.first_epoch + stage.epochs for stage in one.stages] for one in (parent, arm)]
    longest = max(ends[0][-1], ends[1][-1])
    starts = sorted({0, *(end for end in (*ends[0], *ends[1]) if end < longest)})
    found: list[tuple[int, dict[str, tuple[Any, Any]]]] = []
    for start in starts:
        old, new = _at(parent, start), _at(arm, start)
        numbered = arm.stages if len(arm.stages) >= len(parent.stages) else parent.stages
        found.append((_index(numbered, start), _differences(_effective(old, start), _effective(new, start))))
    changes = _lengths_changed(parent, arm)
    for name in dict.fromkeys(name for _, differences in found for name in differences):
        values = [differences.get(name) for _, differences in found]
        if all(value == values[0] for value in values):
            changes[name] = found[0][1][name]
        else:
            changes |= {f"stages.{i}.{name}": differences[name] for i, differences in found if name in differences}
    return changes


def _lengths_changed(parent: Arm, arm: Arm) -> dict[str, tuple[Any, Any]]:
    old, new = ([stage.epochs for stage in one.stages] for one in (parent, arm))
    changes: dict[str, tuple[Any, Any]] = {"epochs": (sum(old), sum(new))} if sum(old) != sum(new) else {}
    if max(len(old), len(new)) > 1:
        for i, (before, after) in enumerate(itertools.zip_longest(old, new)):
            if before != after:
                changes[f"stages.{i}.epochs"] = (before, after)
    return changes


def _index(stages: tuple[Stage, ...], epoch: int) -> int:
    return max(i for i, stage in enumerate(stages) if stage.first_epoch <= epoch or i == 0)


def _at(arm: Arm, epoch: int) -> tuple[Stage, bool]:
    """The stage in force at an epoch, and whether its training method differs from the stage before (which implies its restarts)."""
    i = _index(arm.stages, epoch)
    return arm.stages[i], i > 0 and arm.stages[i].train != arm.stages[i - 1].train


def _effective(stage_and_implied: tuple[Stage, bool], start: int) -> dict[str, Any]:
    stage, implied = stage_and_implied
    settings = {name: value for name, value in dump(stage.settings).items() if name != "epochs"}
    begins = start == stage.first_epoch and start > 0
    options = {
        "train": stage.train,
        "head": stage.head if begins else "keep",
        "backbone": stage.backbone,
        "start": stage.start if begins else "weights",
        "restart": list(stage.restart) if begins and not implied else [],
    }
    return flatten(settings) | options


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys([*old, *new])
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def families(changes: Iterable[str]) -> list[str]:
    """The families that a change touches; stages' lengths and what they train count as one."""
    found = []
    for name in changes:
        parts = name.split(".")
        if parts[0] == "stages":
            parts = parts[2:]
        found.append("stages" if parts[0] in ("epochs", "train", "head", "backbone", "start", "restart") else parts[0])
    return list(dict.fromkeys(found))


def _check_changes(specs: Mapping[str, _Spec], arms: Mapping[str, Arm]) -> None:
    for spec in specs.values():
        if spec.written and spec.parent and not change(arms[spec.parent], arms[spec.name]):
            raise ConfigError(
                spec.layers[-1][0], f"changes nothing against {spec.parent!r}; expected a setting that differs, or no such arm"
            )
    for condition in dict.fromkeys(spec.condition for spec in specs.values() if spec.condition):
        names = [spec.name for spec in specs.values() if spec.condition == condition]
        if not any(change(arms[name.removeprefix(f"{condition}/")], arms[name]) for name in names):
            raise ConfigError(
                f"conditions.{condition}", "changes nothing in any arm; expected a setting that differs, or no such condition"
            )


def _related(arms: Mapping[str, Arm]) -> Iterator[Arm]:
    """The arms with their change, their baseline, and the first arm that resolves alike."""
    first: dict[tuple[Stage, ...], str] = {}
    baselines: dict[str | None, str] = {}
    for name, arm in arms.items():
        same = first.setdefault(arm.stages, name)
        baseline = baselines.setdefault(arm.condition, name)
        changes = change(arms[arm.parent], arm) if arm.parent else {}
        yield replace(arm, change=changes, baseline=baseline if baseline != name else None, same_as=same if same != name else None)
