"""What a file says now is compared with what it said when its plan was recorded."""

import json

import pytest

from ablation.study.resolving import load_study
from ablation.study.written import about_sets, compared, declared_since, written
from tests.studies import BASE, write

LADDER = {"baseline": {}, "cb": {"sampler": "class_balanced"}, "mixup": {"mix": {"name": "mixup", "alpha": 0.4}}}
PROFILES = {"p": {"base": {"epochs": 3}}}


def recorded(path, profile=None, sets=()):
    """What a plan of this file has about it, as it is read again."""
    return json.loads(json.dumps({"file": path.name, "written": written(load_study(path, profile, sets))}))


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"base": {**BASE, "epochs": 9}}, "epochs 9 was 6 in every arm"),
        ({"base": {**BASE, "optimizer": {"name": "adamw", "lr": 0.01}}}, "optimizer.lr 0.01 was 0.001 in every arm"),
        ({"base": {**BASE, "optimizer": "sgd"}}, "optimizer sgd was adamw in every arm"),
        ({"ladder": {**LADDER, "cb": {"sampler": "square_root"}}}, "sampler square_root was class_balanced in 2 arms"),
        ({"ladder": {**LADDER, "wce": {"loss": "weighted_cross_entropy"}}}, "arm wce is new"),
        ({"ladder": {"baseline": {}, "cb": {"sampler": "class_balanced"}}}, "arm mixup is gone"),
        ({"ladder": {"baseline": {}}}, "arms cb and mixup are gone"),
        ({"ladder": {**LADDER, "cb": {**LADDER["cb"], "published": {"A": 84.2}}}}, "published {'A': 84.2} was none in cb"),
        ({"ladder": {**LADDER, "cb": {**LADDER["cb"], "label": "balanced"}}}, "label balanced was none in cb"),
        ({"seeds": [0]}, "seeds [0] was [0, 1]"),
        ({"margin": 1.0}, "margin 1.0 was 0.5"),
        ({"groups": {"many": ">100", "few": "<20"}}, "groups {'many': '>100', 'few': '<20'} was thirds"),
        ({"ladder": {**LADDER, "cb": {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head"}]}}}, "other stages in"),
        ({"conditions": {"raw": {"batch_size": 64}}}, "arms raw/baseline, raw/cb and raw/mixup are new"),
        ({"sweeps": {"s": {"over": {"mix": ["cutmix"]}}}}, "arm s/cutmix is new"),
        ({"extends": "parent.yaml"}, "drop_last False was True"),
    ],
)  # fmt: skip
def test_an_edit_is_told(tmp_path, edits, words):
    """In one sentence, which says whose numbers are shown."""
    (tmp_path / "parent.yaml").write_text("base: {drop_last: false}\n")
    path = write(tmp_path, ladder=LADDER)
    plan = recorded(path)
    write(tmp_path, **({"ladder": LADDER} | edits))
    sentence = compared(load_study(path), plan)
    assert sentence.startswith("study.yaml was edited since: ")
    assert words.lower() in sentence.lower()
    assert sentence.endswith("; the numbers are those of the recorded plan")


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: "# a comment\n" + text.replace("epochs: 6", "epochs:   6  # six"),
        lambda text: text.replace("data: digits", "data: {name: digits}"),
        lambda text: text + "margin: 0.5\n",
        lambda text: text + "profiles: {q: {base: {epochs: 2}}}\n",
        lambda text: text + "keep: final\n",
    ],
    ids=["comment", "long form", "default", "a profile", "another default"],
)
def test_what_says_the_same_is_no_edit(tmp_path, edit):
    """Comments, layout, defaults that are written out, and profiles that are not shown."""
    path = write(tmp_path, ladder=LADDER)
    plan = recorded(path)
    path.write_text(edit(path.read_text()))
    assert compared(load_study(path), plan) == ""


