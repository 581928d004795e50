"""What an epoch records: loss terms of every step, wall time. One device read per epoch."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vfsearch.errors import TrainingDiverged
from vfsearch.training.objective import TERMS, Objective
from vfsearch.training.run import Run


class EpochMeter:
    """Collects on the device during an epoch; ``table`` reads it all at once."""

    def __init__(self, first_step: int) -> None:
        """Start an epoch at a step."""
        self.first = first_step
        self._terms: list[Tensor] = []
        self.seconds = {
            "data": 0.0,
            "step": 0.0,
            "evaluation": 0.0,
            "bound": 0.0,
            "checkpoint": 0.0,
        }

    def add(self, objective: Objective) -> None:
        """Record one step (global batch)."""
        self._terms.append(objective.terms)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add wall time to ``seconds[what]`` (on a GPU a step's is the time to enqueue it)."""
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start

    def table(self) -> list[list[float]]:
        """Values of ``TERMS`` of every step of the epoch.

        Raises:
            TrainingDiverged: a loss of the epoch is not finite.
        """
        table: list[list[float]] = torch.stack(self._terms).double().tolist()
        losses = [row[0] for row in table]
        for index, loss in enumerate(losses):
            if not math.isfinite(loss):
                last = ", ".join(f"{value:.4g}" for value in losses[max(0, index - 5) : index])
                raise TrainingDiverged(
                    f"the loss must be finite, but is {loss} at step {self.first + index} "
                    f"(before it: {last or 'none in this epoch'}); lower optimizer.lr, or set "
                    "classifier.norm_bound"
                )
        return table


def train_metrics(table: list[list[float]]) -> dict[str, float]:
    """``train/...``: means over the steps of an epoch."""
    columns = zip(*table, strict=True)
    return {
        f"train/{name}": math.fsum(column) / len(table)
        for name, column in zip(TERMS, columns, strict=True)
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


def epoch_metrics(run: Run, table: list[list[float]]) -> dict[str, float]:
    """What an epoch tells besides its evaluation.

    Raises:
        TrainingDiverged: a parameter is not finite.
    """
    run.check_finite()
    weights = run.reweighting.weights
    return {
        **train_metrics(table),
        "train/lr": run.plan.lr(run.step - 1),
        **reweighting_metrics(run.reweighting.admission.admitted.sum(), weights),
    }
