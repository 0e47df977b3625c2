"""The residual nets for small images, resnet20 to resnet56, added to timm's models. Shapes: B batch, C channels, H height, W width.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2: the nets of the field's tables on CIFAR. Layers are
named as in the code of LDAM-DRW, so its weights can be loaded. timm's own resnets are other nets, made for large images.
"""

from typing import Any

from timm.layers import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

NAMES = ("resnet20", "resnet32", "resnet44", "resnet56")
CIFAR = {
    "input_size": (3, 32, 32),
    "min_input_size": (3, 8, 8),
    "pool_size": (8, 8),
    "num_classes": 10,
    "crop_pct": 1.0,
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2023, 0.1994, 0.2010),
    "first_conv": "conv1",
    "classifier": "linear",
}
default_cfgs = generate_default_cfgs(dict.fromkeys(NAMES, CIFAR))  # where register_model looks for them


class Block(nn.Module):
    """Two convolutions beside a shortcut without parameters."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.padding_channels = (channels - in_channels) // 2  # channels of zeros on either side

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The block's output."""
        hidden_BCHW = functional.relu(self.bn1(self.conv1(x_BCHW)))
        return functional.relu(self.bn2(self.conv2(hidden_BCHW)) + self.shortcut(x_BCHW))

    def shortcut(self, x_BCHW: Tensor) -> Tensor:
        """The paper's option A: every second pixel, and zeros for the new channels."""
        if self.stride == 1:
            return x_BCHW
        return functional.pad(x_BCHW[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding_channels, self.padding_channels))


class KaimingLinear(nn.Linear):
    """A linear layer with the initial weights of the field's code."""

    def reset_parameters(self) -> None:
        """Draw the biases as torch does, and the weights from the normal distribution of He et al., ICCV 2015."""
        super().reset_parameters()
        nn.init.kaiming_normal_(self.weight)


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels, each of the same number of blocks."""

    def __init__(self, num_blocks: int, num_classes: int = 10, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0) -> None:
        super().__init__()
        self.num_features = 64
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = make_stage(16, 16, num_blocks, stride=1)
        self.layer2 = make_stage(16, 32, num_blocks, stride=2)
        self.layer3 = make_stage(32, 64, num_blocks, stride=2)
        self.drop = nn.Dropout(drop_rate)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        self.reset_classifier(num_classes, global_pool)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new last layer in, or none for 0 classes; None keeps the pooling, and "" leaves it out."""
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=bool(global_pool))
        self.num_classes = num_classes
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        weight = self.conv1.weight
        linear = (
            KaimingLinear(self.head_hidden_size, num_classes, device=weight.device, dtype=weight.dtype) if num_classes else nn.Identity()
        )
        self.linear: nn.Module = linear

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """The last stage's output, a quarter of the image's height and width."""
        x_BCHW = functional.relu(self.bn1(self.conv1(x_BCHW)))
        last_BCHW: Tensor = self.layer3(self.layer2(self.layer1(x_BCHW)))
        return last_BCHW

    def forward_head(self, x_BCHW: Tensor, pre_logits: bool = False) -> Tensor:
        """The logits, or what the last layer is given."""
        pooled = self.drop(self.global_pool(x_BCHW))
        scores: Tensor = pooled if pre_logits else self.linear(pooled)
        return scores

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits."""
        return self.forward_head(self.forward_features(x_BCHW))


def make_stage(in_channels: int, channels: int, num_blocks: int, stride: int) -> nn.Sequential:
    """The blocks of a stage, the first of which changes the size."""
    first = Block(in_channels, channels, stride)
    return nn.Sequential(first, *(Block(channels, channels, 1) for _ in range(num_blocks - 1)))


def _build(name: str, num_blocks: int, pretrained: bool, **options: Any) -> CifarResNet:
    model: CifarResNet = build_model_with_cfg(CifarResNet, name, pretrained, num_blocks=num_blocks, **options)
    return model


def resnet20(pretrained: bool = False, **options: Any) -> CifarResNet:
    """The net of 20 layers, 3 blocks in a stage."""
    return _build("resnet20", 3, pretrained, **options)


def resnet32(pretrained: bool = False, **options: Any) -> CifarResNet:
    """The net of 32 layers, 5 blocks in a stage."""
    return _build("resnet32", 5, pretrained, **options)


def resnet44(pretrained: bool = False, **options: Any) -> CifarResNet:
    """The net of 44 layers, 7 blocks in a stage."""
    return _build("resnet44", 7, pretrained, **options)


def resnet56(pretrained: bool = False, **options: Any) -> CifarResNet:
    """The net of 56 layers, 9 blocks in a stage."""
    return _build("resnet56", 9, pretrained, **options)


for entry_point in (resnet20, resnet32, resnet44, resnet56):
    register_model(entry_point)
