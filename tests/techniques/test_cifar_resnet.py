"""The residual nets for small images, against the paper's net written anew. Shapes: B batch, C channels, H height, W width."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from ablation.techniques import cifar_resnet
from ablation.techniques.cifar_resnet import KaimingLinear


def build(name="resnet20", **options):
    torch.manual_seed(0)
    return timm.create_model(name, **options)


def images(num_images=2, height=32, width=32, dtype=torch.float32):
    return torch.rand(num_images, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


def paper(tensors, x_BCHW, num_blocks, training=False):
    """The paper's net as functions of its tensors: three groups of blocks, the new channels' shortcuts being zeros."""

    def normalised(x_BCHW, name):
        mean_C, var_C = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
        if training:
            mean_C, var_C = x_BCHW.mean((0, 2, 3)), x_BCHW.var((0, 2, 3), unbiased=False)
        weight_C, bias_C = tensors[f"{name}.weight"] / (var_C + 1e-5).sqrt(), tensors[f"{name}.bias"]
        return (x_BCHW - mean_C[:, None, None]) * weight_C[:, None, None] + bias_C[:, None, None]

    def block(x_BCHW, name, stride):
        inside = functional.conv2d(x_BCHW, tensors[f"{name}.conv1.weight"], stride=stride, padding=1)
        inside = normalised(inside, f"{name}.bn1").clamp(min=0)
        inside = normalised(functional.conv2d(inside, tensors[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
        shortcut, before = torch.zeros_like(inside), x_BCHW.shape[1]
        first = (shortcut.shape[1] - before) // 2
        shortcut[:, first : first + before] = x_BCHW[:, :, ::stride, ::stride]
        return (inside + shortcut).clamp(min=0)

    x_BCHW = normalised(functional.conv2d(x_BCHW, tensors["conv1.weight"], padding=1), "bn1").clamp(min=0)
    for group in (1, 2, 3):
        for i in range(num_blocks):
            x_BCHW = block(x_BCHW, f"layer{group}.{i}", 2 if group > 1 and i == 0 else 1)
    return x_BCHW.mean((2, 3)) @ tensors["linear.weight"].T + tensors["linear.bias"]


def disturbed(model):
    """The model in float64, with statistics and scales that are not those of the start."""
    model = copy.deepcopy(model).double()
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.add_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64))
    return model


@pytest.mark.parametrize(("name", "num_blocks"), [("resnet20", 3), ("resnet32", 5), ("resnet44", 7), ("resnet56", 9)])
def test_is_the_papers_net(name, num_blocks):
    """Every depth, in float64, gives the logits of the paper's net written anew from its tensors."""
    model, x_BCHW = disturbed(build(name, num_classes=7)).eval(), images(dtype=torch.float64)
    torch.testing.assert_close(model(x_BCHW), paper(model.state_dict(), x_BCHW, num_blocks))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 13), (40, 24)])
def test_takes_any_size(height, width, training):
    """Other sizes, odd ones too, give the paper's logits in training and in evaluation."""
    model, x_BCHW = disturbed(build()).train(training), images(3, height, width, torch.float64)
    tensors = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    torch.testing.assert_close(model(x_BCHW), paper(tensors, x_BCHW, 3, training))


def test_gradients_are_the_papers():
    """Each tensor's gradient is that of the paper's net."""
    model, x_BCHW = disturbed(build()), images(3, 8, 8, torch.float64)
    tensors = {key: tensor.clone().requires_grad_(tensor.is_floating_point()) for key, tensor in model.state_dict().items()}
    functional.cross_entropy(paper(tensors, x_BCHW, 3, training=True), torch.tensor([1, 2, 3])).backward()
    functional.cross_entropy(model(x_BCHW), torch.tensor([1, 2, 3])).backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, tensors[key].grad, msg=key)


@pytest.mark.parametrize(
    ("name", "num_classes", "expected"), [("resnet20", 10, 269_722), ("resnet32", 10, 464_154), ("resnet32", 100, 470_004)]
)
def test_has_the_published_number_of_parameters(name, num_classes, expected):
    """The shortcuts have no parameters, and the counts are those of the field's code."""
    assert sum(parameter.numel() for parameter in build(name, num_classes=num_classes).parameters()) == expected


