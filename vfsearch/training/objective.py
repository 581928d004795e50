"""The loss of one global batch, and what is recorded of it (nothing leaves the device here)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vfsearch.config import LossConfig
from vfsearch.loss.explicit import explicit_diagnostics, explicit_loss, explicit_terms
from vfsearch.loss.implicit import cross_entropies, implicit_loss

TERMS = (
    "loss",
    "implicit",
    "explicit",
    "explicit_deviation",
    "positive_mass",
    "negative_mass",
    "hardest_negative_mass",
)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Loss of a batch."""

    loss: Float[Tensor, ""]
    """implicit x L_implicit + explicit x (v->f + f->v), weighted; with gradients."""
    identity_losses: Float[Tensor, "batch"]
    """CE_face + CE_voice of each pair, unweighted and detached: what the averages follow."""
    terms: Float[Tensor, "terms"]
    """Values of ``TERMS``, detached."""


def objective(
    faces: Float[Tensor, "batch dim"],
    voices: Float[Tensor, "batch dim"],
    labels: Int64[Tensor, "batch"],
    omega: Float[Tensor, "identities dim"],
    identity_weights: Float[Tensor, "identities"],
    config: LossConfig,
) -> Objective:
    """Loss over the *global* batch; every rank computes it on the gathered embeddings."""
    weights = identity_weights[labels]
    face, voice = cross_entropies(faces, voices, labels, omega)
    implicit = implicit_loss(face, voice, weights, config.weight_ce)
    to_face = explicit_terms(voices, faces, labels, config.margin)
    to_voice = explicit_terms(faces, voices, labels, config.margin)
    explicit = explicit_loss(to_face, to_voice, weights)
    loss = config.implicit * implicit + config.explicit * explicit
    extra = explicit_diagnostics(to_face, to_voice, weights)
    recorded = {"loss": loss, "implicit": implicit, "explicit": explicit, **extra}
    return Objective(
        loss=loss,
        identity_losses=(face + voice).detach(),
        terms=torch.stack([recorded[name].detach() for name in TERMS]),
    )
