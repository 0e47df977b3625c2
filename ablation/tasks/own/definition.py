"""What a study's file says of its own training code: what is run, what it declares, and what comes back."""

import itertools
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ablation.errors import ConfigError, unknown_name
from ablation.study.config import StudyFile
from ablation.study.metrics import Metric
from ablation.study.task import DEFAULT
from ablation.system.paths import user_path
from ablation.tasks.own.expressions import NUMBER, compiled
from ablation.techniques.technique import build

FUNCTION = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"  # module:function
PREFIX = "test/"  # of a metric that is declared without one
VALIDATION = "validation/"  # of a metric that is declared as val/NAME
STEP = "step"  # the curve that numbers the others
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
ALL, OVERRIDES, SETTINGS, SEED, OUT, CHECKPOINTS = "args", "overrides", "settings", "seed", "out", "checkpoints"
PLACES = (ALL, OVERRIDES, SETTINGS, SEED, OUT, CHECKPOINTS)  # what a command may have in braces, beside its settings
PLACE = re.compile(r"\{\{[A-Za-z_][\w.-]*\}\}|\{([A-Za-z_][\w.-]*)\}")  # {lr}; {{lr}} is no place, and stays as {lr}
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Source:
    """Where a command's number is read that it does not write itself: a pattern over what it prints, or a value in a JSON file."""

    pattern: str = ""
    file: str = ""
    at: str = ""  # dotted: eval.ppl


@dataclass(frozen=True)
class DataPath:
    """A file or folder that the code reads: its identity is its content, or only the names, sizes and times of its files."""

    path: Path
    by: Literal["content", "listing"] = "content"


