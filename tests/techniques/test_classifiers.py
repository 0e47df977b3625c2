"""Classifiers: the layers they make, against the formulas in NumPy. Shapes: B batch, F features, C classes."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ablation.errors import ConfigError
from ablation.techniques.classifiers import Cosine, LearnableWeightScaling, Linear, ignores_equal_biases, unit_vectors
from ablation.techniques.technique import family, make

NAMES = ["linear", "cosine", "lws"]
UNIFORM = {"name": "linear", "initial_bias": "uniform"}


def trained(bias=True, dtype=torch.float64):
    """A linear layer from five features to four classes, its numbers drawn."""
    torch.manual_seed(3)
    return nn.Linear(5, 4, bias=bias, dtype=dtype)


def drawn_features(dtype=torch.float64):
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("layer", [trained(), nn.Conv2d(3, 4, 1), nn.Identity()])
def test_linear_takes_any_layer_as_it_is(layer):
    """The model's own layer stays in its place, whatever it is."""
    assert Linear()(layer) is layer


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_uniform_biases_start_at_one_in_c(num_classes):
    """Every sigmoid of a zero image is 1 / C, and for ten classes the bias is the known number."""
    layer = make("classifiers", UNIFORM)(nn.Linear(8, num_classes))
    torch.testing.assert_close(layer(torch.zeros(1, 8)).sigmoid(), torch.full((1, num_classes), 1 / num_classes))
    if num_classes == 10:
        torch.testing.assert_close(layer.bias, torch.full((10,), -2.197225))


class Ones(nn.Linear):
    """A layer with its own rule for initial weights."""

    def reset_parameters(self):
        nn.init.ones_(self.weight)


def test_uniform_biases_keep_the_models_rule_for_weights():
    """Only the biases differ from what the model's own layer draws, also in a copy."""
    layer = copy.deepcopy(make("classifiers", UNIFORM)(Ones(8, 3)))
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    layer.reset_parameters()
    torch.testing.assert_close(layer.weight, torch.ones(3, 8))
    torch.testing.assert_close(layer.bias, torch.full((3,), -math.log(2)))
    torch.manual_seed(0)
    plain = nn.Linear(8, 3)
    torch.manual_seed(0)
    biased = make("classifiers", UNIFORM)(nn.Linear(8, 3))
    torch.manual_seed(0)
    biased.reset_parameters()
    torch.testing.assert_close(biased.weight, plain.weight)
    assert not torch.equal(biased.bias, plain.bias)


@pytest.mark.parametrize("name", [*(name for name in family("losses").names if name != "ldam"), "sigmoid"])
def test_which_losses_ignore_equal_biases(name):
    """Those that give the same for logits with a number added to all of them."""
    loss = make("losses", {"name": "focal", "form": "sigmoid"} if name == "sigmoid" else name)
    logits_BC, targets_BC, counts_C = torch.randn(5, 4), torch.eye(4)[[0, 1, 2, 3, 0]], torch.tensor([500, 100, 20, 5])
    state = loss.state(4, torch.Generator().manual_seed(0))
    shifted, plain = (loss(logits_BC + shift, targets_BC, counts_C, None, state) for shift in (-math.log(3), 0.0))
    assert ignores_equal_biases(loss) == bool(torch.isclose(shifted, plain, atol=1e-6))


def test_uniform_needs_a_bias():
    """A layer without biases is told under the field's name."""
    with pytest.raises(ConfigError, match="has no bias") as caught:
        make("classifiers", UNIFORM)(nn.Linear(8, 3, bias=False))
    assert caught.value.path == "initial_bias"


