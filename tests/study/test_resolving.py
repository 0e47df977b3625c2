"""From the file to its arms."""

import pytest

from ablation.errors import ConfigError
from ablation.study.changes import families, flatten
from ablation.study.resolving import load_study
from ablation.study.specs import select_names
from ablation.tasks.images.schema import SCHEMA
from tests.studies import BASE, arms, study, write

LADDER = {
    "baseline": {},
    "cb": {"sampler": "class_balanced"},
    "mixup": {"mix": {"name": "mixup", "alpha": 0.4}},
    "ls": {"smoothing": {"epsilon": 0.2, "spread": "others"}},
}
TWO_STAGES = {"stages": [{"epochs": 2}, {"epochs": 1, "train": "head"}]}


def lengths(arm):
    return [stage.epochs for stage in arm.stages]


# --- precedence ---------------------------------------------------------------------------------------------------------------


def test_precedence(tmp_path):
    """Base gives way to profile, profile to rungs, rungs to the arm, the arm to its stage, and all to --set."""
    base = {**BASE, "batch_size": 1, "optimizer.lr": 1.0}
    sections = {
        "base": base,
        "profiles": {"p": {"base": {"batch_size": 2, "optimizer.lr": 2.0}}},
        "ladder": {"baseline": {}, "rung": {"batch_size": 3, "optimizer.lr": 3.0}},
        "variants": {
            "arm": {"of": "rung", "batch_size": 4, "optimizer.lr": 4.0},
            "stage": {"of": "arm", "stages": [{"epochs": 1}, {"epochs": 1, "batch_size": 5, "optimizer.lr": 5.0}]},
        },
    }

    def batch_sizes(profile=None, sets=()):
        by_name = arms(tmp_path, profile, sets, **sections)
        last = {name: by_name[name].stages[-1].settings for name in ("baseline", "rung", "arm", "stage")}
        assert all(settings.optimizer.lr == settings.batch_size for settings in last.values())
        return [settings.batch_size for settings in last.values()]

    assert batch_sizes() == [1, 3, 4, 5]
    assert batch_sizes("p") == [2, 3, 4, 5]
    assert batch_sizes("p", [("batch_size", 6), ("optimizer.lr", 6.0)]) == [6, 6, 6, 6]


def test_a_profile_is_a_study_of_its_own(tmp_path):
    """A profile has its own name, seeds, groups and base, and the same arms."""
    profiles = {"p": {"seeds": [7], "groups": {"many": ">50"}, "base": {"epochs": 2}}, "plain": {}}
    plain = study(tmp_path, ladder=LADDER, profiles=profiles)
    shortened = study(tmp_path, "p", ladder=LADDER, profiles=profiles)
    assert (plain.name, plain.seeds, plain.groups) == ("s", (0, 1), "thirds")
    assert (shortened.name, shortened.seeds, shortened.groups) == ("s.p", (7,), {"many": ">50"})
    assert [arm.name for arm in plain.arms] == [arm.name for arm in shortened.arms]
    assert {arm.settings.epochs for arm in shortened.arms} == {2}
    assert study(tmp_path, "plain", ladder=LADDER, profiles=profiles).seeds == (0, 1)
    with pytest.raises(ConfigError, match=r"profiles: unknown profile 'q'; expected one of p, plain"):
        study(tmp_path, "q", profiles=profiles)


def test_a_profile_may_bring_data_and_model(tmp_path):
    """Data and model may come from the profile alone."""
    by_name = arms(tmp_path, "p", base={"epochs": 3}, profiles={"p": {"base": {"data": "digits", "model": "test_efficientnet"}}})
    assert (by_name["baseline"].settings.data.name, by_name["baseline"].settings.epochs) == ("digits", 3)


# --- stages -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "written", "expected"),
    [
        (30, ["2/3", "1/3"], [20, 10]),
        (9, ["2/3", "1/3"], [6, 3]),
        (10, ["1/3", "1/3", "1/3"], [3, 4, 3]),
        (7, [0.5, 0.5], [4, 3]),
        (5, ["1/2", "1/2"], [2, 3]),
        (30, [4, "1/3"], [4, 10]),
        (1, ["2/3", "1/3"], [1, 1]),
        (3, ["1/10", "9/10"], [1, 3]),
        (100, ["1/100", "99/100"], [1, 99]),
        (30, ["1/2"], [15]),
        (8, [3, 5], [3, 5]),
    ],
)
def test_lengths_of_stages(tmp_path, epochs, written, expected):
    """Fractions are rounded at their running sum, so that they add up to the whole, unless one gives no epoch: a stage has one at least."""
    stages = [{"epochs": length} for length in written]
    arm = arms(tmp_path, base={**BASE, "epochs": epochs}, variants={"v": {"stages": stages, "loss": "focal"}})["v"]
    assert lengths(arm) == expected
    assert [stage.first_epoch for stage in arm.stages] == [sum(expected[:i]) for i in range(len(expected))]


def test_a_profile_shortens_every_arm_alike(tmp_path):
    """With fractions a profile's epochs are all that it must say."""
    profiles = {"p": {"base": {"epochs": 3}}}
    stages = [{"epochs": "2/3"}, {"epochs": "1/3", "train": "head"}]
    assert lengths(arms(tmp_path, "p", variants={"v": {"stages": stages}}, profiles=profiles)["v"]) == [2, 1]


SPANS = [
    ([{}, {}], [(0, 6), (3, 6)]),
    ([{}, {"train": "head"}], [(0, 3), (0, 3)]),
    ([{}, {"restart": ["schedule"]}], [(0, 3), (0, 3)]),
    ([{}, {"restart": ["optimizer"]}], [(0, 6), (3, 6)]),
    ([{"schedule": {"name": "cosine", "epochs": 10}}, {}], [(0, 10), (3, 6)]),
    ([{}, {}, {"restart": ["schedule"]}], [(0, 4), (2, 4), (0, 2)]),
    ([{}, {"train": "head"}, {}], [(0, 2), (0, 2), (0, 2)]),
]


