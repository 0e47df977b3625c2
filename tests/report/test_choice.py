"""A study with a choice, from its file through the store to the report."""

import io

import pandas as pd

from ablation.tracking.recorded import select_runs
from ablation.tracking.store import Store
from tests.report.studies import cells
from tests.tiny import write

VALIDATED = {"data": {"name": "digits", "validation": 0.2, "longtail": {"name": "linear", "largest": 60, "smallest": 10}}, "epochs": 1}
TAU = {"posthoc": "logit_adjustment", "over": {"posthoc.tau": [0.1, 30.0]}, "choose": "val/nll"}


def test_the_report_says_what_each_seed_chose(ablate):
    """The documents name the arms that the store's tags name, and the choice's numbers are theirs."""
    assert ablate("run", write(ablate.folder, base=VALIDATED, sweeps={"tau": TAU}, seeds=[0, 1])).status == 0
    tags = [run["tags"] for run in Store.open().runs_of("tiny")]
    chosen_arms = {int(run_tags["ablation.seed"]): run_tags["ablation.chosen"] for run_tags in tags if "ablation.chosen" in run_tags}
    text = ablate("report", "--metric", "nll").out
    assert f"tau/best: seed 0 {chosen_arms[0]}, seed 1 {chosen_arms[1]}, on 70 validation images\n" in text
    rows = {row["arm"]: row for row in cells(text, "## Worst class and calibration")}
    assert chosen_arms[0] == chosen_arms[1] == "tau/0.1"
    assert {**rows["tau/best"], "arm": "tau/0.1"} == rows["tau/0.1"]
    assert cells(text, "## Sweep tau")[-1]["change"] == "posthoc logit_adjustment (tau: the best of 0.1, 30.0 by val/nll)"
    table = pd.read_csv(io.StringIO(ablate("report", "--format", "csv").out), keep_default_na=False)
    assert table["chosen"].tolist() == ["", "", "", "seed 0 tau/0.1, seed 1 tau/0.1, on 70 validation images"]


def test_the_frame_of_runs_has_the_tag():
    """A run that stands for another has that one's arm; the others, and a frame without runs, have none."""
    plan = {"runs": [{"arm": "tau/best", "seed": seed, "key": "k"} for seed in (0, 1)]}
    tags = {"ablation.arm": "tau/best", "ablation.key": "k"}
    about = {"run_id": "r", "status": "FINISHED", "start": 0, "end": 1, "metrics": {}, "digest": "d"}
    runs = [about | {"tags": tags | {"ablation.seed": "0", "ablation.chosen": "tau/1.0"}}, about | {"tags": tags | {"ablation.seed": "1"}}]
    assert select_runs(plan, runs)[0]["chosen"].tolist() == ["tau/1.0", ""]
    assert select_runs(plan, [])[0]["chosen"].tolist() == []


def test_equally_good_points_are_told(ablate):
    """Where all points are equally good on the validation images the first is taken, and the report says that this is no choice."""
    same = {"posthoc": "logit_adjustment", "over": {"posthoc.tau": [0.1, 0.1000001]}, "choose": "val/accuracy"}
    assert ablate("run", write(ablate.folder, base=VALIDATED, sweeps={"tau": same})).status == 0
    assert "tau/best: seed 0 tau/0.1 (the first of 2 equal ones), on 70 validation images" in ablate("report").out
