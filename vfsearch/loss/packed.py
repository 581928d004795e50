"""The objective of many members at once, with its gradient in closed form.

``training.objective`` is what each member computes alone and the oracle of this file. Here every
tensor has a first axis of members, all of them read one another's numbers nowhere, and the
gradient is written down instead of recorded: the large intermediate results (the logits of every
member) are then passed over three times instead of a dozen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vfsearch.config import LossConfig

_EPS = 1e-12
"""Norms below it count as this much, as in ``torch.nn.functional.normalize``."""


@dataclass(frozen=True, kw_only=True)
class Factors:
    """``LossConfig`` of every member."""

    implicit: Float[Tensor, "members"]
    explicit: Float[Tensor, "members"]
    log_margin: Float[Tensor, "members"]
    margin: Float[Tensor, "members"]
    batch_mean: Bool[Tensor, "members"]

    @classmethod
    def of(cls, losses: Sequence[LossConfig], device: torch.device) -> "Factors":
        """Collect the settings of all members."""

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, device=device)

        return cls(
            implicit=column([loss.implicit for loss in losses]),
            explicit=column([loss.explicit for loss in losses]),
            log_margin=column([math.log(loss.margin) for loss in losses]),
            margin=column([loss.margin for loss in losses]),
            batch_mean=torch.tensor(
                [loss.weight_ce == "batch_mean" for loss in losses], device=device
            ),
        )


@dataclass(frozen=True, kw_only=True)
class PackedObjective:
    """Losses of a batch of every member, and their gradients."""

    terms: Float[Tensor, "members terms"]
    """As ``training.objective.TERMS``."""
    identity_losses: Float[Tensor, "members batch"]
    """CE_face + CE_voice of each pair, unweighted."""
    faces: Float[Tensor, "members batch dim"]
    """d loss / d faces; the others likewise."""
    voices: Float[Tensor, "members batch dim"]
    omega: Float[Tensor, "members identities dim"]


@torch.no_grad()
def packed_objective(
    faces: Float[Tensor, "members batch dim"],
    voices: Float[Tensor, "members batch dim"],
    labels: Int64[Tensor, "members batch"],
    omega: Float[Tensor, "members identities dim"],
    identity_weights: Float[Tensor, "members identities"],
    factors: Factors,
) -> PackedObjective:
    """Objective and gradients; the labels of a member are distinct within its batch.

    Implicit: with p the softmax of w.z and c the weight of the pair, d/d logits = c (p - onehot).
    Explicit: with q_ij = exp(gap_ij) / (m + sum of negatives), d/d gap_ij = c q_ij, and the
    positive similarity has minus their sum.
    """
    members, batch, _ = faces.shape
    weights = identity_weights.gather(1, labels)
    both = torch.cat([faces, voices], dim=1)

    wanted = labels.repeat(1, 2)[:, :, None]
    logs = torch.log_softmax(torch.bmm(both, omega.transpose(1, 2)), dim=2)
    each = -logs.gather(2, wanted)[:, :, 0]
    pairs = each[:, :batch] + each[:, batch:]
    ce_weights = torch.where(
        factors.batch_mean[:, None], weights.mean(dim=1, keepdim=True), weights
    )
    implicit = (pairs * ce_weights).mean(dim=1)
    share = (factors.implicit[:, None] * ce_weights / batch).repeat(1, 2)[:, :, None]
    slopes = logs.exp_().mul_(share)
    slopes.scatter_(2, wanted, slopes.gather(2, wanted) - share)
    d_both = torch.bmm(slopes, omega)
    d_omega = torch.bmm(slopes.transpose(1, 2), both)

    # Both directions of Eq. 5 as twice as many members: voice to face, then face to voice.
    anchors = torch.cat([voices, faces])
    candidates = torch.cat([faces, voices])
    norms = torch.linalg.vector_norm(candidates, dim=2, keepdim=True)
    scale = norms.clamp_min(_EPS).reciprocal_()
    units = candidates * scale
    gaps = torch.bmm(anchors, units.transpose(1, 2))
    gaps -= gaps.diagonal(dim1=1, dim2=2)[:, :, None].clone()
    gaps.diagonal(dim1=1, dim2=2).fill_(-math.inf)
    floor = factors.log_margin.repeat(2)[:, None]
    losses = torch.logaddexp(gaps.logsumexp(dim=2), floor)
    hinges = (gaps.amax(dim=2) + (factors.margin.repeat(2)[:, None] - 1)).clamp_min_(0)
    masses = gaps.sub_(losses[:, :, None]).exp_()
    negative, hardest = masses.sum(dim=2), masses.amax(dim=2)
    twice = weights.repeat(2, 1)
    share = factors.explicit.repeat(2)[:, None] * twice / batch
    masses.mul_(share[:, :, None])
    masses.diagonal(dim1=1, dim2=2).copy_(-negative * share)
    d_anchors = torch.bmm(masses, units)
    d_units = torch.bmm(masses.transpose(1, 2), anchors)
    along = (d_units * units).sum(dim=2, keepdim=True)
    # A norm below the limit is a constant to its vector.
    d_candidates = torch.where(norms > _EPS, d_units - units * along, d_units) * scale

    def mean(values: Float[Tensor, "both_directions batch"]) -> Float[Tensor, "members"]:
        return (values * twice).view(2, members, batch).sum(dim=0).mean(dim=1)

    explicit = mean(losses)
    return PackedObjective(
        terms=torch.stack(
            [
                factors.implicit * implicit + factors.explicit * explicit,
                implicit,
                explicit,
                mean(hinges - losses),
                mean(-torch.expm1(floor - losses)) / 2,
                mean(negative) / 2,
                mean(hardest) / 2,
            ],
            dim=1,
        ),
        identity_losses=pairs,
        faces=d_both[:, :batch] + d_anchors[members:] + d_candidates[:members],
        voices=d_both[:, batch:] + d_anchors[:members] + d_candidates[members:],
        omega=d_omega,
    )
