"""The recipes in studies/: they load, and train as the field's code does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from ablation import cli
from ablation.commands import export
from ablation.report.frames import packed
from ablation.study.config import load
from ablation.study.resolving import load_study
from ablation.tasks.images import keys
from ablation.tasks.images.labels import updates_per_epoch
from ablation.techniques.models import num_parameters
from tests.recorded import record

STUDIES = Path(__file__).parent.parent / "studies"
LONG_TAILED = {"cifar10-lt": (10, 12_406), "cifar100-lt": (100, 10_847)}
each = pytest.mark.parametrize("name", LONG_TAILED)


def arms(name, profile=None):
    return {arm.name: arm for arm in load_study(STUDIES / f"{name}.yaml", profile).arms}


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_and_profile_loads(file):
    """All arms of all profiles resolve."""
    for profile in (None, *load(file).profiles):
        assert load_study(file, profile).arms


@each
def test_every_arm_can_train(name):
    """Each stage's model, classifier and loss work together: a batch has a finite loss and a gradient."""
    num_classes, _ = LONG_TAILED[name]
    counts_C = torch.linspace(500, 5, num_classes)
    images_BCHW = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    targets_BC = torch.eye(num_classes)[[0, 1, 2, num_classes - 1]]
    stages = {(stage.settings.model, stage.settings.classifier, stage.settings.loss) for arm in arms(name).values() for stage in arm.stages}
    assert len(stages) > 10
    for model, classifier, loss in stages:
        network = model(num_classes, 0, classifier=classifier)
        value = loss(network(images_BCHW), targets_BC, counts_C)
        value.backward()
        assert torch.isfinite(value), (classifier, loss)
        assert any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in network.get_classifier().parameters())


@each
def test_the_learning_rates_are_those_of_the_recipe(name):
    """By epochs counted from 0: a warm-up to 0.1 in five, 0.001 from 160 and 0.00001 from 180 on, in one stage or in two."""
    expected = {0: 0.02, 4: 0.1, 159: 0.1, 160: 0.001, 179: 0.001, 180: 0.00001, 199: 0.00001}
    for arm in ("ce", "drw", "ldam-drw"):
        rates = np.concatenate([keys.rates(stage, stage.epochs) for stage in arms(name)[arm].stages])
        assert len(rates) == 200
        for epoch, rate in expected.items():
            assert rates[epoch] == pytest.approx(rate, rel=1e-12), (arm, epoch)


@each
def test_an_epoch_and_the_model_are_those_of_the_recipe(name):
    """Counts by exponential decay, the last batch kept (97 updates an epoch for CIFAR-10-LT), and He's ResNet-32."""
    num_classes, num_train = LONG_TAILED[name]
    settings = arms(name)["ce"].settings
    counts_C = settings.data.longtail(np.full(num_classes, 50_000 // num_classes))
    assert counts_C.sum() == num_train
    assert updates_per_epoch(arms(name)["ce"].stages[0], num_train) == {10: 97, 100: 85}[num_classes]
    assert num_parameters(settings.model, settings.classifier, "all", num_classes) == {10: 464_154, 100: 470_004}[num_classes]


@each
def test_deferred_arms_change_after_four_fifths(name):
    """DRW, LDAM-DRW and DRS are plain for 160 epochs, and nothing restarts where they change."""
    for arm, family in (("drw", "loss"), ("ldam-drw", "loss"), ("drs", "sampler")):
        first, second = arms(name)[arm].stages
        plain = arms(name)["ldam" if arm == "ldam-drw" else "ce"].stages[0].settings
        assert (first.epochs, second.epochs, second.restart) == (160, 40, ())
        assert getattr(first.settings, family) == getattr(plain, family) != getattr(second.settings, family)


@each
def test_heads_stand_on_the_whole_training_of_ce(name):
    """cRT and LWS begin with the very stage of ce, so it is trained once; then 30 epochs with drops at 10 and 20."""
    for arm, classifier in (("crt", "linear"), ("lws", "lws")):
        first, second = arms(name)[arm].stages
        assert first == arms(name)["ce"].stages[0]
        assert (second.epochs, second.train, second.settings.classifier.name) == (30, "head", classifier)
        assert [round(rate, 12) for rate in keys.rates(second, 30)] == [0.1] * 10 + [0.01] * 10 + [0.001] * 10


@each
def test_post_hoc_arms_train_nothing(name):
    """Their stages are those of ce but for what is done afterwards."""
    base = arms(name)["ce"].stages[0].settings
    for arm in ("tau-norm", "ncm", "logit-adjustment"):
        (stage,) = arms(name)[arm].stages
        assert stage.settings.posthoc != base.posthoc
        assert stage.settings.model_copy(update={"posthoc": base.posthoc}) == base


@each
def test_other_data_have_no_published_figures(name):
    """The figures are those of imbalance 100, so the other profiles show none."""
    assert any(arm.published for arm in arms(name).values())
    for profile in load(STUDIES / f"{name}.yaml").profiles:
        assert not any(arm.published for arm in arms(name, profile).values())


def test_the_lag_by_epoch_is_drawn(folder, empty_database, tmp_path_factory, monkeypatch):
    """The best epoch of each watched curve is what its arm, chosen on the test images, was recorded with; an arm without is told."""
    monkeypatch.syspath_prepend(STUDIES)
    import lag_by_epoch

    ends = {"as-published": {"select": "best_on_test"}, "best-no-lag": {"select": "best_on_test", "average": "none"}}
    study = tmp_path_factory.mktemp("lag")
    record(study, empty_database, base={"average": {"name": "ema", "decay": 0.9}, "epochs": 3}, conditions=ends)
    monkeypatch.chdir(study)
    assert export.pack(study / "tiny.zip", None, None, predictions=False) == 0
    points = lag_by_epoch.watched(study / "tiny.zip", ["baseline"])
    assert sorted(set(points["epoch"])) == [1, 2, 3]
    best = points.groupby("tested")["test accuracy, percent"].max() / 100
    recorded = packed.read(study / "tiny.zip").runs.set_index("arm")["test/accuracy"]
    for condition, words in lag_by_epoch.CONDITIONS.items():
        assert best[words] == pytest.approx(recorded[f"{condition}/baseline"], abs=1e-12)
    assert best.nunique() == 2
    done = CliRunner().invoke(lag_by_epoch.main, ["tiny.zip", "lag.svg", "--arm", "baseline"], catch_exceptions=False)
    assert (done.exit_code, done.output) == (0, "")
    assert (study / "lag.svg").read_text().count("<svg") == 1
    for words, told in (
        (["tiny.zip", "x.svg", "--arm", "cb"], "no accuracies by epoch of as-published/cb"),
        (["tiny.yaml", "x.svg", "--arm", "baseline"], "tiny.yaml cannot be read as a packed study"),
        (["tiny.zip", "x.bmp", "--arm", "baseline"], "found x.bmp; expected a name that ends in .svg, .png, .pdf"),
    ):
        refused = CliRunner().invoke(lag_by_epoch.main, words, catch_exceptions=False)
        assert refused.exit_code == 1
        assert told in refused.output


@pytest.mark.parametrize(("folder", "name"), [("study", "reports-32.zip"), ("long-tail", "cifar10-lt-night.zip")])
def test_the_reports_of_packed_studies_are_those_of_their_numbers(folder, name):
    """What documents refer to is what `ablate report` says of the packed study; another layout needs the report written again."""
    study = STUDIES.parent / "docs" / folder
    done = CliRunner().invoke(cli.cli, ["report", str(study / name), "--check", str(study / "report.md")])
    assert done.exit_code == 0, done.output
