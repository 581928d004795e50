"""Linear discriminants of an encoder's output: what tells identities apart, and little else.

Fisher's criterion on the training identities of one modality: directions in which identities
differ most against the spread within them. Heads that are trained on them need not find out which
of several hundred statistics are pose, light, text or noise.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor, nn

DISCRIMINANTS = 12
"""Directions kept."""
_SHRINKAGE = 0.1
"""Share of a multiple of the identity in the scatter within identities."""


class Discriminants(nn.Module):
    """An encoder (without weights of its own), centred and projected."""

    mean: Tensor
    projection: Tensor

    def __init__(self, statistics: nn.Module, inputs: int) -> None:
        super().__init__()
        self.features = statistics
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("projection", torch.zeros(inputs, DISCRIMINANTS))

    def forward(self, inputs: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch 12"]:
        """Encode and project."""
        return self.project(self.features(inputs))

    def project(self, encoded: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch 12"]:
        """Project what the encoder has made."""
        out: Tensor = (encoded - self.mean) @ self.projection
        return out


def fit_discriminants(
    encoded: Float[np.ndarray, "files inputs"], identity: Int64[np.ndarray, " files"]
) -> dict[str, Tensor]:
    """``mean`` and ``projection`` from the files of at least two identities.

    The scatter within identities of the projected files is the unit matrix (but for shrinkage).
    """
    mean, deviation = encoded.mean(0), encoded.std(0) + 1e-8
    scaled: Float64[np.ndarray, "files inputs"] = (encoded - mean) / deviation
    count = np.bincount(identity)
    centres = np.zeros((len(count), scaled.shape[1]))
    np.add.at(centres, identity, scaled)
    centres /= count[:, None]
    rest = scaled - centres[identity]
    within = rest.T @ rest / max(1, len(scaled) - len(count))
    between = np.cov(centres.T) - within * len(count) / len(scaled)
    level = np.trace(within) / len(within)
    within = (1 - _SHRINKAGE) * within + _SHRINKAGE * level * np.eye(len(within))
    sizes, axes = np.linalg.eigh(within)
    white = axes / np.sqrt(sizes)
    order = np.linalg.eigh(white.T @ between @ white)[1][:, ::-1][:, :DISCRIMINANTS]
    projection = (white @ order) / deviation[:, None]
    return {
        "mean": torch.from_numpy(mean.astype(np.float32)),
        "projection": torch.from_numpy(np.ascontiguousarray(projection, np.float32)),
    }
