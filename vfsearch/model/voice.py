"""Voice encoders: thin ResNet with squeeze-excitation and self-attentive pooling.

The layout is the thin ResNet-34 of the VoxCeleb literature (arXiv 2003.11982, sec. 3); parameter
names follow the one in which its weights are commonly published.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int16
from torch import Tensor, nn
from torch.nn import functional as F

from vfsearch.model.features import MEL_BANDS, LogMel
from vfsearch.model.units import Units

VOICE_DIM = 512


class ChannelGate(nn.Module):
    """Squeeze-excitation with biases, reduction 8."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Scale the channels."""
        gate: Tensor = self.fc(x.mean(dim=(2, 3)))
        return x * gate[:, :, None, None]


class GatedResidual(nn.Module):
    """Basic residual block with a channel gate before the sum."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.se = ChannelGate(outputs)
        self.downsample: nn.Module = nn.Identity()
        if inputs != outputs or stride != (1, 1):
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """One block."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.se(self.bn2(self.conv2(out)))
        return F.relu(out + self.downsample(x))


class VoiceEncoder(nn.Module):
    """Log-mel, stem, four stages, frequency average, self-attentive pooling over time, linear.

    Args:
        stem_stride: (frequency, time) stride of the 7 x 7 stem.
        widths: channels of the four stages.
        depths: blocks per stage.
        strides: (frequency, time) stride of each stage.
    """

    def __init__(
        self,
        *,
        stem_stride: tuple[int, int],
        widths: Sequence[int],
        depths: Sequence[int],
        strides: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__()
        self.features = LogMel()
        self.conv1 = nn.Conv2d(1, widths[0], 7, stem_stride, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs = widths[0]
        bands = -(-MEL_BANDS // stem_stride[0])
        stages: list[nn.Module] = []
        for outputs, depth, stride in zip(widths, depths, strides, strict=True):
            blocks: list[nn.Module] = []
            for index in range(depth):
                blocks.append(GatedResidual(inputs, outputs, stride if index == 0 else (1, 1)))
                inputs = outputs
            stages.append(Units(*blocks))
            bands = -(-bands // stride[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AvgPool2d((bands, 1), stride=1)
        self.sap_linear = nn.Linear(inputs, inputs)
        self.attention = nn.Parameter(torch.empty(inputs, 1))
        self.fc = nn.Linear(inputs, VOICE_DIM)
        nn.init.xavier_normal_(self.attention)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, voices: Int16[Tensor, "batch samples"]) -> Float[Tensor, "batch 512"]:
        """Encode windows of 16 kHz samples; all of a batch have one length."""
        x = self.features(voices).unsqueeze(1)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        frames = self.avgpool(x).flatten(2).transpose(1, 2)
        weights = torch.softmax(torch.tanh(self.sap_linear(frames)) @ self.attention, dim=1)
        out: Tensor = self.fc((frames * weights).sum(dim=1))
        return out


def build_voice_encoder(name: Literal["thin_resnet34", "small"]) -> VoiceEncoder:
    """Thin ResNet-34 (1.44 M parameters), or the same kind for CPU runs."""
    if name == "small":
        return VoiceEncoder(
            stem_stride=(2, 4),
            widths=(16, 16, 32, 64),
            depths=(1, 1, 1, 1),
            strides=((2, 2), (1, 1), (2, 1), (1, 2)),
        )
    return VoiceEncoder(
        stem_stride=(2, 1),
        widths=(16, 32, 64, 128),
        depths=(3, 4, 6, 3),
        strides=((1, 1), (2, 2), (2, 2), (1, 1)),
    )
