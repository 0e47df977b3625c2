"""Arms x seeds as a tree of stages."""

import json
import time

import pytest

from ablation.errors import ConfigError
from ablation.planning import explain
from ablation.planning.describe import describe
from ablation.planning.listing import listing
from ablation.planning.plan import make_plan
from ablation.planning.states import RecordedRun, RecordedState
from ablation.tasks.images.planner import average_id, averages_since
from ablation.techniques.averages import Ema, NoAverage
from ablation.training.work import products
from tests.studies import BASE, CLASSES, arms, context, planner, source, study

DEFERRED = {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "loss": "focal"}]}
DECOUPLED = {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head"}]}
AVERAGE = {"name": "ema", "decay": 0.9}


def planned(folder, selected=None, past=None, known=None, rerun="", seconds=0.0, **sections):
    """The plan of a study of four epochs with one seed."""
    sections = {"seeds": (0,), "base": {**BASE, "epochs": 4, **sections.pop("more", {})}, **sections}
    written = study(folder, **sections)
    names = [arm.name for arm in written.arms] if selected is None else selected
    return make_plan(
        written, written.seeds, names, planner(written, known), past or RecordedState(), rerun=rerun, seconds_per_item=lambda step: seconds
    )


def described(plan):
    """The plan as data."""
    return describe(plan, planner(plan.study))


def shape(plan):
    """The stretches of training: the arms of each, its epochs, and the number of the stretch that it goes on from."""
    numbers = {key: i for i, key in enumerate(plan.nodes)}
    return [(list(node.arms), node.epochs, numbers.get(node.job.parent)) for node in plan.nodes.values()]


# --- sharing --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "layer", "is_shared"),
    [
        ("cosine", DEFERRED, True),
        ("constant", DEFERRED, True),
        ("cosine", DECOUPLED, False),
        ("constant", DECOUPLED, True),
        ({"name": "cosine", "epochs": 4}, DECOUPLED, True),
        ({"name": "multi_step", "milestones": [3]}, DECOUPLED, True),
        ({"name": "multi_step", "milestones": [1]}, DECOUPLED, True),
        ({"name": "multi_step", "milestones": [0.5]}, DECOUPLED, False),
        ({"name": "constant", "warmup_epochs": 1}, DECOUPLED, True),
    ],
)
def test_a_prefix_is_shared_where_the_rates_agree(tmp_path, schedule, layer, is_shared):
    """Arms share the epochs before they part, if their learning rates agree so far: the longer stage is cut there."""
    plan = planned(tmp_path, more={"schedule": schedule}, variants={"v": layer})
    if is_shared:
        assert shape(plan) == [(["baseline", "v"], 2, None), (["baseline"], 2, 0), (["v"], 2, 0)]
        first, second, third = plan.nodes.values()
        assert (first.end_epoch, second.end_epoch, third.end_epoch) == (2, 4, 2)
        assert (second.job.work.is_same_stage, third.job.work.is_same_stage) == (True, False)
        assert first.job.work.keep_optimizer, "the longer stage goes on with it"
        assert [node.span for node in plan.nodes.values()] == [range(2), range(2, 4), range(2, 4)]
    else:
        assert shape(plan) == [(["baseline"], 4, None), (["v"], 2, None), (["v"], 2, 1)]


def test_three_lengths(tmp_path):
    """A stage is cut at every length that some arm has of it."""
    variants = {f"v{n}": {"stages": [{"epochs": n}, {"epochs": 4 - n, "loss": "focal"}]} for n in (3, 1)}
    assert shape(planned(tmp_path, variants=variants)) == [
        (["baseline", "v3", "v1"], 1, None),
        (["baseline", "v3"], 2, 0),
        (["baseline"], 1, 1),
        (["v3"], 1, 1),
        (["v1"], 3, 0),
    ]


