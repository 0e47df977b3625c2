"""Where jobs run, one file for each kind of place; what one must do, the Protocol `Executor` in `running/scheduler.py` says."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ablation.errors import ConfigError

if TYPE_CHECKING:
    from ablation.running.scheduler import Executor

EXECUTORS = {  # --executor -> its class
    "local": "ablation.running.executors.local:LocalExecutor",
    "ray": "ablation.running.executors.ray:RayExecutor",
}


def start_executor(name: str, devices: Sequence[str], num_jobs: int, task: str, **place: Any) -> "Executor":
    """The executor of that name, ready for `num_jobs` jobs at once on each device; `task` names the kind of work.

    `place` is what else that executor takes.
    """
    module, _, class_name = EXECUTORS[name].partition(":")
    try:
        executor_class = getattr(import_module(module), class_name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ConfigError("--executor", f"{name} is not installed; expected it: pip install '.[{name}]' in the clone of ablate") from None
    executor: Executor = executor_class(list(devices), num_jobs, task, **place)
    return executor
