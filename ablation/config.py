"""The file: what a study, its settings and its stages may say, and how layers of settings are laid over one another."""

import copy
import re
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from ablation import yamlfile
from ablation.errors import ConfigError, nearest, unknown_name
from ablation.techniques.technique import Nested, Technique, build

Select = Literal["last", "best_on_validation", "best_on_test"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Restart = Literal["optimizer", "schedule", "average"]
RESTARTS: tuple[Restart, ...] = ("optimizer", "schedule", "average")


class Settings(Technique):
    """Everything that an arm sets; the file's `base`, a rung, a variant and a stage may set any of it."""

    data: Annotated[Any, Nested("data")]
    model: Annotated[Any, Nested("models")]
    classifier: Annotated[Any, Nested("classifiers")] = "linear"
    augment: Annotated[Any, Nested("augmentations", many=True)] = ()
    sampler: Annotated[Any, Nested("samplers")] = "shuffle"
    mix: Annotated[Any, Nested("mixing")] = "none"
    smoothing: Annotated[Any, Nested("smoothing")] = "none"
    loss: Annotated[Any, Nested("losses")] = "cross_entropy"
    optimizer: Annotated[Any, Nested("optimizers")] = "adamw"
    schedule: Annotated[Any, Nested("schedules")] = "cosine"
    average: Annotated[Any, Nested("averages")] = "none"
    select: Annotated[Select, Field(description="The epoch whose weights are tested.")] = "last"
    tta: Annotated[Any, Nested("tta")] = "none"
    posthoc: Annotated[Any, Nested("posthoc")] = "none"
    epochs: Annotated[int, Field(ge=1, description="How often the training images are gone through, all stages together.")] = 30
    batch_size: Annotated[int, Field(ge=1, description="Images per update.")] = 128
    drop_last: Annotated[bool, Field(description="Whether an epoch leaves out a last batch that is not full.")] = True
    precision: Annotated[Precision, Field(description="Of the arithmetic in the model; auto is the fastest safe one of the device.")] = (
        "auto"
    )
    deterministic: Annotated[bool, Field(description="Whether equal runs give equal bits on CUDA too, at some cost in speed.")] = False
    compile: Annotated[
        bool, Field(description="Whether torch.compile makes the training step; `ablate plan --compile` measures whether that pays.")
    ] = False


WATCHERS = ("average", "select", "tta", "posthoc")  # what does not alter training


class StageOptions(Technique):
    """What a stage says beside settings."""

    epochs: Annotated[Any, Field(description="A count, or a fraction of the arm's epochs such as 2/3.")] = "all"
    train: Annotated[Literal["all", "head"], Field(description="What is trained: everything, or the classifier alone.")] = "all"
    head: Annotated[Literal["keep", "new"], Field(description="Whether the classifier goes on or is drawn anew.")] = "keep"
    backbone: Annotated[
        Literal["auto", "eval", "train"],
        Field(description="Whether the backbone's batch normalisation and dropout are in eval mode; auto: where it is frozen."),
    ] = "auto"
    start: Annotated[Literal["weights", "average"], Field(description="What of the stage before it starts from.")] = "weights"
    restart: Annotated[
        tuple[Restart, ...], Field(strict=False, description="What begins anew; everything does where `train` changes.")
    ] = ()

    @field_validator("epochs")
    @classmethod
    def _is_length(cls, epochs: object) -> object:
        return epochs if epochs == "all" else length(epochs)


@dataclass(frozen=True)
class Stage:
    """A stretch of training with one set of settings, its lengths resolved."""

    settings: Settings
    epochs: int
    first_epoch: int  # epochs that the arm trained before
    schedule_epoch: int  # epochs since the schedule began
    schedule_span: int  # epochs until it ends
    span: int  # epochs between the restarts around this stage, which samplers and mixings go by
    train: str = "all"
    head: str = "keep"
    backbone: str = "train"
    start: str = "weights"
    restart: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """For each seed, the one of some arms with the best metric on the validation images, the first of equal ones."""

    metric: str  # as evaluation names it
    among: tuple[str, ...]

    @property
    def is_lower_better(self) -> bool:
        """Whether the smallest value wins."""
        return self.metric in LOWER_IS_BETTER


@dataclass(frozen=True)
class Arm:
    """One full configuration; `change` maps a dotted setting to (the parent's value, this arm's).

    An arm with a `choice` trains nothing: its runs are those of the arms that it chooses, and its stages the first one's.
    """

    name: str
    kind: str
    parent: str | None
    baseline: str | None
    condition: str | None
    settings: Settings
    stages: tuple[Stage, ...]
    change: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    same_as: str | None = None
    label: str = ""
    note: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    cumulative: str = ""  # a rung's own name with those of the rungs above it after the first: cb+mixup
    choice: Choice | None = None
    factors: Mapping[str, str] = field(default_factory=dict)  # the levels that place it among the arms made with it


@dataclass(frozen=True)
class Study:
    """One YAML file, resolved: its arms in the order of the file."""

    name: str
    file: Path
    seeds: tuple[int, ...]
    groups: Any
    margin: float  # in points
    keep: str
    arms: tuple[Arm, ...]

    @property
    def folder(self) -> Path:
        """Where the file's relative paths start."""
        return self.file.parent


def _checked_seeds(seeds: list[int]) -> list[int]:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= 2**63:
        raise ValueError("at least one seed, each once and none below 0, such as [0, 1, 2]")
    return seeds


def _checked_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError("at most 100 letters, digits, dots, dashes and underscores, the first a letter or a digit")
    return name


NAME = r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}"
Name = Annotated[str, AfterValidator(_checked_name)]  # of a study or profile: folders and files are called so
Seeds = Annotated[list[int], AfterValidator(_checked_seeds)]
Layer = dict[str, Any]
Layers = dict[str, Layer | None]


