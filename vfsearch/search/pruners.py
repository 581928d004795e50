"""Early stopping: typed options for Optuna's own pruners."""

import warnings
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Discriminator, Field, model_validator

from vfsearch.config import Count, NonNegative, Section, Whole

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


class Pruning(Section):
    """What every pruner has. Epochs count from 1."""

    grace: Whole = 1
    """Epochs that every trial gets; the first decision is after this epoch."""


class NoPruner(Pruning):
    """Every trial runs to its end."""

    name: Literal["none"]


class Asha(Pruning):
    """Asynchronous successive halving (Li et al., MLSys 2020)."""

    name: Literal["asha"]
    min_resource: Count = 1
    """Epoch of the first rung, if later than ``grace``."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """Rungs are at min_resource x factor^k epochs; the best 1/factor of a rung go on."""
    bootstrap: Whole = 0
    """Trials that stop at a rung before the first may pass it."""


class Hyperband(Pruning):
    """Several brackets of successive halving (Li et al., JMLR 2018)."""

    name: Literal["hyperband"]
    max_resource: Count
    """Epochs of a trial that is never stopped. Given, not guessed: brackets stay the same."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """The best 1/factor of a rung go on."""

    @model_validator(mode="after")
    def _brackets(self) -> Self:
        if not max(self.grace, 1) <= self.max_resource:
            raise ValueError(
                f"grace <= max_resource must hold, but grace={self.grace} and "
                f"max_resource={self.max_resource}"
            )
        return self


class Median(Pruning):
    """Stop below the median of the other trials at the same epoch (Golovin et al., 2017)."""

    name: Literal["median"]
    startup_trials: Whole = 5
    """Completed trials before any is stopped."""
    interval: Count = 1
    """Epochs between two decisions."""


class Wilcoxon(Pruning):
    """Stop when a signed-rank test against the best trial, epoch by epoch, is significant."""

    name: Literal["wilcoxon"]
    p_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Significance below which a trial is stopped."""


Simple = Annotated[Asha | Hyperband | Median | Wilcoxon, Discriminator("name")]


class Patient(Pruning):
    """Stop only after some epochs without improvement, and if the inner pruner agrees."""

    name: Literal["patient"]
    patience: Whole = 3
    """Epochs without improvement that are tolerated."""
    min_delta: NonNegative = 0.0
    """Gain that counts as improvement, in the objective's unit."""
    inner: Simple | None = None
    """Pruner that must agree; null: patience alone decides."""


AnyPruner = Annotated[
    NoPruner | Asha | Hyperband | Median | Wilcoxon | Patient, Discriminator("name")
]


def build_pruner(options: Pruning) -> "BasePruner":
    """Make Optuna's pruner; it holds no state of its own that a restart could lose."""
    from optuna import pruners

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Wilcoxon and Patient are 'experimental' since 2021
        match options:
            case Asha():
                return pruners.SuccessiveHalvingPruner(
                    min_resource=max(options.min_resource, options.grace),
                    reduction_factor=options.reduction_factor,
                    bootstrap_count=options.bootstrap,
                )
            case Hyperband():
                return pruners.HyperbandPruner(
                    min_resource=max(options.grace, 1),
                    max_resource=options.max_resource,
                    reduction_factor=options.reduction_factor,
                )
            case Median():
                return pruners.MedianPruner(
                    n_startup_trials=options.startup_trials,
                    n_warmup_steps=options.grace,
                    interval_steps=options.interval,
                )
            case Wilcoxon():
                return pruners.WilcoxonPruner(
                    p_threshold=options.p_threshold, n_startup_steps=max(options.grace, 2)
                )
            case Patient():
                inner = None if options.inner is None else build_pruner(options.inner)
                return pruners.PatientPruner(
                    inner, patience=options.patience, min_delta=options.min_delta
                )
            case _:
                return pruners.NopPruner()
