"""The study's file as it is written, merged with the files that it extends, and the resolved study."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from ablation.errors import ConfigError, unknown_name
from ablation.study import yamlfile
from ablation.study.settings_schema import SettingsSchema
from ablation.study.task import DEFAULT, OWN, Task, load_task
from ablation.system.digests import digest
from ablation.system.paths import user_path
from ablation.techniques.technique import build

AUTO = "auto"  # the metric that fits the data


@dataclass(frozen=True)
class Choice:
    """For each seed, the arm among some that has the best validation metric; of equal ones, the first."""

    metric: str  # without `val/`
    among: tuple[str, ...]
    is_lower_better: bool = False  # whether the smallest value wins


@dataclass(frozen=True)
class Arm:
    """One full configuration; `change` maps a dotted setting to (the parent's value, this arm's).

    An arm with a `choice` trains nothing: its runs are those of the arms that it chooses, and its stages are those of the first of them.
    """

    name: str
    kind: str
    parent: str | None
    baseline: str | None
    condition: str | None
    settings: Any  # an instance of `SettingsSchema.settings` of its task
    stages: tuple[Any, ...]  # each a `study.task.Stage`
    change: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    same_as: str | None = None
    label: str = ""
    note: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    cumulative: str = ""  # the names of the rungs from the second to this one: cb+mixup
    choice: Choice | None = None
    factors: Mapping[str, str] = field(default_factory=dict)  # axis -> level, in a sweep or grid


@dataclass(frozen=True)
class Study:
    """A resolved YAML file; its arms are in the order of the file."""

    name: str
    file: Path
    seeds: tuple[int, ...]
    groups: Any
    margin: float  # in points
    keep: str
    arms: tuple[Arm, ...]
    task: Task = field(default_factory=load_task)  # the kind of work
    plain: tuple[Arm, ...] = ()  # the arms as the file has them, without what --set changes
    sets: tuple[tuple[str, Any], ...] = ()  # what --set changes
    text: str = ""  # a hash of all that is written in the file
    metric: str = AUTO  # as the file names it; what it stands for depends on the data
    content: bytes = field(default=b"", repr=False)  # the file, as it was when the study was read

    @property
    def folder(self) -> Path:
        """The folder at which the file's relative paths start."""
        return self.file.parent


def _checked_seeds(seeds: list[int]) -> list[int]:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= 2**63:
        raise ValueError("at least one seed, each once and none below 0, such as [0, 1, 2]")
    return seeds


def _checked_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError("at most 100 letters, digits, dots, dashes and underscores, the first a letter or a digit")
    return name


def _checked_margin(margin: float) -> float:
    if margin < SMALLEST_MARGIN:
        raise ValueError(f"points, such as 0.5; as a fraction {margin:g} would be {100 * margin:g} points")
    return margin


SMALLEST_MARGIN = 0.01  # points: what is less is likely a fraction, as 0.005 for half a point
NAME = r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}"
Name = Annotated[str, AfterValidator(_checked_name)]  # of a study or profile; folders and files are named after it
Seeds = Annotated[list[int], AfterValidator(_checked_seeds)]
Overrides = dict[str, Any]  # settings by name or dotted path, laid over others
NamedOverrides = dict[str, Overrides | None]