def _checked_choice(choose: str) -> str:
    if choose not in ("none", *CHOOSE):
        raise ValueError(f"one of {', '.join(CHOOSE)}, or none: a test metric would choose on the test images")
    return choose


LOWER_IS_BETTER = ("nll", "ece")
CHOOSE = tuple(
    f"val/{name}" for name in ("balanced_accuracy", "accuracy", "macro_f1", "g_mean", "worst", "many", "medium", "few", *LOWER_IS_BETTER)
)


class Sweep(BaseModel):
    """Arms NAME/label/label, one for each combination of the axes under `over`; with `choose`, also NAME/best."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    of: str = ""
    over: dict[str, Any]
    choose: Annotated[str, AfterValidator(_checked_choice)] = "none"


class Grid(BaseModel):
    """All subsets of some rungs, over the arm `of`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    of: str = ""
    rungs: list[str] = []


class Profile(BaseModel):
    """Another base and other seeds for the same arms."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    seeds: Seeds | None = None
    groups: Any = None
    base: Layer = {}


NAMED = ("ladder", "variants", "sweeps", "conditions", "profiles")  # the file's mappings from names


class StudyFile(BaseModel):
    """The file as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    study: Annotated[Name, Field(description="The study's name, by default the file's.")]
    seeds: Annotated[Seeds, Field(description="Every arm is run once with each.")]
    groups: Annotated[Any, Field(description="Which classes are many, medium and few.")] = "thirds"
    margin: Annotated[float, Field(gt=0, le=100, description="Points; the report calls smaller differences none.")] = 0.5
    keep: Annotated[Literal["final", "all", "none"], Field(description="The weights that are recorded.")] = "final"
    base: Annotated[Layer, Field(description="The settings that all arms start from.")]
    ladder: Annotated[Layers, Field(description="Arms of which each keeps what the arms above it set.")] = {"baseline": {}}
    variants: Annotated[Layers, Field(description="Arms that differ from another arm, by default the first rung.")] = {}
    sweeps: Annotated[dict[str, Sweep], Field(description="Arms for all combinations of some values.")] = {}
    drop_one: Annotated[list[str], Field(description="Rungs that are run again without each of the rungs down to their own.")] = []
    add_one: Annotated[list[str], Field(description="Rungs that are run again with each of the rungs below.")] = []
    grid: Annotated[Grid, Field(description="All subsets of some rungs.")] = Grid()
    conditions: Annotated[Layers, Field(description="The arms again under another base, compared among themselves.")] = {}
    profiles: Annotated[dict[Name, Profile], Field(description="Other bases and seeds for the same arms.")] = {}

    @field_validator("ladder", mode="before")
    @classmethod
    def _has_rungs(cls, ladder: object) -> object:
        if not ladder:
            raise ConfigError("ladder", "is empty; expected at least its first rung, such as baseline: {} (or leave ladder out)")
        return ladder


