"""`ablate plan`: what would run, why, what is shared and what it costs; and whether compiling would save time."""

import json

from rich.console import Console

from ablation.commands.exit_codes import DONE
from ablation.commands.options import Options
from ablation.commands.session import Session
from ablation.errors import ConfigError
from ablation.formatting import duration
from ablation.planning import explain
from ablation.planning.cost import wall_seconds
from ablation.planning.describe import describe
from ablation.planning.listing import listing
from ablation.planning.plan import Plan
from ablation.planning.recorded_values import lacking_files, lacking_metric
from ablation.study.task import DEFAULT
from ablation.tasks.images.compiling import compilable_models, describe_compiling, measure_compiling
from ablation.tracking.store import Store


def plan(options: Options, *, as_json: bool, with_stages: bool, measure_compile: bool) -> int:
    """Print the plan, on a screen or `with_stages` at length; with `measure_compile`, also for which models torch.compile would pay."""
    if as_json and with_stages:
        raise ConfigError("--stages", "found it beside --json; expected only one of them, since the JSON lists every run and stage anyway")
    console = Console(stderr=True)
    session = Session(options, console)
    if measure_compile and session.task.name != DEFAULT:
        raise ConfigError("--compile", "is for image classification; expected none: training code of one's own calls torch.compile itself")
    session.check()
    known_runs = session.known_runs(Store.open(make=False))[0] if Store.is_there() else []
    study_plan = session.plan(known_runs, probe=True)
    planner = session.preparation.planner
    for line in (*lacking_metric(study_plan, known_runs), *lacking_files(study_plan, planner, session.workspace.results)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(describe(study_plan, planner), indent=1))
    else:
        print(explain.screen(study_plan, planner, session.num_slots))
        if with_stages:
            print(f"\n{listing(study_plan)}")
        if options.budget:
            print(_about_budget(wall_seconds(study_plan, session.num_slots), options.budget))
    if measure_compile:
        _measure_compiling(study_plan, session, console)
    return DONE


def _about_budget(seconds: float, budget: float) -> str:
    """Whether what takes so many seconds would be done within the budget."""
    told = "all of it would be done" if seconds <= budget else "run begins what would end within it, and the same command goes on"
    return f"with --budget {duration(budget)}: {told}"


def _measure_compiling(plan: Plan, session: Session, console: Console) -> None:
    """Measure and print, for each model that is still to be trained, whether `compile: true` would save time."""
    remaining = [(node.job.work, node.remaining_epochs * node.items) for node in plan.nodes.values()]
    models = compilable_models(remaining, session.devices[0])
    if not models:
        console.print("nothing to compile: no training of a whole model is left that could be compiled and is not", soft_wrap=True)
    for stage, images in models:
        model = stage.settings.model
        message = f"measuring {model.name} at {model.image_size} pixels with and without torch.compile: this takes minutes"
        console.print(message, markup=False, highlight=False, soft_wrap=True)
        measurement = measure_compiling(stage, session.devices[0])
        console.print(describe_compiling(stage, measurement, images), markup=False, highlight=False, soft_wrap=True)
