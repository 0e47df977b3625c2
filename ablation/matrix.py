"""From the file to its arms: each with its stages, its parent and its change."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import Path
from typing import Any

from ablation.config import (
    RESTARTS,
    Arm,
    Choice,
    Draft,
    Layer,
    Settings,
    Stage,
    StageOptions,
    Study,
    StudyFile,
    Sweep,
    canonical,
    dump,
    is_position,
    lay,
    load,
    split_stage,
)
from ablation.errors import ConfigError, nearest, unknown_name
from ablation.techniques.technique import Technique, build

WORDS = ("of", "label", "note", "published", "arms")  # what an arm says beside settings
WHOLE_ARM = ("data", "model", "precision", "deterministic", "compile", "stages")  # what a stage may not change
MAX_ARMS = 10_000
MAX_NAME = 200
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
    choice: Choice | None = None
    factors: Mapping[str, str] = field(default_factory=dict)


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
    if any(name.partition(".")[0] == "data" for _, layer in layers[1:] for name in layer):
        arms = [replace(arm, published={}) for arm in arms]  # they were measured on other data than this profile's
    return Study(name, Path(path).resolve(), tuple(seeds), groups, file.margin, file.keep, tuple(arms))


# --- the arms that the file writes or implies -------------------------------------------------------------------------------


def _specs(file: StudyFile) -> dict[str, _Spec]:
    rungs = list(_ladder(file))
    specs: dict[str, _Spec] = {}
    for spec in itertools.chain(rungs, _derived(file, rungs[0].name), _without(file, rungs), _with(file, rungs), _subsets(file, rungs)):
        _add(specs, spec, spec.layers[-1][0])
    return {name: replace(spec, layers=_all_layers(spec, specs)) for name, spec in specs.items()}


def _add(specs: dict[str, _Spec], spec: _Spec, where: str) -> None:
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


def _ladder(file: StudyFile) -> Iterator[_Spec]:
    parent: str | None = None
    names: list[str] = []
    for name, layer in file.ladder.items():
        spec = _spec(name, "ladder", f"ladder.{name}", layer or {}, parent)
        names += [name] if parent else []
        yield replace(spec, written=parent is not None, cumulative="+".join(names))
        parent = name


def _derived(file: StudyFile, first: str) -> Iterator[_Spec]:
    """Variants and sweep points, each over the arm that it is `of`."""
    for name, layer in file.variants.items():
        own = layer or {}
        yield replace(_spec(name, "variant", f"variants.{name}", own, str(own.get("of", first))), written=True)
    for name, sweep in file.sweeps.items():
        yield from _points(name, sweep, sweep.of or first)


def _points(name: str, sweep: Sweep, of: str) -> Iterator[_Spec]:
    where, common = f"sweeps.{name}", dict(sweep.model_extra or {})
    _check_words(common, (), where, "a sweep as a whole")
    axes = [list(_axis(axis, points, f"{where}.over.{axis}")) for axis, points in sweep.over.items()]
    if not axes or not all(axes):
        raise ConfigError(f"{where}.over", "has no points; expected at least one axis with one value")
    if math.prod(map(len, axes)) > MAX_ARMS:
        raise ConfigError(f"{where}.over", f"makes more than {MAX_ARMS:,} arms; expected fewer")
    points = []
    for point in itertools.product(*axes):
        words = [_words(layer, place) for _, place, layer in point]
        if len(words) > 1 and any("published" in one for one in words):
            raise ConfigError(f"{where}.over", "has published figures, which belong to one arm, on axes that are crossed; expected none")
        joined = {word: ", ".join(one[word] for one in words if word in one) for word in ("label", "note")}
        layers = ((where, common), *((place, _settings(layer)) for _, place, layer in point))
        labels = [label for label, _, _ in point]
        factors = dict(zip(sweep.over, labels, strict=True))
        points.append(_Spec("/".join([name, *labels]), "sweep", of, layers, words={**words[0], **joined}, factors=factors))
    yield from points
    if sweep.choose != "none":
        choice = Choice(sweep.choose.removeprefix("val/"), tuple(spec.name for spec in points))
        yield _Spec(f"{name}/best", "sweep", of, points[0].layers, choice=choice)


def _axis(axis: str, points: object, where: str) -> Iterator[tuple[str, str, Layer]]:
    """The points of an axis as (label, place, layer): a mapping has labels, a list gives values to the setting that the axis names."""
    if isinstance(points, Mapping):
        for label, layer in points.items():
            if not isinstance(layer, Mapping):
                raise ConfigError(f"{where}.{label}", f"found {layer!r}; expected the settings of this point, such as {{loss: focal}}")
            _check_words(layer, ("label", "note", "published"), f"{where}.{label}", "a point of a sweep")
            yield str(label), f"{where}.{label}", dict(layer)
        return
    if not isinstance(points, list):
        raise ConfigError(where, f"found {points!r}; expected a list of values, or a mapping from labels to settings")
    for value in points:
        if isinstance(value, list) or (isinstance(value, Mapping) and set(value) != {"name"}):
            raise ConfigError(where, f"found {value!r}, which has no short name; expected a mapping from labels to settings")
        label = value["name"] if isinstance(value, Mapping) else value
        yield (str(label).lower() if isinstance(label, bool) else str(label)), where.removesuffix(f".{axis}"), {axis: value}


def _without(file: StudyFile, rungs: list[_Spec]) -> Iterator[_Spec]:
    for name in file.drop_one:
        position = _position(name, rungs, "drop_one")
        if position == 0:
            raise ConfigError("drop_one", f"found {name!r}, the first rung, which has none to leave out; expected a rung below it")
        for dropped in rungs[1 : position + 1]:
            layers = tuple(layer for rung in rungs[: position + 1] if rung is not dropped for layer in rung.layers)
            yield _Spec(f"{name}/without-{dropped.name}", "drop_one", name, layers, factors={"without": dropped.name})


def _with(file: StudyFile, rungs: list[_Spec]) -> Iterator[_Spec]:
    for name in file.add_one:
        position = _position(name, rungs, "add_one")
        if position == len(rungs) - 1:
            raise ConfigError("add_one", f"found {name!r}, the last rung, below which there is none to add; expected a rung above it")
        below = tuple(layer for rung in rungs[: position + 1] for layer in rung.layers)
        for added in rungs[position + 1 :]:
            yield _Spec(f"{name}/with-{added.name}", "add_one", name, below + added.layers, factors={"with": added.name})


def _subsets(file: StudyFile, rungs: list[_Spec]) -> Iterator[_Spec]:
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
    below = tuple(layer for rung in rungs[: of + 1] for layer in rung.layers)
    members = [rungs[position] for position in sorted(positions)]
    for size in range(1, len(members) + 1):
        for subset in itertools.combinations(members, size):
            layers = below + tuple(layer for rung in subset for layer in rung.layers)
            factors = {rung.name: "with" if rung in subset else "without" for rung in members}
            yield _Spec("grid/" + "+".join(rung.name for rung in subset), "grid", rungs[of].name, layers, factors=factors)


def _position(name: str, rungs: list[_Spec], where: str) -> int:
    names = [rung.name for rung in rungs]
    if name not in names:
        raise unknown_name(where, "rung", name, names)
    return names.index(name)


def _spec(name: str, kind: str, where: str, layer: Layer, parent: str | None) -> _Spec:
    allowed = ("label", "note", "published") + (("of",) if kind == "variant" else ())
    _check_words(layer, allowed, where, "a rung" if kind == "ladder" else "a variant")
    return _Spec(name, kind, parent, ((where, _settings(layer)),), words=_words(layer, where))


def _check_words(layer: Mapping[str, Any], allowed: Sequence[str], where: str, what: str) -> None:
    for word in WORDS:
        if word in layer and word not in allowed:
            expected = f"{', '.join(allowed)} or settings" if allowed else "settings"
            raise ConfigError(f"{where}.{word}", f"is nothing that {what} can have; expected {expected}")


def _settings(layer: Layer) -> Layer:
    return {name: value for name, value in layer.items() if name not in WORDS}


def _words(layer: Mapping[str, Any], where: str) -> dict[str, Any]:
    words = {word: layer[word] for word in ("label", "note", "published") if word in layer}
    for word in ("label", "note"):
        if not isinstance(words.get(word, ""), str):
            raise ConfigError(f"{where}.{word}", f"found {words[word]!r}; expected text")
    published = words.get("published", {})
    if not isinstance(published, Mapping) or not all(_is_percentage(value) for value in published.values()):
        raise ConfigError(f"{where}.published", f"found {published!r}; expected figures in percent by their report, such as {{A: 84.22}}")
    return words


def _is_percentage(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100


def _all_layers(spec: _Spec, specs: Mapping[str, _Spec]) -> tuple[tuple[str, Layer], ...]:
    """The layers of the arms that this one stands on, the lowest first, and its own."""
    line = [spec]
    while line[-1].kind in ("ladder", "variant", "sweep") and line[-1].parent is not None:
        where, parent = f"{line[-1].layers[0][0]}.of", line[-1].parent
        if parent not in specs:
            raise unknown_name(where, "arm", parent, specs)
        names = [one.name for one in line]
        if parent in names:
            raise ConfigError(where, f"goes in a circle: {' of '.join([*names, parent])}")
        if specs[parent].choice is not None:
            raise ConfigError(where, f"found {parent!r}, which is another arm for every seed; expected an arm with settings of its own")
        line.append(specs[parent])
    return tuple(layer for one in reversed(line) for layer in one.layers)


def _conditioned(specs: dict[str, _Spec], conditions: Mapping[str, Layer | None]) -> dict[str, _Spec]:
    """The specs, and after them those of every condition: the same layers over another base, compared within the condition."""
    everything = dict(specs)
    for condition, layer in conditions.items():
        where = f"conditions.{condition}"
        _check_words(layer or {}, ("arms",), where, "a condition")
        globs = (layer or {}).get("arms", ["*"])
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


def _choice_within(spec: _Spec, condition: str, chosen: Sequence[str], where: str) -> Choice | None:
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
    _check_used(arms, used, sets)
    _check_choices(arms)
    return list(_related(arms))


def _check_choices(arms: Mapping[str, Arm]) -> None:
    """Raise where the points of a choice do not share their validation images."""
    for arm in arms.values():
        if arm.choice is not None and len({arms[name].settings.data for name in arm.choice.among}) > 1:
            sweep = arm.name.removeprefix(f"{arm.condition}/").removesuffix("/best")
            raise ConfigError(
                f"sweeps.{sweep}.choose",
                "its points differ in data, so each would be judged on other validation images; expected one data, or choose: none",
            )


def _check_used(arms: Mapping[str, Arm], used: set[str], sets: Sets) -> None:
    """Raise for a --set that no arm has a place for."""
    for path, _ in sets:
        if path not in used:
            stages = [(i, flatten(dump(stage.settings))) for arm in arms.values() for i, stage in enumerate(arm.stages)]
            known = {name for _, settings in stages for name in settings} | {
                f"stages.{i}.{name}" for i, settings in stages for name in settings
            }
            raise ConfigError(f"--set.{path}", f"no arm has such a field.{nearest(path, known)}")


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
        stages=resolve_stages(draft, where, lambda i, settings: _set_stage(i, settings, sets, used)),
        label=spec.words.get("label", ""),
        note=spec.words.get("note", ""),
        published={str(name): float(value) for name, value in spec.words.get("published", {}).items()},
        cumulative=spec.cumulative,
        choice=spec.choice,
        factors=spec.factors,
    )


def _lay_set(draft: Draft, path: str, value: Any, *, used: set[str]) -> Draft:
    """The draft with one --set over it; one field of a technique is set only in arms whose technique has that field."""
    if not _has(draft, path):
        return draft
    used.add(path)
    return lay(draft, {path: value}, "--set")


def _set_stage(number: int, settings: dict[str, Any], sets: Sets, used: set[str]) -> dict[str, Any]:
    """One stage's settings with every --set over them, in the order of the command."""
    for path, value in sets:
        top, _, rest = path.partition(".")
        own, _, name = rest.partition(".")
        if top != "stages":
            name = "" if path == "epochs" else path
        elif own != str(number) or name.partition(".")[0] not in Settings.model_fields or name == "epochs":
            name = ""
        if name and _has(Draft(settings), name):
            used.add(path)
            settings = lay(Draft(settings), {name: value}, "--set").settings
    return settings


