"""What holds for every kind of work: images, a function and a command of one's own."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ablation.report import FORMATS
from ablation.system import sealed
from ablation.tracking.store import Store
from tests import own as own_code
from tests import tiny

LOSS = '''
"""A loss of one's own, so that there is code to edit."""

from typing import Literal

from ablation.techniques.losses import CrossEntropy


class Mine(CrossEntropy):
    """Cross-entropy under another name."""

    name: Literal["mine"] = "mine"

    def weights_C(self, counts_C):
        """As cross-entropy has them."""
        return super().weights_C(counts_C)
'''
PAUSE = "\n    import time; time.sleep(0.3)"


@dataclass(frozen=True)
class Kind:
    """A study of one kind of work with two arms, whose runs have two steps; and what to change in it."""

    write: Callable[[Path], Path]
    setting: str  # as --set has it, with another value than the file's
    code: str  # the file that is edited
    edit: tuple[str, str]  # what is replaced there, and by what
    metric: str


def images(folder):
    (folder / "my_losses.py").write_text(LOSS, encoding="utf-8")
    return tiny.write(folder, base={"loss": {"name": "my_losses:Mine"}}, ladder={"baseline": {}, "ls": {"smoothing": {"epsilon": 0.1}}})


def function(folder):
    code = own_code.FUNCTION.replace("+ lr})", f"+ lr}}){PAUSE.replace(chr(10) + '    ', chr(10) + '        ')}")
    return own_code.write_function(folder, code, ladder={"baseline": {}, "wide": {"width": 8}}, seeds=[0])


def command(folder):
    code = own_code.SCRIPT.replace('+ args.lr}")', f'+ args.lr}}", flush=True){PAUSE}')
    return own_code.write_command(folder, code, ladder={"baseline": {}, "wide": {"width": 8}}, seeds=[0])


KINDS = {
    "images": Kind(images, "optimizer.lr=0.002", "my_losses.py", ("return super()", "return 1 * super()"), "accuracy"),
    "function": Kind(function, "lr=0.2", "helper.py", ("1 / width", "1.5 / width"), "mae"),
    "command": Kind(command, "lr=0.2", "script.py", ("1 / args.width", "1.5 / args.width"), "mae"),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def call(own, kind):
    """A command on the study of that kind, which may run code of its own."""
    file = kind.write(own.folder)

    def run(command, *words, **options):
        return own(command, file, *words, "--device", "cpu", "--allow-code", **options)

    return run


def keys(planned):
    """(arm, seed) -> the key of each run of a plan."""
    assert planned.status == 0, planned.err
    return {(run["arm"], run["seed"]): run["key"] for run in json.loads(planned.out)["runs"]}


def finished(folder):
    """key -> metrics of the runs in the store."""
    runs = [run for run in Store.open(folder / "mlruns").runs_of(*studies(folder)) if run["tags"].get("ablation.kind") == "run"]
    return {run["tags"]["ablation.key"]: run["metrics"] for run in runs if run["status"] == "FINISHED"}


def studies(folder):
    return [name for name, _ in Store.open(folder / "mlruns").studies()]


def results(folder):
    """The folders of results."""
    return sorted(path.name for path in (folder / "mlruns" / "results").glob("*"))


def test_the_plan_is_stable(call):
    """Nothing but the files decides it: a second one is equal, and each run has a key of its own."""
    first, second = (json.loads(call("plan", "--json").out) for _ in range(2))
    for planned in (first, second):
        planned["stages"] = [{name: value for name, value in stage.items() if "seconds" not in name} for stage in planned["stages"]]
    assert {**first, "created": ""} == {**second, "created": ""}
    assert len({run["key"] for run in first["runs"]}) == 2


def test_keys_change_with_settings_seed_and_code(call, kind, own):
    """And with nothing else: a comment leaves them."""
    before = keys(call("plan", "--json"))
    other_settings, other_seed = keys(call("plan", "--json", "--set", kind.setting)), keys(call("plan", "--json", "--seed", "5"))
    assert not {*before.values()} & {*other_settings.values()}
    assert not {*before.values()} & {*other_seed.values()}
    file = own.folder / kind.code
    written = file.read_text(encoding="utf-8")
    file.write_text(f"# a comment\n{written}", encoding="utf-8")
    assert keys(call("plan", "--json")) == before
    assert kind.edit[0] in written
    file.write_text(written.replace(*kind.edit), encoding="utf-8")
    assert not {*before.values()} & {*keys(call("plan", "--json")).values()}


def test_a_run_leaves_whole_results_and_runs_once(call, kind, own):
    """Each run has its folder and its record, with the metric; the same command again runs and changes nothing."""
    planned = keys(call("plan", "--json"))
    done = call("run")
    assert done.status == 0, done.err
    recorded = finished(own.folder)
    assert {*recorded} == {*planned.values()} == {*results(own.folder)}
    assert all(f"test/{kind.metric}" in metrics for metrics in recorded.values())
    assert all(sealed.is_whole(own.folder / "mlruns" / "results" / key) for key in recorded)
    again = call("run")
    assert (again.status, again.epochs) == (0, 0)
    assert "2 runs (2 recorded)" in again.err
    assert finished(own.folder) == recorded
    assert results(own.folder) == sorted(recorded)


def test_a_stop_leaves_no_half_result(call, own):
    """What was stopped has no result and no finished record; the same command does it, and comes to the numbers of an undisturbed run."""
    stopped = call("run", stop_after=1)
    assert stopped.status == 130, stopped.err
    assert results(own.folder) == []
    assert finished(own.folder) == {}
    assert call("run").status == 0
    resumed = finished(own.folder)
    assert call("run", "--rerun", "force").status == 0
    undisturbed = finished(own.folder)
    assert {key: _without_times(metrics) for key, metrics in resumed.items()} == {
        key: _without_times(metrics) for key, metrics in undisturbed.items()
    }


def _without_times(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith(("time/", "throughput", "epochs/"))}


def test_a_file_that_is_damaged_is_made_again(call, own):
    """A result whose bytes changed is no result, as long as it is not recorded."""
    planned = keys(call("plan", "--json"))
    assert call("run", "--arm", "baseline").status == 0
    key = planned["baseline", 0]
    Store.open(own.folder / "mlruns").delete(next(run["run_id"] for run in _runs(own) if run["tags"].get("ablation.key") == key))
    (own.folder / "mlruns" / "results" / key / sealed.RESULT).write_text("{}")
    assert call("run", "--arm", "baseline").status == 0
    assert sealed.is_whole(own.folder / "mlruns" / "results" / key)
    assert key in finished(own.folder)


def _runs(own):
    return Store.open(own.folder / "mlruns").runs_of(*studies(own.folder))


@pytest.mark.usefixtures("few_figures")
def test_the_report_renders_in_every_format(call, kind, own):
    """Both arms and the metric are in each, and a written report agrees with the store."""
    assert call("run").status == 0
    file = next(own.folder.glob("*.yaml"))
    for name in FORMATS:
        shown = own("report", file, "--format", name)
        assert shown.status == 0, shown.err
        assert "baseline" in shown.out
        assert kind.metric in shown.out.lower().replace("_", " ")
    assert own("report", file, "--output", "out").status == 0
    assert own("report", "--check", own.folder / "out" / "report.md").status == 0
