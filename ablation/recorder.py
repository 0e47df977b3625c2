"""Writes a study's runs into the store, from a thread of its own: nothing that trains waits for it.

What it writes lies in the local folders first, so whatever cannot be written now is written by the next `run`.
"""

import json
import os
import platform
import queue
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ablation.config import Arm, Choice, StageOptions, dump
from ablation.errors import StoreError
from ablation.keys import digest
from ablation.matrix import flatten
from ablation.memory import give_back_freed
from ablation.plan import Node, Plan, Run, Surroundings, describe, epochs_of, lineage
from ablation.preparation import Workspace, package_versions
from ablation.report.words import change_words, escaped
from ablation.tracking.store import PLAN, VERSION, Point, Store, first_line, without_secrets

HEADLINE = ("test/accuracy", "test/balanced_accuracy", "test/macro_f1")
LIVE_EVERY = 10.0  # seconds between two looks of a training at the store
SUMMARISE_EVERY = 15.0  # seconds between two rewritings of the summaries of arms that got a result
TRIM_EVERY = 30.0  # seconds between two times that memory is given back
STEP = 1000  # milliseconds between the starts of two summaries, so that there is room for arms to come
SUMMARY_FORM = 2  # of what a summary run holds; one of another form is made anew
PICTURED = "ablation.pictured"  # the tag with the digest of the matrix that a summary's picture shows
VIEW = "arms"  # the name of the prepared view of MLflow's page
RESULT_TAGS = (  # what a result says of how it was computed
    "ablation.device",
    "ablation.precision",
    "ablation.step",
    "ablation.statistical",
)
WAITS = (1.0, 3.0, 10.0)  # seconds before a failed writing is tried again
PAUSE = 15.0  # seconds for which a store that did not answer is left alone
PATIENCE = 3  # how many failures in a row say that a store is still away
SUMMARISED = "ablation.summarised"  # the plan's tag with the digest of the runs that the summaries tell of
PLACE, TOKEN = "ablation.place", "ablation.token"  # where a run was begun, and by which call
IDENTITY = ("ablation.kind", "ablation.arm", "ablation.seed", "ablation.key", "ablation.settings")  # two runs with these alike are one