def _has(draft: Draft, path: str) -> bool:
    """Whether the draft has a place for this path; a field of a stage's technique is known only once the stage is resolved."""
    top, *rest = path.split(".")
    if top == "stages" and rest:
        return is_position(rest[0], draft.stages) and (len(rest) < 3 or rest[1] in WHOLE_ARM)
    here: Any = draft.settings
    for part in (top, *rest) if rest else ():
        if isinstance(here, list | tuple) and is_position(part, here):
            here = here[int(part)]
        elif isinstance(here, Mapping) and part in here:
            here = here[part]
        else:
            return False
    return True


def resolve_stages(draft: Draft, where: str, finish: Callable[[int, dict[str, Any]], dict[str, Any]]) -> tuple[Stage, ...]:
    """The stages of a draft, lengths in epochs and restarts worked out; `finish` has the last word on each stage's settings."""
    layers = draft.stages or ({},)
    options, settings = [], []
    for i, layer in enumerate(layers):
        place = f"{draft.stages_at}.{i}" if draft.stages else where
        own, changed = split_stage(layer)
        options.append(_options(own, place, len(layers)))
        _check_whole_arm(changed, place)
        settings.append(build(Settings, finish(i, lay(Draft(draft.settings), changed, place).settings)))
        _check_stage(i, options, settings, {name.partition(".")[0] for name in changed}, place, last=i == len(layers) - 1)
        _check_together(settings[i], place)
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
                span=sum(epochs[begin:end]),
                train=option.train,
                head=option.head,
                backbone=option.backbone if option.backbone != "auto" else ("eval" if option.train == "head" else "train"),
                start=option.start,
                restart=restarts[i],
            )
        )
    _check_mixing(stages, where)
    return tuple(stages)


