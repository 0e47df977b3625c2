"""`ablate run`: run what is not done yet, record it, and print the table."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ablation.commands.exit_codes import DONE, FAILED, INTERRUPTED
from ablation.commands.last_run import note_last_run
from ablation.commands.options import Options
from ablation.commands.recorded import with_notes
from ablation.commands.run_part import checked_session, run_part
from ablation.commands.run_parts import failed_before, follow_parts, forget_splits, refuse_beside_jobs, submit_parts, tidy_splits
from ablation.commands.running import NEXT_STEPS, failure_lines, shown, stop_if_stale, study_lock, up_to_date, with_interval
from ablation.commands.screen import print_study
from ablation.commands.session import Session
from ablation.errors import AblateError, ConfigError, StoreError
from ablation.formatting import counted, ranges
from ablation.planning import explain
from ablation.planning.cost import wall_seconds
from ablation.planning.plan import Plan
from ablation.planning.recorded_values import lacking_files, lacking_metric, recorded_values
from ablation.planning.states import LOST
from ablation.running.executors import start_executor
from ablation.running.executors.sites import RaySite, site_of
from ablation.running.messages import RunMessages
from ablation.running.outcomes import Failure, Outcome
from ablation.running.progress import ProgressState, Results
from ablation.running.recorder.provenance import tell_workers
from ablation.running.recorder.recorder import Recorder
from ablation.running.scheduler import Executor, execute
from ablation.system import signals, streams
from ablation.system.invocation import command_line, command_to_go_on
from ablation.tracking.recorded import Recorded
from ablation.tracking.store import Store

DAY = 24 * 3600


def run(options: Options) -> int:
    """Run what is not done yet, record it, and print the table; with --part, run a part of it."""
    if options.part:
        return run_part(options, options.part)
    _check_options(options)
    console = Console(stderr=True)
    session = checked_session(options, console)
    with study_lock(session.workspace, session.study.name, console) as has_waited, contextlib.ExitStack() as exit_stack:
        with signals.interruptible():
            session = up_to_date(session, has_waited=has_waited)
            store = Store.open(study=session.study.name)
            note_last_run(session.workspace.root, options.file, options.profile, session.study.name)
            known_runs, doubled = session.known_runs(store)
            _tell_lost(known_runs, session)
            plan, executor = session.plan(known_runs, probe=False), None
            stop_if_stale(plan, options.rerun)
            refuse_beside_jobs(plan, session)
            if plan.waiting:
                store.check()
                executor = _started_executor(plan, session, exit_stack)
                plan = plan if executor is None else session.plan(known_runs, probe=True)
        _tell_plan(plan, session, known_runs, console)
        _stop_if_long(plan, session)
        _make_way(plan, store, known_runs, doubled, session)
        exit_stack.enter_context(_goes_on_without_force())
        if session.site and options.is_detached and plan.waiting:
            submit_parts(plan, session, session.site, failed_before(known_runs))
            return DONE
        plan = with_interval(plan, options.checkpoint_interval)
        recorder = _begun_recorder(store, plan, session, known_runs)
        state = ProgressState(plan, session.num_slots, Results(plan, session.workspace.results, recorded_values(plan, known_runs)))
        outcome, stopped = _carry_out(plan, session, executor, recorder, state, failed_before(known_runs))
        is_written = _finish_recording(recorder, session)
        outcome.failed.extend(Failure(planned_run, "data", reason) for planned_run, reason in recorder.refused)
        try:
            status = print_outcome(plan, outcome, stopped, session, store.recorded(session.study.name, _unchanged(plan, known_runs)))
        except StoreError:
            if is_written:
                raise
            status = FAILED  # not even the plan could be recorded, as a message above says
        status = status if is_written else max(status, FAILED)
        if status == DONE:
            tidy_splits(plan, session.workspace)
        return status


@contextlib.contextmanager
def _goes_on_without_force() -> Iterator[None]:
    """Have an interruption name the command that goes on, where the same command would discard what was done since."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(command_to_go_on()) from None


