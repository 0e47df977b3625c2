"""One's own training code as a kind of work: a function or a command, each run a process of its own.

`definition` is what the file declares, `settings` what it may set (of a `function` by its signature), `keys` the identity of a run, out of
`code`, `packages` and `declared` data; `run` carries one out: `process` starts it under `guard`, in an `environment`, `child` calls a
function with its `handle`, `patterns` read what a command prints, `scratch` what it logs into MLflow, and `returned` checks what comes
back.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablation.tasks.own.task import OwnTraining as OwnTraining


def __getattr__(name: str) -> Any:
    """Import the task on first use: the process of a function imports this package for what it is given, and nothing else of it."""
    if name not in ("TASK", "OwnTraining"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ablation.tasks.own.task import OwnTraining

    return OwnTraining() if name == "TASK" else OwnTraining