def _check_mixing(stages: Sequence[Stage], where: str) -> None:
    """Raise where a mixing mixes in none of the epochs that it is set for."""
    for mix in {stage.settings.mix for stage in stages}:
        own = [stage for stage in stages if stage.settings.mix == mix]
        if not any(mix.is_on(stage.schedule_epoch + epoch, stage.span) for stage in own for epoch in range(stage.epochs)):
            num_epochs = sum(stage.epochs for stage in own)
            expected = "expected lower off_first and off_last, or more epochs"
            raise ConfigError(f"{where}.mix", f"{mix.name} mixes in none of its {num_epochs} epochs; {expected}")


def _options(layer: Layer, where: str, num_stages: int) -> StageOptions:
    try:
        options = build(StageOptions, layer)
    except ConfigError as error:
        raise error.under(where) from None
    if num_stages > 1 and options.epochs == "all":
        raise ConfigError(f"{where}.epochs", "is missing; expected a count, or a fraction of the arm's epochs such as 1/3")
    return options


def _check_whole_arm(changed: Iterable[str], where: str) -> None:
    for name in changed:
        if name.partition(".")[0] in WHOLE_ARM:
            raise ConfigError(f"{where}.{name}", "cannot differ between stages; set it for the whole arm")


def _check_stage(i: int, options: list[StageOptions], settings: list[Settings], changed: set[str], where: str, *, last: bool) -> None:
    for name in ("select", "tta", "posthoc"):
        if name in changed and not last:
            raise ConfigError(f"{where}.{name}", "acts on the last stage only; set it there")
    option = options[i]
    _check_classifier(i, options, settings, where)
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


