"""What happens to scores after training. Shapes: B batch, N images, F features, C classes."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestCentroid
from torch import nn

from ablation.errors import ConfigError, DataError, TrainingError
from ablation.techniques.posthoc import LogitAdjustment, NearestClassMean, NoPosthoc, TauNorm, Temperature
from ablation.techniques.technique import make

COUNTS = torch.tensor([500, 100, 20, 5])
SCORES = torch.tensor([[2, 1, 0.5, -1], [0.2, -0.3, 0.1, 0.4], [1.5, 0, -0.5, 0.7]])
FEATURES = ["centred", "normalised", "raw"]


def test_absence_returns_the_same_scores():
    """Without adjustment the scores and the layer are those of the model."""
    layer = nn.Linear(2, 4)
    assert NoPosthoc()(SCORES, COUNTS) is SCORES
    assert NoPosthoc().classifier(layer, None, None, 4) is layer
    assert NoPosthoc().fitted(SCORES, torch.zeros(3)) == NoPosthoc()


@pytest.mark.parametrize(
    ("name", "markers"),
    [
        ("none", (False, False, False, False)),
        ("logit_adjustment", (True, False, False, False)),
        ("tau_norm", (False, True, False, False)),
        ("ncm", (False, True, True, False)),
        ("temperature", (False, False, False, True)),
    ],
)
def test_each_says_what_it_needs(name, markers):
    """The markers name what corrects the prior, replaces the classifier, or needs features or validation images."""
    technique = make("posthoc", name)
    result = (technique.corrects_prior, technique.replaces_classifier, technique.needs_features, technique.needs_validation)
    assert result == markers


# --- logit adjustment --------------------------------------------------------------------------------------------------------


def test_adjusted_scores_are_the_known_ones():
    """With tau 1 the first row is the published vector."""
    torch.testing.assert_close(LogitAdjustment()(SCORES, COUNTS)[0], torch.tensor([2.223144, 2.832581, 3.942019, 3.828314]))


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adjustment_is_the_formula(tau, dtype):
    """The scores lose tau times the log of the class's share, computed in plain Python, and keep their type."""
    adjusted_BC = LogitAdjustment(tau=tau)(SCORES.to(dtype), COUNTS)
    expected = [[score - tau * math.log(count / 625) for score, count in zip(row, COUNTS.tolist(), strict=True)] for row in SCORES.tolist()]
    torch.testing.assert_close(adjusted_BC, torch.tensor(expected, dtype=dtype), rtol=1e-6, atol=1e-6)


def test_adjustment_changes_predictions():
    """A rare class is predicted where a frequent one led by less than the prior's share; equal counts change none."""
    assert SCORES.argmax(1).tolist() == [0, 3, 0]
    assert LogitAdjustment()(SCORES, COUNTS).argmax(1).tolist() == [2, 3, 3]
    assert LogitAdjustment()(SCORES, torch.full((4,), 7)).argmax(1).tolist() == [0, 3, 0]


@pytest.mark.parametrize("score", [80.0, -80.0])
def test_adjustment_of_certain_scores_is_finite(score):
    """Scores of +-80, in bfloat16 too, give finite float32 scores, and the most certain class stays."""
    scores_BC = torch.zeros(1, 4).index_fill(1, torch.tensor([0]), score)
    adjusted_BC = LogitAdjustment()(scores_BC.bfloat16(), COUNTS)
    assert adjusted_BC.dtype == torch.float32
    assert adjusted_BC.isfinite().all()
    assert (adjusted_BC.argmax(1) == 0).item() == (score > 0)


def test_adjustment_has_the_identity_as_gradient():
    """The adjustment moves the scores and scales nothing."""
    assert torch.autograd.gradcheck(lambda scores_BC: LogitAdjustment()(scores_BC, COUNTS), SCORES.double().requires_grad_())


# --- tau normalisation -------------------------------------------------------------------------------------------------------


def linear(rows, bias=1.0):
    layer = nn.Linear(len(rows[0]), len(rows))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        layer.bias.fill_(bias)
    return layer