class Sweep(BaseModel):
    """Arms NAME/label/label, one for each combination of the axes under `over`; with `choose`, also NAME/best."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    of: str = ""
    over: dict[str, Any]
    choose: str = "none"


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
    metric: str | None = None
    base: Overrides = {}


NAMED_SECTIONS = ("ladder", "variants", "sweeps", "conditions", "profiles")  # the sections of the file that map names


class StudyFile(BaseModel):
    """The file as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    study: Annotated[Name, Field(description="The study's name, by default the file's.")]
    seeds: Annotated[Seeds, Field(description="Every arm is run once with each.")]
    task: Annotated[
        Any, Field(description="One's own training code: module:function, a command, or a mapping. Image classification without it.")
    ] = None
    metrics: Annotated[
        dict[str, Any], Field(description="The numbers that one's own training code hands back, the first is the headline.")
    ] = {}
    curves: Annotated[dict[str, str], Field(description="Patterns over what a command prints while it runs.")] = {}
    groups: Annotated[Any, Field(description="Which classes are many, medium and few.")] = "thirds"
    metric: Annotated[
        str, Field(description="The test metric that verdicts go by; auto is accuracy where all classes have equally many test images.")
    ] = AUTO
    margin: Annotated[
        float,
        Field(gt=0, le=100, description='Points: "no difference" is claimed only where the seeds show that it is smaller.'),
        AfterValidator(_checked_margin),
    ] = 0.5
    keep: Annotated[Literal["final", "all", "none"], Field(description="The weights that are recorded.")] = "final"
    base: Annotated[Overrides, Field(description="The settings that all arms start from.")]
    ladder: Annotated[NamedOverrides, Field(description="Arms of which each keeps what the arms above it set.")] = {"baseline": {}}
    variants: Annotated[NamedOverrides, Field(description="Arms that differ from another arm, by default the first rung.")] = {}
    sweeps: Annotated[dict[str, Sweep], Field(description="Arms for all combinations of some values.")] = {}
    drop_one: Annotated[list[str], Field(description="Rungs that are run again without each of the rungs down to their own.")] = []
    add_one: Annotated[list[str], Field(description="Rungs that are run again with each of the rungs below.")] = []
    grid: Annotated[Grid, Field(description="All subsets of some rungs.")] = Grid()
    conditions: Annotated[NamedOverrides, Field(description="The arms again under another base, compared among themselves.")] = {}
    profiles: Annotated[dict[Name, Profile], Field(description="Other bases and seeds for the same arms.")] = {}

    @field_validator("ladder", mode="before")
    @classmethod
    def _has_rungs(cls, ladder: object) -> object:
        if not ladder:
            raise ConfigError("ladder", "is empty; expected at least its first rung, such as baseline: {} (or leave ladder out)")
        return ladder


OWN_FIELDS = ("task", "metrics", "curves")  # the fields of files of one's own training code


def text_hash(file: StudyFile) -> str:
    """A hash of all that is written in a file and in those that it extends, but for comments and layout."""
    content = file.model_dump()
    return digest({name: value for name, value in content.items() if value or name not in OWN_FIELDS})


def task_of(file: StudyFile) -> Task:
    """The kind of work of a file, as it is without what the file says of it."""
    return load_task(DEFAULT if file.task is None else OWN)


def load(path: str | Path) -> StudyFile:
    """The file merged with those that it extends; raises ConfigError if its form is wrong. No code that it names is imported."""
    files = _extended_files(user_path(path, "FILE").resolve(), ())
    raw = _merged(files, load_task(OWN if any("task" in contents for _, contents in files) else DEFAULT))
    raw.setdefault("study", Path(path).stem)
    if "task" in raw:
        raw.setdefault("base", {})  # a function has defaults of its own
    file = build(StudyFile, raw)
    task_of(file).check_file(file, Path(path).resolve().parent)
    return file


def check_names(file: StudyFile, schema: SettingsSchema) -> None:
    """Raise ConfigError for a metric that no run has, by which the file goes or chooses, and for fields of one's own training code."""
    profiles = {f"profiles.{name}.metric": profile.metric or AUTO for name, profile in file.profiles.items()}
    for place, metric in {"metric": file.metric, **profiles}.items():
        _check_metric(place, metric, schema)
    for name, sweep in file.sweeps.items():
        if sweep.choose not in ("none", *schema.choices):
            expected = f"expected one of {', '.join(schema.choices)}, or none: a test metric would choose on the test images"
            raise ConfigError(f"sweeps.{name}.choose", f"found {sweep.choose!r}; {expected}")
    for name in ("metrics", "curves"):
        if name in file.model_fields_set:
            raise ConfigError(name, "is declared, but the file has no task; expected task: my_module:train, or a command, beside it")