def test_what_watches_trains_nothing(tmp_path):
    """Views, averages and selections hang below one training, which keeps what each of them needs."""
    variants = {
        "tta": {"tta": "hflip"},
        "ema": {"average": AVERAGE},
        "best": {"average": AVERAGE, "select": "best_on_test"},
        "best-plain": {"select": "best_on_validation"},
    }
    plan = planned(tmp_path, variants=variants)
    assert shape(plan) == [(["baseline", *variants], 4, None)]
    (node,) = plan.nodes.values()
    ema = average_id(Ema(decay=0.9), 0)
    assert {one.id: one.best_on for one in node.job.work.tracked} == {"none": ("validation",), ema: ("test",)}
    assert [(one.average, one.settings.select) for one in node.job.work.requests] == [
        ("none", "last"),
        ("none", "last"),
        (ema, "last"),
        (ema, "best_on_test"),
        ("none", "best_on_validation"),
    ]
    assert products(node.job.work.tracked, keep_optimizer=False) == {f"average:{ema}", "best:none|validation", f"best:{ema}|test"}


def test_arms_that_resolve_alike_are_one(tmp_path):
    """Arms that resolve alike have one key and are evaluated once; both stand in the plan."""
    plan = planned(tmp_path, ladder={"baseline": {}, "cb": {"sampler": "class_balanced"}}, variants={"w": {"sampler": "class_balanced"}})
    first, second = (next(run for run in plan.runs if run.arm == name) for name in ("cb", "w"))
    assert (first.key, first.chain) == (second.key, second.chain)
    assert [len(node.job.requests) for node in plan.nodes.values()] == [1, 1]


def test_seeds_share_nothing(tmp_path):
    """Each seed has a tree of its own."""
    plan = planned(tmp_path, seeds=(0, 1), variants={"v": DEFERRED})
    assert len(plan.nodes) == 6
    assert [node.seed for node in plan.nodes.values()] == [0, 0, 0, 1, 1, 1]
    assert [(run.arm, run.seed) for run in plan.runs] == [("baseline", 0), ("v", 0), ("baseline", 1), ("v", 1)]


def test_the_owner_of_shared_work(tmp_path):
    """The time of a shared stretch goes on the account of the first selected arm that needs it."""
    assert [node.owner for node in planned(tmp_path, variants={"v": DEFERRED}).nodes.values()] == ["baseline", "baseline", "v"]
    assert [node.owner for node in planned(tmp_path, ["v"], variants={"v": DEFERRED}).nodes.values()] == ["v", "v"]


def test_the_optimizer_is_kept_for_who_goes_on_with_it(tmp_path):
    """A finished stage keeps its optimizer only where a later stretch carries on with it."""

    def kept(layer):
        plan = planned(
            tmp_path, ["v"], more={"batch_size": 64}, ladder={"other": {"batch_size": 32}}, variants={"v": {"loss": "focal", **layer}}
        )
        return [node.job.work.keep_optimizer for node in plan.nodes.values()]

    assert kept({"stages": [{"epochs": 2}, {"epochs": 2, "mix": "mixup"}]}) == [True, False]
    assert kept({"stages": [{"epochs": 2}, {"epochs": 2, "restart": ["optimizer"]}]}) == [False, False]
    assert kept({"stages": [{"epochs": 2}, {"epochs": 2, "train": "head"}]}) == [False, False]


def test_a_stage_may_start_from_an_average(tmp_path):
    """A stage that starts from the average is told which, and the stage before keeps it."""
    stages = [{"epochs": 2}, {"epochs": 2, "start": "average", "train": "head"}]
    plan = planned(tmp_path, ["v"], more={"average": AVERAGE}, variants={"v": {"stages": stages}})
    first, second = plan.nodes.values()
    assert second.job.work.parent_average == average_id(Ema(decay=0.9), 0)
    assert second.job.work.parent_average in {one.id for one in first.job.work.tracked}
    assert [one.id for one in second.job.work.tracked] == [average_id(Ema(decay=0.9), 2)]


@pytest.mark.parametrize(
    ("stages", "since"),
    [
        ([{"epochs": 2}, {"epochs": 2}], [0, 0]),
        ([{"epochs": 2}, {"epochs": 2, "train": "head"}], [0, 2]),
        ([{"epochs": 2}, {"epochs": 2, "restart": ["average"]}], [0, 2]),
        ([{"epochs": 2}, {"epochs": 2, "average": "none"}], [0, 2]),
        ([{"epochs": 1}, {"epochs": 1, "restart": ["average"]}, {"epochs": 2}], [0, 1, 1]),
    ],
)
def test_where_averages_begin(tmp_path, stages, since):
    """An average begins with its stage where it restarts or is another one, and else goes on."""
    resolved = arms(tmp_path, base={**BASE, "epochs": 4, "average": AVERAGE}, variants={"v": {"stages": stages, "loss": "focal"}})["v"]
    assert averages_since(resolved.stages) == since


