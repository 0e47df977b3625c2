"""The study that a command works on: resolved, with its folders and devices."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ablation.commands.options import Options
from ablation.errors import AblateError, ConfigError
from ablation.planning.plan import Plan, make_plan, with_choices
from ablation.planning.states import CONFIG, FORCED, LOST
from ablation.planning.workspace import Workspace, read_speeds
from ablation.running.executors.sites import BatchSite, RaySite, SlurmSite, site_of
from ablation.running.packing import Packing
from ablation.study.config import Arm
from ablation.study.resolving import load_study
from ablation.study.specs import select_names
from ablation.study.task import Step
from ablation.techniques.technique import allow_code
from ablation.tracking.recorded import is_superseded
from ablation.training.device_option import devices, num_cores
from ablation.training.planned_device import device_name, plan_for, plan_for_here

if TYPE_CHECKING:
    from ablation.tracking.store import Store


class Session:
    """A resolved study with its folders and devices, and the selection of arms and seeds."""

    def __init__(self, options: Options, console: Console, root: Path | None = None) -> None:
        self.options, self.console = options, console
        site = site_of(options.executor, options.file)
        if options.ray_address and not isinstance(site, RaySite):
            raise ConfigError("--ray-address", f"found it with --executor {options.executor}; expected --executor ray")
        if options.allow_code:
            allow_code(options.file.resolve().parent)
        self.study = load_study(options.file, options.profile, options.sets)
        self.seeds = _seeds(options.seeds) or self.study.seeds
        names = [arm.name for arm in self.study.arms]
        self.selected = with_choices(self.study, select_names(names, options.arms, "--arm") if options.arms else names)
        self.site = site if isinstance(site, SlurmSite | BatchSite) else None  # of a queue, whose jobs are parts of the study
        self.cluster = site if isinstance(site, RaySite) else None  # whose workers are this command's own
        if site is not None and site.device_name:
            _check_kind(options.device, site.device_name)
            self.devices = [plan_for(site.device_name, site.capability)]
        else:
            plan_for_here()
            self.devices = devices(options.device)
        kinds = {device_name(device) for device in self.devices}
        if len(kinds) > 1:
            raise ConfigError("--device", f"found devices of several kinds ({', '.join(sorted(kinds))}); expected one kind, such as cuda:0")
        part = options.part.suffix if options.part else ""
        self.workspace = Workspace((root or Path("mlruns")).resolve(), part)
        self.task = self.study.task
        self.preparation = self.task.prepare(self.study, self.workspace, str(self.devices[0]), self._print_decoding)
        self.decoded = frozenset[Path]()  # the files of decoded data, once they are checked
        self.cluster_slots = 0  # once the cluster's workers begin
        self._speeds: dict[str, float] | None = None  # measured seconds per item, by kind of step

    @property
    def jobs_per_device(self) -> int:
        """How many runs share a device at the start: --jobs if given, else as many as cores on a CPU, and one on a GPU."""
        if jobs := self.options.jobs or (self.site.jobs if self.site else 0):
            return jobs
        return num_cores() if self.devices[0].type == "cpu" else 1

    @cached_property
    def packing(self) -> Packing | None:
        """Finds out how many runs can share a GPU; None if the user said it, or on a CPU."""
        can_adapt = self.devices[0].type == "cuda" and not self.options.jobs and self.task.shares_devices
        return Packing(max(1, num_cores() // len(self.devices))) if can_adapt and self.cluster is None else None

    @property
    def num_slots(self) -> int:
        """How many runs train at once at the start; at a queue's site, if each part has as many devices as this machine."""
        return self.cluster_slots or self.jobs_per_device * len(self.devices) * (self.site.parts if self.site else 1)

    @property
    def arms(self) -> list[Arm]:
        """The selected arms."""
        return [arm for arm in self.study.arms if arm.name in self.selected]

    def check(self) -> None:
        """Raise AblateError now for what would otherwise stop a run at its start; decodes the data."""
        self.preparation.check(self.arms, self.seeds)
        self.decoded = frozenset(self.workspace.data.glob("*/*"))

    def plan(self, known_runs: Sequence[Mapping[str, Any]], *, probe: bool, only: Collection[str] | None = None) -> Plan:
        """The plan, given the study's runs in the store; with `probe`, models of unknown speed are timed briefly.

        With `only`, the keys of some runs, nothing else is to be done.
        """
        return make_plan(
            self.study,
            self.seeds,
            self.selected,
            self.preparation.planner,
            self.workspace.recorded_state(self._with_forced(known_runs), self.task),
            other_seeds=self.study.seeds,
            rerun=self.options.rerun,
            only=only,
            seconds_per_item=self._probed_seconds if probe else self._measured_seconds,
        )

    def _measured_seconds(self, step: Step) -> float:
        """Seconds per item of a step as measured in past runs, or 0 if there are none."""
        if self._speeds is None:
            self._speeds = read_speeds(self.workspace.speeds)
        return self._speeds.get(step.kind, 0.0)

    def _probed_seconds(self, step: Step) -> float:
        """Seconds per item as measured in past runs, or else by a short probe."""
        return self._measured_seconds(step) or self.preparation.seconds_per_item(step)

    def _with_forced(self, known_runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The study's runs in the store; those that --rerun force still has to run again are FORCED, unless --rerun is keep."""
        runs = [run for run in known_runs if run["tags"].get("ablation.kind") == "run"]
        return [{**run, "status": FORCED} if self._is_forced(run) else run for run in runs]

    def _is_forced(self, run: Mapping[str, Any]) -> bool:
        arm, seed, _ = _run_identity(run)
        return is_superseded(run) and arm in self.selected and seed in self.seeds and self.options.rerun != "keep"

    def known_runs(self, store: "Store") -> tuple[list[dict[str, Any]], list[str]]:
        """The study's runs in the store, and the ids of those left out: a run that is recorded twice is there once.

        A finished run whose files are gone is LOST; files on another machine are not. A shared store may hold doubles of other machines'.
        """
        runs = store.runs_of(self.study.name)
        doubled = {} if store.is_shared else self._doubled(runs)
        runs = [run for run in runs if run["run_id"] not in doubled]
        lost = {run["run_id"] for run in runs if _is_done(run) and store.has_lost_files(run["run_id"], CONFIG)}
        return [{**run, "status": LOST} if run["run_id"] in lost else run for run in runs], list(doubled)

    def _doubled(self, known_runs: Sequence[Mapping[str, Any]]) -> dict[str, None]:
        """The ids, newest first, of records of a run that has a newer one and was not forced since: what was restored in MLflow."""
        seen, doubled = set(), dict[str, None]()
        for run in known_runs:
            if _is_done(run) and not is_superseded(run):
                identity = (*_run_identity(run), run["tags"].get("ablation.key"))
                if identity in seen:
                    doubled[run["run_id"]] = None
                seen.add(identity)
        return doubled

    def force(self, plan: Plan, known_runs: Sequence[Mapping[str, Any]], store: "Store") -> None:
        """Discard what is to be run again, for good: if the command is stopped after that, the same one without --rerun force continues.

        `known_runs` are the study's runs in the store: of those that are run again, these records count no more.

        Raises AblateError while another study, which may share what would be deleted, runs in the same folder.
        """
        with self.workspace.held_off(but=self.study.name) as running_studies:
            if running_studies:
                reason = f"--rerun force would delete trainings that {', '.join(running_studies)}, which runs now, may share"
                raise AblateError(f"{reason}; nothing was deleted; run the command again when that has ended")
            store.check_writable()
            # First, since a result from before would pass for a new one once its record counts no more.
            self.workspace.forget([key for key, node in plan.nodes.items() if node.state != "done"], [run.key for run in plan.waiting])
            again = {(run.arm, run.seed, run.content) for run in plan.waiting}
            runs = [run for run in known_runs if run["tags"].get("ablation.kind") == "run" and _run_identity(run) in again]
            store.supersede([run["run_id"] for run in runs])

    def tell(self, sentence: str) -> None:
        """Say something in a line of its own, names and paths as they are."""
        self.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def _print_decoding(self, title: str, done: int, total: int) -> None:
        if self.console.is_terminal:
            self.console.print(f"{title}: {done:,}/{total:,}", end="\r" if done < total else "\n", highlight=False)
        elif done in (0, total):
            self.console.print(f"{title}: {total:,} images{'' if done else ' to do'}", highlight=False)


def _check_kind(choice: str, device: str) -> None:
    """Raise ConfigError for a --device that is of another kind than the site's."""
    kind = device.partition(" ")[0]
    if choice != "auto" and choice.partition(":")[0] != kind:
        raise ConfigError("--device", f"found {choice!r}, but the site's device_name is {device!r}; expected {kind} or auto")


def _is_done(run: Mapping[str, Any]) -> bool:
    return bool(run["tags"].get("ablation.kind") == "run" and run["status"] == "FINISHED")


def _run_identity(run: Mapping[str, Any]) -> tuple[str, int, str]:
    """The (arm, seed, content) of a run in the store."""
    tags = run["tags"]
    return tags["ablation.arm"], int(tags["ablation.seed"]), tags.get("ablation.content", "")


def _seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    if odd := [seed for seed in seeds if not 0 <= seed < 2**63]:
        raise ConfigError("--seed", f"found {odd[0]}; expected numbers from 0 to 2**63 - 1")
    return tuple(dict.fromkeys(seeds))
