"""Implicit alignment: one classifier for both modalities (supplement, sec. 2.1)."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F


def cross_entropies(
    faces: Float[Tensor, "batch dim"],
    voices: Float[Tensor, "batch dim"],
    labels: Int64[Tensor, "batch"],
    omega: Float[Tensor, "identities dim"],
) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch"]]:
    """(CE_face, CE_voice) of each pair, unweighted: logsumexp_j w_j.x_i - w_{y_i}.x_i."""
    # One matrix product for both modalities: they share the classifier.
    logits = torch.cat([faces, voices]) @ omega.T
    each = F.cross_entropy(logits, labels.repeat(2), reduction="none")
    face, voice = each.chunk(2)
    return face, voice


def implicit_loss(
    face: Float[Tensor, "batch"],
    voice: Float[Tensor, "batch"],
    weights: Float[Tensor, "batch"],
    weight_ce: Literal["per_sample", "batch_mean"],
) -> Float[Tensor, ""]:
    """L_implicit = L_face + L_voice with the 1/N that Corollary 1 needs.

    Args:
        face: CE of each face (``cross_entropies``).
        voice: CE of each voice.
        weights: s_hat of each pair's identity.
        weight_ce: ``per_sample`` as in the supplement, (1/N) sum s_hat CE; ``batch_mean`` as
            released, mean CE x mean weight.
    """
    total = face + voice
    if weight_ce == "batch_mean":
        return total.mean() * weights.mean()
    return (total * weights).mean()
