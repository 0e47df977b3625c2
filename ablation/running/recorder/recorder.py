"""Writes a study's runs into the store, from a thread of its own: nothing that trains waits for it.

What it writes lies in the local folders first, so whatever cannot be written now is written by the next `run`.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.planning.plan import Node, Plan, Run
from ablation.planning.workspace import Workspace, among_tags, inputs_tag
from ablation.running.recorder.choosing import best_of, chosen_values, copied_tags
from ablation.running.recorder.contents import (
    arm_note,
    beginning,
    config_text,
    curve_points,
    own_record,
    picture_title,
    plan_record,
    result_files,
    result_tags,
    run_title,
    settings_text,
    spending,
    study_note,
)
from ablation.running.recorder.pictures import CONFUSION, Pictures
from ablation.running.recorder.provenance import context_tags
from ablation.running.recorder.registry import KEY, UNDER_WAY, Registry, identity, run_name
from ablation.running.recorder.summaries import SUMMARISED, Summaries, columns, now
from ablation.running.recorder.writer import Tell, Writer, to_nobody
from ablation.study.config import Arm, Choice
from ablation.study.metrics import CURVES, is_curve, metric_rows
from ablation.study.params import params
from ablation.study.task import OWN, Planner
from ablation.system import sealed
from ablation.tracking.recorded import FILE, PLAN, SUPERSEDED, Point, is_superseded, of_content
from ablation.tracking.rows import NewRun
from ablation.tracking.store import Store

LIVE_EVERY = 10.0  # seconds between two looks of a training at the store
TOUCH_EVERY = 1.0  # seconds between two notes of the study's last change while the record is behind
VIEW = "arms"  # the name of the prepared view of MLflow's page


@dataclass(frozen=True)
class _Finished:
    """A run that is to be recorded: its result, its numbers with what it cost, its pictures by name."""

    run: Run
    result: Mapping[str, Any]
    values: Mapping[str, float]
    pictures: Mapping[str, Path]


class Recorder:
    """One study's record. Every method but `close` returns at once. A thread calls `tell` with what a user wants to know meanwhile."""

    def __init__(self, store: Store, plan: Plan, planner: Planner, workspace: Workspace, command: str, tell: Tell = to_nobody) -> None:
        self.store, self.plan, self.planner, self.workspace, self.command = store, plan, planner, workspace, command
        self.task = plan.study.task
        self.arms = {arm.name: arm for arm in plan.study.arms}
        self.refused: list[tuple[Run, str]] = []  # choices that could not be made
        self.pictures = Pictures()
        self.registry = Registry(store, workspace.root)
        self.summaries = Summaries(self.registry, plan, planner, self.pictures, command)
        self._shown: dict[str, float] = {}  # when a stage's curves were shown last
        self._known: Sequence[Mapping[str, Any]] = ()
        self._waiting: dict[str, list[Run]] = {}  # the runs that a training is for, by its key
        for run in plan.waiting:
            for node in plan.lineage(run) if run.choice is None else ():
                self._waiting.setdefault(node.job.key, []).append(run)
        self._settings: dict[str, str] = {}  # of each arm, in the words of config.yaml
        self._touched = 0.0  # when the study's last change was noted
        self._writer = Writer(self._begin, self._end, store.reach, tell)

    # --- what callers say ------------------------------------------------------------------------------------------------

    def begin(self, known: Sequence[Mapping[str, Any]]) -> None:
        """Record the plan, close what nobody runs, and make the arms' summary runs; `known` are the study's runs in the store."""
        self._known = known
        self._writer.put(lambda: None)

    def live(self, node: Node, history: Sequence[Mapping[str, Any]]) -> None:
        """Show a training's curves on the runs that wait for it, now and then."""
        key = node.job.key
        if self._writer.is_behind:  # what is finished comes first
            return
        if time.monotonic() - self._shown.setdefault(key, time.monotonic()) > LIVE_EVERY:
            self._shown[key] = time.monotonic()
            rows = list(history)
            self._writer.put(lambda: self._write_live(node, rows), is_kept=False)

    def finished(self, run: Run) -> None:
        """Record a run whose results lie in the local folder."""
        if (choice := run.choice) is not None:
            self._writer.put(lambda: self._write_chosen(run, choice))
            return
        if self._writer.is_behind:
            self.pictures.ask(self.workspace.results / run.key, picture_title(run))
        self._writer.put_item(self._write_finished, run)

    def failed(self, run: Run, kind: str, reason: str, log: str) -> None:
        """Record that a run failed, and why; `log` is the traceback of a bug."""
        self._writer.put(lambda: self._write_failed(run, kind, reason, log))

    def interrupted(self, why: str) -> None:
        """Record that what is under way was stopped."""
        self._writer.put(lambda: self._kill_running(why))

    def close(self) -> float:
        """Write what is left, the summaries and the plan's last state; the seconds that it took."""
        began = time.monotonic()
        self._writer.close()
        self.pictures.close()
        return time.monotonic() - began

    @property
    def problems(self) -> list[str]:
        """Why something could not be written."""
        return self._writer.problems

    @property
    def undrawn(self) -> str:
        """Why a picture is missing from the record, "" if none is."""
        return self.pictures.problem

    # --- the beginning and the end ---------------------------------------------------------------------------------------

    def _begin(self) -> None:
        study, registry = self.plan.study, self.registry
        registry.experiment = self.store.experiment(study.name, study_note(self.plan, self.command))
        planned = (*self.plan.runs, *self.plan.others)
        kept = {(run.arm, run.seed, run.used_key) for run in planned if not run.needed}  # what is done again gets another
        for run in self._known:
            kind = run["tags"].get("ablation.kind", "")
            if kind == "run":
                self._take_known(run, kept)
            elif kind == "plan":
                if registry.ids.setdefault(("plan", ""), run["run_id"]) == run["run_id"]:
                    self.summaries.take_told(run["tags"].get(SUMMARISED, ""))
                    registry.unfinished |= {} if run["status"] == "FINISHED" else {run["run_id"]: {}}
                else:
                    registry.drop_double(run)
            elif kind == "summary":
                self.summaries.take_known(run)
        self._record_plan()
        self.summaries.begin(self._known)
        wanted = "tags.`ablation.kind` = 'summary'"
        self.store.prepare_view(registry.experiment, VIEW, wanted, ["ablation.verdict"], columns(self.summaries.metrics))
        self.store.touch(registry.experiment)

    def _take_known(self, run: Mapping[str, Any], kept: set[tuple[str, int, str]]) -> None:
        """Count a run that is finished, go on with one that is not, and close one that nobody runs."""
        tags, registry = run["tags"], self.registry
        arm, seed, key = tags["ablation.arm"], int(tags["ablation.seed"]), tags["ablation.key"]
        if run["status"] == "FINISHED":
            registry.before.add(run["run_id"])
            if (arm, seed, key) in kept and not is_superseded(run):
                self.summaries.take_recorded(arm, seed, run["run_id"], run["metrics"], tags)
        else:
            registry.ids.setdefault(("run", arm, str(seed), key), run["run_id"])
            registry.begun[run["run_id"]] = run
            if "ablation.command" not in tags:  # which is noted after the params
                registry.unfinished[run["run_id"]] = run["params"]
        if run["status"] in UNDER_WAY and registry.is_ours(run):
            self.store.write(run["run_id"], tags={"ablation.failure": "killed", "ablation.reason": "its process was gone"})
            self.store.finish(run["run_id"], "KILLED", now())

    def _record_plan(self) -> None:
        """The plan as an artifact of the study's own run, and the file that it came from."""
        about = plan_record(self.plan, self.planner, self.command)
        self.summaries.classes = about.get("classes", ())
        folder = self.pictures.new_folder()
        for name, content in ((PLAN, json.dumps(about, indent=1).encode()), (FILE, self.plan.study.content)):
            (folder / name).write_bytes(content)
            (folder / of_content(name, about["written"]["digest"])).write_bytes(content)  # which a plan of another content leaves
        tags = {"ablation.kind": "plan", "ablation.study": self.plan.study.name} | context_tags(self.command, self.plan.study.folder)
        run_id = self.registry.run_id(("plan", ""), "plan", tags, now())
        if run_id in self.registry.unfinished:
            self.store.finish(run_id, "FINISHED", now())
            self.registry.complete(run_id)
        self.store.write(run_id, tags=tags)
        self.store.add_files(run_id, {path.name: path for path in folder.iterdir()})

    def _end(self) -> None:
        self.summaries.end()
        self._record_plan()
        self.store.touch(self.registry.experiment)

    # --- runs ------------------------------------------------------------------------------------------------------------

    def _write_run(
        self,
        run: Run,
        start: int,
        points: Sequence[Point] = (),
        tags: Mapping[str, str] | None = None,
        own_params: Mapping[str, str] | None = None,
        chosen: Arm | None = None,
    ) -> str:
        """Write numbers and tags of a run in one batch, with its settings, or those of `chosen`, unless it has them; its id.

        One that was left unfinished under the same key goes on.
        """
        registry, name = self.registry, run_name(run)
        all_params, all_tags = dict(own_params or {}), dict(tags or {})
        if name in registry.ids:
            self.store.finish(registry.ids[name], "RUNNING", 0)
            all_tags = {"ablation.reason": "", "ablation.failure": "", SUPERSEDED: ""} | all_tags
            run_id = registry.ids[name]
        else:
            run_id = registry.run_id(name, run_title(run), self._tags(run), start)
        if run_id in registry.unfinished:
            settings = params(chosen or self.arms[run.arm], run.seed, self.task) | {"arm": run.arm}
            all_params |= registry.lacking(run_id, settings)
            all_tags = context_tags(self.command, self.plan.study.folder) | all_tags
        self.store.write(run_id, self.store.missing(run_id, points), all_params, all_tags)
        registry.complete(run_id)
        return run_id

    def _tags(self, run: Run) -> dict[str, str]:
        """What a run is, by its tags."""
        arm = self.arms[run.arm]
        return identity(run) | {
            "ablation.study": self.plan.study.name,
            "ablation.content": run.content,
            **inputs_tag(self.planner.inputs(arm, run.seed)),
            "ablation.parent_arm": arm.parent or "",
            "ablation.change": json.dumps(arm.change, ensure_ascii=False),
            "mlflow.parentRunId": self.summaries.run_id(arm),
            "mlflow.note.content": arm_note(arm, self.plan.labels[arm.name], self.task),
        }

    def _write_live(self, node: Node, history: Sequence[Mapping[str, Any]]) -> None:
        runs = self._waiting.get(node.job.key, ())
        self.registry.look_for(KEY, [identity(run) for run in runs])
        for run in runs:
            if (run.arm, run.seed) not in self.summaries.done and not self.registry.done_elsewhere(run):
                with self.registry.transaction(is_new=not self.registry.is_known(run)):
                    self._write_run(run, int(history[0]["time"]), curve_points(history, run, self.task))

    def _write_finished(self, runs: Sequence[Run]) -> None:
        """Record runs whose results lie in the local folder: all that they are in one transaction, their ends in another."""
        registry, results = self.registry, [self._read(run) for run in runs]
        with registry.transaction(is_new=not any(registry.is_known(run) for run in runs)):
            registry.look_for(KEY, [identity(run) for run in runs])
            done = {run_name(run): found for run in runs if (found := registry.done_elsewhere(run))}
            written = [one for one in results if run_name(one.run) not in done]
            ids = self._write_results(written)
        for one, run_id in zip(written, ids, strict=True):
            self._add_files(one.run, run_id, one.pictures)
        with registry.transaction():
            self.store.finish_all([(run_id, "FINISHED", one.result["finished"]) for one, run_id in zip(written, ids, strict=True)])
        for run in runs:
            if found := done.get(run_name(run)):
                self.summaries.take_result(run.arm, run.seed, found["run_id"], found["metrics"], found["tags"])
        for one, run_id in zip(written, ids, strict=True):
            self.summaries.take_result(one.run.arm, one.run.seed, run_id, one.values, result_tags(one.result))
        self._catch_up(runs)

    def _read(self, run: Run) -> _Finished:
        """The result of a run, and the pictures that are drawn of it."""
        folder = self.workspace.results / run.key
        result = json.loads((folder / sealed.RESULT).read_text(encoding="utf-8"))
        pictures = self.pictures.of_result(result, folder, picture_title(run))
        return _Finished(run, result, result["metrics"] | spending(self.plan, run, result), pictures)

    def _write_results(self, written: Sequence[_Finished]) -> list[str]:
        """Write the numbers of results, with the runs' settings and data; the runs' ids. Those that are new are written at once."""
        new = [one for one in written if self.registry.is_new(run_name(one.run), identity(one.run))]
        ids = self.registry.insert({run_name(one.run): self._new_run(one) for one in new})
        return [ids.get(run_name(one.run)) or self._write_result(one) for one in written]

    def _new_run(self, finished: _Finished) -> NewRun:
        """The run of a result, as `_write_result` writes it."""
        run, arm = finished.run, self.arms[finished.run.arm]
        own_points, own_params = own_record(self.workspace.results / run.key)
        tags = self._tags(run) | context_tags(self.command, self.plan.study.folder) | result_tags(finished.result)
        settings = own_params | params(arm, run.seed, self.task) | {"arm": run.arm}
        name, place = self.planner.dataset(arm)
        dataset = (name, finished.result["digest"], place) if name else None
        points = [*self._points(finished), *own_points]
        return NewRun(run_title(run), beginning(finished.result), tags, settings, points, dataset)

    def _write_result(self, finished: _Finished) -> str:
        """Write one that may be there in part; the run's id. What one's own code logged before it failed is no part of it."""
        run, result = finished.run, finished.result
        own_points, own_params = own_record(self.workspace.results / run.key)
        points = [*self._points(finished), *own_points]
        if self.task.name == OWN and self.registry.is_of_another_attempt(run, points, own_params, beginning(result)):
            self.registry.give_up(run)
        run_id = self._write_run(run, beginning(result), points, result_tags(result), own_params)
        self._log_dataset(run_id, self.arms[run.arm], result["digest"])
        return run_id

    def _points(self, finished: _Finished) -> list[Point]:
        """A result's curves and numbers."""
        run, result = finished.run, finished.result
        points = [Point(name, float(value), result["finished"]) for name, value in finished.values.items()]
        return [*curve_points(result["history"], run, self.task), *points]

    def _log_dataset(self, run_id: str, arm: Arm, digest: str) -> None:
        name, place = self.planner.dataset(arm)
        if name:  # data that nobody declared has none
            self.store.log_dataset(run_id, name, digest, place, "training")

    def _add_files(self, run: Run, run_id: str, pictures: Mapping[str, Path]) -> None:
        """The run's artifacts: its result, what it was made with, its pictures, and with `keep: all` the weights of every stage."""
        folder, config = self.workspace.results / run.key, self.pictures.new_folder() / "config.yaml"
        arm = self.arms[run.arm]
        if arm.name not in self._settings:
            self._settings[arm.name] = settings_text(arm, self.task)
        config.write_text(config_text(arm, run.seed, self._settings[arm.name]), encoding="utf-8")
        files = result_files(folder) | {config.name: config}
        if self.plan.study.keep == "all":
            stages = enumerate(self.task.stage_weights(self.workspace.stages / key) for key in run.chain)
            files |= {f"stage-{i}.safetensors": path for i, path in stages if path.exists()}
        self.store.add_files(run_id, {**files, **pictures})
        for path in (config, *(path for name, path in pictures.items() if name == f"{CONFUSION}.png")):
            path.unlink()  # of which the store has a link or a copy

    def _catch_up(self, runs: Sequence[Run]) -> None:
        """Tell of runs that were just recorded, at once or, while much waits, now and then."""
        is_behind = self._writer.is_behind
        if not is_behind:
            self.summaries.catch_up({run.arm for run in runs})
        if not is_behind or time.monotonic() - self._touched > TOUCH_EVERY:
            self.store.touch(self.registry.experiment)  # whoever watches looks again
            self._touched = time.monotonic()

    def _write_chosen(self, run: Run, choice: Choice) -> None:
        """Record the best of some runs once more, under the name of the arm that chooses; it trained nothing of its own."""
        metric, summaries = f"validation/{choice.metric}", self.summaries
        missing = [name for name in choice.among if metric not in summaries.values[name, run.seed]]
        if missing:
            self.refused.append((run, f"{missing[0]}, among which it chooses, has no {metric}"))
            self._write_failed(run, "data", self.refused[-1][1], "")
            return
        scores = {name: summaries.values[name, run.seed][metric] for name in choice.among}
        best = best_of(choice, scores)
        source, values = summaries.done[best, run.seed], summaries.values[best, run.seed]
        about = {"own": self.task.name == OWN, "metrics": metric_rows(self.task.metrics(self.plan.study.margin))}
        final = chosen_values(about, values, scores[best], scores)
        known = next(run for run in self.store.runs(self.registry.experiment) if run["run_id"] == source)
        tags = {**copied_tags(known["tags"]), "ablation.chosen": best}
        tags |= among_tags([summaries.done[name, run.seed] for name in choice.among])
        curves = [point for point in self.store.curves(source, beginnings=("",) if about["own"] else CURVES) if is_curve(about, point.name)]
        points = [*curves, *(Point(name, float(value), known["end"]) for name, value in final.items())]
        with self.registry.transaction(is_new=not self.registry.is_known(run)):
            run_id = self._write_run(run, known["start"], points, tags, chosen=self.arms[best])
            self._log_dataset(run_id, self.arms[best], known["digest"])
        self.store.add_files(run_id, self.store.files(source))
        self.store.finish(run_id, "FINISHED", known["end"])
        for before in self.registry.finished_before(run):  # the choice among runs of which some were run again meanwhile
            self.store.delete(before["run_id"])
        summaries.take_result(run.arm, run.seed, run_id, final, tags)
        self._catch_up([run])

    def _write_failed(self, run: Run, kind: str, reason: str, log: str) -> None:
        self.registry.look_for(KEY, [identity(run)])
        if self.registry.done_elsewhere(run):
            return  # another machine has finished it meanwhile, and its record stays
        with self.registry.transaction(is_new=not self.registry.is_known(run)):
            run_id = self._write_run(run, now(), (), {"ablation.failure": kind, "ablation.reason": reason})
        if log:
            path = self.pictures.new_folder() / "error.txt"
            path.write_text(log, encoding="utf-8", errors="replace")
            self.store.add_files(run_id, {path.name: path})
        self.store.finish(run_id, "KILLED" if kind == "killed" else "FAILED", now())

    def _kill_running(self, why: str) -> None:
        for run in self.store.runs(self.registry.experiment):
            if run["status"] == "RUNNING" and run["tags"].get("ablation.kind") == "run" and self.registry.is_ours(run):
                self.store.write(run["run_id"], tags={"ablation.failure": "killed", "ablation.reason": why})
                self.store.finish(run["run_id"], "KILLED", now())
