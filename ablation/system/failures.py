"""How an exception is reported: its kind in one word, a message for the user, and the traceback if it is a bug."""

import errno
import re
import sys
import traceback

from ablation.errors import AblateError, TrainingError

# What the message of a RuntimeError says when memory ran out.
NO_MEMORY = re.compile(r"an't allocate memory|annot allocate memory|CUDA error: out of memory|_STATUS_ALLOC_FAILED")


def failure(error: Exception, memory_advice: str) -> dict[str, str]:
    """The event that tells of a failure: its kind, its message, and the traceback of a bug; `memory_advice` says what takes less memory."""
    kind, message = _kind_of(error, memory_advice)
    return {"failure": kind, "message": message, "log": "".join(traceback.format_exception(error)) if kind == "bug" else ""}


def _kind_of(error: Exception, memory_advice: str) -> tuple[str, str]:
    if _lacks_memory(error):
        return "memory", f"out of memory; fewer --jobs, or {memory_advice}, may help"
    if isinstance(error, TrainingError):
        return error.kind, str(error)
    if isinstance(error, AblateError):
        return "data", str(error)
    if isinstance(error, OSError):
        return "store", f"a file could not be read or written: {error}"
    return "bug", f"{type(error).__name__}: {error}"


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, also if another exception was raised from that error."""
    while error is not None:
        if isinstance(error, MemoryError) or _is_from_torch(error) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False


def _is_from_torch(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # if torch was not imported, it raised nothing
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