@pytest.mark.parametrize(
    ("tau", "expected"),
    [
        (0.0, [[3.0, 4.0], [0.0, 2.0]]),
        (0.5, [[1.341641, 1.788854], [0.0, 1.414214]]),
        (1.0, [[0.6, 0.8], [0.0, 1.0]]),
    ],
)
def test_tau_divides_by_a_power_of_the_length(tau, expected):
    """The vectors (3, 4) and (0, 2) become the known ones, and the layer has no bias."""
    layer = TauNorm(tau=tau).classifier(linear([[3.0, 4.0], [0.0, 2.0]]), None, None, 2)
    torch.testing.assert_close(layer.weight.detach(), torch.tensor(expected), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(layer(torch.eye(2)), torch.tensor(expected).T, atol=1e-6, rtol=1e-6)
    assert list(layer.state_dict()) == ["weight"]


def test_tau_norm_changes_predictions_and_leaves_the_model():
    """The class with the longer vector no longer wins by it, and neither the trained layer nor the generator is touched."""
    trained, features_BF = linear([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[-0.5, 1.0]])
    state = torch.get_rng_state()
    layer = TauNorm().classifier(trained, None, None, 2)
    assert torch.equal(state, torch.get_rng_state())
    assert trained(features_BF).argmax(1).item() == 0
    assert layer(features_BF).argmax(1).item() == 1
    assert trained.weight.tolist() == [[3.0, 4.0], [0.0, 2.0]]


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0, 3.0])
def test_a_class_of_zeros_stays_zero(tau):
    """A vector without length gives scores of 0, not of no number."""
    layer = TauNorm(tau=tau).classifier(linear([[3.0, 4.0], [0.0, 0.0]]), None, None, 2)
    assert layer.weight.isfinite().all()
    assert layer.weight[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("classifier", ["cosine", "lws"])
def test_tau_norm_refuses_what_has_no_lengths(classifier):
    """With a cosine or a scaled classifier, tau_norm is an error in the file's words; with the linear one it is none."""
    with pytest.raises(ConfigError, match=f"found tau_norm with the classifier {classifier}; expected the classifier linear"):
        TauNorm().check(SimpleNamespace(classifier=make("classifiers", classifier)))
    TauNorm().check(SimpleNamespace(classifier=make("classifiers", "linear")))


def test_tau_norm_needs_a_linear_layer():
    """A model whose last layer is a convolution is told so."""
    with pytest.raises(ConfigError, match="found a Conv2d as the model's last layer; expected a linear one, which tau_norm needs"):
        TauNorm().classifier(nn.Conv2d(2, 2, 1), None, None, 2)


# --- nearest class mean ------------------------------------------------------------------------------------------------------


def drawn_features():
    """Ninety training images around three class means, far from zero, and twenty others."""
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.arange(90) % 3
    features_NF = 2 * torch.randn(90, 6, generator=generator, dtype=torch.float64) + torch.eye(3, 6)[labels_N] + 5
    return features_NF, labels_N, 2 * torch.randn(20, 6, generator=generator, dtype=torch.float64) + 5


def in_numpy(features, train_NF, given_BF):
    """Training and given features as each form wants them."""
    train_NF, given_BF = train_NF.numpy(), given_BF.numpy()
    if features == "centred":
        train_NF, given_BF = train_NF - train_NF.mean(0), given_BF - train_NF.mean(0)
    if features == "raw":
        return train_NF, given_BF
    return tuple(rows / np.sqrt((rows**2).sum(1, keepdims=True)) for rows in (train_NF, given_BF))


@pytest.mark.parametrize("features", FEATURES)
def test_nearest_mean_is_scikit_learns(features):
    """The predictions are those of scikit-learn's NearestCentroid on features prepared in NumPy."""
    train_NF, labels_N, given_BF = drawn_features()
    layer = NearestClassMean(features=features).classifier(nn.Identity(), train_NF, labels_N, 3)
    rows_NF, rows_BF = in_numpy(features, train_NF, given_BF)
    expected_B = NearestCentroid().fit(rows_NF, labels_N.numpy()).predict(rows_BF)
    assert layer(given_BF).argmax(1).tolist() == expected_B.tolist()
    assert len(set(expected_B.tolist())) == 3


@pytest.mark.parametrize("features", FEATURES)
def test_scores_are_minus_squared_distances(features):
    """The scores are computed again in NumPy from means that are not normalised again."""
    train_NF, labels_N, given_BF = drawn_features()
    rows_NF, rows_BF = in_numpy(features, train_NF, given_BF)
    means_CF = np.stack([rows_NF[labels_N.numpy() == c].mean(0) for c in range(3)])
    expected_BC = -((rows_BF[:, None] - means_CF) ** 2).sum(2)
    scores_BC = NearestClassMean(features=features).classifier(nn.Identity(), train_NF, labels_N, 3)(given_BF)
    np.testing.assert_allclose(scores_BC.numpy(), expected_BC, rtol=1e-10)


def test_the_forms_of_ncm_differ():
    """Centring and scaling change the scores."""
    train_NF, labels_N, given_BF = drawn_features()
    results = [NearestClassMean(features=form).classifier(nn.Identity(), train_NF, labels_N, 3)(given_BF) for form in FEATURES]
    assert not any(torch.allclose(results[a], results[b]) for a, b in [(0, 1), (0, 2), (1, 2)])


def test_small_distances_between_long_vectors_are_kept():
    """In float32, and under autocast, features of a thousand that differ by a hundredth are told apart."""
    train_NF = torch.tensor([[1000.0, 1000.0], [1000.0, 1000.01]])
    layer = NearestClassMean(features="raw").classifier(nn.Identity(), train_NF, torch.tensor([0, 1]), 2)
    with torch.autocast("cpu", torch.bfloat16):
        scores_BC = layer(train_NF)
    assert scores_BC.dtype == torch.float32
    assert scores_BC.argmax(1).tolist() == [0, 1]
    torch.testing.assert_close(scores_BC[0, 1].item(), -(0.01**2), rtol=0.05, atol=0)


@pytest.mark.parametrize("features", FEATURES)
def test_zeros_and_single_images_have_scores(features):
    """Features of zeros and classes of one image give finite scores."""
    train_NF = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
    layer = NearestClassMean(features=features).classifier(nn.Identity(), train_NF, torch.tensor([2, 0, 1]), 3)
    scores_BC = layer(torch.tensor([[0.0, 0.0], [80.0, -80.0]]))
    assert scores_BC.isfinite().all()


def test_a_class_without_images_is_told():
    """ncm stops where a class has no training images, and names it."""
    with pytest.raises(DataError, match=r"ncm: class number 1 \(from 0\) has no training images"):
        NearestClassMean().classifier(nn.Identity(), torch.rand(2, 4), torch.tensor([0, 2]), 3)


# --- temperature -------------------------------------------------------------------------------------------------------------


def validation():
    """Scores of 200 images whose labels are drawn from them at three times their temperature."""
    generator = torch.Generator().manual_seed(0)
    scores_NC = 6 * torch.randn(200, 4, generator=generator)
    return scores_NC, torch.multinomial((scores_NC / 3).softmax(1), 1, generator=generator)[:, 0]


def nll(scores_NC, labels_N, temperature):
    """scikit-learn's cross-entropy at a temperature."""
    exponents_NC = np.exp(scores_NC.double().numpy() / temperature)
    return log_loss(labels_N.numpy(), exponents_NC / exponents_NC.sum(1, keepdims=True), labels=range(scores_NC.shape[1]))


def test_the_fitted_temperature_has_the_lowest_cross_entropy():
    """Another minimiser, on scikit-learn's log_loss, finds the same number, and it is near what made the labels."""
    scores_NC, labels_N = validation()
    fitted = Temperature().fitted(scores_NC, labels_N)
    result = minimize_scalar(lambda log_t: nll(scores_NC, labels_N, math.exp(log_t)), bounds=(-3, 3), method="bounded")
    assert fitted.temperature == pytest.approx(math.exp(result.x), rel=1e-4)
    assert 2 < fitted.temperature < 4
    assert nll(scores_NC, labels_N, fitted.temperature) < nll(scores_NC, labels_N, 1.0)
    assert not fitted.needs_validation


def test_the_fit_scales_with_the_scores():
    """Scores ten times as large have ten times the temperature, so that the result does not depend on the scale."""
    scores_NC, labels_N = validation()
    one, ten = (Temperature().fitted(scores_NC.double() * factor, labels_N).temperature for factor in (1, 10))
    assert ten == pytest.approx(10 * one, rel=1e-9)


def test_one_error_among_certain_scores_is_enough():
    """With one wrong image among 1,000 of +-80, the fitted temperature is the one found by hand."""
    scores_NC = torch.tensor([[80.0, -80.0]]).repeat(1000, 1)
    labels_N = torch.zeros(1000, dtype=torch.long)
    labels_N[0] = 1
    assert Temperature().fitted(scores_NC, labels_N).temperature == pytest.approx(160 / math.log(999), rel=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1, 4.0])
