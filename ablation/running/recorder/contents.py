"""What is written of a run: its curves, what it cost, its note."""

import json
import time
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from ablation.formatting import counted, escaped
from ablation.planning.describe import for_the_record
from ablation.planning.plan import Plan, Run
from ablation.report.metrics import planned_metrics
from ablation.running.recorder.provenance import made_tags, provenance
from ablation.study.config import Arm
from ablation.study.metrics import TEST_ITEMS
from ablation.study.params import params
from ablation.study.task import Planner, Task
from ablation.study.wording import change_words
from ablation.system import sealed
from ablation.system.digests import digest
from ablation.techniques.technique import dump
from ablation.tracking.recorded import Point
from ablation.tracking.texts import LONGEST_TAG

RESULT_TAGS = ("device", "hardware", "build", "precision", "step", "statistical")  # of a result, each a tag `ablation.NAME`
COPIED_TAGS = (*RESULT_TAGS, "same", "notes")  # of the run that is chosen, for the one that chooses
LONGEST_NOTE, ROOM = 300, 40  # letters of a note, and those that a tag keeps for what stands around its entries
SUMMARY_FORM = 2  # of what a summary run holds; one of another form is made anew


def curve_points(history: Sequence[Mapping[str, Any]], run: Run, task: Task) -> list[Point]:
    """A run's curves out of the rows of its epochs: those of their numbers that are its own."""
    return [
        Point(name, float(value), int(row["time"]), int(row["epoch"]))
        for row in history
        for name, value in task.epoch_values(run.request, row).items()
    ]


def spending(plan: Plan, run: Run, result: Mapping[str, Any]) -> dict[str, float]:
    """Seconds and epochs of training on this run's own account, and those that it shares with an earlier arm.

    A result with a beginning was computed all at once, shares nothing, and has no epochs.
    """
    if "started" in result:
        return {"time/own": float(result["seconds"])}
    seconds = {int(row["epoch"]): float(row["seconds"]) for row in result["history"]}
    spent = {"time/own": 0.0, "time/shared": 0.0, "epochs/own": 0.0, "epochs/shared": 0.0}
    for node in plan.lineage(run):
        whose = "own" if node.owner == run.arm else "shared"
        spent[f"time/{whose}"] += sum(seconds.get(epoch, 0.0) for epoch in node.span)
        spent[f"epochs/{whose}"] += node.epochs
    return spent


def spent_by_others(values: Mapping[str, float]) -> dict[str, float]:
    """The same for a run that stands for one with these numbers: all is shared."""
    kinds = [kind for kind in ("time", "epochs") if f"{kind}/own" in values]
    return {
        name: value
        for kind in kinds
        for name, value in ((f"{kind}/own", 0.0), (f"{kind}/shared", values[f"{kind}/own"] + values.get(f"{kind}/shared", 0.0)))
    }


def beginning(result: Mapping[str, Any]) -> int:
    """When a run began, in milliseconds."""
    first = result["history"][0]
    return int(result["started"] if "started" in result else first["time"] - 1000 * first["seconds"])


def result_tags(result: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a result: what computed it, and, as JSON, what it says is the same in other runs, and what was odd."""
    tags = {f"ablation.{name}": result["tags"][name] for name in RESULT_TAGS if name in result["tags"]} | made_tags(result.get("made", {}))
    texts = {"same": fitting_same(result.get("same", {})), "notes": fitting_notes(result.get("notes", ()))}
    return tags | {f"ablation.{name}": json.dumps(texts[name], ensure_ascii=False) for name in texts if name in result}


def fitting_same(same: Mapping[str, str]) -> dict[str, str]:
    """As many of the entries as a tag can hold, the test items first, then by name, so that of two runs the same ones are left out."""
    names = sorted(same, key=lambda name: (name != TEST_ITEMS, name))
    return {name: same[name] for name in _fitting(names, [len(json.dumps({name: same[name]}, ensure_ascii=False)) for name in names])}


def fitting_notes(notes: Sequence[str]) -> list[str]:
    """As many of the notes as a tag can hold, long ones cut short, and how many more there are."""
    short = [note if len(note) <= LONGEST_NOTE else f"{note[: LONGEST_NOTE - 6]} [...]" for note in map(str, notes)]
    kept = _fitting(short, [len(json.dumps(note, ensure_ascii=False)) for note in short])
    more = len(short) - len(kept)
    return [*kept, *([f"and {counted(more, 'more note')}"] if more else [])]


def _fitting(names: Sequence[str], lengths: Sequence[int]) -> list[str]:
    """The first of the names whose entries, of these lengths as JSON, fit into a tag, with what stands between and around them."""
    ends = accumulate(length + 2 for length in lengths)
    return [name for name, end in zip(names, ends, strict=True) if end <= LONGEST_TAG - ROOM]


def own_record(folder: Path) -> tuple[list[Point], dict[str, str]]:
    """What a run's code logged itself: points and params, each under `own/`."""
    path = folder / "own" / "own.json"
    logged = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"points": [], "params": {}}
    points = [Point(f"own/{name}", value, time, step) for name, value, time, step in logged["points"]]
    return points, {f"own/{name}": value for name, value in logged["params"].items()}