def _check_classifier(i: int, options: list[StageOptions], settings: list[Settings], where: str) -> None:
    """Another classifier is possible only where the classifier alone begins to be trained."""
    new, place = settings[i].classifier, f"{where}.classifier"
    if new.on_trained and (i == 0 or options[i].train != "head"):
        raise ConfigError(place, f"found {new.name!r}, which needs a trained linear layer; expected it in a later stage with train: head")
    if i == 0 or new == settings[i - 1].classifier:
        return
    if not (options[i].train == "head" != options[i - 1].train):
        raise ConfigError(
            place, "can change only where a stage begins to train the head alone; expected train: head there, or one classifier"
        )
    if new.on_trained and (options[i].head == "new" or settings[i - 1].classifier.name != "linear"):
        raise ConfigError(
            place, f"found {new.name!r}, which goes on from a trained linear layer; expected head: keep, after a linear classifier"
        )
    if not new.on_trained and options[i].head == "keep":
        raise ConfigError(place, f"found {new.name!r}, which cannot take over another classifier's weights; expected head: new")


def _check_together(settings: Settings, where: str) -> None:
    """Raise where a technique does not go with the other settings."""
    for name in Settings.model_fields:
        value = getattr(settings, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Technique):
                try:
                    one.check(settings)
                except ConfigError as error:
                    raise error.under(f"{where}.{name}" if where else name) from None


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
    lengths, unrolled = _lengths_changed(parent, arm), _unrolled(parent, arm)
    if "epochs" not in lengths and not any(differences for _, differences in unrolled):
        return {}  # at most cut in other places, which alters nothing
    found = _paired(parent, arm) if len(parent.stages) == len(arm.stages) else unrolled
    changes = lengths
    for name in dict.fromkeys(name for _, differences in found for name in differences):
        values = [differences.get(name) for _, differences in found]
        if all(value == values[0] for value in values):
            changes[name] = found[0][1][name]
        else:
            changes |= {f"stages.{i}.{name}": differences[name] for i, differences in found if name in differences}
    return changes