@pytest.mark.parametrize("spec", ["cosine", "lws", UNIFORM])
def test_a_layer_that_is_not_linear_is_refused(spec):
    """What needs a linear layer says so, and what it found."""
    with pytest.raises(ConfigError, match=r"found a Conv2d as the model's last layer; expected a linear one") as caught:
        make("classifiers", spec)(nn.Conv2d(3, 4, 1))
    assert caught.value.path == ""


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_cosine_logits_are_scaled_cosines(scale):
    """The logits are scale * w.x / (|w| |x|), computed in NumPy, of the layer's size and without a bias."""
    layer = Cosine(scale=scale)(trained())
    features_BF, weight_CF = drawn_features().numpy(), layer.weight.detach().numpy()
    lengths_BC = np.outer(np.sqrt((features_BF**2).sum(1)), np.sqrt((weight_CF**2).sum(1)))
    np.testing.assert_allclose(layer(drawn_features()).detach().numpy(), scale * features_BF @ weight_CF.T / lengths_BC, rtol=1e-12)
    assert list(layer.state_dict()) == ["weight"]


def test_cosine_logits_do_not_depend_on_lengths():
    """Longer features and longer class vectors leave the logits as they are, unlike the linear layer's."""
    layer, features_BF = Cosine()(trained()), drawn_features()
    before_BC = layer(features_BF)
    with torch.no_grad():
        layer.weight[1] *= 50
    torch.testing.assert_close(layer(features_BF * 7), before_BC)
    assert not torch.allclose(trained()(features_BF * 7), trained()(features_BF))


def test_cosine_classes_start_at_length_one():
    """A drawn layer has directions of unit length in both signs, and draws others the next time."""
    layer = Cosine()(nn.Linear(64, 100))
    first_CF = layer.weight.detach().clone()
    torch.testing.assert_close(first_CF.norm(dim=1), torch.ones(100))
    assert (first_CF < 0).any(1).all()
    assert (first_CF > 0).any(1).all()
    layer.reset_parameters()
    assert not torch.allclose(layer.weight, first_CF)


