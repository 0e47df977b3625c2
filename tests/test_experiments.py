"""The study of the two reports, `experiments.yaml`."""

from pathlib import Path

import numpy as np
import pytest

from ablation.study.groups import resolve
from ablation.study.resolving import load_study
from ablation.tasks.images.labels import budget

FILE = Path(__file__).parent.parent / "experiments.yaml"
LADDER = ["baseline", "cb", "mixup", "ls", "tta", "decoupling"]


@pytest.fixture(scope="module")
def arms():
    return {arm.name: arm for arm in load_study(FILE).arms}


@pytest.mark.parametrize(("profile", "name"), [(None, "reports"), ("quick", "reports.quick"), ("laptop", "reports.laptop")])
def test_every_profile_resolves(profile, name, arms):
    """The study and its profiles resolve to the same arms, each compared with the same parent."""
    resolved = load_study(FILE, profile)
    assert resolved.name == name
    assert [(arm.name, arm.parent, arm.baseline) for arm in resolved.arms] == [
        (arm.name, arm.parent, arm.baseline) for arm in arms.values()
    ]
    assert all(sum(stage.epochs for stage in arm.stages) == arm.settings.epochs for arm in resolved.arms)


def test_the_quick_profile_needs_no_download():
    """The quick profile takes scikit-learn's digits and untrained weights, whatever the arm."""
    quick = load_study(FILE, "quick")
    assert {(arm.settings.data.name, arm.settings.model.pretrained) for arm in quick.arms} == {("digits", False)}
    assert len(quick.seeds) == 2


def test_the_laptop_profile_needs_no_weights():
    """The laptop profile trains on CIFAR-10 from untrained weights."""
    assert {(arm.settings.data.name, arm.settings.model.pretrained) for arm in load_study(FILE, "laptop").arms} == {("cifar10", False)}


def test_the_recipe(arms):
    """The baseline is the reports' recipe, setting by setting."""
    one = arms["baseline"].settings
    assert [int(n) for n in one.data.longtail(np.full(10, 5000))] == [5000 - 500 * i for i in range(10)]
    assert (one.data.name, one.model.name, one.model.pretrained, one.model.image_size) == ("cifar10", "efficientnet_b0", True, 224)
    assert (one.model.drop, one.model.drop_path) == (0.0, 0.1)
    assert [technique.name for technique in one.augment] == ["hflip", "vflip", "affine", "erase"]
    affine, erase = one.augment[2:]
    assert (affine.degrees, affine.scale) == (15, (0.8, 1.2))
    assert (erase.probability, erase.area, erase.values) == (0.25, (0.02, 0.2), "random")
    assert (one.optimizer.name, one.optimizer.lr, one.optimizer.betas, one.optimizer.weight_decay) == ("adamw", 1e-4, (0.9, 0.999), 0.05)
    assert (one.schedule.name, one.schedule.final_lr) == ("cosine", 1e-6)
    assert (one.average.name, one.average.decay, one.average.warmup) == ("ema", 0.9999, False)
    assert (one.epochs, one.batch_size, one.drop_last) == (30, 128, True)
    assert budget(arms["baseline"], 27_500).updates == 30 * 214


def test_the_ladder_of_report_a(arms):
    """Report A's ladder is there, each rung with its one change."""
    assert [name for name, arm in arms.items() if arm.kind == "ladder"] == LADDER
    assert {name: sorted({path.split(".")[0] for path in arms[name].change}) for name in LADDER[1:5]} == {
        "cb": ["sampler"],
        "mixup": ["mix"],
        "ls": ["smoothing"],
        "tta": ["tta"],
    }
    tta = arms["tta"].settings
    assert (tta.sampler.name, tta.mix.alpha, tta.smoothing.epsilon, tta.smoothing.spread) == ("class_balanced", 0.4, 0.2, "others")
    assert (tta.tta.name, tta.tta.average) == ("hflip", "logits")


def test_the_decoupling_of_report_a(arms):
    """20 epochs without balanced sampling, then 10 of the head alone with it, at a rate that begins anew, without MixUp."""
    first, second = arms["decoupling"].stages
    assert (first.epochs, first.train, first.settings.sampler.name, first.settings.mix.name) == (20, "all", "shuffle", "mixup")
    assert (second.epochs, second.train, second.settings.sampler.name, second.settings.mix.name) == (10, "head", "class_balanced", "none")
    assert first.settings.smoothing.epsilon == second.settings.smoothing.epsilon == 0.2
    rate = second.settings.schedule(second.schedule_epoch, second.schedule_span, second.settings.optimizer.lr)
    assert rate == 1e-4


def test_cutmix_of_tail_pairs(arms):
    """Report A's aside is class-balanced sampling with CutMix where an image of the pair is of a tail class."""
    one = arms["cutmix-tail"]
    assert (one.parent, one.settings.sampler.name, one.settings.mix.name, one.settings.mix.only) == (
        "cb",
        "class_balanced",
        "cutmix",
        "tail",
    )
    assert one.settings.mix.alpha == 1.0