def test_temperature_divides(temperature):
    """The scores are divided, the predictions stay, and the gradient is that of finite differences."""
    technique = make("posthoc", {"name": "temperature", "temperature": temperature})
    torch.testing.assert_close(technique(SCORES, COUNTS), SCORES / temperature)
    assert torch.equal(technique(SCORES, COUNTS).argmax(1), SCORES.argmax(1))
    assert torch.equal(technique(SCORES, COUNTS), SCORES) == (temperature == 1)
    assert not technique.needs_validation
    assert torch.autograd.gradcheck(lambda scores_BC: technique(scores_BC, COUNTS), SCORES.double().requires_grad_())


@pytest.mark.parametrize(
    ("labels", "reason"), [([0, 1, 0], "nearly every validation image is classified correctly"), ([1, 0, 1], "the scores say nothing")]
)
def test_a_fit_without_a_minimum_is_told(labels, reason):
    """Where all images are right, or the scores tell nothing, no temperature is best and none is guessed."""
    scores_NC = torch.tensor([[4.0, -4.0], [-3.0, 3.0], [80.0, -80.0]])
    with pytest.raises(DataError, match=f"posthoc.temperature: found no best temperature from 0.001 to 1000, because {reason}"):
        Temperature().fitted(scores_NC, torch.tensor(labels))