@pytest.mark.parametrize(("stages", "expected"), SPANS)
def test_schedules_span_to_their_next_restart(tmp_path, stages, expected):
    """A schedule counts on until it restarts, and spans to there or over the epochs that it names."""
    written = [{"epochs": f"1/{len(stages)}", **stage} for stage in stages]
    resolved_stages = arms(tmp_path, variants={"v": {"stages": written, "loss": "focal"}})["v"].stages
    assert [(stage.schedule_epoch, stage.schedule_span) for stage in resolved_stages] == expected


def test_what_restarts(tmp_path):
    """All three begin anew at the start and where `train` changes; else what the stage names does."""
    stages = [{"epochs": 1}, {"epochs": 1, "restart": ["average"]}, {"epochs": 1, "train": "head"}, {"epochs": 1, "train": "head"}]
    resolved_stages = arms(tmp_path, variants={"v": {"stages": stages}})["v"].stages
    everything = ("optimizer", "schedule", "average")
    assert [stage.restart for stage in resolved_stages] == [everything, ("average",), everything, ()]
    assert [stage.backbone for stage in resolved_stages] == ["train", "train", "eval", "eval"]


def test_a_stage_changes_settings_for_itself_alone(tmp_path):
    """A stage's settings, whole or dotted, hold in that stage."""
    stages = [{"epochs": 3, "loss": "focal"}, {"epochs": 3, "optimizer.lr": 0.5}]
    by_name = arms(tmp_path, variants={"v": {"stages": stages}, "w": {"of": "v", "stages.1.loss": "balanced_softmax"}})
    assert [(stage.settings.loss.name, stage.settings.optimizer.lr) for stage in by_name["v"].stages] == [
        ("focal", 1e-3),
        ("cross_entropy", 0.5),
    ]
    assert [stage.settings.loss.name for stage in by_name["w"].stages] == ["focal", "balanced_softmax"]


