"""A study that a command works on: resolved, with its store, its folders and its devices."""

import json
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from ablation.commands.options import Options
from ablation.errors import AblateError, ConfigError
from ablation.planning.plan import Plan, make_plan, with_choices
from ablation.planning.workspace import Workspace, read_speeds
from ablation.running.packing import Packing
from ablation.study.config import Arm
from ablation.study.resolving import load_study
from ablation.study.specs import select_names
from ablation.study.task import Step, load_task
from ablation.system.files import write_json
from ablation.techniques.technique import allow_code
from ablation.training.devices import device_name, devices, num_cores


class Session:
    """A study, resolved, with its store and folders."""

    def __init__(self, options: Options, console: Console, root: Path | None = None) -> None:
        self.options, self.console = options, console
        if options.allow_code:
            allow_code(options.file.resolve().parent)
        self.study = load_study(options.file, options.profile, options.sets)
        self.seeds = _seeds(options.seeds) or self.study.seeds
        names = [arm.name for arm in self.study.arms]
        self.selected = with_choices(self.study, select_names(names, options.arms, "--arm") if options.arms else names)
        self.devices = devices(options.device)
        kinds = {device_name(device) for device in self.devices}
        if len(kinds) > 1:
            raise ConfigError("--device", f"found devices of several kinds ({', '.join(sorted(kinds))}); expected one kind, such as cuda:0")
        self.workspace = Workspace((root or Path("mlruns")).resolve())
        self.task = load_task(self.study.task)
        self.preparation = self.task.prepare(self.study, self.workspace, str(self.devices[0]), self._decoding)
        self._speeds: dict[str, float] | None = None  # measured seconds per item, by kind of step

    @property
    def jobs_per_device(self) -> int:
        """How many runs share a device: --jobs, else as many as there are cores on a CPU, and one elsewhere, to begin with."""
        if self.options.jobs:
            return self.options.jobs
        return num_cores() if self.devices[0].type == "cpu" else 1

    @cached_property
    def packing(self) -> Packing | None:
        """What finds out how many runs share a GPU, where the user did not say."""
        is_open = self.devices[0].type == "cuda" and not self.options.jobs
        return Packing(max(1, num_cores() // len(self.devices))) if is_open else None

    @property
    def num_slots(self) -> int:
        """How many runs go at once, to begin with."""
        return self.jobs_per_device * len(self.devices)

    @property
    def arms(self) -> list[Arm]:
        """The selected arms."""
        return [arm for arm in self.study.arms if arm.name in self.selected]

    def check(self) -> None:
        """Find before anything else what would stop a run at its start; the data are decoded here."""
        self.preparation.check(self.arms, self.seeds)

    def plan(self, known: Sequence[Mapping[str, Any]], *, probe: bool) -> Plan:
        """The plan, given the study's runs in the store; with `probe`, models whose speed is unknown are timed for a moment."""
        return make_plan(
            self.study,
            self.seeds,
            self.selected,
            self.preparation.planner,
            self.workspace.recorded_state(self._as_forced(known), self.task),
            other_seeds=self.study.seeds,
            rerun=self.options.rerun,
            seconds_per_item=self._probed if probe else self._measured,
        )

    def _measured(self, step: Step) -> float:
        """Seconds per item of a step where past runs were measured, else 0."""
        if self._speeds is None:
            self._speeds = read_speeds(self.workspace.speeds)
        return self._speeds.get(step.kind, 0.0)

    def _probed(self, step: Step) -> float:
        """The same, else by a short probe."""
        return self._measured(step) or self.preparation.seconds_per_item(step)

    def _as_forced(self, known: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The study's runs in the store, those that are still to be forced not FINISHED; all as they are with --rerun keep."""
        since = {} if self.options.rerun == "keep" else _read_forced(self.forced)
        return [
            {**run, "status": "FORCED"} if self._is_forced(run, since.get(_forced_name(*_run_of(run)), 0)) else run
            for run in known
            if run["tags"].get("ablation.kind") == "run"
        ]

    def _is_forced(self, run: Mapping[str, Any], since: int) -> bool:
        arm, seed, _ = _run_of(run)
        return arm in self.selected and seed in self.seeds and run["status"] == "FINISHED" and int(run["end"]) < since

    @property
    def forced(self) -> Path:
        """The file that says since when which runs are to be done again."""
        return self.workspace.root / "forced" / f"{self.study.name}.json"

    def force(self, plan: Plan) -> None:
        """Forget what is to be done again, for good: whatever ends the command, the same without --rerun force goes on with it.

        Raises AblateError while another study runs in the same folder, which may share what would be deleted.
        """
        with self.workspace.held_off(but=self.study.name) as running:
            if running:
                what = f"--rerun force would delete trainings that {', '.join(running)}, which runs now, may share"
                raise AblateError(f"{what}; nothing was deleted: give the command again when that has ended")
            self._force(plan)

    def _force(self, plan: Plan) -> None:
        now = int(time.time() * 1000)
        noted = _read_forced(self.forced) | {_forced_name(run.arm, run.seed, run.content): now for run in plan.waiting}
        write_json(self.forced, noted)
        self.workspace.forget([key for key, node in plan.nodes.items() if node.state != "done"], [run.key for run in plan.waiting])

    def _decoding(self, what: str, done: int, total: int) -> None:
        if self.console.is_terminal:
            self.console.print(f"{what}: {done:,}/{total:,}", end="\r" if done < total else "\n", highlight=False)
        elif done in (0, total):
            self.console.print(f"{what}: {total:,} images{'' if done else ' to do'}", highlight=False)


def _run_of(run: Mapping[str, Any]) -> tuple[str, int, str]:
    """The arm, seed and content of a run in the store."""
    tags = run["tags"]
    return tags["ablation.arm"], int(tags["ablation.seed"]), tags.get("ablation.content", "")


def _forced_name(arm: str, seed: int, content: str) -> str:
    return f"{arm} {seed} {content}"


def _read_forced(path: Path) -> dict[str, int]:
    """When runs were forced, in milliseconds, by name; none where none were."""
    try:
        return {str(name): int(since) for name, since in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    if any(seed < 0 for seed in seeds):
        raise ConfigError("--seed", f"found {min(seeds)}; expected numbers from 0")
    return tuple(dict.fromkeys(seeds))
