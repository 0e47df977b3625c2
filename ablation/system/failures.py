"""How an exception is reported: its kind in one word, a message for the user, and the traceback if it is a bug."""

import errno
import re
import sys
import traceback
from typing import Any

from ablation.errors import AblateError, TrainingError, os_words

# What the message of a RuntimeError says when memory ran out: of torch, of CUDA and of the libraries on it.
NO_MEMORY = re.compile(
    r"an't allocate memory|annot allocate memory|not enough memory|bad_alloc|out of memory|cudaErrorMemoryAllocation"
    r"|_ALLOC_FAILED|unable to find an engine to execute|find a valid cuDNN algorithm",
    re.IGNORECASE,
)
# What these libraries say where they cannot begin: for lack of memory, if there is little left, or else for another reason.
PERHAPS_NO_MEMORY = re.compile(
    r"(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_(NOT_INITIALIZED|INTERNAL_ERROR)|CUFFT_(SETUP_FAILED|INTERNAL_ERROR)"
)
LITTLE = 2**29  # bytes of a device; a library's handle, kernels and workspace take some hundred MiB


def failure(error: Exception, memory_advice: str) -> dict[str, Any]:
    """The event that tells of a failure: its kind, its message, and the traceback of a bug; `memory_advice` says what takes less memory."""
    if isinstance(error, TrainingError) and (error.log or error.facts):  # of a process of its own, which says all itself
        return {"failure": error.kind, "message": error.message, "log": error.log, **error.facts}
    kind, message = _kind_of(error, memory_advice)
    return {"failure": kind, "message": message, "log": "".join(traceback.format_exception(error)) if kind == "bug" else ""}


def _kind_of(error: Exception, memory_advice: str) -> tuple[str, str]:
    if lacks_memory(error):
        return "memory", f"out of memory; fewer --jobs, or {memory_advice}, may help"
    if isinstance(error, TrainingError):
        return error.kind, str(error)
    if isinstance(error, AblateError):
        return "data", str(error)
    if isinstance(error, OSError):
        return "store", f"a file could not be read or written: {os_words(error)}"
    return "bug", f"{type(error).__name__}: {error}"


def lacks_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, also if another exception was raised from that error, or while it was handled."""
    while error is not None:
        if isinstance(error, MemoryError) or _is_from_torch(error) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError) and _tells_of_memory(str(error)):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def _tells_of_memory(message: str) -> bool:
    return bool(NO_MEMORY.search(message)) or (bool(PERHAPS_NO_MEMORY.search(message)) and _has_little_left())


def _has_little_left() -> bool:
    """Whether the CUDA device of this process is almost full."""
    torch = sys.modules.get("torch")
    try:
        return torch is not None and torch.cuda.is_initialized() and torch.cuda.mem_get_info()[0] < LITTLE
    except RuntimeError:  # a device that is broken tells nothing
        return False


def _is_from_torch(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # if torch was not imported, it raised nothing
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
