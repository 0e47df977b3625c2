"""A stage's state in one file: tensors by name, and a JSON record in the header. A file is never incomplete, and is checked when read."""

import contextlib
import errno
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ablation.system import fencing
from ablation.system.files import part_of, to_disk

FINAL = "final.safetensors"
CHECKPOINT = "checkpoint.safetensors"
TRANSIENT_ERRORS = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE)  # problems of the machine, not of the file
CHECKSUM = "sha256"  # in the record: the checksum of everything else in the file; safetensors itself has none


@dataclass(frozen=True)
class SavedState:
    """The contents of a file."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]


def write(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write the file under another name, sync it and rename it, so that it is never incomplete.

    Raises Fenced if another process has taken over what this one does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    # Cloned, since safetensors refuses tensors that share memory, as tied weights do.
    on_cpu = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    try:
        save_file(on_cpu, part, metadata={"record": json.dumps({**record, CHECKSUM: checksum(on_cpu, record)})})
        to_disk(part)
        fencing.check()
        part.replace(path)
        to_disk(path.parent)
    except SafetensorError as error:  # such as a full disk
        raise OSError(str(error)) from error
    finally:
        part.unlink(missing_ok=True)


def checksum(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> str:
    """The SHA-256 of a record and of the tensors' names, types, shapes and bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(record).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_record(path: Path) -> dict[str, Any] | None:
    """The record in a file's header, or None if there is no complete file; the tensors are not checked."""
    header = None
    with contextlib.suppress(OSError, RuntimeError):
        header = _header(path)
    return None if header is None else {name: value for name, value in header.items() if name != CHECKSUM}


def _header(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, "pt") as file:
            return dict(json.loads((file.metadata() or {})["record"]))
    except (SafetensorError, KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        if is_transient(error):
            raise
        return None


def is_transient(error: Exception) -> bool:
    """Whether an error is not about the file: there is too little memory, there are too few descriptors, or the network is down."""
    return getattr(error, "errno", None) in TRANSIENT_ERRORS or "allocate memory" in str(error)


def read(path: Path) -> SavedState | None:
    """The contents of a file, or None if there is no complete file or any of its bytes has changed since it was written.

    Raises OSError or RuntimeError if a transient error prevents reading: an intact file must not be taken for a damaged one.
    """
    if not path.is_file():
        return None
    with path.open("rb"):  # raises the true error; for any of them safetensors would say that there is no such file
        record = _header(path)
    if record is None:
        return None
    expected = record.pop(CHECKSUM, "")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as error:  # the latter two: an impossible type or shape
        if is_transient(error):
            raise
        return None
    return SavedState(tensors, record) if checksum(tensors, record) == expected else None


def read_or_set_aside(path: Path) -> SavedState | None:
    """The same as `read`, but a damaged file is renamed to NAME.damaged, so that no plan relies on it again."""
    saved = read(path)
    if saved is None:
        with contextlib.suppress(FileNotFoundError):
            path.replace(path.with_name(f"{path.name}.damaged"))
    return saved


def tensors_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix` and a slash, under their names without it."""
    return {name.removeprefix(f"{prefix}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")}


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with `prefix` and a slash before their names."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}
