"""Commands that look at a study of one's own training code speak of runs and steps, and have no word of image classification."""

import re

from tests.report.test_own_code import FORBIDDEN

CODE = """
def fit(run, *, depth: int = 2, rate: float = 0.1):
    error = 10.0 - depth + 0.1 * run.seed
    for step in (1, 2):
        run.log(step, {"val/loss": error / step, "loss": 2 * error / step})
    run.items(["a", "b"], {"test/mae": [error - 1, error + 1]})
    run.same("split", ["a", "b"])
    return {"test/mae": error}
"""
FILE = """
study: errors
task: fitting:fit
metrics: {test/mae: {better: lower, unit: m}}
seeds: [0, 1]
variants: {deep: {depth: 4}}
"""


def test_no_command_speaks_of_classification(own):
    """From the plan to the report, before and after the runs; nothing of epochs and stages either."""
    (own.folder / "fitting.py").write_text(CODE)
    (own.folder / "errors.yaml").write_text(FILE)
    planned = own("plan", "errors.yaml", "--allow-code", "--stages")
    assert "to run: 4 runs\n" in planned.out
    assert "Runs to start (arms in one line share them)" in planned.out
    assert "\n\n\n" not in planned.out
    done = own("run", "errors.yaml", "--allow-code")
    assert done.status == 0, done.err
    assert re.search(r"(baseline|deep) seed [01]: step 1, val/loss \d", done.err)
    assert re.search(r"deep seed [01]: finished, mae 6\.[01]00 m", done.err)
    told = [own(*words) for words in (("report", "errors.yaml"), ("status",), ("log", "deep", "1"), ("compare", "baseline", "deep"))]
    assert [(said.status, said.err) for said in told] == [(0, "")] * 4
    assert re.search(r"  step    1  loss 12\.2  val/loss 6\.1\n", told[2].out)
    assert "Same across arms, checked: test items, split; not checked: initial weights, order." in " ".join(told[0].out.split())
    for text in (planned.out, planned.err, done.out, done.err, *(said.out for said in told)):
        assert FORBIDDEN.findall(text.replace("--stages", "")) == []
