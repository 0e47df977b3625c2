"""`choose` on a sweep: the arm NAME/best, whose run of each seed is that of the point with the best validation metric."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pandas as pd
import pytest

from ablation.errors import ConfigError
from ablation.study.resolving import load_study
from ablation.tasks.images.preparation import _check_choice
from ablation.tracking.store import Store
from tests.tiny import Planned, write

VALIDATED = {"data": {"name": "digits", "validation": 0.2, "longtail": {"name": "linear", "largest": 60, "smallest": 10}}}
TAU = {"posthoc": "logit_adjustment", "over": {"posthoc.tau": [0.1, 1.0, 30.0]}, "choose": "val/balanced_accuracy"}


def runs():
    study_runs = [run for run in Store.open().runs_of("tiny") if run["tags"]["ablation.kind"] == "run"]
    return {(run["tags"]["ablation.arm"], int(run["tags"]["ablation.seed"])): run for run in study_runs}


def test_the_best_point_of_each_seed_is_recorded_under_the_arms_name(ablate):
    """NAME/best has, for each seed, the metrics, predictions and settings of the point that wins on the validation images."""
    file = write(ablate.folder, base=VALIDATED, sweeps={"tau": TAU}, seeds=[0, 1])
    done = ablate("run", file)
    assert done.status == 0, done.err
    assert done.epochs == 4  # one training a seed: post-hoc arms train nothing
    recorded = runs()
    for seed in (0, 1):
        points = {name: recorded[name, seed] for name in ("tau/0.1", "tau/1.0", "tau/30.0")}
        winner = max(points, key=lambda name: points[name]["metrics"]["validation/balanced_accuracy"])
        best = recorded["tau/best", seed]
        assert best["status"] == "FINISHED"
        assert best["tags"]["ablation.chosen"] == winner
        for metric in ("test/accuracy", "test/nll", "validation/balanced_accuracy"):
            assert best["metrics"][metric] == points[winner]["metrics"][metric]
        assert best["metrics"]["epochs/own"] == 0
        store = Store.open()
        tables = [pd.read_parquet(store.artifact(run["run_id"], "predictions.parquet")) for run in (best, points[winner])]
        pd.testing.assert_frame_equal(*tables)
        assert store.client.get_run(best["run_id"]).data.params["posthoc.tau"] == winner.removeprefix("tau/")
    assert len({recorded[name, 0]["metrics"]["test/nll"] for name in ("tau/0.1", "tau/1.0", "tau/30.0")}) == 3
    assert "tau/best" in done.out


def test_running_again_chooses_nothing_again(ablate):
    """A recorded choice is done; another arm beside it does not bring it up again."""
    file = write(ablate.folder, base=VALIDATED, sweeps={"tau": TAU})
    assert ablate("run", file).status == 0
    before = runs()["tau/best", 0]["run_id"]
    again = ablate("run", file)
    assert (again.status, again.epochs) == (0, 0)
    assert runs()["tau/best", 0]["run_id"] == before


def test_a_choice_added_later_needs_no_local_files(ablate):
    """The numbers and files of a choice come from the store: nothing is trained or tested for it, even after `clean`."""
    points = {name: value for name, value in TAU.items() if name != "choose"}
    assert ablate("run", write(ablate.folder, base=VALIDATED, sweeps={"tau": points})).status == 0
    assert ablate("clean", "--yes").status == 0
    done = ablate("run", write(ablate.folder, base=VALIDATED, sweeps={"tau": TAU}))
    assert (done.status, done.epochs) == (0, 0), done.err
    assert runs()["tau/best", 0]["status"] == "FINISHED"


def test_selecting_a_choice_runs_its_points(ablate):
    """`--arm NAME/best` brings in what it chooses among."""
    file = write(ablate.folder, base=VALIDATED, sweeps={"tau": TAU})
    assert ablate("run", file, "--arm", "tau/best").status == 0
    assert set(runs()) == {("tau/0.1", 0), ("tau/1.0", 0), ("tau/30.0", 0), ("tau/best", 0)}


def test_a_failed_point_fails_the_choice(ablate):
    """What cannot be compared is not chosen: the choice fails, and says which point it lacks."""
    sweep = {"over": {"lr": {"good": {"optimizer.lr": 1e-3}, "bad": {"optimizer": {"name": "sgd", "lr": 1e30}}}}, "choose": "val/accuracy"}
    file = write(ablate.folder, base=VALIDATED, sweeps={"rate": sweep})
    done = ablate("run", file)
    assert done.status == 1
    assert runs()["rate/good", 0]["status"] == "FINISHED"
    assert runs()["rate/best", 0]["status"] == "FAILED"
    assert "rate/best seed 0: rate/bad, among which it chooses, failed" in done.err


def test_the_lowest_value_wins_where_less_is_better(ablate):
    """`val/nll` chooses the smallest."""
    file = write(ablate.folder, base=VALIDATED, sweeps={"tau": TAU | {"choose": "val/nll"}})
    assert ablate("run", file).status == 0
    recorded = runs()
    points = {name: recorded[name, 0]["metrics"]["validation/nll"] for name in ("tau/0.1", "tau/1.0", "tau/30.0")}
    assert recorded["tau/best", 0]["tags"]["ablation.chosen"] == min(points, key=points.get)


def test_plan_and_show_tell_of_the_choice(ablate):
    """The arm's change names the values, its label says on what it was chosen, and it trains nothing."""
    file = write(ablate.folder, base=VALIDATED, sweeps={"tau": TAU})
    planned = json.loads(ablate("plan", file, "--json").out)
    arm = next(arm for arm in planned["arms"] if arm["name"] == "tau/best")
    assert arm["change"]["posthoc.tau"][1] == "the best of 0.1, 1.0, 30.0 by val/balanced_accuracy"
    assert arm["labels"]["chosen"] == "for each seed the best of 3 arms by balanced accuracy on the validation images"
    assert len(planned["stages"]) == 1
    assert (
        "for each seed, the best by val/balanced_accuracy of tau/0.1, tau/1.0, tau/30.0" in ablate("show", "tau/best", "--file", file).out
    )