class Recorder:
    """One study's record. Every method but `close` returns at once."""

    def __init__(self, store: Store, plan: Plan, around: Surroundings, workspace: Workspace, command: str) -> None:
        self.store, self.plan, self.around, self.workspace, self.command = store, plan, around, workspace, command
        self.arms = {arm.name: arm for arm in plan.study.arms}
        self.problems: list[str] = []
        self.refused: list[tuple[Run, str]] = []  # choices that could not be made
        self._ids: dict[tuple[str, ...], str] = {}  # ("summary", arm) or ("run", arm, seed, key) -> run id
        self._values: dict[tuple[str, int], dict[str, float]] = {}
        self._done: dict[tuple[str, int], str] = {}  # the ids of the runs that these values are of
        self._changed: set[str] = set()  # arms that have results which no summary tells yet
        self._summarised_runs = ""  # the digest of the runs of which all summaries tell
        self._half: dict[str, Mapping[str, str]] = {}  # run id -> its params, where it may lack some or what follows them
        self._before: set[str] = set()  # the ids of the runs that were finished when this command began
        self._looks_first = store.is_shared  # whether a run may be there already that is to be created
        self._place = place(workspace.root)
        self._file = plan.study.file.read_bytes()  # as it is now: it may be edited while the study runs
        self._summarised = time.monotonic()
        self._starts: dict[str, int] = {}  # of the summaries, in milliseconds: MLflow lists by them
        self._shown: dict[str, float] = {}
        self._pictured: dict[str, str] = {}  # the digest of the matrix whose picture an arm's summary has
        self._drawn: dict[tuple[str, ...], Path] = {}
        self._known: Sequence[Mapping[str, Any]] = ()
        self._has_begun = False
        self._late: list[Callable[[], None]] = []  # what could not be written yet, in order
        self._problem, self._failed_at = "", 0.0
        self._queue: queue.SimpleQueue[tuple[Callable[[], None], bool] | None] = queue.SimpleQueue()  # what to write, and if it must be
        self._folder = tempfile.TemporaryDirectory(prefix="ablate-")
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    # --- what callers say ------------------------------------------------------------------------------------------------

    def begin(self, known: Sequence[Mapping[str, Any]]) -> None:
        """Record the plan, close what nobody runs, and make the arms' summary runs; `known` are the study's runs in the store."""
        self._known = known
        self._queue.put((lambda: None, True))

    def live(self, node: Node, history: Sequence[Mapping[str, Any]]) -> None:
        """Show a training's curves on the runs that wait for it, now and then."""
        key = node.job.key
        if time.monotonic() - self._shown.setdefault(key, time.monotonic()) > LIVE_EVERY:
            self._shown[key] = time.monotonic()
            self._queue.put((lambda: self._live(node, list(history)), False))

    def finished(self, run: Run) -> None:
        """Record a run whose results lie in the local folder."""
        self._queue.put((lambda: self._finished(run), True))

    def failed(self, run: Run, kind: str, reason: str, log: str) -> None:
        """Record that a run failed, and why; `log` is the traceback of a bug."""
        self._queue.put((lambda: self._failed(run, kind, reason, log), True))

    def interrupted(self, why: str) -> None:
        """Record that what is under way was stopped."""
        self._queue.put((lambda: self._kill_running(why), True))

    def close(self) -> float:
        """Write what is left, the summaries and the plan's last state; the seconds that it took."""
        began = time.monotonic()
        self._queue.put(None)
        self._thread.join()
        self._folder.cleanup()
        return time.monotonic() - began

    # --- the thread ------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        trimmed = time.monotonic()
        while (one := self._queue.get()) is not None:
            task, is_kept = one
            is_away = bool(self._late) and time.monotonic() - self._failed_at < PAUSE
            if is_away or not self._is_written(task, () if self._late else WAITS):
                self._late += [task] if is_kept else []
            elif self._late:
                self._write_late()
            if time.monotonic() - trimmed > TRIM_EVERY:
                give_back_freed()
                trimmed = time.monotonic()
        self._write_late()
        is_whole = self._is_written(self._end, () if self._late else WAITS)
        self.problems += [] if is_whole and not self._late else [self._problem]

    def _is_written(self, task: Callable[[], None], waits: Sequence[float]) -> bool:
        problem = self._attempt(task, waits)
        if problem:
            self._problem, self._failed_at = problem, time.monotonic()
        return not problem

    def _write_late(self) -> None:
        """Write what could not be written before; a task that fails lets those after it go on, a few failures in a row let none."""
        waiting, self._late, failures = self._late, [], 0
        for task in waiting:
            if failures < PATIENCE and self._is_written(task, ()):
                failures = 0
            else:
                failures += 1
                self._late.append(task)

    def _attempt(self, task: Callable[[], None], waits: Sequence[float]) -> str:
        """Write something, a few times if need be; the problem where it could not be written, which the folders still hold then."""
        for wait in (*waits, None):
            try:
                if not self._has_begun:
                    self._begin(self._known)
                    self._has_begun = True
                task()
            except Exception as error:  # whatever the store says, training goes on
                problem = without_secrets(first_line(str(error) or type(error).__name__))
                if wait is None:
                    return problem
                time.sleep(wait)
            else:
                return ""
        raise AssertionError(waits)

    def _begin(self, known: Sequence[Mapping[str, Any]]) -> None:
        study = self.plan.study
        self.experiment = self.store.experiment(study.name, _note(self.plan, self.command))
        kept = {
            (run.arm, run.seed, run.used_key) for run in (*self.plan.runs, *self.plan.others) if not run.needed
        }  # what is done again gets another
        for run in known:
            kind = run["tags"].get("ablation.kind", "")
            if kind == "run":
                self._known_run(run, kept)
            elif kind == "plan":
                if self._ids.setdefault(("plan", ""), run["run_id"]) == run["run_id"]:
                    self._summarised_runs = run["tags"].get(SUMMARISED, "")
                    self._half |= {} if run["status"] == "FINISHED" else {run["run_id"]: {}}
            elif kind == "summary":
                self._known_summary(run)
        self._record_plan()
        self._starts = starts(list(self.arms), self._starts, _now())
        for arm in self.plan.selected:
            self._summary(self.arms[arm])
        for run in known:
            self._adopt(run)
        columns = ["summary/accuracy_pct", "delta/parent_accuracy_points", "delta/baseline_accuracy_points", "summary/n"]
        columns += ["summary/accuracy_sd_points", "summary/balanced_accuracy_pct", "summary/macro_f1_pct"]
        self.store.prepare_view(self.experiment, VIEW, "tags.`ablation.kind` = 'summary'", ["ablation.verdict"], columns)
        self.store.touch(self.experiment)

    def _known_run(self, run: Mapping[str, Any], kept: set[tuple[str, int, str]]) -> None:
        """Count a run that is finished, go on with one that is not, and close one that nobody runs."""
        tags = run["tags"]
        one = (tags["ablation.arm"], int(tags["ablation.seed"]), tags["ablation.key"])
        if run["status"] == "FINISHED":
            self._before.add(run["run_id"])
            if one in kept and one[:2] not in self._values:
                self._values[one[:2]], self._done[one[:2]] = run["metrics"], run["run_id"]
        else:
            self._ids.setdefault(("run", one[0], str(one[1]), one[2]), run["run_id"])
            if "ablation.command" not in tags:  # which is noted after the params
                self._half[run["run_id"]] = run["params"]
        if run["status"] in ("RUNNING", "SCHEDULED") and self._is_ours(run):
            self.store.write(run["run_id"], tags={"ablation.failure": "killed", "ablation.reason": "its process was gone"})
            self.store.finish(run["run_id"], "KILLED", _now())

    def _is_ours(self, run: Mapping[str, Any]) -> bool:
        """Whether no other machine can be at the run: in a store of our own the lock says so, elsewhere it was begun here."""
        return not self.store.is_shared or run["tags"].get(PLACE, self._place) == self._place

    def _create(self, title: str, tags: Mapping[str, str], start: int) -> str:
        """The id of a run with these tags: a new one, unless another machine, or a call whose answer was lost, has made it."""
        if self._looks_first and (there := self._same(tags)):
            run_id = str(there[0]["run_id"])
            self._half[run_id] = there[0]["params"]
            return run_id
        token = uuid.uuid4().hex
        try:
            run_id = self.store.create(self.experiment, title, {**tags, TOKEN: token, PLACE: self._place}, start)
        except Exception:
            self._looks_first = True  # it may be there all the same
            raise
        self._half[run_id] = {}
        for one in self._same(tags) if self.store.is_shared else []:
            if one["tags"].get(TOKEN) == token and one["run_id"] != run_id:  # a request that was sent twice
                self.store.delete(one["run_id"])
        return run_id

    def _same(self, tags: Mapping[str, str]) -> list[dict[str, Any]]:
        """The runs of the same identity that were not finished when this command began, finished ones first."""
        found = self.store.find(self.experiment, {name: tags[name] for name in IDENTITY if name in tags})
        return sorted((one for one in found if one["run_id"] not in self._before), key=lambda one: one["status"] != "FINISHED")

    def _done_elsewhere(self, run: Run) -> Mapping[str, Any] | None:
        """The record of the run where another machine has finished it meanwhile; one of our own is given up for it."""
        there = self._same(_identity(run)) if self.store.is_shared else []
        if not there or there[0]["status"] != "FINISHED":
            return None
        own = self._ids.get(("run", run.arm, str(run.seed), run.used_key), there[0]["run_id"])
        if own != there[0]["run_id"]:
            self.store.delete(own)
            self._ids["run", run.arm, str(run.seed), run.used_key] = there[0]["run_id"]
        return there[0]

    def _adopt(self, run: Mapping[str, Any]) -> None:
        """Nest a run that is kept under its arm's summary, where that was made anew."""
        tags = run["tags"]
        arm = tags.get("ablation.arm", "") if tags.get("ablation.kind") == "run" else ""
        parent = self._ids.get(("summary", arm))
        if parent and tags.get("mlflow.parentRunId") != parent and run["run_id"] in self._done.values():
            self.store.write(run["run_id"], tags={"mlflow.parentRunId": parent})

    def _record_plan(self) -> None:
        """The plan as an artifact of the study's own run, and the file that it came from."""
        about = describe(self.plan, self.around, others=True) | {
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": self.command,
            "file": self.plan.study.file.name,
            "notes": _notes(self.plan, self.around),
            "provenance": provenance(self.plan.study.folder),
        }
        folder = self._new_folder()
        (folder / PLAN).write_text(json.dumps(about, indent=1), encoding="utf-8")
        (folder / "experiments.yaml").write_bytes(self._file)
        tags = {"ablation.kind": "plan", "ablation.study": self.plan.study.name} | _context(self.command, self.plan.study.folder)
        if ("plan", "") not in self._ids:
            self._ids["plan", ""] = self._create("plan", tags, _now())
        run_id = self._ids["plan", ""]
        if run_id in self._half:
            self.store.finish(run_id, "FINISHED", _now())
            del self._half[run_id]
        self.store.write(run_id, tags=tags)
        self.store.add_files(run_id, {path.name: path for path in folder.iterdir()})

    def _new_folder(self) -> Path:
        """A folder for files that are about to become artifacts: these may be links, so no file may be written twice."""
        return Path(tempfile.mkdtemp(dir=self._folder.name))

    def _live(self, node: Node, history: list[Mapping[str, Any]]) -> None:
        for run in self.plan.runs:
            if run.needed and run.choice is None and node in lineage(self.plan, run) and not self._done_elsewhere(run):
                run_id = self._run(run, int(history[0]["time"]))
                self.store.write(run_id, curve_points(history, run))

    def _run(self, run: Run, start: int, chosen: Arm | None = None) -> str:
        """The id of the run's record, with the settings of `chosen` where another arm's run stands for it.

        One that was left unfinished under the same key goes on.
        """
        name = ("run", run.arm, str(run.seed), run.used_key)
        if name in self._ids:
            self.store.finish(self._ids[name], "RUNNING", 0)
            self.store.write(self._ids[name], tags={"ablation.reason": "", "ablation.failure": ""})
        else:
            self._ids[name] = self._create(f"{run.arm} seed {run.seed}", self._tags(run), start)
        if self._ids[name] in self._half:
            self._write_params(self._ids[name], params(chosen or self.arms[run.arm], run.seed) | {"arm": run.arm})
            self.store.write(self._ids[name], tags=_context(self.command, self.plan.study.folder))
            del self._half[self._ids[name]]
        return self._ids[name]

    def _tags(self, run: Run) -> dict[str, str]:
        """What a run is, by its tags."""
        arm = self.arms[run.arm]
        return _identity(run) | {
            "ablation.study": self.plan.study.name,
            "ablation.content": run.content,
            "ablation.parent_arm": arm.parent or "",
            "ablation.change": json.dumps(arm.change, ensure_ascii=False),
            "mlflow.parentRunId": self._summary(arm),
            "mlflow.note.content": _arm_note(arm, self.plan.labels[arm.name]),
        }

    def _write_params(self, run_id: str, values: Mapping[str, str]) -> None:
        """Write the params that the run lacks: MLflow lets none be changed, and a folder of data may have moved since."""
        there = self._half[run_id]
        self.store.write(run_id, params={name: value for name, value in values.items() if name not in there})

    def _finished(self, run: Run) -> None:
        if run.choice is not None:
            self._choose(run, run.choice)
            return
        if done := self._done_elsewhere(run):
            self._note_done(run, done["run_id"], done["metrics"])
            return
        folder = self.workspace.results / run.key
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        history = result["history"]
        run_id = self._run(run, int(history[0]["time"] - 1000 * history[0]["seconds"]))
        values = result["metrics"] | spending(self.plan, run, history)
        if result["best"]:
            values["epochs/selected"] = result["best"][1] + 1
        points = [Point(name, float(value), result["finished"]) for name, value in values.items()]
        tags = {
            "ablation.device": result["device"],
            "ablation.precision": result["precision"],
            "ablation.step": result["step"],
            "ablation.statistical": "no" if result["device"].startswith("cpu") or self._deterministic(run) else "yes",
        }
        self.store.write(run_id, [*curve_points(history, run), *points], tags=tags)
        data = self.arms[run.arm].settings.data
        self.store.log_dataset(run_id, data.name, result["digest"], getattr(data, "root", data.name), "training")
        self.store.add_files(run_id, self._files(run, result, folder))
        self.store.finish(run_id, "FINISHED", result["finished"])
        self._note_done(run, run_id, values)

    def _note_done(self, run: Run, run_id: str, values: dict[str, float]) -> None:
        self._values[run.arm, run.seed], self._done[run.arm, run.seed] = values, run_id
        self._changed.add(run.arm)
        if time.monotonic() - self._summarised > SUMMARISE_EVERY:
            self._summarise(sorted(self._changed & {name for name, _ in self._values}))
        self._picture(run.arm)
        self.store.touch(self.experiment)  # whoever watches looks again

    def _choose(self, run: Run, choice: Choice) -> None:
        """Record the best of some runs once more, under the name of the arm that chooses; it trained nothing of its own."""
        metric = f"validation/{choice.metric}"
        missing = [name for name in choice.among if metric not in self._values[name, run.seed]]
        if missing:
            self.refused.append((run, f"{missing[0]}, among which it chooses, has no {metric}"))
            self._failed(run, "data", self.refused[-1][1], "")
            return
        scores = {name: self._values[name, run.seed][metric] for name in choice.among}
        best = (min if choice.is_lower_better else max)(scores, key=lambda name: scores[name])
        source, values = self._done[best, run.seed], self._values[best, run.seed]
        spent = {"time/own": 0.0, "time/shared": values["time/own"] + values["time/shared"]}
        spent |= {"epochs/own": 0.0, "epochs/shared": values["epochs/own"] + values["epochs/shared"]}
        final = {name: value for name, value in values.items() if not name.startswith(("train/", "val/", "watched/"))} | spent
        final["choice/equal"] = list(scores.values()).count(scores[best])  # how many are as good: the first is taken
        known = next(one for one in self.store.runs(self.experiment) if one["run_id"] == source)
        run_id = self._run(run, known["start"], self.arms[best])
        copied = {name: value for name, value in known["tags"].items() if name in RESULT_TAGS}
        points = [Point(name, float(value), known["end"]) for name, value in final.items()]
        self.store.write(run_id, [*self.store.curves(source), *points], tags=copied | {"ablation.chosen": best})
        data = self.arms[best].settings.data
        seen = self.around.source(self.arms[best], run.seed).digest
        self.store.log_dataset(run_id, data.name, seen, getattr(data, "root", data.name), "training")
        self.store.add_files(run_id, self.store.files(source))
        self.store.finish(run_id, "FINISHED", known["end"])
        self._note_done(run, run_id, final)

    def _deterministic(self, run: Run) -> bool:
        return self.arms[run.arm].settings.deterministic

    def _files(self, run: Run, result: Mapping[str, Any], folder: Path) -> dict[str, Path]:
        """The run's artifacts by name."""
        import pandas as pd

        from ablation.report import figures

        drawn, classes = self._new_folder(), result["classes"]
        table = pd.read_csv(folder / "confusion_matrix.csv", index_col=0)
        figures.confusion_matrix_png(table.to_numpy(), classes, drawn / "confusion_matrix.png", f"{run.arm}, seed {run.seed}")
        arm = self.arms[run.arm]
        config = {"arm": arm.name, "seed": run.seed, "settings": dump(arm.settings), "stages": [_stage(stage) for stage in arm.stages]}
        (drawn / "config.yaml").write_text(yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True), encoding="utf-8")
        files = {path.name: path for path in (*folder.iterdir(), *drawn.iterdir()) if path.name != "result.json"}
        if self.plan.study.keep == "all":
            stages = enumerate(self.workspace.stages / key / "final.safetensors" for key in run.chain)
            files |= {f"stage-{i}.safetensors": path for i, path in stages if path.exists()}
        return files | self._distribution(result)

    def _distribution(self, result: Mapping[str, Any]) -> dict[str, Path]:
        """The class distribution as a figure and a table, made once for all runs that saw the same data."""
        import pandas as pd

        from ablation.report import figures

        name = (result["digest"],)
        if name not in self._drawn:
            folder = self._new_folder()
            counts = {"train": result["counts"], "test": result["test_counts"]}
            figures.class_distribution_png(counts, result["classes"], folder / "class_distribution.png")
            pd.DataFrame({"class": result["classes"], **counts}).to_csv(folder / "class_distribution.csv", index=False)
            self._drawn[name] = folder  # once all is in it
        return {path.name: path for path in self._drawn[name].iterdir()}

    def _failed(self, run: Run, kind: str, reason: str, log: str) -> None:
        if self._done_elsewhere(run):
            return  # another machine has finished it meanwhile, and its record stays
        run_id = self._run(run, _now())
        self.store.write(run_id, tags={"ablation.failure": kind, "ablation.reason": reason})
        if log:
            path = self._new_folder() / "error.txt"
            path.write_text(log, encoding="utf-8")
            self.store.add_files(run_id, {path.name: path})
        self.store.finish(run_id, "KILLED" if kind == "killed" else "FAILED", _now())

    def _kill_running(self, why: str) -> None:
        for run in self.store.runs(self.experiment):
            if run["status"] == "RUNNING" and run["tags"].get("ablation.kind") == "run" and self._is_ours(run):
                self.store.write(run["run_id"], tags={"ablation.failure": "killed", "ablation.reason": why})
                self.store.finish(run["run_id"], "KILLED", _now())

    # --- summaries -------------------------------------------------------------------------------------------------------

    def _summary(self, arm: Arm) -> str:
        """The id of the arm's summary run."""
        name = ("summary", arm.name)
        if name not in self._ids:
            tags = {
                "ablation.kind": "summary",
                "ablation.settings": settings_digest(arm),
                "ablation.study": self.plan.study.name,
                "ablation.arm": arm.name,
                "ablation.parent_arm": arm.parent or "",
                "ablation.change": json.dumps(arm.change, ensure_ascii=False),
                "mlflow.note.content": _arm_note(arm, self.plan.labels[arm.name]),
                "mlflow.source.name": self.command,
            }
            self._ids[name] = self._create(arm.name, tags, self._starts[arm.name])
        if self._ids[name] in self._half:
            self._write_params(self._ids[name], {name: value for name, value in params(arm, 0).items() if name != "seed"})
            self.store.finish(self._ids[name], "FINISHED", self._starts[arm.name])
            self._changed.add(arm.name)
            del self._half[self._ids[name]]
        return self._ids[name]

    def _known_summary(self, run: Mapping[str, Any]) -> None:
        """Go on with an arm's summary run, unless the arm has other settings by now."""
        arm = self.arms.get(run["tags"]["ablation.arm"])
        if arm is not None and run["tags"].get("ablation.settings") == settings_digest(arm):
            if self._ids.setdefault(("summary", arm.name), run["run_id"]) == run["run_id"] and run["status"] != "FINISHED":
                self._half[run["run_id"]] = run["params"]
            self._starts.setdefault(arm.name, run["start"])
            self._pictured[arm.name] = run["tags"].get(PICTURED, "")
        elif arm is not None and arm.name in self.plan.selected:
            self.store.delete(run["run_id"])

    def _summarise(self, arms: Sequence[str]) -> None:
        """Rewrite the arms' summaries, at step 0 so that MLflow draws bars, in percent and points.

        An arm's verdict is that of the report: of the accuracy against the parent's, corrected for the arm's family of comparisons.
        """
        import pandas as pd

        from ablation.report import differences, statistics

        rows = [{"arm": name, "seed": seed, "state": "done"} | _headline(values) for (name, seed), values in self._values.items()]
        runs, now = pd.DataFrame(rows), _now()
        table = differences.differences(self._compared(), runs, HEADLINE).to_dict("records")
        own = {(row["arm"], row["metric"], row["role"]): row for row in table}
        values = {metric: statistics.by_seed(runs, list(arms), metric) for metric in HEADLINE}
        for arm in arms:
            found: dict[str, float] = {"summary/n": sum(name == arm for name, _ in self._values)}
            for metric in HEADLINE:
                name = metric.removeprefix("test/")
                found |= {f"summary/{name}_pct": 100 * values[metric][arm].mean()}
                found |= {f"summary/{name}_sd_points": 100 * values[metric][arm].std()}
                for role in differences.ROLES:
                    row = own.get((arm, name, role), {})
                    found[f"delta/{role}_{name}_points"] = row.get("mean", float("nan"))
                    ends = {"low_points": "low", "high_points": "high", "pairs": "pairs"}  # charts that MLflow draws below the others
                    found |= {f"uncertainty/{role}_{name}_{end}": row.get(column, float("nan")) for end, column in ends.items()}
            points = [Point(name, float(value), now) for name, value in found.items()]  # NaN: no pair, or no spread
            self._write_summary(arm, points, own.get((arm, "accuracy", "parent"), {}).get("verdict", ""))
        self._changed -= set(arms)
        self._summarised = time.monotonic()

    def _write_summary(self, arm: str, points: list[Point], verdict: str) -> None:
        """The summary's numbers, its verdict and its note; its duration is what was trained on the arm's own account."""
        known, run_id = self.arms[arm], self._summary(self.arms[arm])
        done = [values for (name, _), values in self._values.items() if name == arm]
        planned = sum(run.arm == arm for run in self.plan.runs)
        note = _arm_note(known, self.plan.labels[arm], num_done=len(done), num_planned=max(planned, len(done)), verdict=verdict)
        self.store.write(run_id, points, tags={"ablation.verdict": verdict, "mlflow.note.content": note})
        spent = sum(values.get("time/own", 0.0) for values in done)
        self.store.finish(run_id, "FINISHED", self._starts[arm] + round(1000 * spent))

    def _compared(self) -> dict[str, Any]:
        """The arms among which differences are judged, as the recorded plan has them."""
        known = {*self.plan.selected, *(run.arm for run in (*self.plan.runs, *self.plan.others))}
        names = ("name", "kind", "parent", "baseline", "same_as")
        arms = [{name: getattr(one, name) for name in names} for one in self.plan.study.arms if one.name in known]
        return {"arms": arms, "margin": self.plan.study.margin}

    def _picture(self, arm: str) -> None:
        """Show the arm's confusion matrix over all seeds in its summary, once these are there, unless it is shown already."""
        import pandas as pd
        from numpy import stack

        from ablation.report import figures

        runs = [self._done[run.arm, run.seed] for run in self.plan.runs if run.arm == arm and (run.arm, run.seed) in self._done]
        if not runs or len(runs) < sum(run.arm == arm for run in self.plan.runs):
            return
        try:
            tables = [pd.read_csv(self.store.artifact(run_id, "confusion_matrix.csv"), index_col=0) for run_id in runs]
        except StoreError:  # somebody has deleted one: the numbers are there all the same
            return
        counts_CC = stack([table.to_numpy() for table in tables]).sum(axis=0)
        shown = digest([counts_CC.tolist(), self.plan.classes])
        if self._pictured.get(arm) != shown:
            path = self._new_folder() / "confusion_matrix.png"
            title = f"{arm}, mean of {len(runs)} seeds" if len(runs) > 1 else arm
            figures.confusion_matrix_png(counts_CC, self.plan.classes, path, title)
            self.store.show_picture(self._summary(self.arms[arm]), "confusion_matrix", path)
            self.store.write(self._summary(self.arms[arm]), tags={PICTURED: shown})
            self._pictured[arm] = shown

    def _end(self) -> None:
        there, runs = {name for name, _ in self._values}, digest(sorted(self._done.values()))
        if there and (self._changed or self._summarised_runs != runs):
            self._summarise([name for name in self.arms if name in there])  # one more result may change others' verdicts
            for arm in self.plan.selected:
                self._picture(arm)
            self.store.write(self._ids["plan", ""], tags={SUMMARISED: runs})
            self._summarised_runs = runs
        self._record_plan()
        self.store.touch(self.experiment)


