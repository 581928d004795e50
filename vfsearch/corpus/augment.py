"""Augmentation of faces on the training device: flip, rotation, pad-and-crop, fill 127.

What is drawn depends on (seed, step) only: not on the number of workers, nor on what was drawn
before, so a resumed run needs no generator state.
"""

import hashlib
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

FILL = 127.0
MAX_ANGLE = math.radians(15)
MAX_SHIFT = 1 / 16
"""Padding on each side, as a part of the side (7 of 112 pixels)."""


def stream_seed(*parts: int | str) -> int:
    """Seed of an independent random stream, named by its parts; 63 bits."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True, kw_only=True)
class FaceAugmentation:
    """What happens to each face of a batch."""

    mirror: Float[Tensor, "batch"]
    """-1 mirrored, 1 not (probability 0.5 each)."""
    angle: Float[Tensor, "batch"]
    """Radians, within 15 degrees; 0 with probability 0.5."""
    shift: Float[Tensor, "batch 2"]
    """Right and down, in parts of ``MAX_SHIFT``, -1 to 1."""

    def rows(self, start: int, stop: int) -> "FaceAugmentation":
        """A rank's part of the global batch."""
        return FaceAugmentation(
            mirror=self.mirror[start:stop],
            angle=self.angle[start:stop],
            shift=self.shift[start:stop],
        )


def draw_augmentation(batch: int, *, seed: int, step: int) -> FaceAugmentation:
    """Draw for a global batch (probabilities and ranges as in METHOD.md, Training)."""
    generator = torch.Generator().manual_seed(stream_seed("augmentation", seed, step))
    u = torch.rand(5, batch, generator=generator)
    return FaceAugmentation(
        mirror=(u[0] < 0.5).float() * -2 + 1,
        angle=(u[1] * 2 - 1) * MAX_ANGLE * (u[2] < 0.5),
        shift=(u[3:] * 2 - 1).T.contiguous(),
    )


@torch.no_grad()
def augment_faces(
    faces: UInt8[Tensor, "batch side side 3"], how: FaceAugmentation
) -> UInt8[Tensor, "batch side side 3"]:
    """Mirror, rotate and shift in one bilinear sampling; what lies outside is 127.

    Shifts are whole pixels, so an unrotated face keeps its exact values.
    """
    side = faces.shape[1]
    mirror, angle, shift = (
        t.to(faces.device, non_blocking=True) for t in (how.mirror, how.angle, how.shift)
    )
    cos, sin = torch.cos(angle), torch.sin(angle)
    # A pixel is 2 / side of the grid's [-1, 1].
    move = torch.round(shift * MAX_SHIFT * side) * (2 / side)
    matrix = torch.stack(
        [
            torch.stack([mirror * cos, -sin, -move[:, 0]], dim=1),
            torch.stack([mirror * sin, cos, -move[:, 1]], dim=1),
        ],
        dim=1,
    )
    pixels = faces.permute(0, 3, 1, 2).float() - FILL
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, align_corners=False) + FILL
    return moved.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