def test_names_of_averages():
    """An average is named by its settings and beginning, and none is none."""
    assert average_id(NoAverage(), 3) == "none"
    assert len({average_id(Ema(), 0), average_id(Ema(), 1), average_id(Ema(decay=0.5), 0), average_id(Ema(warmup=True), 0)}) == 4


def test_selected_arms_keep_what_others_need(tmp_path):
    """With --arm a training still keeps what the other arms will need of it, and is cut where they part."""
    variants = {"v": DEFERRED, "ema": {"average": AVERAGE, "select": "best_on_test"}}
    whole, part = planned(tmp_path, variants=variants), planned(tmp_path, ["baseline"], variants=variants)
    assert [run.arm for run in part.runs] == ["baseline"]
    assert list(part.nodes) == [key for key, node in whole.nodes.items() if "baseline" in node.arms]
    for key, node in part.nodes.items():
        assert node.job.work.tracked == whole.nodes[key].job.work.tracked
        assert node.job.work.keep_optimizer == whole.nodes[key].job.work.keep_optimizer
    assert shape(part) == [(["baseline"], 2, None), (["baseline"], 2, 0)]
    assert [len(node.job.requests) for node in part.nodes.values()] == [0, 1]


def test_the_tail_is_looked_up_where_it_matters(tmp_path):
    """Only a mixing that asks for tail classes is told them."""
    plan = planned(tmp_path, variants={"v": {"mix": {"name": "cutmix", "only": "tail"}}})
    assert [node.job.work.tail for node in plan.nodes.values()] == [(), (8, 9)]


def test_lineage(tmp_path):
    """A run's stretches are told from the first to the last, and its chain names the ends of its stages."""
    plan = planned(tmp_path, variants={"v": DEFERRED})
    runs = {run.arm: run for run in plan.runs}
    assert [node.end_epoch for node in plan.lineage(runs["baseline"])] == [2, 4]
    assert [node.job.key for node in plan.lineage(runs["v"])] == list(runs["v"].chain)


# --- states ----------------------------------------------------------------------------------------------------------------------


SAME, OTHER_ENVIRONMENT, OTHER = "same", "other environment", "other"
KEPT = "kept, though this has changed since it was recorded: the code, a version or the device"


def recorded(run, which, status, kind="", reason=""):
    """A run in the store: of the same key, of the same content under another environment, or of another content."""
    key = run.key if which == SAME else f"{which} {status}"
    return RecordedRun(key, "another" if which == OTHER else run.content, status, kind, reason)


