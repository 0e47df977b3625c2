"""One's own training code as a kind of work: a function or a command, each run a process of its own.

`definition` is what the file declares, `settings` what it may set, `keys` the identity of a run, `run` its process, `handle` what a
function is given, `returned` what comes back, checked.
"""

from ablation.tasks.own.task import OwnTraining

TASK = OwnTraining()

__all__ = ["TASK", "OwnTraining"]