def _started_executor(plan: Plan, session: Session, exit_stack: contextlib.ExitStack) -> Executor | None:
    """The executor, whose workers do their imports while models are built here to see that all can begin; none for jobs of a queue."""
    tell_workers(session.study.folder)
    executor = _started(session) if session.site is None else None
    if executor is not None:
        exit_stack.callback(executor.close)
    waiting_arms = {run.arm for run in plan.waiting}
    arms = [arm for arm in session.arms if arm.name in waiting_arms]
    session.preparation.check_starts(arms, plan.seeds[0], is_here=session.site is None)
    return executor


def _begun_recorder(store: Store, plan: Plan, session: Session, known_runs: Sequence[Mapping[str, Any]]) -> Recorder:
    """The recorder of a plan, which writes what is computed already."""
    recorder = Recorder(store, plan, session.preparation.planner, session.workspace, command_line(), session.tell)
    recorder.begin(known_runs)
    for planned_run in plan.runs:
        if planned_run.state == "evaluated":
            recorder.finished(planned_run)
    return recorder


def _started(session: Session) -> Executor:
    """The executor of this machine's processes, or of the cluster that the options name."""
    options, devices, task = session.options, [str(device) for device in session.devices], session.task.name
    if session.cluster is None:
        return start_executor("local", devices, session.jobs_per_device, task)
    if options.device.startswith("cuda:"):
        raise ConfigError("--device", f"found {options.device!r} with a Ray cluster, which says itself which GPU a run has; expected cuda")
    folder = str(options.file.resolve().parent)
    executor = start_executor(
        "ray",
        devices,
        options.jobs or session.cluster.jobs,
        task,
        address=options.ray_address or session.cluster.address,
        study=session.study.name,
        folders=[str(session.workspace.root), folder],
        code=[folder, str(Path.cwd())] if options.allow_code else [],
    )
    session.cluster_slots = executor.num_slots
    return executor