STATES = [
    ([], False, "", "missing", "new"),
    ([(SAME, "FINISHED")], False, "", "done", "recorded"),
    ([(SAME, "FINISHED")], True, "cached", "done", "recorded"),
    ([(SAME, "FINISHED")], True, "retry", "done", "recorded"),
    ([(SAME, "FINISHED")], True, "force", "missing", "forced"),
    ([(SAME, "FAILED", "nan"), (SAME, "FINISHED")], False, "", "done", "recorded"),
    ([], True, "", "evaluated", "computed already; only its record is missing"),
    ([(SAME, "KILLED")], True, "", "evaluated", "computed already; only its record is missing"),
    ([(SAME, "FAILED", "nan", "loss is nan")], False, "", "failed", "failed before (nan): loss is nan; --rerun retry tries again"),
    ([(SAME, "FAILED", "bug", "x")], False, "cached", "failed", "failed before (bug): x; --rerun retry tries again"),
    ([(SAME, "FAILED", "data", "x")], False, "keep", "failed", "failed before (data): x; --rerun retry tries again"),
    ([(SAME, "FAILED", "nan")], False, "retry", "missing", "was failed (nan)"),
    ([(SAME, "FAILED", "memory")], False, "", "missing", "was failed (memory)"),
    ([(SAME, "FAILED", "killed")], False, "", "missing", "was failed (killed)"),
    ([(SAME, "KILLED")], False, "", "missing", "was killed"),
    ([(SAME, "KILLED", "killed", "stopped by the user")], False, "", "missing", "did not end: stopped by the user"),
    ([(SAME, "LOST")], False, "", "missing", "was recorded, and its files are gone"),
    ([(SAME, "RUNNING")], False, "", "missing", "was running"),
    ([(OTHER_ENVIRONMENT, "FINISHED")], False, "", "stale", "has changed since it was recorded: the code, a version or the device"),
    ([(OTHER_ENVIRONMENT, "FINISHED")], False, "keep", "done", KEPT),
    ([(OTHER_ENVIRONMENT, "FINISHED")], False, "cached", "missing", "has changed since it was recorded: the code, a version or the device"),
    ([(SAME, "FAILED", "nan"), (OTHER_ENVIRONMENT, "FINISHED")], False, "retry", "missing", "was failed (nan)"),
    ([(SAME, "FAILED", "nan"), (OTHER_ENVIRONMENT, "FINISHED")], False, "keep", "done", KEPT),
    (
        [(SAME, "FAILED", "nan", "x"), (OTHER_ENVIRONMENT, "FINISHED")],
        False,
        "cached",
        "failed",
        "failed before (nan): x; --rerun retry tries again",
    ),
    ([(OTHER_ENVIRONMENT, "FINISHED")], True, "", "evaluated", "computed already; only its record is missing"),
    (
        [(OTHER_ENVIRONMENT, "FAILED", "nan")],
        False,
        "",
        "missing",
        "was not finished, and has changed since: the code, a version or the device",
    ),
    ([(OTHER, "FINISHED")], False, "", "missing", "has changed: its groups, its weights or ablate itself"),
    ([(OTHER, "FINISHED"), (SAME, "FINISHED")], False, "", "done", "recorded"),
    (
        [(OTHER, "FINISHED"), (OTHER_ENVIRONMENT, "FINISHED")],
        False,
        "",
        "stale",
        "has changed since it was recorded: the code, a version or the device",
    ),
]


@pytest.mark.parametrize(("records", "has_result", "rerun", "state", "reason"), STATES)
def test_states(tmp_path, records, has_result, rerun, state, reason):
    """The state of a run and the reason in words follow from what is recorded, what is computed, and --rerun."""
    (new,) = planned(tmp_path).runs
    known = [recorded(new, *one) for one in records]
    past = RecordedState({("baseline", 0): known, ("baseline", 1): []}, frozenset({new.key} if has_result else ()))
    plan = planned(tmp_path, past=past, rerun=rerun)
    (run,) = plan.runs
    assert (run.state, run.reason, run.needed) == (state, reason, state == "missing")
    kept = next((one.key for one in known if state == "done" and rerun == "keep" and one.status == "FINISHED"), new.key)
    assert run.used_key == kept
    (node,) = plan.nodes.values()
    assert (node.state, node.remaining_epochs, len(node.job.requests)) == (("missing", 4, 1) if run.needed else ("done", 0, 0))
    assert plan.waiting == ([run] if run.needed else [])


def test_arms_with_one_key_are_one_training(tmp_path):
    """Settings that change nothing here: the precision of a CPU, and a length of the schedule that is the training's."""
    variants = {"p": {"precision": "fp32"}, "s": {"schedule": {"name": "cosine", "epochs": 4}}, "other": {"mix": "mixup"}}
    plan = planned(tmp_path, variants=variants)
    assert len({run.key for run in plan.runs}) == 2
    assert {arm.name: arm.same_as for arm in plan.study.arms} == {"baseline": None, "p": "baseline", "s": "baseline", "other": None}
    assert {arm["name"]: arm["same_as"] for arm in described(plan)["arms"]}["s"] == "baseline"