def _check_metric(place: str, metric: str, schema: SettingsSchema) -> None:
    """Raise ConfigError for a metric that no run has; which classes there are is not known yet."""
    name, (kind, _, of_class) = metric.removeprefix("test/"), metric.removeprefix("test/").partition("/")
    if name not in (AUTO, *schema.metrics) and not (kind in schema.class_metrics and of_class):
        raise unknown_name(place, "metric", metric, (AUTO, *schema.metrics, *(f"{kind}/CLASS" for kind in schema.class_metrics)))


def _extended_files(path: Path, extending: tuple[Path, ...]) -> list[tuple[Path, dict[str, Any]]]:
    """The contents of a file and of those that it extends, each with its path, the file itself last."""
    if path in extending:
        raise ConfigError("extends", f"{path.name} extends itself by way of {extending[-1].name}")
    raw = yamlfile.read(path)
    if "extends" not in raw:
        return [(path, raw)]
    extended_name = raw.pop("extends")
    if not isinstance(extended_name, str):
        raise ConfigError("extends", f"found {extended_name!r}; expected another study's file")
    extended_path = user_path(extended_name, "extends", path.parent).resolve()
    return [*_extended_files(extended_path, (*extending, path)), (path, raw)]


def _merged(files: Sequence[tuple[Path, dict[str, Any]]], task: Task) -> dict[str, Any]:
    """The files merged, each over the one before it, with relative paths that start at the folder of the last one."""
    (before, merged), *others = files
    for path, raw in others:
        if task.paths is None and path.parent != before.parent:
            expected = "expected a file in this folder, where the paths of its task start"
            raise ConfigError("extends", f"found {before}; {expected}")
        merged, before = extend(_relocate_paths(merged, before.parent, path.parent, task.paths or ()), raw), path
    return merged


def _relocate_paths(value: Any, folder: Path, extending_folder: Path, paths: Sequence[tuple[str, str]]) -> Any:
    """The contents of a file in `folder`; if a file in another folder extends it, its relative paths are made to start at `folder`."""
    if folder == extending_folder:
        return value
    if isinstance(value, list):
        return [_relocate_paths(item, folder, extending_folder, paths) for item in value]
    if not isinstance(value, dict):
        return value
    relocated = {name: _relocate_paths(item, folder, extending_folder, paths) for name, item in value.items()}
    for family, name in paths:
        settings = relocated.get(family)
        if isinstance(settings, dict) and _is_relative(settings.get(name)):
            relocated[family] = {**settings, name: str(folder / settings[name])}
        path = relocated.get(f"{family}.{name}")
        if _is_relative(path):
            relocated[f"{family}.{name}"] = str(folder / path)
        elif isinstance(path, list) and any(map(_is_relative, path)):  # the values of a sweep's axis, which keep their labels
            place = f"{family}.{name}"
            relocated[place] = {str(value): {place: str(folder / value) if _is_relative(value) else value} for value in path}
    return relocated


def _is_relative(path: object) -> TypeGuard[str]:
    """Whether a setting is a path that starts at the file's folder."""
    return isinstance(path, str) and path != "none" and not path.startswith("~")


def extend(extended: dict[str, Any], extending: dict[str, Any]) -> dict[str, Any]:
    """Two files merged: settings of the extending file replace those below, its arms are added."""
    merged = dict(extended)
    for name, value in extending.items():
        old = merged.get(name)
        if name == "base" and isinstance(old, Mapping) and isinstance(value, Mapping):
            kept = {key: setting for key, setting in _without_fields_of(value, old).items() if key not in value}
            merged[name] = {**kept, **value}
        elif name in (*NAMED_SECTIONS, "metrics", "curves") and isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[name] = {**old, **value}
        elif name in ("drop_one", "add_one") and isinstance(old, list) and isinstance(value, list):
            merged[name] = [*old, *(rung for rung in value if rung not in old)]
        else:
            merged[name] = value
    return merged


def _without_fields_of(replaced: Mapping[str, Any], layer: Mapping[str, Any]) -> Overrides:
    """The layer without the dotted fields of settings that are replaced as a whole."""
    owners = tuple(f"{name}." for name in replaced)
    return {name: value for name, value in layer.items() if not name.startswith(owners)}