def test_scores_that_are_no_numbers_are_told():
    """A diverged model's scores are a TrainingError, as they are without a temperature."""
    with pytest.raises(TrainingError, match="not finite numbers") as caught:
        Temperature().fitted(torch.tensor([[math.nan, 1.0]]), torch.tensor([0]))
    assert caught.value.kind == "nan"


def test_an_unfitted_temperature_is_our_mistake():
    """Scores are never passed through a temperature that was not fitted."""
    with pytest.raises(AssertionError, match="fitted"):
        Temperature()(SCORES, COUNTS)


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"name": "temperature", "temperature": 0}, "temperature"),
        ({"name": "temperature", "temperature": "fited"}, "temperature"),
        ({"name": "temperature", "temperature": True}, "temperature"),
        ({"name": "temperature", "temperature": math.inf}, "temperature"),
        ({"name": "tau_norm", "tau": -1}, "tau"),
        ({"name": "logit_adjustment", "tau": -0.5}, "tau"),
        ({"name": "ncm", "features": "centered"}, "features"),
    ],
)
def test_wrong_settings_are_told_with_their_place(spec, place):
    """Values out of range and misspelt words are refused under the field's name."""
    with pytest.raises(ConfigError, match=r"found .*; expected ") as caught:
        make("posthoc", spec, "base.posthoc")
    assert caught.value.path == f"base.posthoc.{place}"
