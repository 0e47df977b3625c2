"""The summary run of each arm: means and differences over its seeds, rewritten as results come in, and its picture."""

import json
import math
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ablation.errors import StoreError
from ablation.planning.plan import Plan
from ablation.report.metrics import PERCENT, planned_metrics, short_name, unit_called
from ablation.running.recorder.contents import arm_note, settings_digest
from ablation.running.recorder.pictures import CONFUSION, Pictures, summed
from ablation.running.recorder.registry import SETTINGS, Registry
from ablation.running.recorder.writer import AT_ONCE, MANY
from ablation.study.config import Arm
from ablation.study.metrics import TEST_ITEMS, Metric, metric_rows
from ablation.study.params import params
from ablation.study.task import OWN, Planner
from ablation.system.digests import digest
from ablation.tracking.recorded import Point
from ablation.tracking.rows import NewRun
from ablation.tracking.texts import plain

SUMMARISE_EVERY = 15.0  # seconds between two rewritings of the summaries of arms that got a result, for each second that one takes
STEP = 1000  # milliseconds between the starts of two summaries, so that there is room for arms to come
PICTURED = "ablation.pictured"  # the tag with the digest of the matrix that a summary's picture shows
WRITTEN = "ablation.written"  # a summary's tag with the time of its numbers, in milliseconds: MLflow shows the latest
SUMMARISED = "ablation.summarised"  # the plan's tag with the digest of what the summaries say

T = TypeVar("T")