def test_cosine_is_computed_in_float32_within_autocast():
    """Under autocast to bfloat16, from bfloat16 features too, the logits are those of float32."""
    layer, features_BF = Cosine()(trained(dtype=torch.float32)), drawn_features(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        given_BC, rounded_BC = layer(features_BF), layer(features_BF.bfloat16())
    torch.testing.assert_close(given_BC, layer(features_BF), rtol=0, atol=0)
    torch.testing.assert_close(rounded_BC, layer(features_BF.bfloat16().float()), rtol=0, atol=0)


def test_a_row_of_zeros_has_no_direction():
    """Features or a class of zeros give logits of 0 and finite gradients, which for that row are 0."""
    layer, features_BF = Cosine()(trained()), drawn_features()
    features_BF[2] = 0
    features_BF.requires_grad_(True)
    with torch.no_grad():
        layer.weight[1] = 0
    logits_BC = layer(features_BF)
    functional.cross_entropy(logits_BC, torch.tensor([0, 1, 2, 3, 0, 1])).backward()
    assert not logits_BC[2].any()
    assert not logits_BC[:, 1].any()
    assert features_BF.grad.isfinite().all()
    assert layer.weight.grad.isfinite().all()
    assert not features_BF.grad[2].any()
    assert features_BF.grad[0].any()


@pytest.mark.parametrize("length", [1e-10, 1.0, 1e10])
def test_unit_rows_have_length_one(length):
    """Short and long rows are scaled alike."""
    rows_BF = torch.tensor([[3.0, 4.0], [0.0, -5.0]]) * length
    torch.testing.assert_close(unit_vectors(rows_BF), torch.tensor([[0.6, 0.8], [0.0, -1.0]]))


@pytest.mark.parametrize("bias", [True, False])
def test_lws_scales_weights_and_biases(bias):
    """The logits are scale_c * (w_c x + b_c), computed in NumPy; with the first scales, the trained layer's."""
    linear = trained(bias)
    layer, features_BF = LearnableWeightScaling()(linear), drawn_features()
    torch.testing.assert_close(layer(features_BF), linear(features_BF))
    with torch.no_grad():
        layer.scale.copy_(torch.tensor([0.5, 1.0, 2.0, -1.0]))
    bias_C = linear.bias.detach().numpy() if bias else 0
    plain_BC = features_BF.numpy() @ linear.weight.detach().numpy().T + bias_C
    np.testing.assert_allclose(layer(features_BF).detach().numpy(), plain_BC * [0.5, 1.0, 2.0, -1.0], rtol=1e-12)


def test_lws_learns_nothing_but_the_scales():
    """Weights and biases are buffers, apart from the layer that they come from, and a reset leaves them."""
    linear = trained()
    layer = LearnableWeightScaling()(linear)
    assert [name for name, _ in layer.named_parameters()] == ["scale"]
    assert LearnableWeightScaling.on_trained
    with torch.no_grad():
        linear.weight.zero_()
        layer.scale.fill_(3)
    layer.reset_parameters()
    torch.testing.assert_close(layer.weight, trained().weight.detach())
    torch.testing.assert_close(layer.bias, trained().bias.detach())
    torch.testing.assert_close(layer.scale.detach(), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("spec", ["linear", UNIFORM, "cosine", "lws"])
def test_gradients(spec):
    """The gradients of features and of whatever is learnt are those of finite differences."""
    layer = make("classifiers", spec)(trained())
    names = [name for name, _ in layer.named_parameters()]
    tensors = [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]

    def logits(features_BF, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (features_BF,))

    assert torch.autograd.gradcheck(logits, (drawn_features().requires_grad_(), *tensors))


@pytest.mark.parametrize("spec", ["linear", UNIFORM, "cosine", "lws"])
def test_draws_follow_the_global_generator(spec):
    """Under one seed a layer draws the same again, and its state makes an equal layer."""
    layer, features_BF = make("classifiers", spec)(trained()), drawn_features()
    results = []
    for seed in (0, 0):
        torch.manual_seed(seed)
        layer.reset_parameters()
        results.append(layer(features_BF))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    torch.manual_seed(9)
    other = make("classifiers", spec)(nn.Linear(5, 4, dtype=torch.float64))
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(features_BF), results[0], rtol=0, atol=0)


@pytest.mark.parametrize("spec", [UNIFORM, "cosine", "lws"])
def test_takes_the_layers_place(spec):
    """The new layer has the type and device of the old one, and one logit per class."""
    layer = make("classifiers", spec)(nn.Linear(5, 4, device="meta", dtype=torch.float64))
    tensors = list(layer.state_dict().values())
    assert all(tensor.device.type == "meta" and tensor.dtype == torch.float64 for tensor in tensors)
    assert make("classifiers", spec)(nn.Linear(5, 4))(torch.zeros(2, 5)).shape == (2, 4)


def test_each_classifier_is_another():
    """From equal layers and features, the three classifiers give three results once the scales have moved."""
    features_BF = drawn_features()
    scaled = LearnableWeightScaling()(trained())
    with torch.no_grad():
        scaled.scale.mul_(2)
    results = [trained()(features_BF), Cosine()(trained())(features_BF), scaled(features_BF)]
    assert not any(torch.allclose(results[a], results[b]) for a, b in [(0, 1), (0, 2), (1, 2)])


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"name": "cosine", "scale": 0}, "scale"),
        ({"name": "linear", "initial_bias": "zero"}, "initial_bias"),
        ({"name": "lws", "x": 1}, "x"),
    ],
)
def test_wrong_settings_are_told_with_their_place(spec, place):
    """Values out of range and unknown fields are refused under the field's name."""
    with pytest.raises(ConfigError) as caught:
        make("classifiers", spec, "base.classifier")
    assert caught.value.path == f"base.classifier.{place}"


@pytest.mark.parametrize("name", NAMES)
def test_is_made_by_its_bare_name(name):
    """A name alone makes a hashable technique, which only for lws sits on a trained layer."""
    assert {make("classifiers", name): 1}[make("classifiers", {"name": name})] == 1
    assert make("classifiers", name).on_trained == (name == "lws")