def test_without_validation_images_nothing_is_chosen(ablate):
    """The test images are not chosen on: a sweep that chooses needs validation images, and says so before training."""
    done = ablate("run", write(ablate.folder, sweeps={"tau": TAU}))
    assert done.status == 2
    assert "choose: needs validation images in 'tau/best', but data.validation is 0" in done.err


def test_a_test_metric_cannot_be_chosen_by(tmp_path):
    """Only validation metrics are taken."""
    with pytest.raises(ConfigError, match=r"sweeps\.tau\.choose: found 'test/accuracy'; expected one of val/balanced_accuracy"):
        load_study(write(tmp_path, sweeps={"tau": TAU | {"choose": "test/accuracy"}}))


def test_no_arm_can_stand_on_a_choice(tmp_path):
    """A choice is another arm for every seed, so none can be `of` it."""
    with pytest.raises(ConfigError, match=r"variants\.more\.of: found 'tau/best', which is a different arm for each seed"):
        load_study(write(tmp_path, sweeps={"tau": TAU}, variants={"more": {"of": "tau/best", "tta": "hflip"}}))


def test_within_a_condition_the_choice_is_among_its_own_arms(tmp_path):
    """A condition's NAME/best chooses among the condition's points, all of which it must have."""
    study = load_study(write(tmp_path, base=VALIDATED, sweeps={"tau": TAU}, conditions={"raw": {"average": "none"}}))
    best = next(arm for arm in study.arms if arm.name == "raw/tau/best")
    assert best.choice.among == ("raw/tau/0.1", "raw/tau/1.0", "raw/tau/30.0")
    with pytest.raises(ConfigError, match=r"conditions\.raw\.arms: has 'tau/best', but not 'tau/1\.0'"):
        load_study(
            write(tmp_path, base=VALIDATED, sweeps={"tau": TAU}, conditions={"raw": {"average": "none", "arms": ["tau/best", "tau/0.1"]}})
        )