@pytest.mark.parametrize("name", cifar_resnet.NAMES)
def test_timm_knows_the_name(name):
    """timm lists the name, and its configuration has CIFAR's size, mean and deviation."""
    config = timm.get_pretrained_cfg(name)
    assert timm.is_model(name)
    assert timm.list_models(name) == [name]
    assert not timm.list_models(name, pretrained=True)
    assert (config.input_size, config.pool_size, config.classifier) == ((3, 32, 32), (8, 8), "linear")
    assert (config.mean, config.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def test_there_are_no_pretrained_weights():
    """Asking for pretrained weights fails and says that there are none."""
    with pytest.raises(RuntimeError, match="No pretrained weights exist for resnet32"):
        build("resnet32", pretrained=True)


def test_drop_path_is_refused():
    """A rate that the net could not heed is an error."""
    with pytest.raises(TypeError, match="drop_path_rate"):
        build(drop_path_rate=0.1)


def test_dropout_acts_in_training_only():
    """A drop rate makes two training passes differ, before the last layer, and leaves evaluation as it is."""
    model, x_BCHW = build(drop_rate=0.5), images()
    torch.testing.assert_close(model.eval()(x_BCHW), build().eval()(x_BCHW))
    features = model.train().forward_features(x_BCHW)
    kept = model.forward_head(features, pre_logits=True)
    assert 0.2 < (kept == 0).float().mean() < 0.8
    assert not torch.equal(model.forward_head(features), model.forward_head(features))


def test_initial_weights_are_kaiming_normal():
    """Convolutions and the last layer's weights have the deviation sqrt(2 / fan_in), and the biases torch's range."""
    model = build("resnet56", num_classes=1000)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.numel() > 9000:
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
            assert module.weight.abs().max() > 3 * (2 / fan_in) ** 0.5  # beyond a uniform distribution
    assert 0.1 < model.linear.bias.abs().max() <= 0.125


def test_the_last_layer_draws_its_own_weights_again():
    """A reset under one seed gives the same normal weights, which are not those of torch's linear layer."""
    layer, plain = build().get_classifier(), nn.Linear(64, 10)
    assert isinstance(layer, KaimingLinear)
    drawn = []
    for linear in (layer, layer, plain):
        torch.manual_seed(4)
        linear.reset_parameters()
        drawn.append(linear.weight.detach().clone())
    assert torch.equal(drawn[0], drawn[1])
    assert drawn[0].abs().max() > 0.125 >= drawn[2].abs().max()


def test_the_last_layer_can_be_replaced():
    """Another number of classes leaves the rest, and the head's features are 64 per image."""
    model, x_BCHW = build(), images()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.reset_classifier(5)
    after = model.state_dict()
    assert (model.num_classes, model.num_features, model.head_hidden_size) == (5, 64, 64)
    assert {key for key in before if not torch.equal(before[key], after[key])} == {"linear.weight", "linear.bias"}
    features = model.forward_features(x_BCHW)
    assert features.shape == (2, 64, 8, 8)
    assert model.forward_head(features, pre_logits=True).shape == (2, 64)
    torch.testing.assert_close(model.linear(model.forward_head(features, pre_logits=True)), model.forward_head(features))


def test_without_classes_or_pooling():
    """As timm's own models, the net gives pooled features without classes, a map without pooling, and takes other poolings."""
    x_BCHW = images()
    assert build(num_classes=0)(x_BCHW).shape == (2, 64)
    assert build(num_classes=0, global_pool="")(x_BCHW).shape == (2, 64, 8, 8)
    assert build(num_classes=3, global_pool="catavgmax")(x_BCHW).shape == (2, 3)
    assert build(in_chans=1)(x_BCHW[:, :1]).shape == (2, 10)


def test_bfloat16_and_channels_last():
    """Under autocast and with channels last, the logits are near those of float32, and a step trains every parameter."""
    model = build().to(memory_format=torch.channels_last)
    x_BCHW = images(8).to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x_BCHW), build()(images(8)), rtol=1e-3, atol=1e-4)
    exact_BC = model(x_BCHW)
    with torch.autocast("cpu", torch.bfloat16):
        logits_BC = model(x_BCHW)
    assert logits_BC.dtype == torch.bfloat16
    torch.testing.assert_close(logits_BC.float(), exact_BC, rtol=0.1, atol=0.15)
    logits_BC.float().logsumexp(1).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_is_made_without_values():
    """On a device without values the net has its parameters, so that they can be counted at no cost."""
    with torch.device("meta"):
        model = timm.create_model("resnet32", num_classes=10)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
