"""The options of `run` and `plan`, and how they are parsed."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.errors import ConfigError
from ablation.study.task import EVERY_EPOCH, CheckpointInterval
from ablation.study.yamlfile import parse


@dataclass(frozen=True)
class Options:
    """The options of `run` and `plan`, of which other commands set a few; `jobs` is 0 and `budget` 0.0 if not given."""

    file: Path
    profile: str | None = None
    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    sets: tuple[tuple[str, Any], ...] = ()
    device: str = "auto"
    jobs: int = 0
    executor: str = "local"
    ray_address: str = ""
    rerun: str = ""
    budget: float = 0.0
    yes: bool = False
    allow_code: bool = False
    checkpoint_interval: CheckpointInterval = EVERY_EPOCH
    part: "Part | None" = None
    is_detached: bool = False
    records_part: bool = False


@dataclass(frozen=True)
class Part:
    """One of so many parts of a study, counted from 1."""

    number: int
    of: int

    @property
    def suffix(self) -> str:
        """What its files have behind the study's name."""
        return f".part-{self.number}-of-{self.of}"


def parse_set(text: str) -> tuple[str, Any]:
    """`PATH=VALUE` as a dotted path and the value read as YAML."""
    path, sign, value = text.partition("=")
    if not sign or not path:
        raise ConfigError("--set", f"found {text!r}; expected PATH=VALUE, such as optimizer.lr=1e-3")
    return path.strip(), parse(value, f"--set {path}")


def parse_part(text: str) -> Part:
    """`3/8` as the third of eight parts."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError("--part", f"found {text!r}; expected one of so many parts, counted from 1, such as 3/8")
    return Part(int(match[1]), int(match[2]))


def parse_budget(text: str) -> float:
    """`2h`, `90m`, `1h30m` or `300s` in seconds."""
    seconds = _seconds(text)
    if not seconds:
        raise ConfigError("--budget", f"found {text!r}; expected a time such as 2h, 90m or 1h30m")
    return seconds


def parse_interval(text: str) -> CheckpointInterval:
    """`5` as so many epochs, `10m` as so much time."""
    if text.strip().isdecimal() and int(text) > 0:
        return CheckpointInterval(epochs=int(text))
    seconds = _seconds(text)
    if not seconds:
        raise ConfigError("--save-every", f"found {text!r}; expected a count of epochs such as 5, or a time such as 10m")
    return CheckpointInterval(seconds=seconds)


def _seconds(text: str) -> float:
    """A time such as 1h30m in seconds; 0 if the text is not a time."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    return sum(float(part) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True) if part) if match else 0.0
