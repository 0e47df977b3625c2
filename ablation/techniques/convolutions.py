"""Convolutions of small images without the kernel taps that see only padding. B batch, C and D channels, H x W pixels, K kernel size."""

import torch
from torch import Tensor, nn
from torch.nn import functional

FEW_PIXELS = 2  # up to this height and width multiplying a depthwise kernel is faster than convolving it


class TrimmedConv2d(nn.Conv2d):
    """A convolution with "same" padding that leaves out the kernel's taps beyond the image.

    A tap further from the centre than H - 1 pixels meets nothing but zeros. A 5 x 5 depthwise kernel on 1 x 1 pixels, which nets for
    224 pixels come to at 32, has one tap of use and is a multiplication; there any other convolution is a matrix product.
    """

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """What the whole kernel gives, B x D x H x W after the stride."""
        cuts = [max(0, kernel_side // 2 - (size - 1)) for kernel_side, size in zip(self.kernel_size, images_BCHW.shape[-2:], strict=True)]
        (top, left), (kernel_height, kernel_width) = cuts, self.kernel_size
        weight_DCKK = self.weight[:, :, top : kernel_height - top, left : kernel_width - left] if any(cuts) else self.weight
        if self.groups == 1 and images_BCHW.shape[-2:] == (1, 1):
            pixels_BD = functional.linear(images_BCHW.flatten(1), weight_DCKK.flatten(1), self.bias)
            return _channels_first(pixels_BD[:, None, None])
        if self._is_quicker_multiplied(images_BCHW, weight_DCKK):
            filtered_BCHW = _multiply_depthwise(images_BCHW, weight_DCKK[:, 0], self.stride)
            return filtered_BCHW if self.bias is None else filtered_BCHW + self.bias.view(1, -1, 1, 1)
        padding = (kernel_height // 2 - top, kernel_width // 2 - left)
        return functional.conv2d(images_BCHW, weight_DCKK, self.bias, self.stride, padding, self.dilation, self.groups)

    def _is_quicker_multiplied(self, images_BCHW: Tensor, weight_DCKK: Tensor) -> bool:
        """On one pixel always; on a few in training on the CPU, whose library takes milliseconds for such a kernel's gradient."""
        size = images_BCHW.shape[-2:]
        if self.groups != self.in_channels or self.groups != self.out_channels:
            return False
        if size == (1, 1):
            return True
        sees_whole_image = weight_DCKK.shape[-2:] == (2 * size[0] - 1, 2 * size[1] - 1) and max(size) <= FEW_PIXELS
        return sees_whole_image and images_BCHW.device.type == "cpu" and self.weight.requires_grad and torch.is_grad_enabled()


def _multiply_depthwise(images_BCHW: Tensor, weight_CKK: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Depthwise convolution where each pixel of the result sees the whole image: K is 2 H - 1 (and 2 W - 1)."""
    height, width = images_BCHW.shape[-2:]
    rows, columns = (range(size - 1, -1, -step) for size, step in zip((height, width), stride, strict=True))  # of the first tap used
    weight_CQP = torch.stack([weight_CKK[:, r : r + height, c : c + width].flatten(1) for r in rows for c in columns], 2)
    pixels_BQC = images_BCHW.permute(0, 2, 3, 1).flatten(1, 2)
    filtered_BPC = (pixels_BQC[:, :, None] * weight_CQP.permute(1, 2, 0)).sum(1)
    return _channels_first(filtered_BPC.view(len(images_BCHW), len(rows), len(columns), -1))


def _channels_first(pixels_BHWC: Tensor) -> Tensor:
    """The pixels in torch's order, B x C x H x W, without a copy."""
    return pixels_BHWC.permute(0, 3, 1, 2)


def trim(model: nn.Module) -> nn.Module:
    """The same model with convolutions of odd kernels and "same" padding trimmed; the names in its state do not change."""
    for layer in model.modules():
        if type(layer) is nn.Conv2d and _has_same_padding(layer):
            layer.__class__ = TrimmedConv2d
    return model


def _has_same_padding(layer: nn.Conv2d) -> bool:
    """Whether a layer pads with zeros so that, but for the stride, the image keeps its size."""
    is_odd = all(size % 2 for size in layer.kernel_size)
    is_padded = layer.padding == tuple(size // 2 for size in layer.kernel_size)
    return is_odd and is_padded and layer.padding_mode == "zeros" and layer.dilation == (1, 1)
