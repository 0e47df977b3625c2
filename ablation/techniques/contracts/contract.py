"""What a contract is, how a test becomes one, and how a technique is checked by all contracts of its family."""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablation.errors import AblateError
from ablation.techniques.technique import make

Spec = str | Mapping[str, Any]  # a technique as a study's file writes it
Test = Callable[[str, Spec], None]


class ContractError(AblateError):
    """What a technique does against its family's promises, in one sentence."""


@dataclass(frozen=True)
class Contract:
    """One promise: what it says, the families that give it, and the test, which raises where it is broken."""

    name: str
    families: tuple[str, ...]
    test: Test


@dataclass(frozen=True)
class Result:
    """How one technique keeps one promise."""

    name: str
    passed: bool
    message: str = ""


CONTRACTS: list[Contract] = []


def contract(*families: str) -> Callable[[Test], Test]:
    """Marks a test as a promise of these families; its docstring is what it says."""

    def register(test: Test) -> Test:
        CONTRACTS.append(Contract(str(test.__doc__).rstrip("."), families, test))
        return test

    return register


def checks(family_name: str) -> list[Contract]:
    """The promises of a family."""
    return [promise for promise in CONTRACTS if family_name in promise.families]


def check(family_name: str, spec: Spec) -> Iterator[Result]:
    """How the technique that a YAML form stands for keeps each promise; raises ConfigError where it cannot be made at all."""
    make(family_name, spec)
    for promise in checks(family_name):
        try:
            promise.test(family_name, spec)
        except Exception as error:  # a user's code may raise anything
            yield Result(promise.name, passed=False, message=_why(error))
        else:
            yield Result(promise.name, passed=True)


def report(results: Iterable[Result]) -> str:
    """One line for each promise: kept, or broken and why."""
    return "\n".join(f"passed  {result.name}" if result.passed else f"BROKEN  {result.name}: {result.message}" for result in results)


def _why(error: Exception) -> str:
    if isinstance(error, ContractError):
        return str(error)
    last_frame = traceback.extract_tb(error.__traceback__)[-1]
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line} ({Path(last_frame.filename).name}, line {last_frame.lineno})"


def expect(holds: object, problem: str) -> None:
    """Raises ContractError where something does not hold."""
    if not holds:
        raise ContractError(problem)


def are_close(values: Tensor, expected: Tensor) -> bool:
    """Whether the values are the expected ones, up to the rounding of float32."""
    return torch.allclose(values.double(), expected.double(), rtol=1e-5, atol=1e-6)
