"""Plans the runs of one's own training code: each is one step of one epoch, which nothing else shares."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from ablation.errors import ConfigError, nearest
from ablation.study.config import AUTO, Arm, Study
from ablation.study.metrics import READ
from ablation.study.task import Branch, Cost, Folders
from ablation.system.digests import digest
from ablation.tasks.own import keys
from ablation.tasks.own.definition import CHECKPOINTS, PLACE, Definition, Source, full_name
from ablation.tasks.own.handle import METRICS
from ablation.tasks.own.work import OwnRequest, OwnWork
from ablation.techniques.technique import dump, is_code_allowed


@dataclass(frozen=True)
class OwnStep:
    """One arm and seed, with its identity."""

    content: str
    environment: str
    settings: Mapping[str, Any]
    seed: int
    kind: str  # runs of one arm are expected to take equally long
    epochs: int = 1
    first_epoch: int = 0
    products: frozenset[str] = frozenset()
    continuation: frozenset[str] = frozenset()
    carries_on: bool = False

    @property
    def group(self) -> str:
        """The identity of the run."""
        return self.content

    def key(self, epochs: int) -> str:
        """The key of its results."""
        return keys.with_environment(self.content, self.environment)


class OwnPlanner:
    """Plans the runs of one study."""

    def __init__(self, preparation: "OwnPreparation") -> None:
        self.preparation, self.definition = preparation, preparation.definition

    # --- identity --------------------------------------------------------------------------------------------------------------

    def steps(self, arm: Arm, seed: int) -> tuple[OwnStep, ...]:
        """The arm's run with this seed."""
        there, settings = self.preparation, dump(arm.settings)
        content = keys.content(self.definition, settings, seed, there.data)
        return (OwnStep(content, there.environment, settings, seed, f"{self.preparation.family}-{digest(settings)[:16]}"),)

    def request(self, arm: Arm, seed: int, steps: Sequence[OwnStep]) -> OwnRequest:
        """Its results."""
        return OwnRequest(steps[-1].key(1), steps[-1].content)

    def inputs(self, arm: Arm, seed: int) -> dict[str, str]:
        """The digests of data and code, what is run, the device, and the versions of the packages that the code imports."""
        there, definition = self.preparation, self.definition
        return {
            "declared data": there.data if definition.data else "",
            "task": definition.text,
            "env": " ".join(f"{name}={value}" for name, value in sorted(definition.env.items())),
            "threads": str(definition.threads),
            "metrics": ", ".join(sorted(metric.name for metric in definition.metrics)),
            "classes": ", ".join(definition.classes),
            **_read_from(definition),
            "code": there.code,
            "device": there.device_class,
            **there.packages,
        }

    # --- work ------------------------------------------------------------------------------------------------------------------

    def works(self, branches: Mapping[str, Branch]) -> dict[str, OwnWork]:
        """The work of each run, by its key."""
        return {key: self._work(key, branch) for key, branch in branches.items() if branch.arms}

    def _work(self, key: str, branch: Branch) -> OwnWork:
        there, step = self.preparation, branch.steps[0]
        return OwnWork(
            key=key,
            request=OwnRequest(key, step.content),
            seed=branch.seed,
            settings=step.settings,
            definition=self.definition,
            stages=there.folders.stages,
            results=there.folders.results,
            code=there.code,
            packages=there.packages,
            data=there.data,
            empty_store=there.empty_store,
        )

    def cost(self, branch: Branch, epochs: int, seconds_per_item: float) -> Cost:
        """The seconds that a run of this arm took before; how many of its own steps it has is not known."""
        return Cost(epochs * seconds_per_item, epochs * seconds_per_item, 1)

    def disk(self, works: Iterable[OwnWork], num_results: int, arm: Arm, seed: int) -> float:
        """Nothing that is known before."""
        return 0.0

    # --- facts for the plan and the report ---------------------------------------------------------------------------------------

    def labels(self, arm: Arm, arms: Mapping[str, Arm], seed: int) -> dict[str, str]:
        """`bundle` where an arm changes several settings at once, and `chosen`."""
        changed = list(dict.fromkeys(name.partition(".")[0] for name in arm.change))
        bundle = {"bundle": f"changes {len(changed)} settings at once: {', '.join(changed)}"} if len(changed) > 1 else {}
        if arm.choice is None:
            return bundle
        return bundle | {"chosen": f"for each seed the best of {len(arm.choice.among)} arms by val/{arm.choice.metric}"}

    def metric(self, arm: Arm, seed: int) -> tuple[str, str]:
        """The metric that the study goes by, and why."""
        written = self.preparation.study.metric
        return (self.definition.metrics[0].name, "the file's first") if written == AUTO else (full_name(written), "set in the file")

    def facts(self, arm: Arm, seeds: Sequence[int]) -> dict[str, Any]:
        """The declared classes, and what the file says of the code."""
        definition, folder = self.definition, self.definition.folder
        files = [path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path) for path in keys.code_files(definition)]
        about = {
            "what": definition.text,
            "code": files,
            "packages": self.preparation.packages,
            "data": [{"path": str(item.path), "by": item.by} for item in definition.data],
            "env": dict(definition.env),
            **{name: getattr(definition, name) for name in ("is_function", "threads", "gpus", "timeout", "resumes")},
            "checked": self.preparation.checked,
        }
        return {"classes": list(definition.classes), "own": about}

    def data(self, arms: Iterable[Arm], seed: int, most_images: int | None = None) -> list[dict[str, Any]]:
        """No account: only the code knows what is in its data."""
        return []

    def arm_facts(self, arm: Arm) -> dict[str, Any]:
        """Nothing beside its settings."""
        return {}

    def dataset(self, arm: Arm) -> tuple[str, str]:
        """The names of the declared data, and the first of their paths; "" where none are declared."""
        paths = [item.path for item in self.definition.data]
        return ", ".join(path.name for path in paths), str(paths[0]) if paths else ""

    def lacks(self, request: Any, result: Path) -> str:
        """Nothing: all that the code hands back is kept."""
        return ""

    def remarks(self, works: Sequence[OwnWork]) -> list[str]:
        """That a command which is said to resume is not told where it left its checkpoints, and that a shell hides a failure."""
        definition, found = self.definition, list[str]()
        if definition.is_function:
            return found
        if definition.resumes and CHECKPOINTS not in definition.places:
            found.append("resumes: true, but no {checkpoints} in the command: a stopped run goes on only from what it finds by itself")
        if not self.preparation.packages and any(path.suffix == ".py" for path in keys.code_files(definition)):
            found.append("versions of packages are not known of this command's environment, and do not count")
        if hides_failures(definition.command):
            found.append(
                "the shell hides a failure of any command but the last, so that a run may pass for done: begin with set -eo pipefail"
            )
        return found

    def notes(self, arms: Iterable[Arm]) -> list[str]:
        """None that is known before the runs."""
        return []


