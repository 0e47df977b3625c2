"""`ablate plan`: what would run, why, what is shared, what it costs; and whether compiling would pay."""

import json

from rich.console import Console

from ablation.commands.exit_codes import DONE
from ablation.commands.options import Options
from ablation.commands.session import Session
from ablation.planning import explain
from ablation.planning.describe import describe
from ablation.planning.plan import Plan
from ablation.tasks.images.compiling import compilable, compiling_words, measure_compiling
from ablation.tracking.store import Store


def plan(options: Options, *, as_json: bool, compiled: bool) -> int:
    """Print the plan; with `compiled`, measure beside it for which models torch.compile would save time."""
    console = Console(stderr=True)
    session = Session(options, console)
    session.check()
    known = Store.open(make=False).runs_of(session.study.name) if Store.is_there() else []
    made = session.plan(known, probe=True)
    planner = session.preparation.planner
    print(json.dumps(describe(made, planner), indent=1) if as_json else explain.full(made, planner, session.num_slots))
    if compiled:
        _measure_compiling(made, session, console)
    return DONE


def _measure_compiling(plan: Plan, session: Session, console: Console) -> None:
    """Measure and tell for each model that is left whether `compile: true` would pay."""
    left = [(node.job.work, node.remaining_epochs * node.items) for node in plan.nodes.values()]
    models = compilable(left, session.devices[0])
    if not models:
        console.print("nothing to compile: no training of a whole model is left that could be compiled and is not", soft_wrap=True)
    for stage, images in models:
        model = stage.settings.model
        doing = f"measuring {model.name} at {model.image_size} pixels with and without torch.compile: this takes minutes"
        console.print(doing, markup=False, highlight=False, soft_wrap=True)
        measured = measure_compiling(stage, session.devices[0])
        console.print(compiling_words(stage, measured, images), markup=False, highlight=False, soft_wrap=True)
