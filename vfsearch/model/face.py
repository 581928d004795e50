"""Face encoders: ArcFace's improved residual nets (arXiv 1801.07698, sec. 2.2.3).

Parameter names follow the layout in which IR-50 / IR-SE-50 weights are commonly published
(``input_layer``, ``body``, ``output_layer``), so that such files load unchanged.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from vfsearch.model.units import Units

FACE_DIM = 512


class SqueezeExcite(nn.Module):
    """Channel gates from the global average (arXiv 1709.01507), reduction 16, no biases."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Scale the channels."""
        gate: Tensor = self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1))))
        return x * gate.sigmoid()


class ImprovedResidual(nn.Module):
    """BN - conv - PReLU - conv (stride) - BN, added to a strided or projected shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module
        if inputs == outputs:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        layers: list[nn.Module] = [
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        if squeeze:
            layers.append(SqueezeExcite(outputs))
        self.res_layer = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """One unit."""
        out: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return out


class FaceEncoder(nn.Module):
    """Stem, stages of improved residual units (the first of each halves the size), output layer.

    Args:
        size: side of the faces it works on, pixels; others are resized to it.
        stem_stride: stride of the first convolution (1 in the paper's nets).
        widths: channels of the stem, then of each stage.
        depths: units per stage.
        squeeze: add squeeze-excitation to each unit.
        dropout: before the final linear layer.
    """

    def __init__(
        self,
        *,
        size: int,
        stem_stride: int,
        widths: Sequence[int],
        depths: Sequence[int],
        squeeze: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.size = size
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, stem_stride, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.PReLU(widths[0]),
        )
        side = size // stem_stride
        units: list[nn.Module] = []
        inputs = widths[0]
        for outputs, depth in zip(widths[1:], depths, strict=True):
            for index in range(depth):
                units.append(ImprovedResidual(inputs, outputs, 2 if index == 0 else 1, squeeze))
                inputs = outputs
            side = (side + 1) // 2
        self.body = Units(*units)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(inputs * side * side, FACE_DIM),
            nn.BatchNorm1d(FACE_DIM),
        )

    def forward(self, faces: UInt8[Tensor, "batch side side 3"]) -> Float[Tensor, "batch 512"]:
        """Encode RGB faces. Pixels become (x - 127.5) / 127.5."""
        # The permuted view of HWC bytes is channels_last already; nothing is copied for it.
        pixels = (faces.permute(0, 3, 1, 2).float() - 127.5) / 127.5
        side = pixels.shape[-1]
        if side % self.size == 0:
            pixels = F.avg_pool2d(pixels, side // self.size) if side > self.size else pixels
        else:
            pixels = F.interpolate(
                pixels, (self.size, self.size), mode="bilinear", antialias=side > self.size
            )
        out: Tensor = self.output_layer(self.body(self.input_layer(pixels)))
        return out


def build_face_encoder(name: Literal["ir50", "ir_se50", "small"]) -> FaceEncoder:
    """IR-50 (43.57 M parameters), IR-SE-50 (43.80 M), or the same kind for CPU runs."""
    if name == "small":
        return FaceEncoder(
            size=56,
            stem_stride=2,
            widths=(16, 16, 32, 64),
            depths=(1, 1, 1),
            squeeze=True,
            dropout=0.0,
        )
    return FaceEncoder(
        size=112,
        stem_stride=1,
        widths=(64, 64, 128, 256, 512),
        depths=(3, 4, 14, 3),
        squeeze=name == "ir_se50",
        dropout=0.5,
    )
