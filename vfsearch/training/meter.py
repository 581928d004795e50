"""What an epoch records: loss terms, the bound, wall time. One device read per epoch."""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vfsearch.errors import TrainingDiverged
from vfsearch.loss.bound import BoundMeter
from vfsearch.training.objective import TERMS, Objective


class EpochMeter:
    """Collects on the device during an epoch; ``metrics`` reads it all at once."""

    def __init__(self, first_step: int, pass_steps: int) -> None:
        """Start an epoch.

        Args:
            first_step: step at which the epoch begins.
            pass_steps: steps in about one pass over the identities; the bound is measured on the
                embeddings of so many last steps of the epoch.
        """
        self._first = first_step
        self._terms: list[Tensor] = []
        self._pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=pass_steps)
        self.seconds = {"data": 0.0, "step": 0.0, "evaluation": 0.0, "checkpoint": 0.0}

    def add(self, objective: Objective, faces: Tensor, voices: Tensor, labels: Tensor) -> None:
        """Record one step (global batch)."""
        self._terms.append(objective.terms)
        self._pairs.append((faces.detach(), voices.detach(), labels))

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add wall time to ``seconds[what]`` (on a GPU a step's is the time to enqueue it)."""
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start

    def train_metrics(self) -> dict[str, float]:
        """``train/...`` means over the epoch's steps.

        Raises:
            TrainingDiverged: a loss of the epoch is not finite.
        """
        table: list[list[float]] = torch.stack(self._terms).double().tolist()
        losses = [row[0] for row in table]
        for index, loss in enumerate(losses):
            if not math.isfinite(loss):
                last = ", ".join(f"{value:.4g}" for value in losses[max(0, index - 5) : index])
                raise TrainingDiverged(
                    f"the loss must be finite, but is {loss} at step {self._first + index} "
                    f"(before it: {last or 'none in this epoch'}); lower optimizer.lr, or set "
                    "classifier.norm_bound"
                )
        columns = zip(*table, strict=True)
        return {
            f"train/{name}": math.fsum(column) / len(table)
            for name, column in zip(TERMS, columns, strict=True)
        }

    def bound_metrics(
        self, omega: Float[Tensor, "identities dim"], weights: Float[Tensor, "identities"]
    ) -> dict[str, float]:
        """``bound/...``: Corollary 1 with the omega and s_hat at the end of the epoch.

        Measured over the training embeddings (train mode, global batches) of the epoch's last
        steps, about one pair per identity; exact for them, so the gap is never negative.
        """
        meter = BoundMeter(omega, weights)
        for faces, voices, labels in self._pairs:
            meter.add(faces, voices, labels)
        bound = meter.measure()
        return {
            "bound/implicit": bound.loss,
            "bound/implicit_lower": bound.lower,
            "bound/gap": bound.gap,
            "bound/max_weight_norm": bound.max_weight_norm,
            "bound/mean_weight_norm": bound.mean_weight_norm,
        }


def reweighting_metrics(
    admitted: Int64[Tensor, ""], weights: Float[Tensor, "identities"]
) -> dict[str, float]:
    """``reweighting/...``: identities admitted, and the spread of their weights."""
    count, low, high = torch.stack(
        [admitted.double(), weights.min().double(), weights.max().double()]
    ).tolist()
    return {
        "reweighting/admitted": count,
        "reweighting/min_weight": low,
        "reweighting/max_weight": high,
    }
