"""A trimmed convolution is the whole one. B batch, C channels, H x W pixels."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from ablation.techniques.convolutions import TrimmedConv2d, trim


def both(layer, images_BCHW):
    """Outputs, and gradients of images and parameters, of torch's convolution and of the trimmed one."""
    result = []
    for layer_class in (nn.Conv2d, TrimmedConv2d):
        layer.__class__ = layer_class
        images = images_BCHW.clone().requires_grad_()
        out = layer(images)
        towards = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
        result.append((out, *torch.autograd.grad((out * towards).sum(), [images, *layer.parameters()])))
    return result


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (1, 4), (5, 2), (7, 7)])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, (3, 5)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_the_result_and_its_gradients_are_those_of_the_whole_kernel(size, kernel, stride, groups, bias):
    """Whatever the image's size, the kernel, the stride and the groups, in double precision to the last digits."""
    torch.manual_seed(0)
    padding = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
    layer = nn.Conv2d(6, 6, kernel, stride, padding, groups=groups, bias=bias).double()
    whole, trimmed = both(layer, torch.randn(3, 6, *size, dtype=torch.float64))
    for expected, actual in zip(whole, trimmed, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_taps_beyond_the_image_are_left_out(monkeypatch):
    """On 2 x 2 pixels a 5 x 5 kernel is a 3 x 3 one; there in training, and on 1 x 1 always, it is no convolution at all."""
    kernel_sizes, convolve = [], functional.conv2d
    monkeypatch.setattr(
        functional, "conv2d", lambda images, weight, *rest: (kernel_sizes.append(weight.shape[-2:]), convolve(images, weight, *rest))[1]
    )
    depthwise, dense = trim(nn.Sequential(nn.Conv2d(4, 4, 5, padding=2, groups=4), nn.Conv2d(4, 4, 5, padding=2)))
    with torch.no_grad():
        depthwise(torch.randn(2, 4, 2, 2))
    dense(torch.randn(2, 4, 2, 2))
    assert kernel_sizes == [(3, 3), (3, 3)]
    depthwise(torch.randn(2, 4, 2, 2))
    for layer in (depthwise, dense):
        layer(torch.randn(2, 4, 1, 1))
    assert len(kernel_sizes) == 2


def test_a_frozen_layer_gives_the_same_bits_in_training_and_without_gradients():
    """Features that are made once have to be those of the epoch that trains a classifier on them."""
    layer = trim(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4)))[0].requires_grad_(requires_grad=False)
    images_BCHW = torch.randn(8, 4, 2, 2)
    with torch.no_grad():
        expected = layer(images_BCHW)
    assert torch.equal(layer(images_BCHW), expected)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 1, padding=1),
        nn.Conv2d(4, 4, 4, padding=2),
        nn.Conv2d(4, 4, 5, padding=1),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.ConvTranspose2d(4, 4, 3, padding=1),
    ],
)
def test_other_layers_stay_as_they_are(layer):
    """Where padding does not keep the size, or is not of zeros, nothing is trimmed."""
    assert type(trim(nn.Sequential(layer))[0]) is type(layer)


def test_a_model_keeps_its_state_and_its_logits():
    """EfficientNet-B0 at 32 pixels has the same names and, but for rounding, the same logits."""
    torch.manual_seed(0)
    model = timm.create_model("efficientnet_b0", num_classes=10).eval()
    images_BCHW = torch.randn(2, 3, 32, 32)
    names, logits_BC = list(model.state_dict()), model(images_BCHW)
    trim(model)
    assert sum(isinstance(layer, TrimmedConv2d) for layer in model.modules()) == 81
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(images_BCHW), logits_BC, rtol=1e-4, atol=1e-5)