def test_stages_of_the_base_belong_to_every_arm(tmp_path):
    """An arm that changes a stage of the base's changes no other arm's."""
    base = {**BASE, "stages": [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head"}]}
    by_name = arms(tmp_path, base=base, variants={"v": {"stages.1.loss": "focal"}, "w": {"stages.1.mix": "mixup"}})
    assert [stage.settings.loss.name for stage in by_name["v"].stages] == ["cross_entropy", "focal"]
    assert [stage.settings.loss.name for stage in by_name["w"].stages] == ["cross_entropy", "cross_entropy"]


@pytest.mark.parametrize(
    ("stages", "place", "words"),
    [
        ([{"epochs": 1}, {}], ".1.epochs", "is missing; expected a count"),
        ([{"epochs": 1}, {"epochs": "3/2"}], ".1.epochs", "found '3/2'; expected a count"),
        ([{"epochs": 1, "train": "tail"}], ".0.train", "found 'tail'; expected 'all' or 'head'"),
        ([{"epochs": 1, "restart": "optimizer"}], ".0.restart", "found 'optimizer'; expected"),
        ([{"epochs": 1, "restart": ["everything"]}], ".0.restart.0", "found 'everything'; expected"),
        ([{"epochs": 1, "head": "new"}], ".0.head", "in the first stage, before which there is none"),
        ([{"epochs": 1, "start": "average"}], ".0.start", "in the first stage"),
        ([{"epochs": 1}, {"epochs": 1, "start": "average"}], ".1.start", "the stage before keeps none"),
        ([{"epochs": 1}, {"epochs": 1, "data": "cifar10"}], ".1.data", "cannot differ between stages"),
        ([{"epochs": 1}, {"epochs": 1, "model.drop": 0.1}], ".1.model.drop", "cannot differ between stages"),
        ([{"epochs": 1}, {"epochs": 1, "stages": [{"epochs": 1}]}], ".1.stages", "cannot differ between stages"),
        ([{"epochs": 1, "tta": "hflip"}, {"epochs": 1}], ".0.tta", "acts on the last stage only"),
        ([{"epochs": 1, "select": "best_on_test"}, {"epochs": 1}], ".0.select", "acts on the last stage only"),
        ([{"epochs": 1}, {"epochs": 1, "optimizer": "sgd"}], ".1.optimizer", "cannot take over the state"),
        ([{"epochs": 1, "lss": "focal"}], ".0", r"unknown setting 'lss'.*Did you mean 'loss'\?"),
        ([{"epochs": 1, "label": "x"}], ".0", "unknown setting 'label'"),
        ([{"epochs": 1}, {"epochs": 1, "trainn": "head"}], ".1", r"'trainn'; expected one of .*backbone.*train,.*Did you mean 'train'\?"),
        ([{"epochs": 1}, {"epoch": 1}], ".1", r"unknown setting 'epoch'.*Did you mean 'epochs'\?"),
        ([{"epochs": 1, "one": "a", "two words": None}], ".0", "unknown setting 'one'"),
        ([{"epochs": 1, "two words": None}], ".0", "quotes around a text that has a comma"),
        ([{"epochs": 1, "optimizer.rate": 1}], ".0.optimizer.rate", "no field 'rate'"),
    ],
)
@pytest.mark.parametrize("section", ["base", "variant"])
def test_bad_stages(tmp_path, stages, place, words, section):
    """A mistake in a stage is told where the file lists the stages, also if another arm inherits them."""
    sections = {"base": {**BASE, "stages": stages}} if section == "base" else {"variants": {"v": {"stages": stages, "loss": "focal"}}}
    with pytest.raises(ConfigError, match=words) as error:
        study(tmp_path, **sections)
    assert error.value.path == ("base" if section == "base" else "variants.v") + ".stages" + place


def test_another_optimizer_may_begin_anew(tmp_path):
    """Where the optimizer restarts, by name or because `train` changes, it may be another one."""
    for more in ({"restart": ["optimizer"]}, {"train": "head"}):
        stages = [{"epochs": 1}, {"epochs": 1, "optimizer": "sgd", **more}]
        arm = arms(tmp_path, variants={"v": {"stages": stages}})["v"]
        assert [stage.settings.optimizer.name for stage in arm.stages] == ["adamw", "sgd"]


# --- arms -------------------------------------------------------------------------------------------------------------------


def test_without_a_ladder_the_base_is_an_arm(tmp_path):
    """A study that names no arm has one, the base, called baseline."""
    (only,) = study(tmp_path).arms
    assert (only.name, only.kind, only.parent, only.baseline, dict(only.change)) == ("baseline", "ladder", None, None, {})


def test_each_rung_keeps_those_above(tmp_path):
    """A rung has the settings of all rungs above, its parent is the rung above, and its change is its own."""
    by_name = arms(tmp_path, ladder=LADDER)
    assert [(arm.name, arm.parent, arm.baseline) for arm in by_name.values()] == [
        ("baseline", None, None),
        ("cb", "baseline", "baseline"),
        ("mixup", "cb", "baseline"),
        ("ls", "mixup", "baseline"),
    ]
    last = by_name["ls"].settings
    assert (last.sampler.name, last.mix.alpha, last.smoothing.epsilon) == ("class_balanced", 0.4, 0.2)
    assert by_name["cb"].change == {"sampler.name": ("shuffle", "class_balanced")}
    assert by_name["mixup"].change == {"mix.name": ("none", "mixup"), "mix.alpha": (None, 0.4)}
    assert [arm.cumulative for arm in by_name.values()] == ["", "cb", "cb+mixup", "cb+mixup+ls"]


def test_variants_differ_from_any_arm(tmp_path):
    """A variant is `of` another arm, by default the first rung, also of a variant or sweep point further down."""
    by_name = arms(
        tmp_path,
        ladder=LADDER,
        variants={"a": {"of": "b", "loss": "focal"}, "b": {"of": "s/0.3", "batch_size": 7}, "c": {"tta": "hflip"}},
        sweeps={"s": {"of": "ls", "over": {"smoothing.epsilon": [0.3]}}},
    )
    assert [(by_name[name].parent, by_name[name].kind) for name in "abc"] == [
        ("b", "variant"),
        ("s/0.3", "variant"),
        ("baseline", "variant"),
    ]
    settings = by_name["a"].settings
    assert (settings.loss.name, settings.batch_size, settings.smoothing.epsilon, settings.mix.alpha) == ("focal", 7, 0.3, 0.4)
    assert set(by_name["a"].change) == {"loss.name", "loss.gamma", "loss.form"}


def test_long_chains(tmp_path):
    """A chain of two thousand variants is followed to its end, which here is its beginning, without running out of stack."""
    chain = {f"v{i}": {"of": f"v{i - 1}" if i else "v1999"} for i in range(2000)}
    with pytest.raises(ConfigError, match="goes in a circle: v0 of v1999 of v1998 of"):
        study(tmp_path, variants=chain)


@pytest.mark.parametrize("turn", [1, -1])
def test_the_order_of_axes_does_not_matter(tmp_path, turn):
    """A technique on one axis and its field on another, or in common, are both what the name says."""
    axes = {"optimizer.lr": [0.1, 0.01], "optimizer": ["sgd", "adamw"]}
    found = arms(tmp_path, sweeps={"o": {"over": dict([*axes.items()][::turn])}})
    rates = {name: (arm.settings.optimizer.name, arm.settings.optimizer.lr) for name, arm in found.items() if name.startswith("o/")}
    assert set(rates.values()) == {(name, lr) for name in ("sgd", "adamw") for lr in (0.1, 0.01)}
    assert all(name in label and str(lr) in label for label, (name, lr) in rates.items())
    found = arms(tmp_path, sweeps={"o": {"optimizer.lr": 0.05, "over": {"optimizer": ["sgd", "adamw"]}}})
    assert [found[f"o/{name}"].settings.optimizer.lr for name in ("sgd", "adamw")] == [0.05, 0.05]


def test_a_whole_technique_within_a_stage_ends_its_older_fields(tmp_path):
    """However deep it lies; and in one layer a technique comes before its fields."""
    weights = {"name": "effective_number", "beta": 0.99}
    ladder = {
        "baseline": {"stages": [{"epochs": 3}, {"epochs": 3, "loss": "focal"}]},
        "a": {"stages.1.loss.weights": weights},
        "b": {"stages.1.loss.weights.beta": 0.9},
        "c": {"stages.1.loss.weights": {**weights, "beta": 0.5}},
        "d": {"stages.1.loss.weights": "inverse"},
        "e": {"loss.weights.beta": 0.7, "loss.weights": "effective_number", "stages": [{"epochs": 6}]},
    }
    found = {name: arm.stages[-1].settings.loss.weights for name, arm in arms(tmp_path, ladder=ladder).items()}
    assert [found[name].beta for name in "abce"] == [0.99, 0.9, 0.5, 0.7]
    assert found["d"].name == "inverse"


@pytest.mark.parametrize(
    "layer", [{"mix.alpha": 0.2, "smoothing": "label_smoothing"}, {"mix": {"name": "mixup", "alpha": 0.2, "lambda": 0.4}}]
)
def test_a_number_that_another_replaces_is_refused(tmp_path, layer):
    """A fixed weight leaves alpha nothing to do."""
    with pytest.raises(ConfigError, match=r"mix\.alpha: found 0\.2, which has no effect beside lambda 0\.[45]"):
        arms(tmp_path, base={**BASE, "mix": {"name": "mixup", "lambda": 0.5}}, variants={"v": layer})
    assert arms(tmp_path, base={**BASE, "mix": "mixup"}, variants={"v": {"mix.lambda": 0.4}})["v"].settings.mix.fixed_lambda == 0.4


def test_sweeps_are_crossed(tmp_path):
    """Axes are crossed in the file's order, and arms are named by their points; lists name values, mappings have labels."""
    over = {
        "loss": {"f": {"loss": "focal", "label": "Focal"}, "b": {"loss": "balanced_softmax", "optimizer.lr": 0.5}},
        "smoothing": [{"name": "label_smoothing"}, "none"],
        "drop_last": [True, False],
        "batch_size": [64],
    }
    by_name = arms(tmp_path, sweeps={"s": {"tta": "hflip", "over": over}})
    names = [f"s/{loss}/{smoothing}/{drop}/64" for loss in "fb" for smoothing in ("label_smoothing", "none") for drop in ("true", "false")]
    assert list(by_name) == ["baseline", *names]
    point = by_name["s/b/label_smoothing/false/64"]
    settings = point.settings
    assert (settings.loss.name, settings.optimizer.lr, settings.smoothing.name) == ("balanced_softmax", 0.5, "label_smoothing")
    assert (settings.drop_last, settings.batch_size, settings.tta.name) == (False, 64, "hflip")
    assert (point.parent, point.kind, point.label, by_name["s/f/none/true/64"].label) == ("baseline", "sweep", "", "Focal")


def test_a_point_may_equal_its_parent(tmp_path):
    """A sweep point that changes nothing is no error: it is shown as the same training."""
    by_name = arms(tmp_path, ladder=LADDER, sweeps={"e": {"of": "ls", "over": {"smoothing.epsilon": [0.1, 0.2]}}})
    assert (by_name["e/0.2"].same_as, by_name["e/0.1"].same_as) == ("ls", None)


def test_drop_one(tmp_path):
    """drop_one makes the rung without each rung from the second to itself."""
    by_name = arms(tmp_path, ladder=LADDER, drop_one=["ls"])
    without_one = {name: arm for name, arm in by_name.items() if arm.kind == "drop_one"}
    assert list(without_one) == ["ls/without-cb", "ls/without-mixup", "ls/without-ls"]
    assert {arm.parent for arm in without_one.values()} == {"ls"}
    without = without_one["ls/without-mixup"]
    assert (without.settings.sampler.name, without.settings.mix.name, without.settings.smoothing.epsilon) == ("class_balanced", "none", 0.2)
    assert without.change == {"mix.name": ("mixup", "none"), "mix.alpha": (0.4, None)}
    assert without_one["ls/without-ls"].same_as == "mixup"


def test_add_one(tmp_path):
    """add_one makes the rung with each rung below it added alone."""
    by_name = arms(tmp_path, ladder=LADDER, add_one=["baseline"])
    with_one = {name: arm for name, arm in by_name.items() if arm.kind == "add_one"}
    assert list(with_one) == ["baseline/with-cb", "baseline/with-mixup", "baseline/with-ls"]
    assert with_one["baseline/with-ls"].settings.sampler.name == "shuffle"
    assert [set(arm.change) for arm in with_one.values()] == [
        {"sampler.name"},
        {"mix.name", "mix.alpha"},
        {"smoothing.name", "smoothing.epsilon", "smoothing.spread"},
    ]


def test_grid(tmp_path):
    """A grid makes all subsets of its rungs over an arm of the ladder, in the ladder's order whatever its own."""
    by_name = arms(tmp_path, ladder=LADDER, grid={"of": "baseline", "rungs": ["ls", "mixup", "cb"]})
    subsets = {name: arm for name, arm in by_name.items() if arm.kind == "grid"}
    assert list(subsets) == [f"grid/{name}" for name in ("cb", "mixup", "ls", "cb+mixup", "cb+ls", "mixup+ls", "cb+mixup+ls")]
    assert [arm.same_as for arm in subsets.values()] == ["cb", None, None, "mixup", None, None, "ls"]
    assert subsets["grid/mixup+ls"].settings.sampler.name == "shuffle"
    over = arms(tmp_path, ladder=LADDER, grid={"of": "cb", "rungs": ["ls"]})["grid/ls"]
    assert (over.parent, over.settings.sampler.name, over.settings.mix.name) == ("cb", "class_balanced", "none")


FACTORS = {
    **{name: {} for name in (*LADDER, "v", "tau/best")},
    **{f"cross/{rate}/{loss}": {"optimizer.lr": rate, "loss": loss} for rate in ("0.1", "0.01") for loss in ("plain", "focal")},
    "tau/1.0": {"posthoc.tau": "1.0"},
    "ls/without-cb": {"without": "cb"},
    "ls/without-mixup": {"without": "mixup"},
    "ls/without-ls": {"without": "ls"},
    "baseline/with-cb": {"with": "cb"},
    "baseline/with-mixup": {"with": "mixup"},
    "baseline/with-ls": {"with": "ls"},
    "grid/cb": {"cb": "with", "ls": "without"},
    "grid/ls": {"cb": "without", "ls": "with"},
    "grid/cb+ls": {"cb": "with", "ls": "with"},
}


def test_factors(tmp_path):
    """Points of sweeps have their axes and labels, arms made of rungs the rungs with or without; a condition repeats them."""
    by_name = arms(
        tmp_path,
        base={**BASE, "data": {"name": "digits", "validation": 0.1}},
        ladder=LADDER,
        variants={"v": {"tta": "hflip"}},
        sweeps={
            "cross": {"over": {"optimizer.lr": [0.1, 0.01], "loss": {"plain": {}, "focal": {"loss": "focal"}}}},
            "tau": {"posthoc": "tau_norm", "over": {"posthoc.tau": [1.0]}, "choose": "val/accuracy"},
        },
        drop_one=["ls"],
        add_one=["baseline"],
        grid={"rungs": ["ls", "cb"]},
        conditions={"c": {"average": {"name": "ema", "decay": 0.9}}},
    )
    expected = {**FACTORS, **{f"c/{name}": factors for name, factors in FACTORS.items()}}
    assert {name: dict(arm.factors) for name, arm in by_name.items()} == expected
    assert list(by_name["grid/cb"].factors) == ["cb", "ls"], "in the ladder's order"


def test_conditions(tmp_path):
    """A condition makes all arms, or those named, over another base, with parents and baseline within the condition."""
    by_name = arms(
        tmp_path,
        base={**BASE, "average": {"name": "ema", "decay": 0.9}},
        ladder=LADDER,
        variants={"v": {"of": "mixup", "loss": "focal"}},
        conditions={"none": {"average": "none"}, "some": {"average.warmup": True, "arms": ["cb", "ls", "v*"]}},
    )
    assert [name for name in by_name if name.startswith("none/")] == [f"none/{name}" for name in (*LADDER, "v")]
    assert [(name, arm.parent, arm.baseline) for name, arm in by_name.items() if arm.condition == "some"] == [
        ("some/cb", "cb", None),
        ("some/ls", "some/cb", "some/cb"),
        ("some/v", "some/cb", "some/cb"),
    ]
    assert (by_name["none/baseline"].parent, by_name["none/v"].parent) == ("baseline", "none/mixup")
    assert {arm.kind for arm in by_name.values() if arm.condition} == {"condition"}
    for name in (*LADDER, "v"):
        ours, plain = by_name[f"none/{name}"].settings, by_name[name].settings
        assert ours == plain.model_copy(update={"average": ours.average})
        assert ours.average.name == "none"
    assert by_name["none/baseline"].change == {
        "average.name": ("ema", "none"),
        "average.decay": (0.9, None),
        "average.warmup": (False, None),
    }
    assert by_name["none/v"].change == by_name["v"].change


def test_an_arm_has_the_last_word_over_a_condition(tmp_path):
    """An arm that sets what the condition sets keeps its own setting, which makes it the same training."""
    by_name = arms(tmp_path, ladder={"baseline": {}, "focal": {"loss": "focal"}}, conditions={"c": {"loss": "balanced_softmax"}})
    assert by_name["c/baseline"].settings.loss.name == "balanced_softmax"
    assert by_name["c/focal"].same_as == "focal"


def test_annotations_are_no_settings(tmp_path):
    """Label, note and published figures are carried and change nothing."""
    annotations = {"label": "Balanced", "note": "as in A", "published": {"A": 84.97, "B": 85}}
    plain = arms(tmp_path, ladder={"baseline": {}, "cb": {"sampler": "class_balanced"}})["cb"]
    annotated = arms(tmp_path, ladder={"baseline": {}, "cb": {"sampler": "class_balanced", **annotations}})["cb"]
    assert (annotated.label, annotated.note, annotated.published) == ("Balanced", "as in A", {"A": 84.97, "B": 85.0})
    assert (annotated.stages, annotated.change) == (plain.stages, plain.change)


def test_same_as(tmp_path):
    """Arms that resolve alike name the first of them, whatever led there."""
    by_name = arms(
        tmp_path,
        ladder=LADDER,
        variants={
            "reweight": {"sampler": {"name": "class_balanced"}},
            "split": {"of": "cb", "optimizer": {"name": "adamw", "lr": 0.001, "weight_decay": 0.01}, "batch_size": 64},
            "again": {"of": "split", "batch_size": 128},
        },
    )
    assert [by_name[name].same_as for name in ("baseline", "cb", "reweight", "split", "again")] == [None, None, "cb", None, "cb"]


NOTHING = [
    ({"ladder": {"baseline": {}, "x": {}}}, "ladder.x", "baseline"),
    ({"ladder": {"baseline": {}, "x": {"label": "X", "loss": "cross_entropy"}}}, "ladder.x", "baseline"),
    ({"variants": {"v": {"sampler": "shuffle"}}}, "variants.v", "baseline"),
    ({"variants": {"v": {"optimizer.lr": 0.001}}}, "variants.v", "baseline"),
    ({"variants": {"v": {"stages": [{"epochs": "1/2"}, {"epochs": "1/2"}]}}}, "variants.v", "baseline"),
    ({"variants": {"v": {"loss": "focal"}, "w": {"of": "v", "loss.gamma": 2}}}, "variants.w", "v"),
]


@pytest.mark.parametrize(("sections", "path", "parent"), NOTHING)
def test_a_written_arm_must_change_something(tmp_path, sections, path, parent):
    """A rung or variant that changes nothing is an error, also where it only cuts the training in two."""
    with pytest.raises(ConfigError, match=f"changes nothing against '{parent}'") as error:
        study(tmp_path, **sections)
    assert error.value.path == path


@pytest.mark.parametrize(
    ("sections", "path", "words"),
    [
        ({"variants": {"v": {"of": "baselin"}}}, "variants.v.of", r"unknown arm 'baselin'.*Did you mean 'baseline'\?"),
        ({"variants": {"v": {"of": ["a"]}}}, "variants.v.of", "unknown arm"),
        (
            {"variants": {"v": {"note": "two", "not one": None}}},
            "variants.v",
            "'not one' without a value; .*quotes around a text that has a comma",
        ),
        ({"sweeps": {"s": {"of": "x", "over": {"epochs": [1]}}}}, "sweeps.s.of", "unknown arm 'x'"),
        ({"variants": {"a": {"of": "b"}, "b": {"of": "a"}}}, "variants.b.of", "goes in a circle: a of b of a"),
        ({"variants": {"a": {"of": "a"}}}, "variants.a.of", "goes in a circle: a of a"),
        ({"variants": {"a": {"of": "s/1"}}, "sweeps": {"s": {"of": "a", "over": {"epochs": [1]}}}}, "sweeps.s.of", "goes in a circle"),
        ({"variants": {"baseline": {"loss": "focal"}}}, "variants.baseline", "two arms are named 'baseline'"),
        ({"sweeps": {"s": {"over": {"epochs": [1, 1]}}}}, "sweeps.s.over", "two arms are named 's/1'"),
        (
            {"sweeps": {"s/t": {"over": {"epochs": [1, 2]}}}},
            "sweeps.s/t",
            "has a slash in its name; expected a sweep's name without, such as s-t",
        ),
        (
            {"conditions": {"a/b": {"epochs": 2}}},
            "conditions.a/b",
            "has a slash in its name; expected a condition's name without, such as a-b",
        ),
        ({"conditions": {"c": {"loss": "focal"}}, "variants": {"c/baseline": {"tta": "hflip"}}}, "conditions.c", "named 'c/baseline'"),
        ({"ladder": {"a b ": {}}}, "ladder.a b ", "found the name 'a b '"),
        ({"ladder": {"": {}}}, "ladder.", "found the name ''"),
        ({"ladder": {"a*": {}}}, "ladder.a*", r"without \* \? \[ \]"),
        ({"ladder": {"a\nb": {}}}, "ladder.a\nb", "expected printable letters"),
        ({"ladder": {"a" * 201: {}}}, f"ladder.{'a' * 201}", "a name of 201 letters"),
        ({"ladder": {"a": {"of": "b"}}}, "ladder.a.of", "is not allowed in a rung"),
        ({"variants": {"a": {"arms": ["b"]}}}, "variants.a.arms", "is not allowed in a variant"),
        ({"sweeps": {"s": {"label": "S", "over": {"epochs": [1]}}}}, "sweeps.s.label", "is not allowed in a sweep as a whole"),
        ({"sweeps": {"s": {"over": {"x": {"a": {"of": "b"}}}}}}, "sweeps.s.over.x.a.of", "is not allowed in a point of a sweep"),
        ({"conditions": {"c": {"published": {"A": 1}}}}, "conditions.c.published", "is not allowed in a condition"),
        ({"ladder": {"a": {"label": 3}}}, "ladder.a.label", "found 3; expected text"),
        ({"ladder": {"a": {"published": 84}}}, "ladder.a.published", "found 84; expected figures in percent"),
        ({"ladder": {"a": {"published": {"A": "84"}}}}, "ladder.a.published", "expected figures in percent"),
        ({"ladder": {"a": {"published": {"A": True}}}}, "ladder.a.published", "expected figures in percent"),
        ({"ladder": {"a": {"published": {"A": float("nan")}}}}, "ladder.a.published", "expected figures in percent"),
        ({"ladder": {"a": {"published": {"A": 10**400}}}}, "ladder.a.published", "expected figures in percent"),
        ({"sweeps": {"s": {"over": {}}}}, "sweeps.s.over", "has no points"),
        ({"sweeps": {"s": {"over": {"epochs": []}}}}, "sweeps.s.over", "has no points"),
        ({"sweeps": {"s": {"over": {"epochs": 3}}}}, "sweeps.s.over.epochs", "found 3; expected a list of values"),
        ({"sweeps": {"s": {"over": {"augment": [["hflip"]]}}}}, "sweeps.s.over.augment", "which has no short name"),
        ({"sweeps": {"s": {"over": {"of": ["a", "b"], "mix": ["mixup"]}}}}, "sweeps.s.over.of", "'of' is no setting; expected an axis"),
        ({"sweeps": {"s": {"over": {"label": ["a", "b"]}}}}, "sweeps.s.over.label", "'label' is no setting; expected an axis"),
        ({"sweeps": {"s": {"over": {"optimizer.lr": [float("nan")]}}}}, "sweeps.s.over.optimizer.lr", "nan"),
        ({"sweeps": {"s": {"over": {"loss": {"a": "focal"}}}}}, "sweeps.s.over.loss.a", "expected the settings of this point"),
        ({"sweeps": {"s": {"over": {"los": ["focal"]}}}}, "sweeps.s.over", r"Did you mean 'loss'\?"),
        (
            {"sweeps": {"s": {"over": {f"a{i}": {str(j): {} for j in range(10)} for i in range(9)}}}},
            "sweeps.s.over",
            "more than 10,000 arms",
        ),
        ({"drop_one": ["cb"]}, "drop_one", r"unknown rung 'cb'; expected one of baseline"),
        ({"drop_one": ["baseline"]}, "drop_one", "the first rung, which has none to leave out"),
        ({"add_one": ["baseline"]}, "add_one", "the last rung, below which there is none to add"),
        ({"add_one": ["x"]}, "add_one", "unknown rung 'x'"),
        ({"grid": {"rungs": ["x"]}}, "grid.rungs", "unknown rung 'x'"),
        ({"grid": {"of": "x", "rungs": ["baseline"]}}, "grid.of", "unknown rung 'x'"),
        ({"grid": {"of": "baseline"}}, "grid.rungs", "is missing"),
        ({"grid": {"rungs": ["baseline"]}}, "grid.rungs", "only rungs below 'baseline'"),
        ({"ladder": LADDER, "grid": {"rungs": ["cb", "cb"]}}, "grid.rungs", "expected each rung once"),
        (
            {"ladder": {f"r{i}": {"batch_size": i + 1} for i in range(20)}, "grid": {"rungs": [f"r{i}" for i in range(1, 20)]}},
            "grid.rungs",
            "more than 10,000 subsets",
        ),
        ({"conditions": {"c": {"loss": "focal", "arms": ["nobody"]}}}, "conditions.c.arms", "unknown arm 'nobody'"),
        ({"conditions": {"c": {"loss": "focal", "arms": []}}}, "conditions.c.arms", "expected a list of arms"),
        ({"conditions": {"c": {"loss": "focal", "arms": "baseline"}}}, "conditions.c.arms", "expected a list of arms"),
        ({"conditions": {"c": {"loss": "cross_entropy"}}}, "conditions.c", "changes nothing in any arm"),
        ({"conditions": {"c": {"colour": 1}}}, "conditions.c", "unknown setting 'colour'"),
        ({"profiles": {}, "variants": {"v": {"smoothing": {"epsilon": 1.5}}}}, "variants.v.smoothing.epsilon", "found 1.5"),
    ],
)
def test_bad_arms(tmp_path, sections, path, words):
    """Each mistake about arms names its place, what was found and what was expected."""
    with pytest.raises(ConfigError, match=words) as error:
        study(tmp_path, **sections)
    assert error.value.path == path


@pytest.mark.parametrize(
    ("sections", "options", "path"),
    [
        ({"base": {**BASE, "mix": "cmo"}}, {}, "base.mix"),
        ({"base": {**BASE, "mix": "cmo"}, "ladder": {"baseline": {"label": "b"}}}, {}, "base.mix"),
        ({"base": {**BASE, "loss": "ldam"}}, {}, "base.loss"),
        ({"base": {**BASE, "classifier": "lws"}}, {}, "base.classifier"),
        ({"profiles": {"quick": {"base": {"mix": "cmo"}}}}, {"profile": "quick"}, "profiles.quick.base.mix"),
        ({"conditions": {"c": {"mix": "cmo"}}}, {}, "conditions.c.mix"),
        ({"variants": {"v": {"mix": "cmo"}}}, {}, "variants.v.mix"),
        ({}, {"sets": [("mix", "cmo")]}, "--set.mix"),
        ({"ladder": {"a": TWO_STAGES, "b": {"stages.1.loss": {"name": "focal", "gamma": -1}}}}, {}, "ladder.b.stages.1.loss.gamma"),
        ({"ladder": {"a": TWO_STAGES, "b": {"stages.1.optimizer.lr": -1}}}, {}, "ladder.b.stages.1.optimizer.lr"),
        ({"ladder": {"a": TWO_STAGES, "b": {"stages.0.loss": "focal"}, "c": {"stages.1.loss": "x"}}}, {}, "ladder.c.stages.1.loss"),
        ({"ladder": {"a": TWO_STAGES}, "variants": {"v": {"stages": [{"tta": "x"}]}}}, {}, "variants.v.stages.0.tta"),
        ({"ladder": {"a": {"stages": [{"loss": "x"}]}, "b": {"mix": "mixup"}}}, {}, "ladder.a.stages.0.loss"),
        ({"ladder": {"a": TWO_STAGES}}, {"sets": [("stages.1.loss", "x")]}, "--set.stages.1.loss"),
    ],
)
def test_a_mistake_of_a_whole_arm_is_where_the_file_makes_it(tmp_path, sections, options, path):
    """Settings that do not go together are seen once the arm is whole; the place is that of the layer that sets them."""
    file = write(tmp_path, **{"base": {**BASE, "epochs": 3}, **sections})
    with pytest.raises(ConfigError) as error:
        load_study(file, **options)
    assert error.value.path == path


def test_figures_belong_to_one_arm(tmp_path):
    """A published figure on an axis that is crossed with another would belong to several arms, and is refused."""
    over = {"loss": {"f": {"loss": "focal", "published": {"A": 80}}}, "batch_size": [1, 2]}
    with pytest.raises(ConfigError, match="belong to one arm"):
        study(tmp_path, sweeps={"s": {"over": over}})
    assert arms(tmp_path, sweeps={"s": {"over": {"loss": over["loss"]}}})["s/f"].published == {"A": 80.0}


# --- change -----------------------------------------------------------------------------------------------------------------


HEAD = {"train": "head"}
CHANGES = [
    ({"batch_size": 64}, {"batch_size": (128, 64)}),
    ({"epochs": 3}, {"epochs": (6, 3)}),
    ({"loss": "weighted_cross_entropy"}, {"loss.weights.name": ("none", "inverse")}),
    (
        {"stages": [{"epochs": 4}, {"epochs": 2, "loss": "balanced_softmax"}]},
        {
            "stages.0.epochs": (6, 4),
            "stages.1.epochs": (None, 2),
            "stages.1.loss.name": ("cross_entropy", "balanced_softmax"),
            "stages.1.loss.prior": (None, "training"),
        },
    ),
    (
        {"tta": "hflip", "stages": [{"epochs": 4}, {"epochs": 2, **HEAD}]},
        {
            "stages.0.epochs": (6, 4),
            "stages.1.epochs": (None, 2),
            "tta.name": ("none", "hflip"),
            "tta.average": (None, "logits"),
            "stages.1.train": ("all", "head"),
            "stages.1.backbone": ("train", "eval"),
        },
    ),
    (
        {"stages": [{"epochs": 3}, {"epochs": 3, "restart": ["schedule"]}]},
        {"stages.0.epochs": (6, 3), "stages.1.epochs": (None, 3), "stages.1.restart": ([], ["schedule"])},
    ),
    (
        {"stages": [{"epochs": 3}, {"epochs": 3, "head": "new"}]},
        {"stages.0.epochs": (6, 3), "stages.1.epochs": (None, 3), "stages.1.head": ("keep", "new")},
    ),
]


@pytest.mark.parametrize(("layer", "expected"), CHANGES)
def test_change(tmp_path, layer, expected):
    """The change lists the settings that differ leaf by leaf, under their stage where they differ in a part of the training."""
    assert arms(tmp_path, variants={"v": layer})["v"].change == expected


def test_change_between_arms_with_equally_many_stages(tmp_path):
    """Stages of the same number are compared, and another cut alone shows as lengths."""
    stages = [{"epochs": 4}, {"epochs": 2, **HEAD}]
    by_name = arms(
        tmp_path,
        variants={
            "d": {"stages": stages},
            "cut": {"of": "d", "stages": [{"epochs": 3}, {"epochs": 3, **HEAD}]},
            "focal": {"of": "d", "stages.1.loss": "focal"},
            "both": {"of": "d", "loss": "balanced_softmax"},
            "back": {"of": "d", "stages": [{"epochs": 6}]},
        },
    )
    assert by_name["cut"].change == {"stages.0.epochs": (4, 3), "stages.1.epochs": (2, 3)}
    assert list(by_name["focal"].change) == ["stages.1.loss.name", "stages.1.loss.gamma", "stages.1.loss.form"]
    assert list(by_name["both"].change) == ["loss.name", "loss.prior"]
    assert by_name["back"].change["stages.1.train"] == ("head", "all")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], []),
        (["loss.name", "loss.gamma"], ["loss"]),
        (["loss.name", "mix.alpha"], ["loss", "mix"]),
        (["stages.0.epochs", "stages.1.epochs", "stages.1.loss.name"], ["loss"]),
        (["stages.0.epochs", "stages.1.epochs", "stages.1.train", "stages.1.backbone"], ["stages"]),
        (["stages.0.epochs", "stages.1.epochs"], ["stages"]),
        (["stages.1.train", "stages.1.sampler.name"], ["stages", "sampler"]),
        (["epochs", "loss.name"], ["stages", "loss"]),
        (["batch_size"], ["batch_size"]),
    ],
)
def test_families(changes, expected):
    """A change touches its families; where a stage begins is part of what begins there."""
    assert families(changes, SCHEMA) == expected