def test_only_what_is_selected_is_forced(tmp_path):
    """Finished runs of other arms and seeds stay what they are, so that summaries keep them."""
    more = {"seeds": (0, 1), "ladder": {"baseline": {}, "cb": {"sampler": "class_balanced"}}}
    everything = planned(tmp_path, **more)
    past = RecordedState({(run.arm, run.seed): [recorded(run, SAME, "FINISHED")] for run in everything.runs})
    plan = planned(tmp_path, selected=["cb"], past=past, rerun="force", **more)
    assert {(run.arm, run.state) for run in plan.runs} == {("cb", "missing")}
    assert {(run.arm, run.state, run.needed) for run in plan.others} == {("baseline", "done", False)}


def test_records_of_another_arm_do_not_count(tmp_path):
    """A run that another arm or seed recorded is not this one's record."""
    (new,) = planned(tmp_path).runs
    past = RecordedState({("other", 0): [recorded(new, SAME, "FINISHED")], ("baseline", 1): [recorded(new, SAME, "FINISHED")]})
    assert planned(tmp_path, past=past).runs[0].state == "missing"


SHARED = {"variants": {"v": DEFERRED}}


def states(plan):
    return [(node.state, node.remaining_epochs) for node in plan.nodes.values()]


def whole(plan):
    """What the folders hold once all is trained."""
    return {
        key: frozenset(products(node.job.work.tracked, keep_optimizer=node.job.work.keep_optimizer)) for key, node in plan.nodes.items()
    }


def test_trained_stages_are_not_trained_again(tmp_path):
    """A stage whose file holds all that is wanted is done; testing may still be needed."""
    before = planned(tmp_path, **SHARED)
    after = planned(tmp_path, past=RecordedState(stages=whole(before)), **SHARED)
    assert states(after) == [("done", 0)] * 3
    assert len(after.waiting) == 2
    assert [len(node.job.requests) for node in after.nodes.values()] == [0, 1, 1]


def test_a_missing_end_is_trained_from_what_is_there(tmp_path):
    """Of a chain only what is missing is trained."""
    before = planned(tmp_path, **SHARED)
    first, second, third = before.nodes
    stages = {key: products_kept for key, products_kept in whole(before).items() if key != third}
    assert states(planned(tmp_path, past=RecordedState(stages=stages), **SHARED)) == [("done", 0), ("done", 0), ("missing", 2)]
    stages = {second: whole(before)[second]}
    assert states(planned(tmp_path, past=RecordedState(stages=stages), **SHARED)) == [("missing", 2), ("done", 0), ("missing", 2)]
    stages = {key: products_kept for key, products_kept in whole(before).items() if key != first}
    assert states(planned(tmp_path, past=RecordedState(stages=stages), **SHARED)) == [("done", 0)] * 3, "nobody needs the first any more"


def test_missing_products_are_trained_again(tmp_path):
    """A stage whose file lacks what an arm has come to need of it is trained again, and what it starts from if that lacks."""
    plain = planned(tmp_path, **SHARED)
    more = {"variants": {"v": DEFERRED, "ema": {"average": AVERAGE}}}
    after = planned(tmp_path, past=RecordedState(stages=whole(plain)), **more)
    assert states(after) == [("missing", 2), ("missing", 2), ("done", 0)]
    first, second, third = plain.nodes
    stages = {first: whole(plain)[first] - {"optimizer"}, third: whole(plain)[third]}
    assert states(planned(tmp_path, past=RecordedState(stages=stages), **SHARED)) == [("missing", 2), ("missing", 2), ("done", 0)]
    assert whole(plain)[second] == frozenset()


def test_checkpoints_shorten_what_is_left(tmp_path):
    """A stage that was begun goes on from its last epoch; with force it does not."""
    (key,) = planned(tmp_path).nodes
    past = RecordedState(partial={key: 3})
    assert states(planned(tmp_path, past=past)) == [("partial", 1)]
    assert states(planned(tmp_path, past=past, rerun="force")) == [("missing", 4)]
    assert states(planned(tmp_path, past=RecordedState(stages={key: frozenset()}), rerun="force")) == [("missing", 4)]


