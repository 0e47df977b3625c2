"""Convolutions of small images without the taps that only ever meet padding. B batch, C and D channels, H x W pixels, K kernel size."""

from torch import Tensor, nn
from torch.nn import functional


class TrimmedConv2d(nn.Conv2d):
    """A convolution with "same" padding that leaves out the kernel's taps beyond the image.

    A tap further from the centre than H - 1 pixels meets nothing but zeros. A 5 x 5 depthwise kernel on 1 x 1 pixels, which nets for
    224 pixels come to at 32, has one tap of use, and is a multiplication; as a convolution it took a third of EfficientNet-B0's step.
    """

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """What the whole kernel gives, B x D x H x W after the stride."""
        cuts = [max(0, k // 2 - (size - 1)) for k, size in zip(self.kernel_size, images_BCHW.shape[-2:], strict=True)]
        if not any(cuts):
            return super().forward(images_BCHW)
        (top, left), (tall, wide) = cuts, self.kernel_size
        weight_DCKK = self.weight[:, :, top : tall - top, left : wide - left]
        if weight_DCKK.shape[1:] == (1, 1, 1) and weight_DCKK.shape[0] == images_BCHW.shape[1] and images_BCHW.shape[-2:] == (1, 1):
            scaled_BCHW = images_BCHW * weight_DCKK.view(1, -1, 1, 1)
            return scaled_BCHW if self.bias is None else scaled_BCHW + self.bias.view(1, -1, 1, 1)
        padding = (tall // 2 - top, wide // 2 - left)
        return functional.conv2d(images_BCHW, weight_DCKK, self.bias, self.stride, padding, self.dilation, self.groups)


def trim(model: nn.Module) -> nn.Module:
    """The same model, its convolutions with odd kernels and "same" padding trimmed to what they see; its state keeps its names."""
    for layer in model.modules():
        if type(layer) is nn.Conv2d and _is_same(layer):
            layer.__class__ = TrimmedConv2d
    return model


def _is_same(layer: nn.Conv2d) -> bool:
    """Whether a layer pads with zeros so that, but for the stride, the image keeps its size."""
    odd = all(size % 2 for size in layer.kernel_size) and max(layer.kernel_size) > 1
    padded = layer.padding == tuple(size // 2 for size in layer.kernel_size)
    return odd and padded and layer.padding_mode == "zeros" and layer.dilation == (1, 1)