# --- what is written ---------------------------------------------------------------------------------------------------------


def curve_points(history: Sequence[Mapping[str, Any]], run: Run) -> list[Point]:
    """A run's curves out of its training's history: of the watched splits, those with the run's own average.

    Accuracies on the test images after each epoch are there only for runs that choose their epoch by them; where such a run shares
    its training with others, the others do not get to see them.
    """
    average, splits = run.evaluation.average, {"validation": "val"}
    if run.evaluation.settings.select == "best_on_test":
        splits["test"] = "watched/test"
    points = []
    for row in history:
        values = {"train/loss": row["loss"], "train/lr": row["lr"], "time/images_per_second": row["images_per_second"]}
        for split, prefix in splits.items():
            watched = row.get(split, {})
            own = next(
                (name for name in (average, *watched) if name in watched and name.partition("@")[0] == average.partition("@")[0]), None
            )
            values |= {f"{prefix}/{name}": value for name, value in watched.get(own, {}).items()}
        points += [Point(name, float(value), int(row["time"]), int(row["epoch"])) for name, value in values.items()]
    return points


def spending(plan: Plan, run: Run, history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds and epochs of training on this run's own account, and those that it shares with an earlier arm."""
    seconds = {int(row["epoch"]): float(row["seconds"]) for row in history}
    found = {"time/own": 0.0, "time/shared": 0.0, "epochs/own": 0.0, "epochs/shared": 0.0}
    for node in lineage(plan, run):
        whose = "own" if node.owner == run.arm else "shared"
        found[f"time/{whose}"] += sum(seconds.get(epoch, 0.0) for epoch in epochs_of(node))
        found[f"epochs/{whose}"] += node.epochs
    return found


def settings_digest(arm: Arm) -> str:
    """What an arm's summary run stands for."""
    return digest([SUMMARY_FORM, params(arm, 0), arm.parent, {name: list(values) for name, values in arm.change.items()}])


def starts(arms: Sequence[str], known: Mapping[str, int], now: int) -> dict[str, int]:
    """When each arm's summary is said to have begun: the first arm last, since MLflow lists the newest first.

    Those that are there keep theirs; an arm that was put between two others gets a time between theirs.
    """
    found, lowest = {}, min(known.values(), default=now)
    start = lowest - STEP * (len(arms) + 1)
    for arm in reversed(arms):
        start = known[arm] if arm in known else start + (STEP if start + STEP < lowest else 1)
        found[arm] = start
    return found


def place(root: Path) -> str:
    """This machine and folder, by which a command knows what was begun here."""
    return f"{platform.node()}:{root.resolve()}"


def _identity(run: Run) -> dict[str, str]:
    """The tags by which a run is found again."""
    return {"ablation.kind": "run", "ablation.arm": run.arm, "ablation.seed": str(run.seed), "ablation.key": run.key}


def _headline(values: Mapping[str, float]) -> dict[str, float]:
    return {metric: values[metric] for metric in HEADLINE if metric in values}


def params(arm: Arm, seed: int) -> dict[str, str]:
    """The resolved settings as the file names them, dotted, and what the stages set otherwise."""
    plain = flatten(dump(arm.settings))
    found = {"arm": arm.name, "seed": seed, "condition": arm.condition or "", **plain}
    if len(arm.stages) > 1:
        for i, stage in enumerate(arm.stages):
            own = flatten(dump(stage.settings))
            found |= {f"stages.{i}.{name}": value for name, value in own.items() if plain.get(name) != value}
            found |= {f"stages.{i}.{name}": value for name, value in _options(stage).items()}
    return {name.replace("[", "").replace("]", ""): value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


def _options(stage: Any) -> dict[str, Any]:
    return {name: getattr(stage, name) for name in StageOptions.model_fields}


def _stage(stage: Any) -> dict[str, Any]:
    return {**_options(stage), **dump(stage.settings), "epochs": stage.epochs}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _arm_note(arm: Arm, found: Mapping[str, str], num_done: int = 0, num_planned: int = 0, verdict: str = "") -> str:
    """What MLflow's page says of an arm: its one change, how many seeds there are, the verdict, and its labels in words."""
    changes = escaped("; ".join(change_words(arm.change))) or "the arm that others are compared with"
    against = f" (against {escaped(arm.parent)})" if arm.parent else ""
    seeds = f"Seeds: {num_done}" + (f" of {num_planned}" if num_done < num_planned else "") if num_planned else ""
    judged = f"accuracy against {escaped(arm.parent)}: **{verdict}**" if verdict else ""
    stands = "; ".join(filter(None, [seeds, judged]))  # MLflow's page folds away all but the first lines
    labels = [f"**{label}**: {words}" for label, words in found.items()]
    return "\n\n".join(filter(None, [escaped(arm.label), f"Change{against}: {changes}", stands, escaped(arm.note), *labels]))


def _note(plan: Plan, command: str) -> str:
    return (
        f"**{plan.study.name}**: {len(plan.selected)} arms, seeds {', '.join(map(str, plan.seeds))}. "
        f"One row per arm (mean over seeds, percent; differences in points); open a row for its runs.\n\n`{command}`"
    )


def _notes(plan: Plan, around: Surroundings) -> list[str]:
    """What a reader of the report must know of how the numbers came about."""
    kept = [f"{run.arm} seed {run.seed}" for run in plan.runs if run.reason.startswith("kept")]
    notes = [f"kept, though code, versions or device have changed since they were recorded: {', '.join(kept)}"] if kept else []
    if not around.device_class.startswith("cpu") and not all(arm.settings.deterministic for arm in plan.study.arms):
        notes.append(f"statistical: on {around.device_class} without deterministic: true, the same run again gives other bits")
    return notes


def _context(command: str, folder: Path) -> dict[str, str]:
    """Commit, versions, hardware and command, as tags."""
    about = provenance(folder)
    found = {"mlflow.source.name": command, "mlflow.source.type": "LOCAL", "ablation.command": command}
    found |= {f"{VERSION}{name}": value for name, value in about["versions"].items()}
    found |= {"ablation.hardware": about["hardware"], "mlflow.user": about["user"]}
    if about["commit"]:
        found |= {"mlflow.source.git.commit": about["commit"], "ablation.git.dirty": str(about["dirty"]).lower()}
    return found


_PROVENANCE: dict[Path, dict[str, Any]] = {}


def provenance(folder: Path) -> dict[str, Any]:
    """Commit and dirtiness of the repository around the study's file, versions, and hardware; looked up once."""
    if folder not in _PROVENANCE:
        commit = _git(folder, "rev-parse", "HEAD")
        _PROVENANCE[folder] = {
            "commit": commit,
            "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no")) if commit else False,
            "versions": {"python": platform.python_version()} | package_versions(),
            "hardware": f"{platform.machine()} {_processor()}, {os.cpu_count()} cores",
            "user": os.environ.get("USER", ""),
        }
    return _PROVENANCE[folder]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _now() -> int:
    return int(time.time() * 1000)