def test_a_second_stretch_counts_its_own_epochs(tmp_path):
    """What is left of the second part of a stage counts from where it begins, or from its own checkpoint."""
    sections = {"variants": {"v": {"stages": [{"epochs": 1}, {"epochs": 3, "loss": "focal"}]}}}
    before = planned(tmp_path, **sections)
    first, second, _ = before.nodes
    assert states(before) == [("missing", 1), ("missing", 3), ("missing", 3)]
    past = RecordedState(stages={first: whole(before)[first]}, partial={second: 3})
    assert states(planned(tmp_path, past=past, **sections)) == [("done", 0), ("partial", 1), ("missing", 3)]


@pytest.mark.parametrize(
    ("layer", "validation", "watched", "tested"),
    [
        ({}, 0, 0, 72),
        ({"tta": "flips"}, 0, 0, 4 * 72),
        ({"select": "best_on_test"}, 0, 72, 72),
        ({"select": "best_on_validation"}, 30, 30, 72 + 30),
        ({"average": AVERAGE, "tta": "hflip"}, 30, 30, 2 * (72 + 30)),
        ({"posthoc": "tau_norm"}, 0, 0, 72),
        ({"posthoc": "ncm"}, 0, 0, 72 + 160),
    ],
)
def test_seconds(tmp_path, layer, validation, watched, tested):
    """The time of a stretch is that of its epochs' images, of those looked at after each, and of testing, a forward pass being 35 %."""
    known = context(source(counts=(100, 60), validation=validation))
    sections = {"known": known, "seconds": 0.5, "more": {"batch_size": 32, "drop_last": False, **layer}}
    plan = planned(tmp_path, **sections)
    (node,) = plan.nodes.values()
    testing = 0.5 * 0.35 * tested
    assert node.seconds == pytest.approx(4 * 0.5 * (160 + 0.35 * watched) + testing)
    assert (node.items, node.testing, plan.seconds) == (160, pytest.approx(testing), node.seconds)
    assert planned(tmp_path, past=RecordedState(stages=whole(plan)), **sections).seconds == pytest.approx(testing)
    done = RecordedState({("baseline", 0): [recorded(plan.runs[0], SAME, "FINISHED")]})
    assert planned(tmp_path, past=done, **sections).seconds == 0


# --- as data ----------------------------------------------------------------------------------------------------------------------


def test_describe(tmp_path):
    """The plan as data is JSON, with the fields that are promised."""
    conditions = {"avg": {"average": AVERAGE, "arms": ["baseline"]}}
    plan = planned(tmp_path, conditions=conditions, variants={"v": {**DEFERRED, "published": {"A": 80}, "note": "N"}})
    data = described(plan)
    assert json.loads(json.dumps(data)) == data
    assert (data["study"], data["seeds"], data["classes"]) == ("s", [0], list(CLASSES))
    assert data["groups"] == {"many": ["a", "b", "c"], "medium": ["d", "e", "f", "g"], "few": ["h", "i", "j"]}
    assert data["counts"] == {"0": [140, 126, 112, 98, 84, 70, 56, 42, 28, 14]}
    assert [arm["name"] for arm in data["arms"]] == ["baseline", "v", "avg/baseline"]
    assert data["arms"][1] == {
        "name": "v",
        "kind": "variant",
        "parent": "baseline",
        "baseline": "baseline",
        "condition": None,
        "change": {
            "stages.0.epochs": [4, 2],
            "stages.1.epochs": [None, 2],
            "stages.1.loss.name": ["cross_entropy", "focal"],
            "stages.1.loss.gamma": [None, 2.0],
            "stages.1.loss.form": [None, "softmax"],
        },
        "labels": {},
        "same_as": None,
        "label": "",
        "note": "N",
        "published": {"A": 80.0},
        "factors": {},
        "posthoc": "none",
    }
    assert data["margin"] == 0.5
    assert [set(run) for run in data["runs"]] == [{"arm", "seed", "key", "state", "reason"}] * 3
    assert {"key", "parent", "arms", "epochs", "state", "seconds"} <= set(data["stages"][0])
    assert [stage["parent"] for stage in data["stages"]] == [None, data["stages"][0]["key"], data["stages"][0]["key"]]
    assert [stage["arms"] for stage in data["stages"]] == [["baseline", "v", "avg/baseline"], ["baseline", "avg/baseline"], ["v"]]


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, None), (0.5, True)])
def test_an_unknown_speed_is_no_time(tmp_path, seconds, expected):
    """What nothing is known of is told as unknown, and not as no time at all; what is known is a number."""
    plan = planned(tmp_path, seconds=seconds)
    (stage,) = described(plan)["stages"]
    assert stage["seconds"] is None if expected is None else stage["seconds"] > 0
    words = explain.screen(plan, planner(plan.study), 1)
    assert ("for an unknown time with 1 at once" in words) == (expected is None)
    assert ("unknown" in listing(plan).splitlines()[-1]) == (expected is None)