@dataclass(frozen=True)
class Definition:
    """One's own training code, as the file declares it; either `function` or `command` is there."""

    folder: Path  # the study's, in which it runs
    function: str = ""  # module:function
    command: tuple[str, ...] = ()  # the words, with their places in braces
    code: tuple[str, ...] = ()  # globs of the files whose code a command uses; none: those that `code.code_files` finds
    data: tuple[DataPath, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    gpus: int = 1
    timeout: float = 0.0  # seconds; 0: no end
    grace: float = 30.0  # seconds from SIGTERM to SIGKILL
    resumes: bool = False
    classes: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()  # in the file's order, the first is the headline
    names: Mapping[str, str] = field(default_factory=dict)  # of metrics as the file declares them, by their full names
    sources: Mapping[str, Source] = field(default_factory=dict)  # of metrics, by their full names
    curves: Mapping[str, str] = field(default_factory=dict)  # name -> pattern over what is printed

    @property
    def is_function(self) -> bool:
        """Whether it is a function, and no command."""
        return bool(self.function)

    def shown(self, metric: str) -> str:
        """A metric's name as the file declares it, of its full name."""
        return self.names.get(metric, metric)

    @property
    def text(self) -> str:
        """The function, or the command as one line."""
        return self.function or " ".join(map(_quoted, self.command))

    @property
    def reads_its_folder(self) -> bool:
        """Whether a metric is read from a file that the command writes beside the study, since it is not told {out}."""
        return OUT not in self.places and any(source.file for source in self.sources.values())

    @property
    def places(self) -> frozenset[str]:
        """What the command has in braces."""
        return frozenset(name for word in self.command for name in PLACE.findall(word) if name)


def _quoted(word: str) -> str:
    """A word as it may stand in the file: in quotes only where it needs them for more than its places."""
    plain = PLACE.sub("place", word)
    return word if shlex.quote(plain) == plain else shlex.quote(word)


# --- the file --------------------------------------------------------------------------------------------------------------------


def _duration(value: object) -> object:
    """Seconds of `12h`, `30s` or a number."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([smhd])\s*", value) if isinstance(value, str) else None
    if match:
        value = float(match[1]) * UNITS[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError("a time, such as 30s, 45m or 12h")
    return float(value)


def _function(value: str) -> str:
    if value and not re.fullmatch(FUNCTION, value):
        raise ValueError("a function as module:function, such as my_module:train")
    return value


def _different(names: list[str]) -> list[str]:
    if len({*names}) < len(names):
        raise ValueError("each class once")
    return names


def _expression(pattern: str) -> str:
    compiled(pattern)
    return pattern


Pattern = Annotated[str, AfterValidator(_expression)]
Duration = Annotated[Any, AfterValidator(_duration)]


class DataForm(BaseModel):
    """Data with the way in which it is identified."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    path: str
    by: Literal["content", "listing"] = "content"


class TaskForm(BaseModel):
    """The section `task` of a study of one's own training code."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    function: Annotated[str, AfterValidator(_function), Field(description="module:function, called with the run and its settings.")] = ""
    command: Annotated[str, Field(description="A command, with {seed}, {out} and {args}; no shell reads it.")] = ""
    code: Annotated[list[str], Field(description="Globs of the files whose code a command uses; by default every Python file.")] = []
    data: Annotated[list[Any], Field(description="Files and folders that the code reads; {path: ..., by: listing} for large ones.")] = []
    env: Annotated[dict[str, Any], Field(description="Environment variables, which count as settings do.")] = {}
    threads: Annotated[int, Field(ge=1, description="The threads of one run.")] = 1
    gpus: Annotated[int, Field(ge=0, le=1, description="1: a GPU for each run, where there are GPUs; 0: none.")] = 1
    timeout: Annotated[Duration, Field(description="The time after which a run has failed, such as 12h.")] = 0.0
    grace: Annotated[Duration, Field(description="The time from asking a run to end to killing it.")] = 30.0
    resumes: Annotated[bool, Field(description="Whether a run that was stopped goes on from what it left in {checkpoints}.")] = False
    classes: Annotated[
        list[str], AfterValidator(_different), Field(description="The names of the classes, where predictions are handed back.")
    ] = []


class FileValue(BaseModel):
    """A value in a JSON file below {out} or the study's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    file: Annotated[str, Field(min_length=1)]
    at: Annotated[str, Field(min_length=1)]


class MetricForm(BaseModel):
    """A declared metric."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)
    better: Better
    unit: str = ""
    margin: Annotated[float | None, Field(gt=0)] = None
    decimals: Annotated[int | None, Field(ge=0, le=12)] = None
    source: Annotated[Any, Field(alias="from")] = None
    title: str = ""


def define(file: StudyFile, folder: Path) -> Definition:
    """The definition in a file whose study is in that folder; raises ConfigError for what is wrong with it."""
    form = _task_form(file.task)
    if bool(form.function) == bool(form.command):
        raise ConfigError(
            "task", "expected a function (task: my_module:train) or a command (task: python train.py {args}), and one of them"
        )
    if not file.metrics:
        raise ConfigError("metrics", "is missing; expected the numbers that come back, such as test/mae: {better: lower}")
    metrics, sources = _metrics(file.metrics, has_patterns=bool(form.command))
    curves = {name: build(_Curve, {"pattern": pattern}, f"curves.{name}").pattern for name, pattern in file.curves.items()}
    if form.function and (curves or form.code):
        place = "curves" if curves else "task.code"
        expected = "run.log(step, {...}) in the function" if curves else "none: what the function uses counts by itself"
        raise ConfigError(place, f"is for commands; expected {expected}")
    definition = Definition(
        folder=folder,
        function=form.function,
        command=_words(form.command),
        code=tuple(form.code),
        data=tuple(_data(item, f"task.data.{i}", folder) for i, item in enumerate(form.data)),
        env={name: _env_text(name, value) for name, value in form.env.items()},
        threads=form.threads,
        gpus=form.gpus,
        timeout=form.timeout,
        grace=form.grace,
        resumes=form.resumes,
        classes=tuple(form.classes),
        metrics=metrics,
        names={full_name(name): name for name in file.metrics},
        sources=sources,
        curves=curves,
    )
    _check_command(definition)
    return definition


OF_TASK = ("function", "code", "env", "threads", "gpus", "timeout", "grace", "resumes", "classes")
OF_METRIC = ("better", "unit", "margin", "title", "decimals")


def declared(definition: Definition) -> dict[str, Any]:
    """What a file says of its task, metrics and curves, by dotted name: what a report compares with the file that was run."""
    data = [f"{os.path.relpath(item.path, definition.folder)} by {item.by}" for item in definition.data]
    about = {"command": " ".join(map(_quoted, definition.command)), "data": data}
    about |= {name: getattr(definition, name) for name in OF_TASK}
    sources = {name: source.pattern or f"{source.at} in {source.file}" for name, source in definition.sources.items()}
    metrics = {metric.name: {name: getattr(metric, name) for name in OF_METRIC} for metric in definition.metrics}
    return {
        **{f"task.{name}": value for name, value in about.items()},
        **{f"metrics.{name}.{part}": value for name, metric in metrics.items() for part, value in metric.items()},
        **{f"metrics.{name}.from": source for name, source in sources.items()},
        **{f"curves.{name}": pattern for name, pattern in definition.curves.items()},
    }


class _Curve(BaseModel):
    pattern: Pattern


def _task_form(written: object) -> TaskForm:
    """The section as a mapping; a text is a function if it looks like one, else a command."""
    if isinstance(written, str):
        return build(TaskForm, {"function" if re.fullmatch(FUNCTION, written.strip()) else "command": written.strip()}, "task")
    if not isinstance(written, Mapping):
        raise ConfigError(
            "task", f"found {written!r}; expected a function (my_module:train), a command (python train.py {{args}}) or a mapping"
        )
    return build(TaskForm, written, "task")


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise ConfigError("task.command", f"cannot be split into words ({error}); expected quotes in pairs") from None


def _check_command(definition: Definition) -> None:
    """Raise ConfigError for a command that cannot receive its seed or could not be told from a shell's."""
    if definition.is_function:
        return
    if len(definition.command) == 1 and not definition.places:
        expected = "a function as module:function, or a command with {seed}, such as python train.py --seed {seed} {args}"
        raise ConfigError("task", f"found {definition.text!r}; expected {expected}")
    if not definition.places & {SEED, SETTINGS}:
        raise ConfigError("task.command", "has neither {seed} nor {settings}, so every seed would be the same run; expected one of them")
    for name, source in definition.sources.items():
        if OUT in definition.places and (Path(source.file).is_absolute() or ".." in Path(source.file).parts):
            place = f"metrics.{definition.shown(name)}.from.file"
            raise ConfigError(place, f"found {source.file!r}, which other runs may write too; expected a file in {{out}}, such as log.json")
    for word in definition.command:
        if word in ("|", "&&", "||", ";", ">", ">>", "<", "&"):
            raise ConfigError("task.command", f"found {word!r}, which only a shell understands; expected one program and its words")


def full_name(name: str) -> str:
    """The metric's name in the store: `test/mae` of `mae`, and `validation/mae` of `val/mae`, since `val/mae` may be a curve."""
    kind, slash, rest = name.partition("/")
    return f"validation/{rest}" if (kind, slash) == ("val", "/") else name if slash else PREFIX + name


def choices(definition: Definition) -> tuple[str, ...]:
    """The metrics by which a sweep may choose one of its points, as a file names them."""
    return tuple(f"val/{metric.name.removeprefix(VALIDATION)}" for metric in definition.metrics if metric.name.startswith(VALIDATION))


def _metrics(written: Mapping[str, Any], *, has_patterns: bool) -> tuple[tuple[Metric, ...], dict[str, Source]]:
    metrics, sources = list[Metric](), dict[str, Source]()
    for name, value in written.items():
        where = f"metrics.{name}"
        if not re.fullmatch(r"[\w.-]+(/[\w. -]+)*", name):
            raise ConfigError(where, "is no name of a metric; expected letters, digits and slashes, such as test/mae")
        if not isinstance(value, Mapping):
            raise ConfigError(where, f"found {value!r}; expected a mapping such as {{better: lower, unit: m}}")
        form, full = build(MetricForm, value, where), full_name(name)
        if any(full == metric.name for metric in metrics):
            raise ConfigError(where, "is declared twice; expected each metric once")
        title = form.title or full.removeprefix(PREFIX)
        metrics.append(Metric(full, title, form.better, form.unit, form.margin, is_headline=not metrics, decimals=form.decimals))
        if form.source is not None:
            if not has_patterns:
                raise ConfigError(f"{where}.from", "is for commands; expected none: the function returns the metric")
            sources[full] = _source(form.source, f"{where}.from")
    return tuple(metrics), sources


def _source(written: object, where: str) -> Source:
    if isinstance(written, str):
        return Source(pattern=build(_Curve, {"pattern": written}, where).pattern)
    if isinstance(written, Mapping):
        value = build(FileValue, written, where)
        return Source(file=value.file, at=value.at)
    raise ConfigError(where, f"found {written!r}; expected a pattern such as 'ppl {NUMBER}', or {{file: log.json, at: eval.ppl}}")


def _data(written: object, where: str, folder: Path) -> DataPath:
    form = build(DataForm, {"path": written} if isinstance(written, str) else written if isinstance(written, Mapping) else {}, where)
    return DataPath(user_path(form.path, where, folder), form.by)


def _env_text(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"task.env.{name}", f"found {value!r}; expected text or a number")
    return str(value)


def check_names(file: StudyFile, definition: Definition) -> None:
    """Raise ConfigError for a metric that the file names and does not declare, and for what only image classification has."""
    known = [metric.name for metric in definition.metrics]
    profiles = {f"profiles.{name}.metric": profile.metric for name, profile in file.profiles.items() if profile.metric}
    for place, metric in {"metric": file.metric, **profiles}.items():
        if metric != "auto" and full_name(metric) not in known:
            raise unknown_name(place, "metric", metric, known)
    sections = {"": file, **{f"profiles.{name}.": profile for name, profile in file.profiles.items()}}
    for place, name in itertools.product(sections, ("groups", "margin", "keep")):
        if name in sections[place].model_fields_set:
            expected = "a margin for each metric, under metrics" if name == "margin" else "none"
            raise ConfigError(f"{place}{name}", f"is for {DEFAULT}; expected {expected} where the file has a task")
    for name, sweep in file.sweeps.items():
        if sweep.choose not in ("none", *choices(definition)):
            expected = ", ".join(choices(definition)) or "a metric declared as val/NAME"
            raise ConfigError(f"sweeps.{name}.choose", f"found {sweep.choose!r}; expected {expected}, or none")