def hides_failures(command: Sequence[str]) -> bool:
    """Whether a command is a line for a shell with a pipe or several commands, and without the options that let any failure count."""
    is_shell = Path(command[0]).name in ("sh", "bash", "zsh", "dash")
    begins = [place for place, word in enumerate(command[:-1]) if re.fullmatch(r"-\w*c", word)] if is_shell else []
    if not begins:
        return False
    options, line = " ".join(command[1 : begins[0] + 1]), command[begins[0] + 1]
    has_pipe, has_several = re.search(r"(?<!\|)\|(?!\|)", line), re.search(r";|\|\|", line)
    ends_at_once = "set -e" in line or re.search(r"-\w*e", options)
    return bool((has_pipe and "pipefail" not in f"{options} {line}") or (has_several and not ends_at_once))


@dataclass
class OwnPreparation:
    """Looks up the code and the declared data of one study, each once."""

    definition: Definition
    study: Study
    folders: Folders
    device: str

    @cached_property
    def planner(self) -> OwnPlanner:
        """The planner of the study's runs."""
        return OwnPlanner(self)

    @cached_property
    def family(self) -> str:
        """What the kinds of all arms of this code begin with."""
        return digest([self.definition.text, str(self.definition.folder)])[:8]

    @cached_property
    def code(self) -> str:
        """The identity of the code that counts."""
        return keys.code_of(self.definition)

    @property
    def imported_code(self) -> str:
        """That of a function, whose signature was read from its module."""
        return self.code if self.definition.is_function else ""

    @cached_property
    def data(self) -> str:
        """The identity of the declared data."""
        return keys.data_of(self.definition)

    @cached_property
    def packages(self) -> dict[str, str]:
        """package -> version, of what the code imports."""
        return keys.packages(self.definition)

    @cached_property
    def device_class(self) -> str:
        """The kind of device that runs have: the CPU, whichever it is, or a GPU by its name."""
        return keys.device_class(self.device if self.definition.gpus else "cpu")

    @cached_property
    def environment(self) -> str:
        """The identity of code, packages and device."""
        return keys.environment(self.definition, self.device_class)

    @property
    def checked(self) -> dict[str, Any] | None:
        """What `ablate check-task` found of this code, or None."""
        from ablation.tasks.own.checking import found

        return found(self.folders.results.parent, self.checked_identity)

    @property
    def checked_identity(self) -> str:
        """The identity of all that `ablate check-task` has tried, beside settings and seed."""
        definition = self.definition
        about = [definition.text, str(definition.folder), dict(definition.env), definition.threads, definition.resumes]
        return digest([*about, self.environment, self.data])

    @cached_property
    def empty_store(self) -> Path | None:
        """An empty database for what the code logs into MLflow; None where a command may have another MLflow, which makes its own."""
        from ablation.tasks.own.scratch import has_our_mlflow
        from ablation.tracking.new_database import empty_database

        return empty_database() if has_our_mlflow(self.definition) else None

    # --- before a run ------------------------------------------------------------------------------------------------------------

    def check(self, arms: Iterable[Arm], seeds: Iterable[int]) -> None:
        """Raise AblateError for a script, code or data that cannot be read."""
        _check_scripts(self.definition)
        _ = self.code, self.environment, self.data

    def check_starts(self, arms: Iterable[Arm], seed: int, *, is_here: bool = True) -> None:
        """Raise ConfigError for a program that may not be started, or that is not here."""
        if not is_code_allowed():
            raise ConfigError("task", f"runs code of its own ({self.definition.text}); --allow-code lets it run")
        if is_here and not self.definition.is_function:
            _check_program(self.definition)

    def seconds_per_item(self, step: OwnStep) -> float:
        """The median of what the arms of this code took that ran before; 0 if none did."""
        try:
            speeds = json.loads(self.folders.speeds.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0.0
        return median([float(seconds) for kind, seconds in speeds.items() if kind.startswith(f"{self.family}-")] or [0.0])


def _read_from(definition: Definition) -> dict[str, str]:
    """Where each metric of a command is read."""
    sources = {metric.name: definition.sources.get(metric.name, Source(file=METRICS)) for metric in definition.metrics}
    return {
        f"{READ}{definition.shown(name)} is read:": f"'{source.pattern}'" if source.pattern else f"{source.file} {source.at}".strip()
        for name, source in sources.items()
        if not definition.is_function
    }


def _check_program(definition: Definition) -> None:
    """Raise ConfigError for a command whose program is not there, where the file sets PATH on that one."""
    program, path = definition.command[0], definition.env.get("PATH")
    if shutil.which(program, path=path) is None and not ("/" in program and shutil.which(str(definition.folder / program))):
        raise ConfigError("task.command", f"there is no program {program!r}; expected one that is installed, or a path")


def _check_scripts(definition: Definition) -> None:
    """Raise ConfigError for a Python file that a command gives to Python, and that is not there."""
    program, *words = definition.command or ("",)
    for word in words if Path(program).name.startswith("python") else ():
        is_named = word.endswith(".py") and not word.startswith("-") and not PLACE.search(word)
        if is_named and not (definition.folder / word).is_file():
            scripts = sorted(path.relative_to(definition.folder).as_posix() for path in definition.folder.glob("*.py"))
            problem = f"there is no {word} in {definition.folder}; expected a script"
            raise ConfigError("task.command", f"{problem}.{nearest(word, scripts)}")