def test_describe_tells_factors(tmp_path):
    """The plan as data has each point's place among the points of its sweep."""
    data = described(planned(tmp_path, sweeps={"s": {"over": {"batch_size": [32], "drop_last": [True, False]}}}))
    factors = [{}, {"batch_size": "32", "drop_last": "true"}, {"batch_size": "32", "drop_last": "false"}]
    assert [arm["factors"] for arm in data["arms"]] == factors


def test_the_margin_is_the_reports_alone(tmp_path):
    """Another margin is told, and neither a run nor a stage is another one for it."""
    half, two = (planned(tmp_path, margin=margin, **SHARED) for margin in (0.5, 2))
    assert (described(half)["margin"], described(two)["margin"]) == (0.5, 2.0)
    assert [(run.key, run.chain) for run in half.runs] == [(run.key, run.chain) for run in two.runs]
    assert list(half.nodes) == list(two.nodes)


def test_the_metric_is_the_reports_alone(tmp_path):
    """Another metric is told with its reason, and neither a run nor a stage is another one for it."""
    fitting, kappa = (planned(tmp_path, metric=metric, **SHARED) for metric in ("auto", "kappa"))
    assert (described(kappa)["metric"], described(kappa)["metric_reason"]) == ("test/kappa", "set in the file")
    assert (described(fitting)["metric"], described(fitting)["metric_reason"]) == ("test/accuracy", "all 10 classes have 36 test images")
    assert [(run.key, run.chain) for run in fitting.runs] == [(run.key, run.chain) for run in kappa.runs]
    assert list(fitting.nodes) == list(kappa.nodes)


def test_a_metric_of_an_unknown_class_is_found_before_training(tmp_path):
    """The plan is not made."""
    with pytest.raises(ConfigError, match="metric: unknown class 'heron'; expected one of"):
        planned(tmp_path, metric="recall/heron", **SHARED)


def test_describe_tells_of_selected_arms(tmp_path):
    """With --arm only the selected arms and their runs are told."""
    data = described(planned(tmp_path, ["v"], **SHARED))
    assert ([arm["name"] for arm in data["arms"]], [run["arm"] for run in data["runs"]]) == (["v"], ["v"])


def test_labels_in_the_plan(tmp_path):
    """The plan carries each arm's labels, with the numbers of the data."""
    plan = planned(tmp_path, more={"average": {"name": "ema"}}, variants={"v": {"sampler": "class_balanced", "loss": "balanced_softmax"}})
    assert set(plan.labels["baseline"]) == {"lag"}
    assert set(plan.labels["v"]) == {"lag", "bundle", "double correction"}


def test_a_thousand_runs(tmp_path):
    """Ten times as many runs take at most twenty times as long to resolve and to plan, in this process's time."""

    def timed(num_values):
        smoothing = {f"e{i}": {"smoothing": {"epsilon": i / 1000}} for i in range(1, num_values + 1)}
        began = time.process_time()
        plan = planned(
            tmp_path,
            seeds=(0, 1),
            ladder={"baseline": {}, "cb": {"sampler": "class_balanced"}, "mixup": {"mix": "mixup"}, "dec": DECOUPLED},
            sweeps={"s": {"of": "dec", "over": {"smoothing": smoothing, "tta": ["none", "hflip", "vflip", "flips", "rotate"]}}},
        )
        described(plan)
        assert len(plan.runs) == 2 * (4 + num_values * 5)
        assert len(plan.nodes) == 2 * (3 + (num_values + 1) * 2)
        return time.process_time() - began

    timed(1)  # what is looked up once
    hundred, thousand = timed(10), timed(100)
    assert thousand < 20 * hundred
