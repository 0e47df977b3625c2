"""A stage's state in one file: tensors by name and a JSON record in the header, written whole or not at all, and read only unchanged."""

import contextlib
import errno
import hashlib
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

from ablation.system.files import to_disk

FINAL = "final.safetensors"
CHECKPOINT = "checkpoint.safetensors"
PASSING = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE)  # of the machine at the moment, not of the file
SUM = "sha256"  # in the record: of everything else in the file, since safetensors has no checksum of its own


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
        save_file(plain, beside, metadata={"record": json.dumps({**record, SUM: checksum(plain, record)})})
        to_disk(beside)
        beside.replace(path)
        to_disk(path.parent)
    except SafetensorError as error:  # what it makes of a full disk
        raise OSError(str(error)) from error
    finally:
        beside.unlink(missing_ok=True)


def checksum(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> str:
    """The SHA-256 of a record and of the tensors' names, types, shapes and bytes, as 64 hexadecimal digits."""
    total = hashlib.sha256(json.dumps(record).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def record(path: Path) -> dict[str, Any] | None:
    """The record in a file's header, or nothing where there is no whole file; whether the tensors are unchanged is not looked at."""
    found = None
    with contextlib.suppress(OSError, RuntimeError):
        found = _header(path)
    return None if found is None else {name: value for name, value in found.items() if name != SUM}


def _header(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, "pt") as file:
            return dict(json.loads((file.metadata() or {})["record"]))
    except (SafetensorError, KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        if is_passing(error):
            raise
        return None


def is_passing(error: Exception) -> bool:
    """Whether an error says nothing of a file, but that memory, descriptors or the network are lacking just now."""
    return getattr(error, "errno", None) in PASSING or "allocate memory" in str(error)


def read(path: Path) -> Saved | None:
    """What a file holds, or nothing where there is no whole file or any of its bytes has changed since it was written.

    Raises OSError or RuntimeError where it cannot be said just now: nothing that is whole must be taken for damaged.
    """
    if not path.is_file():
        return None
    with path.open("rb"):  # whatever hinders this, the library would say that there is no such file
        found = _header(path)
    if found is None:
        return None
    expected = found.pop(SUM, "")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as error:  # a type or a shape that cannot be
        if is_passing(error):
            raise
        return None
    return Saved(tensors, found) if checksum(tensors, found) == expected else None


def sound(path: Path) -> Saved | None:
    """The same as `read`; a damaged file is put aside as NAME.damaged, so that no plan counts on it again."""
    found = read(path)
    if found is None:
        with contextlib.suppress(FileNotFoundError):
            path.replace(path.with_name(f"{path.name}.damaged"))
    return found


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix` and a slash, without it."""
    return {name.removeprefix(f"{prefix}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with `prefix` and a slash before their names."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}