def _tell_plan(plan: Plan, session: Session, known_runs: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the plan in short, and what recorded runs lack: the study's metric, or weights."""
    planner = session.preparation.planner
    lacking = [*lacking_metric(plan, known_runs), *lacking_files(plan, planner, session.workspace.results)]
    told = [explain.summary(plan, planner, session.num_slots), *lacking]
    console.print("\n".join(told), markup=False, highlight=False, soft_wrap=True)


def _unchanged(plan: Plan, known_runs: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The runs that were known before, if they are still those in the store: the plan was there, and nothing had to run; else none."""
    has_plan = any(run["tags"].get("ablation.kind") == "plan" for run in known_runs)
    return known_runs if has_plan and all(planned_run.state == "done" for planned_run in plan.runs) else ()


def _tell_lost(known_runs: Sequence[Mapping[str, Any]], session: Session) -> None:
    if num_lost := sum(run["status"] == LOST for run in known_runs):
        folders = session.workspace.root / "artifacts", session.workspace.results
        told = f"the files of {num_lost} recorded runs are gone from {folders[0]}: what still lies in {folders[1]} is recorded again"
        session.tell(told)


def _make_way(plan: Plan, store: Store, known_runs: Sequence[Mapping[str, Any]], doubled: Sequence[str], session: Session) -> None:
    """Discard what is to be run again, restore the study if it was deleted in MLflow, and delete what is recorded twice.

    By now nothing refuses to begin.
    """
    if session.options.rerun == "force":
        session.force(plan, known_runs, store)
        forget_splits(plan, session.workspace.parts)
    if changed := store.restore(session.study.name):
        session.tell(changed)
    for run_id in doubled:
        store.delete(run_id)


def _check_options(options: Options) -> None:
    """Raise ConfigError for options that another option makes senseless."""
    site = site_of(options.executor, options.file)
    is_here = isinstance(site, RaySite | None)
    if options.records_part:
        raise ConfigError("--record", "found it without --part; expected --part I/N (without it everything is recorded)")
    if options.is_detached and is_here:
        raise ConfigError("--detach", f"found it with --executor {options.executor}, whose work ends with this command; expected slurm")
    if options.budget and not is_here:
        raise ConfigError("--budget", "found it with jobs of a queue; expected their time limit, such as sbatch: {time: '4:00:00'}")


def _carry_out(
    plan: Plan, session: Session, executor: Executor | None, recorder: Recorder, state: ProgressState, failed: Mapping[str, float]
) -> tuple[Outcome, bool]:
    """Train and test what is waiting, by an executor or by parts at a site; return the outcome, and whether the user stopped it."""
    if not plan.waiting:
        RunMessages(plan, session.workspace, None, state, session.console).close()
        return Outcome(), False
    try:
        if executor is not None:
            outcome, stopped = _execute_plan(plan, session, executor, recorder, state)
        else:
            assert session.site is not None, session.options
            outcome, stopped = follow_parts(plan, session, session.site, recorder, state, failed)
    except BaseException:
        recorder.interrupted("ended at once")
        recorder.close()
        raise
    if outcome.left:
        recorder.interrupted("stopped by the user" if stopped else outcome.why or "the budget was used up")
    return outcome, stopped


def _execute_plan(plan: Plan, session: Session, executor: Executor, recorder: Recorder, state: ProgressState) -> tuple[Outcome, bool]:
    """Train and test what is waiting; return the outcome, and whether the user stopped it."""
    with shown(plan, session, state) as (view, should_stop):
        budget, packing = session.options.budget, session.packing
        outcome = execute(plan, executor, recorder, view, should_stop=should_stop, budget=budget, packing=packing)
        return outcome, should_stop()


def _finish_recording(recorder: Recorder, session: Session) -> bool:
    """Wait until the record is written; return whether all of it is."""
    seconds = recorder.close()
    if seconds > 3 and not recorder.problems:
        session.console.print(f"wrote the rest of the record in {seconds:.0f} s", highlight=False)
    for problem in dict.fromkeys(recorder.problems):
        where = f"the results lie in {session.workspace.results}, and the same command records them"
        session.tell(f"not recorded yet: {problem}; {where}")
    if recorder.undrawn:
        told = f"a picture could not be drawn, and the record is complete without it ({recorder.undrawn})"
        session.tell(told)
    return not recorder.problems


def _stop_if_long(plan: Plan, session: Session) -> None:
    if session.site is not None:
        return
    seconds = wall_seconds(plan, session.num_slots)
    if session.devices[0].type == "cpu" and seconds > DAY and not (session.options.yes or session.options.budget):
        raise AblateError(
            f"this would take about {seconds / DAY:.1f} days on the CPU, and nothing was started; "
            "--yes starts it anyway, --profile and --arm make it smaller"
        )


def print_outcome(plan: Plan, outcome: Outcome, stopped: bool, session: Session, recorded: Recorded) -> int:
    """Print the table and what is left to do; return the exit status."""
    failed_before = [Failure(planned_run, "", planned_run.reason) for planned_run in plan.runs if planned_run.state == "failed"]
    if len(outcome.left) < len(plan.runs):
        streams.spare_output()  # what is recorded is recorded, whoever reads the table
        from ablation.report.sections import Shown

        print_study(with_notes(recorded), Shown(arms=tuple(plan.selected)))
    name = plan.study.name

    for line in failure_lines([*failed_before, *outcome.failed], NEXT_STEPS | dict(session.task.words.next_steps)):
        session.tell(line)
    if outcome.left:
        why = "stopped" if stopped else outcome.why or "the budget is used up"
        left = f"{counted(len(outcome.left), 'run')} {'is' if len(outcome.left) == 1 else 'are'} left"
        session.tell(f"{why}; {left}{_complete_seeds_note(plan, outcome)}. To go on: {command_to_go_on()}")
    else:
        file_and_profile = f"{session.options.file}" + (f" --profile {session.options.profile}" if session.options.profile else "")
        session.tell(f"full report: ablate report {file_and_profile} --output report/{name} · charts: ablate ui")
    if outcome.left and (stopped or not outcome.is_given_up):
        return INTERRUPTED
    return FAILED if outcome.left or failed_before or outcome.failed else DONE


def _complete_seeds_note(plan: Plan, outcome: Outcome) -> str:
    """The seeds that all arms have finished, in words: ` (all arms have seeds 0-2)`."""
    complete_runs = [
        (planned_run.arm, planned_run.seed)
        for planned_run in (*outcome.finished, *(run for run in plan.runs if run.state in ("done", "evaluated")))
    ]
    incomplete_seeds = {run.seed for run in plan.runs if (run.arm, run.seed) not in complete_runs}
    complete_seeds = [seed for seed in plan.seeds if seed not in incomplete_seeds]
    return f" (all arms have seed{'s' if len(complete_seeds) > 1 else ''} {ranges(complete_seeds)})" if complete_seeds else ""