Differences = dict[str, tuple[Any, Any]]


def _paired(parent: Arm, arm: Arm) -> list[tuple[int, Differences]]:
    """What differs between stages of the same number."""
    return [(i, _differences(_effective(parent, i, begins=i > 0), _effective(arm, i, begins=i > 0))) for i in range(len(arm.stages))]


def _unrolled(parent: Arm, arm: Arm) -> list[tuple[int, Differences]]:
    """What differs from each epoch on at which a stage of either begins, by the stage's number in the arm that has more of them."""
    starts = sorted({stage.first_epoch for one in (parent, arm) for stage in one.stages})
    numbered = arm.stages if len(arm.stages) >= len(parent.stages) else parent.stages
    return [(_index(numbered, start), _differences(_at(parent, start), _at(arm, start))) for start in starts]


def _at(arm: Arm, epoch: int) -> dict[str, Any]:
    number = _index(arm.stages, epoch)
    return _effective(arm, number, begins=arm.stages[number].first_epoch == epoch > 0)


def _lengths_changed(parent: Arm, arm: Arm) -> dict[str, tuple[Any, Any]]:
    old, new = ([stage.epochs for stage in one.stages] for one in (parent, arm))
    changes: dict[str, tuple[Any, Any]] = {"epochs": (sum(old), sum(new))} if sum(old) != sum(new) else {}
    if max(len(old), len(new)) > 1:
        for i, (before, after) in enumerate(itertools.zip_longest(old, new)):
            if before != after:
                changes[f"stages.{i}.epochs"] = (before, after)
    return changes


def _index(stages: tuple[Stage, ...], epoch: int) -> int:
    """The number of the stage in force at an epoch."""
    return max(i for i, stage in enumerate(stages) if stage.first_epoch <= epoch)


def _effective(arm: Arm, number: int, *, begins: bool) -> dict[str, Any]:
    """What is in force in a stage, and what happens where it begins, unless another way of training implies it."""
    stage = arm.stages[number]
    implied = number > 0 and stage.train != arm.stages[number - 1].train
    settings = {name: value for name, value in dump(stage.settings).items() if name != "epochs"}
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
    """The families that a change touches; what stages train counts as one, and their lengths only where nothing else differs."""
    found: dict[str, None] = {}
    lengths: dict[str, None] = {}
    for name in changes:
        parts = name.split(".")
        is_length = parts[0] == "stages" and parts[2] == "epochs"
        top = parts[2] if parts[0] == "stages" else parts[0]
        (lengths if is_length else found)["stages" if top in StageOptions.model_fields else top] = None
    return list(found or lengths)


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
        same = first.setdefault(arm.stages, name) if arm.choice is None else name
        baseline = baselines.setdefault(arm.condition, name)
        changes = _chosen_change(arms, arm) if arm.choice else change(arms[arm.parent], arm) if arm.parent else {}
        yield replace(arm, change=changes, baseline=baseline if baseline != name else None, same_as=same if same != name else None)


def _chosen_change(arms: Mapping[str, Arm], arm: Arm) -> dict[str, tuple[Any, Any]]:
    """What all points of a choice change alike, and the values between which it chooses."""
    assert arm.parent is not None, arm
    assert arm.choice is not None, arm
    points = [change(arms[arm.parent], arms[name]) for name in arm.choice.among]
    found = {}
    for name in dict.fromkeys(name for point in points for name in point):
        old = next(point[name][0] for point in points if name in point)
        values = [point[name][1] if name in point else old for point in points]
        different = [value for i, value in enumerate(values) if value not in values[:i]]
        found[name] = (
            old,
            different[0] if len(different) == 1 else f"the best of {', '.join(map(worded, different))} by val/{arm.choice.metric}",
        )
    return found


def worded(value: Any) -> str:
    """A value as the file has it."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
