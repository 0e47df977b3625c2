"""Where jobs run, one file for each kind of place; what one must do, the Protocol `Executor` in `running/scheduler.py` says."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ablation.running.scheduler import Executor

EXECUTORS = {"local": "ablation.running.executors.local:LocalExecutor"}  # --executor -> its class


def start_executor(name: str, devices: Sequence[str], num_jobs: int, task: str) -> "Executor":
    """The executor of that name, ready for `num_jobs` jobs at once on each device; `task` names the kind of work."""
    module, _, class_name = EXECUTORS[name].partition(":")
    executor: Executor = getattr(import_module(module), class_name)(list(devices), num_jobs, task)
    return executor
