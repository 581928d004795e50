"""Explicit alignment with margin m (Eq. 5), its hinge form and its balance of gradients."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class ExplicitTerms:
    """One direction of Eq. 5, per anchor (all of shape ``batch``)."""

    loss: Float[Tensor, "batch"]
    """log(m + sum of negatives): what is trained."""
    hinge: Float[Tensor, "batch"]
    """[max negative - positive + m - 1]_+, the supplement's approximation; analysis only."""
    positive_mass: Float[Tensor, "batch"]
    """|d loss / d positive similarity| = 1 - m / (m + sum of negatives)."""
    negative_mass: Float[Tensor, "batch"]
    """Sum over negatives of |d loss / d similarity|."""
    hardest_mass: Float[Tensor, "batch"]
    """The part of ``negative_mass`` that the hardest negative holds."""


def explicit_terms(
    anchors: Float[Tensor, "batch dim"],
    candidates: Float[Tensor, "batch dim"],
    labels: Int64[Tensor, "batch"],
    margin: float,
) -> ExplicitTerms:
    """log(m + sum_{y_j != y_i} exp(a_i.c_j - a_i.c_i)), c normalised, a not (METHOD.md, Losses).

    The anchor's norm acts as an inverse temperature; the floor is log m. Everything but ``loss``
    is detached and in closed form: with Z = m + sum of negatives, the gradient with respect to a
    negative similarity is exp(.) / Z, and with respect to the positive one minus their sum.
    """
    similarity = anchors @ F.normalize(candidates, dim=1).T
    gaps = similarity - similarity.diagonal()[:, None]
    same: Bool[Tensor, "batch batch"] = labels[:, None] == labels[None, :]
    gaps = gaps.masked_fill(same, -math.inf)
    # The margin as one more term of the sum keeps it stable, also when nothing else is left.
    floor = gaps.new_full((len(gaps), 1), math.log(margin))
    loss = torch.cat([floor, gaps], dim=1).logsumexp(dim=1)
    with torch.no_grad():
        share = (gaps - loss[:, None]).exp()
        return ExplicitTerms(
            loss=loss,
            hinge=(gaps.amax(dim=1) + (margin - 1)).clamp_min(0),
            positive_mass=-torch.expm1(floor[:, 0] - loss),
            negative_mass=share.sum(dim=1),
            hardest_mass=share.amax(dim=1),
        )


def explicit_loss(
    voice_to_face: ExplicitTerms, face_to_voice: ExplicitTerms, weights: Float[Tensor, "batch"]
) -> Float[Tensor, ""]:
    """Both directions, each (1/N) sum_i s_hat_{y_i} l_i (always weighted per sample)."""
    return ((voice_to_face.loss + face_to_voice.loss) * weights).mean()


def explicit_diagnostics(
    voice_to_face: ExplicitTerms, face_to_voice: ExplicitTerms, weights: Float[Tensor, "batch"]
) -> dict[str, Float[Tensor, ""]]:
    """Weighted means over anchors and directions, on the device.

    ``explicit_deviation`` is hinge minus exact loss (sum of both directions); the masses are means
    of the two directions, per anchor.
    """

    def mean(term: Callable[[ExplicitTerms], Tensor]) -> Float[Tensor, ""]:
        return ((term(voice_to_face) + term(face_to_voice)) * weights).mean()

    return {
        "explicit_deviation": mean(lambda t: t.hinge - t.loss.detach()),
        "positive_mass": mean(lambda t: t.positive_mass) / 2,
        "negative_mass": mean(lambda t: t.negative_mass) / 2,
        "hardest_negative_mass": mean(lambda t: t.hardest_mass) / 2,
    }