def load(path: str | Path) -> StudyFile:
    """The file with those it extends underneath; raises ConfigError for whatever is wrong with its form."""
    raw = _read_extended(Path(path), ())
    raw.setdefault("study", Path(path).stem)
    return build(StudyFile, raw)


def _read_extended(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    path = _absolute(path)
    if path in above:
        raise ConfigError("extends", f"{path.name} extends itself by way of {above[-1].name}")
    raw = yamlfile.read(path)
    if "extends" not in raw:
        return raw
    other = raw.pop("extends")
    if not isinstance(other, str):
        raise ConfigError("extends", f"found {other!r}; expected another study's file")
    below = _absolute(path.parent / other)
    return extend(_anchored(_read_extended(below, (*above, path)), below.parent, path.parent), raw)


PATHS = (  # settings that are paths
    *(("data", name) for name in ("root", "file", "train_list", "validation_list", "test_list", "classes")),
    ("model", "weights"),
)


def _anchored(value: Any, own: Path, other: Path) -> Any:
    """What a file says, its relative paths made to start at its own folder where another folder's file extends it."""
    if own == other:
        return value
    if isinstance(value, list):
        return [_anchored(part, own, other) for part in value]
    if not isinstance(value, dict):
        return value
    anchored = {name: _anchored(part, own, other) for name, part in value.items()}
    for family, name in PATHS:
        inside = anchored.get(family)
        if isinstance(inside, dict) and isinstance(inside.get(name), str) and inside[name] != "none":
            anchored[family] = {**inside, name: str(own / inside[name])}
        dotted = anchored.get(f"{family}.{name}")
        if isinstance(dotted, str) and dotted != "none":
            anchored[f"{family}.{name}"] = str(own / dotted)
    return anchored


def _absolute(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a null byte, a circle of links
        raise ConfigError(ascii(str(path)), f"is no path of a file: {error}") from None


def extend(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two files as one: settings replace, arms add."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        if name == "base" and isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[name] = {**_without_fields_of(value, old), **value}
        elif name in NAMED and isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[name] = {**old, **value}
        elif name in ("drop_one", "add_one") and isinstance(old, list) and isinstance(value, list):
            merged[name] = [*old, *(one for one in value if one not in old)]
        else:
            merged[name] = value
    return merged


def _without_fields_of(replaced: Mapping[str, Any], layer: Mapping[str, Any]) -> Layer:
    """The layer without the dotted fields of settings that are replaced as a whole."""
    return {name: value for name, value in layer.items() if "." not in name or name.partition(".")[0] not in replaced}


def length(value: object) -> int | Fraction:
    """A count of epochs, or a fraction between 0 and 1 (written 2/3 or 0.5)."""
    problem = ConfigError("epochs", f"found {value!r}; expected a count of at least 1, or a fraction of the arm's epochs such as 2/3")
    if isinstance(value, bool) or not isinstance(value, int | float | str | Fraction):
        raise problem
    if isinstance(value, int):
        if value < 1:
            raise problem
        return value
    if isinstance(value, str) and "/" not in value:
        raise problem  # "1" could be one epoch, or all of them
    try:
        fraction = Fraction(value).limit_denominator(10_000)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise problem from None
    if not 0 < fraction <= 1:
        raise problem
    return fraction


@dataclass(frozen=True)
class Draft:
    """What is resolved so far: full settings as plain data, and the layers of the stages, still raw."""

    settings: dict[str, Any]
    stages: tuple[Layer, ...] = ()
    stages_at: str = ""  # the place in the file that lists them


def dump(settings: Technique) -> dict[str, Any]:
    """The settings as plain data, under the names that the file uses."""
    return settings.model_dump(by_alias=True)


def lay(draft: Draft, layer: Mapping[str, Any], where: str) -> Draft:
    """The draft with one layer over it; a plain name replaces a technique, a dotted path one field of it, whatever their order."""
    whole = {name: value for name, value in layer.items() if "." not in name}
    dotted = {name: value for name, value in layer.items() if "." in name}
    for name in whole:
        if name not in (*Settings.model_fields, "stages"):
            raise unknown_name(where, "setting", name, [*Settings.model_fields, "stages"])
    stages, stages_at = [dict(stage) for stage in draft.stages], draft.stages_at
    if "stages" in whole:
        stages, stages_at = _stages(whole.pop("stages"), where), f"{where}.stages"
    settings = canonical({**draft.settings, **whole}, where) if whole else draft.settings
    fields = {name: value for name, value in dotted.items() if name.partition(".")[0] != "stages"}
    for name in sorted(dotted.keys() - fields.keys(), key=lambda name: (name.count("."), name)):  # a technique before its fields
        _lay_stage(stages, name.removeprefix("stages."), dotted[name], f"{where}.{name}" if where else name)
    if fields:
        settings = copy.deepcopy(settings)
        for name, value in fields.items():
            _set_dotted(settings, name, value, where)
        settings = canonical(settings, where)
    return Draft(settings, tuple(stages), stages_at)


def canonical(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings written out in full; errors are told under `where`."""
    try:
        return dump(build(Settings, settings))
    except ConfigError as error:
        raise error.under(where) from None


def _stages(value: object, where: str) -> list[Layer]:
    if not isinstance(value, list) or not value or not all(isinstance(stage, Mapping) for stage in value):
        raise ConfigError(
            f"{where}.stages".lstrip("."), f"found {value!r}; expected a list of stages, each a mapping such as {{epochs: 2/3}}"
        )
    return [dict(stage) for stage in value]


def _lay_stage(stages: list[Layer], rest: str, value: Any, where: str) -> None:
    number, _, name = rest.partition(".")
    if not is_position(number, stages):
        raise ConfigError(where, f"there is no stage {number!r}; the arm has {len(stages)} (counted from 0)")
    stage = stages[int(number)]
    if not name:
        raise ConfigError(where, "names a whole stage; expected one setting of it, such as stages.1.loss")
    if "." not in name:
        for dotted in [key for key in stage if key.startswith(f"{name}.")]:
            del stage[dotted]
    stage[name] = value


def _set_dotted(settings: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    *parents, last = dotted.split(".")
    here: Any = settings
    for depth, part in enumerate(parents):
        here = _step(here, part, ".".join(parents[: depth + 1]), where)
    _step(here, last, dotted, where)
    here[int(last) if isinstance(here, list | tuple) else last] = value


def is_position(part: str, sequence: Sized) -> bool:
    """Whether this part of a dotted path counts an item of the sequence."""
    return re.fullmatch("[0-9]{1,6}", part) is not None and int(part) < len(sequence)


def _step(here: Any, part: str, so_far: str, where: str) -> Any:
    path = f"{where}.{so_far}" if where else so_far
    if isinstance(here, list | tuple):
        if not is_position(part, here):
            raise ConfigError(path, f"found {part!r}; expected a number below {len(here)}, the length of the list")
        return here[int(part)]
    if not isinstance(here, dict):
        raise ConfigError(path, f"cannot be set: what is there has no fields (it is {here!r})")
    if part not in here:
        owner = f"{so_far.rpartition('.')[0]} is {here['name']!r}, which has" if "name" in here else "there is"
        fields = [name for name in here if name != "name"]
        top = so_far.rpartition(".")[0]
        expected = f"one of {', '.join(fields)}" if fields else f"another {top}, set as a whole beside or before it"
        raise ConfigError(path, f"{owner} no field {part!r}; expected {expected}.{nearest(part, fields)}")
    if isinstance(here[part], tuple):
        here[part] = list(here[part])
    return here[part]


def split_stage(layer: Layer) -> tuple[Layer, Layer]:
    """A stage's layer as (its options, the settings it changes)."""
    options = {name: value for name, value in layer.items() if name in StageOptions.model_fields}
    return options, {name: value for name, value in layer.items() if name not in options}