def test_the_losses_of_report_b(arms):
    """Report B trains the head again with five losses, the modified one read as class-weighted cross-entropy."""
    resolved = {}
    for name in ("modified", "balanced-softmax", "focal", "class-balanced", "class-balanced-focal"):
        first, second = arms[f"decoupled/{name}"].stages
        assert (first.epochs, second.epochs, second.train, second.settings.sampler.name) == (20, 10, "head", "class_balanced")
        assert first.settings.loss == arms["baseline"].settings.loss
        resolved[name] = (second.settings.loss.name, second.settings.loss.weights.name)
    assert resolved == {
        "modified": ("cross_entropy", "inverse"),
        "balanced-softmax": ("balanced_softmax", "none"),
        "focal": ("focal", "none"),
        "class-balanced": ("cross_entropy", "effective_number"),
        "class-balanced-focal": ("focal", "effective_number"),
    }


def test_the_published_figures(arms):
    """Every accuracy that the reports print stands at its arm."""
    plain = {name: dict(arm.published) for name, arm in arms.items() if arm.published and arm.condition is None}
    assert plain == {
        "baseline": {"A": 84.22, "B": 84.15},
        "cb": {"A": 84.97},
        "mixup": {"A": 85.76},
        "ls": {"A": 86.23},
        "tta": {"A": 86.55},
        "decoupling": {"A": 85.01},
        "cutmix-tail": {"A": 79.06},
        "reweight": {"B": 85.82},
        "decoupled/modified": {"B": 93.78},
    }


def test_sweeps_of_report_a(arms):
    """The sweeps that report A made without showing them are there: epsilon, lambda, views, and MixUp's distribution."""
    assert [arms[f"epsilon/{value}"].settings.smoothing.epsilon for value in ("0.05", "0.1", "0.3")] == [0.05, 0.1, 0.3]
    assert [arms[f"lambda/{value}"].settings.mix.fixed_lambda for value in ("0.2", "0.4")] == [0.2, 0.4]
    assert [arms[f"alpha/{value}"].settings.mix.alpha for value in ("0.2", "1.0")] == [0.2, 1.0]
    assert {name.removeprefix("views/") for name in arms if name.startswith("views/")} == {"vflip", "flips", "rotate", "scale"}


def test_what_is_the_same_training(arms):
    """Reweighting by a sampler is class-balanced sampling, and leaving the view out of the last rung is the rung before."""
    assert {name: arm.same_as for name, arm in arms.items() if arm.same_as and arm.condition is None} == {
        "reweight": "cb",
        "tta/without-tta": "ls",
    }


def test_the_conditions(arms):
    """The whole matrix is there without the average, and the ladder with a warm-up and as the recipe selected."""
    plain = [name for name, arm in arms.items() if arm.condition is None]
    assert [name for name, arm in arms.items() if arm.condition == "no-lag"] == [f"no-lag/{name}" for name in plain]
    assert {arm.settings.average.name for arm in arms.values() if arm.condition == "no-lag"} == {"none"}
    for condition in ("warm", "as-published"):
        assert [name for name, arm in arms.items() if arm.condition == condition] == [f"{condition}/{name}" for name in LADDER]
    assert arms["warm/baseline"].settings.average.warmup
    assert {arm.settings.select for arm in arms.values() if arm.condition == "as-published"} == {"best_on_test"}


def test_factors(arms):
    """Every arm made of rungs or axes has its place among the arms made with it, and each condition repeats those of the plain arms."""
    plain = {name: dict(arm.factors) for name, arm in arms.items() if arm.condition is None and arm.factors}
    losses = ("modified", "balanced-softmax", "focal", "class-balanced", "class-balanced-focal")
    assert plain == {
        **{f"decoupled/{loss}": {"loss": loss} for loss in losses},
        **{f"epsilon/{value}": {"smoothing.epsilon": value} for value in ("0.05", "0.1", "0.3")},
        **{f"alpha/{value}": {"mix.alpha": value} for value in ("0.2", "1.0")},
        **{f"lambda/{value}": {"mix.lambda": value} for value in ("0.2", "0.4")},
        **{f"views/{value}": {"tta": value} for value in ("vflip", "flips", "rotate", "scale")},
        **{f"tta/without-{rung}": {"without": rung} for rung in LADDER[1:5]},
    }
    assert all(arm.factors == arms[name.partition("/")[2]].factors for name, arm in arms.items() if arm.condition)
    assert load_study(FILE).margin == 0.5


def test_groups():
    """Ten classes are three many, four medium and three few."""
    assert [
        len(classes) for classes in resolve(load_study(FILE).groups, [5000 - 500 * i for i in range(10)], list("abcdefghij")).values()
    ] == [3, 4, 3]