def test_flatten():
    """Nested settings become dotted names, techniques in a list by their position."""
    data = {"a": {"b": 1}, "augment": ({"name": "hflip"}, {"name": "affine", "scale": (1, 2)}), "none": ()}
    assert flatten(data) == {"a.b": 1, "augment.0.name": "hflip", "augment.1.name": "affine", "augment.1.scale": [1, 2], "none": []}


# --- --set and --arm ------------------------------------------------------------------------------------------------------------


STAGED = {"stages": [{"epochs": "1/2", "loss": "focal"}, {"epochs": "1/2", "train": "head", "loss": "focal"}]}


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ([("loss", "balanced_softmax")], [["balanced_softmax"], ["balanced_softmax"] * 2]),
        ([("stages.1.loss", "balanced_softmax")], [["cross_entropy"], ["focal", "balanced_softmax"]]),
        ([("loss", "focal"), ("stages.1.loss", "balanced_softmax")], [["focal"], ["focal", "balanced_softmax"]]),
        ([("stages.1.loss", "balanced_softmax"), ("loss", "focal")], [["focal"], ["focal", "focal"]]),
    ],
)
def test_set_comes_last(tmp_path, sets, expected):
    """--set is laid over every stage, in the order of the command."""
    by_name = arms(tmp_path, variants={"v": STAGED}, sets=sets)
    assert [[stage.settings.loss.name for stage in by_name[name].stages] for name in ("baseline", "v")] == expected