def test_a_file_that_moved_or_has_another_name(tmp_path):
    """No word as long as it says the same; if not, the sentence names both files."""
    plan = recorded(write(tmp_path, ladder=LADDER))
    (tmp_path / "elsewhere").mkdir()
    moved = write(tmp_path / "elsewhere", "other.yaml", ladder=LADDER)
    assert compared(load_study(moved), plan) == ""
    write(tmp_path / "elsewhere", "other.yaml", ladder={"baseline": {}})
    assert compared(load_study(moved), plan).startswith("other.yaml differs from the file study.yaml that was run: arms cb and")


def test_sets_and_profiles_are_no_edits(tmp_path):
    """What --set changed is told as such, and a profile is compared with itself."""
    path = write(tmp_path, ladder=LADDER, profiles=PROFILES)
    plan = recorded(path, sets=(("epochs", 2), ("optimizer.lr", 0.1)))
    assert compared(load_study(path), plan) == ""
    assert about_sets(plan) == "run with --set epochs=2 --set optimizer.lr=0.1, which the file does not say"
    assert compared(load_study(path, "p"), recorded(path, "p")) == ""
    assert about_sets(recorded(path)) == ""
    plain, profile = recorded(path), recorded(path, "p")
    write(tmp_path, ladder=LADDER, profiles={"p": {"base": {"epochs": 4}}})
    assert compared(load_study(path), plain) == ""
    assert "epochs 4 was 3 in every arm" in compared(load_study(path, "p"), profile)


def test_many_edits_are_cut(tmp_path):
    """A sentence stays a sentence."""
    path = write(tmp_path, ladder=LADDER)
    plan = recorded(path)
    write(
        tmp_path, base={**BASE, "epochs": 9, "batch_size": 1, "drop_last": False, "precision": "fp32", "deterministic": True}, ladder=LADDER
    )
    assert "; and 1 other change; the numbers" in compared(load_study(path), plan)


def test_plans_of_an_earlier_version_say_so(tmp_path):
    """They do not hold what the file said."""
    assert "cannot be told" in compared(load_study(write(tmp_path)), {"file": "study.yaml"})


# --- one's own training code ---------------------------------------------------------------------------------------------------

OWN = """
study: study
task: {command: "python t.py --seed {seed} {args}", timeout: 60}
metrics: {test/mae: {better: lower, margin: 1, from: "mae (.*)"}, rmse: {better: lower}}
curves: {step: "epoch (.*)", loss: "loss (.*)"}
seeds: [0]
base: {lr: 0.1}
ladder: {a: {}, b: {lr: 0.2}}
"""


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("margin: 1", "margin: 2", "metrics.test/mae.margin 2.0 was 1.0"),
        ("{better: lower}", "{better: higher}", "metrics.test/rmse.better higher was lower"),
        ("{better: lower}", "{better: lower, unit: percent, title: R}", "metrics.test/rmse.unit percent was none"),
        ("mae (.*)", "MAE (.*)", "metrics.test/mae.from MAE (.*) was mae (.*)"),
        ("loss (.*)", "l (.*)", "curves.loss l (.*) was loss (.*)"),
        (", rmse: {better: lower}", "", "metrics.test/rmse.better none was lower"),
        ("t.py", "u.py", "task.command python u.py"),
        ("timeout: 60", "data: [d.csv]", "task.data ['d.csv by content'] was none; task.timeout 0.0 was 60.0"),
    ],
)  # fmt: skip
def test_an_edit_of_what_own_code_declares_is_told(tmp_path, before, after, words):
    """Of its metrics, curves and task, which are no settings; also where the arms cannot be resolved."""
    path = tmp_path / "study.yaml"
    path.write_text(OWN)
    plan = recorded(path)
    assert compared(load_study(path), plan) == ""
    path.write_text(OWN.replace(before, after))
    study = load_study(path)
    assert words in compared(study, plan)
    assert declared_since(study.task, path, plan) == compared(study, plan)
    del plan["written"]["declared"]  # of an earlier version
    assert compared(study, plan) == ""
