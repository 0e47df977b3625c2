"""A stage's state in one file: tensors by name and a JSON record in the header, written whole or not at all."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FINAL = "final.safetensors"
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Saved:
    """What a file holds."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]


def write(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write beside, sync and rename, so that the file appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    # cloned, since the file takes no two names of one memory, which models with tied weights have
    plain = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    try:
        save_file(plain, beside, metadata={"record": json.dumps(record)})
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except SafetensorError as error:  # what it makes of a full disk
        raise OSError(str(error)) from error
    finally:
        beside.unlink(missing_ok=True)


def record(path: Path) -> dict[str, Any] | None:
    """The record in a file's header, or nothing where there is no whole file."""
    try:
        with safe_open(path, "pt") as file:
            return dict(json.loads((file.metadata() or {})["record"]))
    except (FileNotFoundError, SafetensorError, KeyError, ValueError, OSError):
        return None


def read(path: Path) -> Saved | None:
    """What a file holds, or nothing where there is no whole file."""
    found = record(path)
    if found is None:
        return None
    with safe_open(path, "pt") as file:
        return Saved({name: file.get_tensor(name) for name in file.keys()}, found)  # noqa: SIM118  it is no mapping


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix` and a slash, without it."""
    return {name.removeprefix(f"{prefix}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with `prefix` and a slash before their names."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}