def result_files(folder: Path) -> dict[str, Path]:
    """The files of a result beside its numbers, by their names in its folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in paths if path != folder / sealed.RESULT}


def config_text(arm: Arm, seed: int, settings: str) -> str:
    """A run's `config.yaml`, with what `settings_text` has of its arm."""
    return _as_yaml({"arm": arm.name, "seed": seed}) + settings


def settings_text(arm: Arm, task: Task) -> str:
    """The settings of the whole arm, and of each stage all of its own."""
    stages = [{**task.stage_options(stage), **dump(stage.settings), "epochs": stage.epochs} for stage in arm.stages]
    return _as_yaml({"settings": dump(arm.settings), "stages": stages})


def _as_yaml(config: Mapping[str, Any]) -> str:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the same text, ten times faster where it was built
    return str(yaml.dump(json.loads(json.dumps(config)), Dumper=dumper, sort_keys=False, allow_unicode=True))


def plan_record(plan: Plan, planner: Planner, command: str) -> dict[str, Any]:
    """The plan as it is recorded, with what it was made by."""
    return for_the_record(plan, planner) | {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": command,
        "file": plan.study.file.name,
        "notes": [*kept_note(plan), *planner.notes(plan.study.arms)],
        "provenance": provenance(plan.study.folder),
    }


def run_title(run: Run) -> str:
    """What a run is called in MLflow."""
    return f"{run.arm} seed {run.seed}"


def picture_title(run: Run) -> str:
    """What stands above a run's picture."""
    return f"{run.arm}, seed {run.seed}"


def settings_digest(arm: Arm, task: Task) -> str:
    """What an arm's summary run stands for."""
    return digest([SUMMARY_FORM, params(arm, 0, task), arm.parent, {name: list(values) for name, values in arm.change.items()}])


def arm_note(
    arm: Arm, labels: Mapping[str, str], task: Task, num_done: int = 0, num_planned: int = 0, judged: tuple[str, str] | tuple[()] = ()
) -> str:
    """What MLflow's page says of an arm: its one change, how many seeds there are, the verdict, and its labels in words.

    `judged` is what the verdict is about, and the verdict.
    """
    changes = escaped("; ".join(change_words(arm.change, task.schema))) or "the arm that others are compared with"
    against = f" (against {escaped(arm.parent)})" if arm.parent else ""
    seeds = f"Seeds: {num_done}" + (f" of {num_planned}" if num_done < num_planned else "") if num_planned else ""
    verdict = f"{escaped(judged[0])}: **{judged[1]}**" if judged else ""
    stands = "; ".join(filter(None, [seeds, verdict]))  # MLflow's page folds away all but the first lines
    reasons = [f"**{label}**: {words}" for label, words in labels.items()]
    return "\n\n".join(filter(None, [escaped(arm.label), f"Change{against}: {changes}", stands, escaped(arm.note), *reasons]))


def study_note(plan: Plan, command: str) -> str:
    """What MLflow's page says of the study."""
    metrics = planned_metrics(plan)
    unit = metrics.unit(metrics.default)
    units = f", {unit.values}; differences in {unit.differences}" if unit.values else ""
    why = f" ({metrics.reason})" if metrics.reason else ""
    arms, seeds = counted(len(plan.selected), "arm"), f"{'seeds' if len(plan.seeds) > 1 else 'seed'} {', '.join(map(str, plan.seeds))}"
    return (
        f"**{plan.study.name}**: {arms}, {seeds}. "
        f"One row per arm (mean over seeds{units}); open a row for its runs. "
        f"Verdicts go by {escaped(metrics.words(metrics.default))}{why}.\n\n`{command}`"
    )


def kept_note(plan: Plan) -> list[str]:
    """Said where results of other code, versions or devices are used."""
    kept = [f"{run.arm} seed {run.seed}" for run in plan.runs if run.reason.startswith("kept")]
    return [f"kept, though code, versions or device have changed since they were recorded: {', '.join(kept)}"] if kept else []