def test_the_choice_shares_every_training_with_its_points(tmp_path):
    """The plan has no stage for it."""
    planned = Planned(write(tmp_path, base=VALIDATED, sweeps={"tau": TAU}), tmp_path / "mlruns")
    assert len(planned.plan.nodes) == 1
    assert planned.run_of("tau/best").choice.among == ("tau/0.1", "tau/1.0", "tau/30.0")
    assert planned.run_of("tau/best").needed


def test_a_choice_with_a_failed_point_says_so_again(ablate):
    """A point that failed in an earlier run fails the choice too, while new points are run; nothing is said to be left."""
    rates = {"over": {"lr": {"good": {"optimizer.lr": 1e-3}, "bad": {"optimizer": {"name": "sgd", "lr": 1e30}}}}, "choose": "val/accuracy"}
    file = write(ablate.folder, base=VALIDATED, sweeps={"rate": rates})
    assert ablate("run", file).status == 1
    rates["over"]["lr"] = {"new": {"optimizer.lr": 2e-3}, **rates["over"]["lr"]}
    again = ablate("run", write(ablate.folder, base=VALIDATED, sweeps={"rate": rates}))
    assert again.status == 1
    assert "left" not in again.err.replace("about 0.0 s left", "").partition("failed:")[2]
    assert runs()["rate/new", 0]["status"] == "FINISHED"
    assert "chooses among 3 arms, of which rate/bad is failed" in again.err


@pytest.mark.parametrize(("counts", "is_refused"), [((5, 4, 0), True), ((5, 0, 1), False), ((), False)])
def test_a_group_without_validation_images_cannot_be_chosen_by(counts, is_refused):
    """It is found before training, and not once all has been trained; that there are no validation images at all is told elsewhere."""
    arm = SimpleNamespace(name="tau/best", choice=SimpleNamespace(metric="few"))
    expected = pytest.raises(ConfigError, match="found val/few in 'tau/best', but no validation image is of its classes")
    with expected if is_refused else nullcontext():
        _check_choice(arm, {"many": (0,), "few": (2,)}, counts)


def test_an_empty_group_cannot_be_chosen_by(ablate):
    """A metric that no class counts for is found before training."""
    groups = {"many": ">10", "few": "<2"}
    done = ablate("run", write(ablate.folder, base=VALIDATED, groups=groups, sweeps={"tau": TAU | {"choose": "val/few"}}))
    assert done.status == 2
    assert "choose: found val/few in 'tau/best', but no class is in that group" in done.err


def test_points_of_other_data_are_not_compared(tmp_path):
    """Points with other data have other validation images, so nothing can be chosen among them."""
    sweep = {"over": {"data.validation": [0.1, 0.3]}, "choose": "val/accuracy"}
    with pytest.raises(ConfigError, match=r"sweeps\.share\.choose: its points differ in data"):
        load_study(write(tmp_path, base=VALIDATED, sweeps={"share": sweep}))


def test_a_choice_has_the_labels_of_its_points(ablate):
    """What one of the points must be told of, the choice must too: here, that more epochs are a larger budget."""
    file = write(
        ablate.folder, base=VALIDATED | {"average": "none"}, sweeps={"longer": {"over": {"epochs": [1, 4]}, "choose": "val/accuracy"}}
    )
    planned = json.loads(ablate("plan", file, "--json").out)
    labels = {arm["name"]: arm["labels"] for arm in planned["arms"]}
    assert "budget" not in labels["longer/1"]
    assert labels["longer/best"]["budget"] == labels["longer/4"]["budget"]
