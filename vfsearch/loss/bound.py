"""Proposition 1 and Corollary 1 as measured quantities, and the projection that enforces C."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vfsearch.loss.implicit import cross_entropies


@torch.no_grad()
def project_rows_(weight: Float[Tensor, "identities dim"], bound: float) -> None:
    """Projected gradient: pull every row back onto the ball ||w_k|| <= C, in place, no sync."""
    norms = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    weight.mul_((bound / norms).clamp_max(1.0))


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One measurement over N pairs; ``loss >= lower`` always holds."""

    loss: float
    """L_implicit, weighted by s_hat per sample, with 1/N."""
    lower: float
    """2 log M sum(s_hat)/N - C/(MN) sum_j D_hat_j with C = max ||w_k||."""
    max_weight_norm: float
    mean_weight_norm: float

    @property
    def gap(self) -> float:
        """Loss minus bound; never negative (but for float64 rounding)."""
        return self.loss - self.lower


def distances(
    sums: Float[Tensor, "identities dim"],
) -> Float[Tensor, "identities"]:
    """D_j (or D_hat_j) of all identities from the sums per identity, in O(M).

    With S_j = sum_{y_i=j} s_hat (x_i + v_i) and T = sum_j S_j,
    (M-1) S_j - (T - S_j) = M S_j - T.
    """
    each: Tensor = torch.linalg.vector_norm(len(sums) * sums - sums.sum(dim=0), dim=1)
    return each


class BoundMeter:
    """Accumulates pairs in one pass, O(N + M) time, O(M) memory.

    The proposition is about one omega and one s_hat: both are fixed at construction.
    """

    def __init__(
        self,
        omega: Float[Tensor, "identities dim"],
        weights: Float[Tensor, "identities"] | None = None,
    ) -> None:
        self._omega = omega.detach().double()
        count = len(self._omega)
        self._weights = self._omega.new_ones(count) if weights is None else weights.double()
        self._sums = torch.zeros_like(self._omega)
        self._loss = self._omega.new_zeros(())
        self._mass = self._omega.new_zeros(())
        self._pairs = 0

    @torch.no_grad()
    def add(
        self,
        faces: Float[Tensor, "batch dim"],
        voices: Float[Tensor, "batch dim"],
        labels: Int64[Tensor, "batch"],
    ) -> None:
        """Add pairs, computed in float64 so that rounding cannot violate the bound."""
        x, v = faces.detach().double(), voices.detach().double()
        weights = self._weights[labels]
        face, voice = cross_entropies(x, v, labels, self._omega)
        self._loss += ((face + voice) * weights).sum()
        self._mass += weights.sum()
        self._sums.index_add_(0, labels, (x + v) * weights[:, None])
        self._pairs += len(labels)

    def measure(self) -> Bound:
        """The bound over all pairs added so far; synchronises with the device once.

        Raises:
            ValueError: nothing was added.
        """
        if self._pairs == 0:
            raise ValueError("the bound needs at least one pair, but none was added")
        norms = torch.linalg.vector_norm(self._omega, dim=1)
        loss, mass, spread, largest, mean = torch.stack(
            [self._loss, self._mass, distances(self._sums).sum(), norms.max(), norms.mean()]
        ).tolist()
        count, pairs = len(self._omega), self._pairs
        return Bound(
            loss=loss / pairs,
            lower=2 * math.log(count) * mass / pairs - largest / (count * pairs) * spread,
            max_weight_norm=largest,
            mean_weight_norm=mean,
        )