def test_set_a_field(tmp_path):
    """A field is set in the arms and stages whose technique has it, and only there."""
    by_name = arms(
        tmp_path, variants={"v": STAGED, "ls": {"smoothing": "label_smoothing"}}, sets=[("loss.gamma", 5.0), ("smoothing.epsilon", 0.3)]
    )
    assert [stage.settings.loss.gamma for stage in by_name["v"].stages] == [5.0, 5.0]
    assert (by_name["baseline"].settings.smoothing.name, by_name["ls"].settings.smoothing.epsilon) == ("none", 0.3)
    by_name = arms(tmp_path, variants={"v": STAGED}, sets=[("stages.1.loss.gamma", 5.0), ("stages.0.epochs", 1)])
    assert [(stage.epochs, stage.settings.loss.gamma) for stage in by_name["v"].stages] == [(1, 2.0), (3, 5.0)]


def test_set_epochs(tmp_path):
    """--set epochs shortens every arm, fractions of it included, and may make arms alike."""
    by_name = arms(tmp_path, variants={"v": STAGED, "short": {"epochs": 2}}, sets=[("epochs", 2)])
    assert [lengths(by_name[name]) for name in ("baseline", "v", "short")] == [[2], [1, 1], [2]]
    assert by_name["short"].same_as == "baseline"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("lss", "focal", r"--set: unknown setting 'lss'.*Did you mean 'loss'\?"),
        ("loss", "focl", r"--set.loss: unknown loss 'focl'"),
        ("optimizer.lrr", 1.0, r"--set.optimizer.lrr: no arm has such a field. Did you mean 'optimizer.lr'\?"),
        ("optimizer.lr", "fast", r"--set.optimizer.lr: found 'fast'; expected a number"),
        ("stages.7.loss", "focal", "--set.stages.7.loss: no arm has such a field"),
        ("stages.1.loss.gama", 1.0, r"Did you mean 'stages.1.loss.gamma'\?"),
        ("stages.1.data", "cifar10", "cannot differ between stages"),
        ("stages.1.model.drop", 0.1, "cannot differ between stages"),
        ("stages.1", {}, "names a whole stage"),
        ("of", "cb", "unknown setting 'of'"),
        ("epochs.x", 1, "no arm has such a field"),
        ("seeds", [1], "unknown setting 'seeds'"),
    ],
)
def test_bad_sets(tmp_path, path, value, words):
    """A --set that fits no arm, or that does not fit, is an error with its path."""
    with pytest.raises(ConfigError, match=words):
        study(tmp_path, variants={"v": STAGED}, sets=[(path, value)])


def test_select_names():
    """Globs choose arms in the study's order; one that matches none is an error with the nearest name."""
    names = ["baseline", "cb", "no-lag/cb", "no-lag/baseline"]
    assert select_names(names, ["no-lag/*", "cb"], "--arm") == ["cb", "no-lag/cb", "no-lag/baseline"]
    assert select_names(names, ["*"], "--arm") == names
    with pytest.raises(ConfigError, match=r"--arm: unknown arm 'basline'.*Did you mean 'baseline'\?"):
        select_names(names, ["cb", "basline"], "--arm")


def test_a_sweep_over_a_field_that_the_arm_has_not_says_what_to_set(tmp_path):
    """Sweeping a post-hoc strength over an arm without post-hoc is told once with its place, and what is missing."""
    with pytest.raises(ConfigError) as caught:
        study(tmp_path, sweeps={"tau": {"over": {"posthoc.tau": [0.5, 1.0]}}})
    assert caught.value.path == "sweeps.tau.over.posthoc.tau"
    assert "posthoc is 'none', which has no field 'tau'; expected another posthoc, set as a whole beside or before it" in str(caught.value)