class Summaries:
    """The summary runs of one study's arms, and the results that they tell of."""

    def __init__(self, registry: Registry, plan: Plan, planner: Planner, pictures: Pictures, command: str) -> None:
        self.registry, self.store, self.plan, self.planner, self.task = registry, registry.store, plan, planner, plan.study.task
        self.pictures, self.command = pictures, command
        self.arms = {arm.name: arm for arm in plan.study.arms}
        self.table = planned_metrics(plan)
        self.metrics = self.table.summarised
        self.values: dict[tuple[str, int], Mapping[str, float]] = {}  # of the runs that are done, by arm and seed
        self.done: dict[tuple[str, int], str] = {}  # their ids
        self.classes: Sequence[str] = ()  # where the study has any
        self._tested: dict[tuple[str, int], str] = {}  # the digests of their test items, as one's own code told them
        self._planned: dict[str, list[int]] = {}  # the seeds of each arm
        for run in plan.runs:
            self._planned.setdefault(run.arm, []).append(run.seed)
        self._written = 0  # the time of the newest numbers of any summary, by whichever host's clock
        self._changed: set[str] = set()  # arms that have results which no summary tells yet
        self._told = ""  # the digest of what all summaries say
        self._summarised = time.monotonic()
        self._seconds = 0.0  # that the last rewriting took
        self._starts: dict[str, int] = {}  # in milliseconds: MLflow lists by them
        self._pictured: dict[str, str] = {}  # the digest of the matrix whose picture an arm's summary has

    # --- the runs in the store -------------------------------------------------------------------------------------------------

    def take_known(self, run: Mapping[str, Any]) -> None:
        """Go on with an arm's summary run, unless the arm has other settings by now."""
        self._written = max(self._written, int(run["tags"].get(WRITTEN, 0)))
        arm = self.arms.get(run["tags"]["ablation.arm"])
        if arm is not None and run["tags"].get(SETTINGS) == settings_digest(arm, self.task):
            is_first = self.registry.ids.setdefault(("summary", arm.name), run["run_id"]) == run["run_id"]
            if is_first and run["status"] != "FINISHED":
                self.registry.unfinished[run["run_id"]] = run["params"]
            if not is_first:
                self.registry.drop_double(run)
                return
            self._starts.setdefault(arm.name, run["start"])
            self._pictured[arm.name] = run["tags"].get(PICTURED, "")
        elif arm is not None and arm.name in self.plan.selected:
            self.store.delete(run["run_id"])

    def take_told(self, told: str) -> None:
        """Take note of the digest of what all summaries said when the last command ended."""
        self._told = told

    def begin(self, known: Sequence[Mapping[str, Any]]) -> None:
        """Make the summary runs that there are not yet, and nest the known runs that are kept under those that are new."""
        self._starts = starts(list(self.arms), self._starts, now())
        lacking = {name: self._tags(self.arms[name]) for name in self.plan.selected if ("summary", name) not in self.registry.ids}
        self.registry.look_for(SETTINGS, list(lacking.values()))
        todo = [name for name in self.plan.selected if name in lacking or self._is_unfinished(name)]
        for some in _some(todo):  # none in most cases, and then MLflow is not even imported
            with self.registry.transaction():
                self._make({name: lacking[name] for name in some if name in lacking})
                for name in some:
                    self.run_id(self.arms[name])
        for run in known:
            tags = run["tags"]
            arm = tags.get("ablation.arm", "") if tags.get("ablation.kind") == "run" else ""
            parent = self.registry.ids.get(("summary", arm))
            if parent and tags.get("mlflow.parentRunId") != parent and run["run_id"] in self.done.values():
                self.store.write(run["run_id"], tags={"mlflow.parentRunId": parent})

    def _make(self, lacking: Mapping[str, Mapping[str, str]]) -> None:
        """Make the summary runs of arms, with these tags, as far as they are new: all at once."""
        made = self.registry.insert(
            {
                ("summary", name): NewRun(name, self._starts[name], tags, self._params(self.arms[name]), (), end=self._starts[name])
                for name, tags in lacking.items()
                if self.registry.is_new(("summary", name), tags)
            }
        )
        self._changed |= {name for _, name in made}

    def _params(self, arm: Arm) -> dict[str, str]:
        return {name: value for name, value in params(arm, 0, self.task).items() if name != "seed"}

    def _is_unfinished(self, name: str) -> bool:
        """Whether an arm's summary run is there and was left unfinished."""
        return self.registry.ids.get(("summary", name)) in self.registry.unfinished

    def run_id(self, arm: Arm) -> str:
        """The id of the arm's summary run."""
        registry, name = self.registry, ("summary", arm.name)
        run_id = registry.ids.get(name) or registry.run_id(name, arm.name, self._tags(arm), self._starts[arm.name])
        if run_id in registry.unfinished:
            self.store.write(run_id, params=registry.lacking(run_id, self._params(arm)))
            self.store.finish(run_id, "FINISHED", self._starts[arm.name])
            self._changed.add(arm.name)
            registry.complete(run_id)
        return run_id

    def _tags(self, arm: Arm) -> dict[str, str]:
        """What an arm's summary is, by its tags."""
        return {
            "ablation.kind": "summary",
            SETTINGS: settings_digest(arm, self.task),
            "ablation.study": self.plan.study.name,
            "ablation.arm": arm.name,
            "ablation.parent_arm": arm.parent or "",
            "ablation.change": json.dumps(arm.change, ensure_ascii=False),
            "mlflow.note.content": arm_note(arm, self.plan.labels[arm.name], self.task),
            "mlflow.source.name": self.command,
        }

    # --- results ---------------------------------------------------------------------------------------------------------------

    def take_recorded(self, arm: str, seed: int, run_id: str, values: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Take note of a run that was done before."""
        if (arm, seed) not in self.values:
            self._take(arm, seed, run_id, values, tags)

    def take_result(self, arm: str, seed: int, run_id: str, values: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Take note of a run that is done."""
        self._take(arm, seed, run_id, values, tags)
        self._changed.add(arm)

    def _take(self, arm: str, seed: int, run_id: str, values: Mapping[str, float], tags: Mapping[str, str]) -> None:
        self.values[arm, seed], self.done[arm, seed] = values, run_id
        self._tested.pop((arm, seed), None)
        if items := plain(tags.get("ablation.same", ""), {}).get(TEST_ITEMS):
            self._tested[arm, seed] = str(items)

    def catch_up(self, arms: Collection[str]) -> None:
        """Tell of what is done by now, now and then, and show the pictures of arms that got a result; `end` does the rest."""
        if time.monotonic() - self._summarised > SUMMARISE_EVERY * max(1, self._seconds):
            self.summarise(sorted(self._changed & {name for name, _ in self.values}))
        self._show_pictures(arms)

    def end(self) -> None:
        """Rewrite all summaries, since one more result may change others' verdicts, unless they tell of the same already."""
        arms_done, told = {name for name, _ in self.values}, self._digest()
        if arms_done and (self._changed or self._told != told):
            self.summarise([name for name in self.arms if name in arms_done])
            self._show_pictures(self.plan.selected)
            self.store.write(self.registry.ids["plan", ""], tags={SUMMARISED: told})
            self._told = told

    def summarise(self, arms: Sequence[str]) -> None:
        """Rewrite the arms' summaries, at step 0 so that MLflow draws bars, in percent and points.

        An arm's verdict is that of the report: of the study's metric against the parent's, corrected for the arm's family.
        """
        import pandas as pd

        from ablation.report.frames.own import numbers as known_numbers
        from ablation.report.frames.own import with_findings
        from ablation.report.statistics import descriptive, differences

        began, names, known = time.monotonic(), [metric.name for metric in self.metrics], self.table.full_names
        rows = [
            {"arm": arm, "seed": seed, "state": "done"} | {name: values[name] for name in known if name in values}
            for (arm, seed), values in self.values.items()
        ]
        runs, self._written = pd.DataFrame(rows), max(now(), self._written + 1)
        is_own, plan = self.task.name == OWN, self._compared()
        plan = with_findings(plan, self._tested, known_numbers(runs, known)) if is_own else plan
        compared = differences.differences(plan, runs, names).to_dict("records")
        by_role = {(row["arm"], row["metric"], row["role"]): row for row in compared}
        by_seed = {name: descriptive.by_seed(runs, list(arms), name) for name in names}
        of_arms, written, metric_name = self._by_arm(), [], self._metric
        judged = {name for name, done in of_arms.items() if any(math.isfinite(values.get(metric_name, math.nan)) for values in done)}
        for arm in arms:
            numbers: dict[str, float] = {"summary/n": len(of_arms[arm])}
            for metric in self.metrics:
                numbers |= _of_arm(metric, by_seed[metric.name][arm])
                for role in differences.ROLES:
                    numbers |= _of_difference(metric, role, by_role.get((arm, short_name(metric.name), role), {}))
            points = [Point(name, float(value), self._written) for name, value in numbers.items()]  # NaN: no pair, or no spread
            verdict = by_role.get((arm, self.table.default, "parent"), {}).get("verdict", "")
            written.append((arm, points, self._unjudged(arm, of_arms, judged) or verdict))
        for some in _some(written):
            with self.registry.transaction():
                self.store.finish_all([self._write(arm, points, verdict, of_arms[arm]) for arm, points, verdict in some])
        self._changed -= set(arms)
        self._summarised = time.monotonic()
        self._seconds = self._summarised - began

    @property
    def _metric(self) -> str:
        """The name that runs have of the metric by which arms are judged."""
        return self.table.full_name(self.table.default)

    def _by_arm(self) -> dict[str, list[Mapping[str, float]]]:
        """The numbers of the runs that are done, by arm."""
        of_arms: dict[str, list[Mapping[str, float]]] = {}
        for (arm, _), values in self.values.items():
            of_arms.setdefault(arm, []).append(values)
        return of_arms

    def _unjudged(self, arm: str, known: Collection[str], judged: Collection[str]) -> str:
        """Why an arm that could be judged is not: none of its runs, or of its parent's, has the study's metric; else empty."""
        parent = self.arms[arm].parent
        lacking = next((name for name in (arm, parent) if name in known and name not in judged), "") if parent in known else ""
        return f"not judged: no run of {lacking} has {self.table.words(self._metric)}" if lacking else ""

    def _write(self, arm: str, points: list[Point], verdict: str, done: Sequence[Mapping[str, float]]) -> tuple[str, str, int]:
        """Write the summary's numbers, its verdict and its note; its end: it lasts what was trained on the arm's own account."""
        known, run_id = self.arms[arm], self.run_id(self.arms[arm])
        planned = len(self._planned.get(arm, ()))
        judged = f"{self.table.words(self.table.default)} against {known.parent}", verdict
        note = arm_note(known, self.plan.labels[arm], self.task, len(done), max(planned, len(done)), judged if verdict else ())
        self.store.write(run_id, points, tags={"ablation.verdict": verdict, "mlflow.note.content": note, WRITTEN: str(self._written)})
        spent = sum(values.get("time/own", 0.0) for values in done)
        return run_id, "FINISHED", self._starts[arm] + round(1000 * spent)

    def _compared(self) -> dict[str, Any]:
        """The arms among which differences are judged, as the recorded plan has them."""
        known = {*self.plan.selected, *(run.arm for run in (*self.plan.runs, *self.plan.others))}
        names = ("name", "kind", "parent", "baseline", "same_as")
        compared = [arm for arm in self.plan.study.arms if arm.name in known]
        arms = [{name: getattr(arm, name) for name in names} | self.planner.arm_facts(arm) for arm in compared]
        about = {"metric": self.plan.metric, "margin": self.plan.study.margin, "task": self.plan.study.task.name}
        return {"arms": arms, "metrics": metric_rows(self.task.metrics(self.plan.study.margin)), **about}

    def _digest(self) -> str:
        """The identity of all that summaries say: of the runs, of what verdicts depend on, and of the arms' notes."""
        planned = Counter(run.arm for run in self.plan.runs)
        notes = [arm_note(self.arms[name], labels, self.task) for name, labels in self.plan.labels.items()]
        tested = [sorted(self._tested.items())] if self._tested else []
        return digest([self._compared(), sorted(planned.items()), notes, sorted(self.done.values()), *tested])

    def _show_pictures(self, arms: Collection[str]) -> None:
        """Show those that lack; many are drawn by other processes."""
        lacking = {arm: picture for arm in arms if (picture := self._lacking_picture(arm))}
        if len(lacking) >= MANY:
            for tables, title, _ in lacking.values():
                self.pictures.ask_sum(tables, self.classes, title)
        for some in _some(list(lacking)):
            drawn = {arm: self.pictures.of_sum(lacking[arm][0], self.classes, lacking[arm][1]) for arm in some}
            with self.registry.transaction():
                shown = {arm: lacking[arm][2] for arm in some if self._is_shown(arm, drawn[arm], lacking[arm][2])}
            self._pictured |= shown

    def _lacking_picture(self, arm: str) -> tuple[list[Path], str, str] | None:
        """The tables, the title and the digest of the arm's confusion matrix over all seeds, once these are there, unless it is shown."""
        planned = self._planned.get(arm, [])
        runs = [self.done[arm, seed] for seed in planned if (arm, seed) in self.done]
        if not self.classes or not runs or len(runs) < len(planned):
            return None
        try:
            tables = [self.store.artifact(run_id, f"{CONFUSION}.csv") for run_id in runs]
        except StoreError:  # somebody has deleted one: the numbers are there all the same
            return None
        shown = digest([summed(tables).tolist(), list(self.classes)])
        title = f"{arm}, mean of {len(runs)} seeds" if len(runs) > 1 else arm
        return (tables, title, shown) if self._pictured.get(arm) != shown else None

    def _is_shown(self, arm: str, picture: Path | None, shown: str) -> bool:
        """Show the arm's confusion matrix in its summary, if it could be drawn; whether it is there."""
        run_id = self.run_id(self.arms[arm])
        return picture is not None and self.pictures.is_done(lambda: self.store.show_picture(run_id, CONFUSION, picture, {PICTURED: shown}))


def columns(metrics: Sequence[Metric]) -> list[str]:
    """The columns of the prepared view of MLflow's page."""
    first, *others = metrics
    headline = short_name(first.name)
    shown = [_of_mean(first), *(f"delta/{role}_{headline}{unit_called(first.unit).suffix}" for role in ("parent", "baseline")), "summary/n"]
    return [*shown, _of_sd(first), *map(_of_mean, others)]


def starts(arms: Sequence[str], known: Mapping[str, int], now: int) -> dict[str, int]:
    """When each arm's summary is said to have begun: the first arm last, since MLflow lists the newest first.

    Those that are there keep theirs; an arm that was put between two others gets a time between theirs.
    """
    by_arm, lowest = {}, min(known.values(), default=now)
    start = lowest - STEP * (len(arms) + 1)
    for arm in reversed(arms):
        start = known[arm] if arm in known else start + (STEP if start + STEP < lowest else 1)
        by_arm[arm] = start
    return by_arm


def _some(items: Sequence[T]) -> list[Sequence[T]]:
    """The items, AT_ONCE at a time."""
    return [items[begin : begin + AT_ONCE] for begin in range(0, len(items), AT_ONCE)]


def now() -> int:
    """The time in milliseconds."""
    return int(time.time() * 1000)


def _of_mean(metric: Metric) -> str:
    return f"summary/{short_name(metric.name)}" + ("_pct" if unit_called(metric.unit) is PERCENT else "")


def _of_sd(metric: Metric) -> str:
    return f"summary/{short_name(metric.name)}_sd{unit_called(metric.unit).suffix}"


def _of_arm(metric: Metric, values: Any) -> dict[str, float]:
    scale = unit_called(metric.unit).scale
    return {_of_mean(metric): scale * values.mean(), _of_sd(metric): scale * values.std()}


def _of_difference(metric: Metric, role: str, row: Mapping[Any, Any]) -> dict[str, float]:
    """The difference to the parent or the baseline; its interval under another name, whose charts MLflow draws below the others."""
    name, suffix = short_name(metric.name), unit_called(metric.unit).suffix
    ends = {f"low{suffix}": "low", f"high{suffix}": "high", "pairs": "pairs"}
    uncertainty = {f"uncertainty/{role}_{name}_{end}": row.get(column, float("nan")) for end, column in ends.items()}
    return {f"delta/{role}_{name}{suffix}": row.get("mean", float("nan"))} | uncertainty
