"""Settings of the method and of its steps: losses, classifier, re-weighting, optimiser, stages."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vfsearch.config.base import Count, Fraction, NonNegative, Positive, Section, Whole


class LossConfig(Section):
    """Implicit and explicit alignment."""

    implicit: NonNegative = 1.0
    """Factor of CE_face + CE_voice; 0 switches implicit alignment off."""
    explicit: NonNegative = 0.5
    """Factor of the two directions of Eq. 5; 0 switches explicit alignment off."""
    margin: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 5.4
    """m of Eq. 5; 1 is N-pair softmax cross-entropy. Comparable at one global batch only."""
    weight_ce: Literal["per_sample", "batch_mean"] = "per_sample"
    """Weighted cross-entropy as in the supplement, or mean CE x mean weight as released."""

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if self.implicit == 0 and self.explicit == 0:
            raise ValueError("implicit and explicit are both 0: at least one must be positive")
        return self


class ClassifierConfig(Section):
    """The shared classifier."""

    norm_bound: Positive | None = None
    """C: after each step every row is projected onto the ball of this radius; null: no bound."""


class ReweightingConfig(Section):
    """Adaptive identity re-weighting."""

    schedule: Literal["none", "rank", "soft"] = "soft"
    """``rank`` is the authors' hard admission, ``soft`` admits with a temperature."""
    temperature: Positive = 1.0
    """tau of the soft admission, in units of the identity loss (nats)."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the loss average per identity, per visit."""
    start_loss: Positive | None = None
    """First value of the average; null: 2 ln M (the paper's 14.0 at M = 924)."""
    every: Count = 100
    """Steps between two admissions; the first is at the end of the warm-up."""
    admit_from: Fraction = 0.5
    """Share of identities admitted first."""
    admit_step: Fraction = 0.024
    """Share added at each admission."""
    admit_to: Fraction = 0.9
    """Share admitted at last; the rest are the personalised identities."""
    age_factor: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Factor on the weights of admitted identities at each admission."""
    scale: Literal["mean_one", "unit"] = "mean_one"
    """``mean_one``: s_hat = s M / sum(s), as released; ``unit``: s_hat in (0, 1), as printed."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.admit_from <= self.admit_to:
            raise ValueError(
                f"admit_from <= admit_to must hold, but admit_from={self.admit_from} "
                f"and admit_to={self.admit_to}"
            )
        return self


class OptimizerConfig(Section):
    """SGD."""

    lr: Positive = 0.01
    """Learning rate at the start of a stage."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum."""
    weight_decay: NonNegative = 1e-4
    """lambda, on all parameters."""
    drop: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor on the learning rate at each milestone."""


class StagesConfig(Section):
    """Lengths of the three stages, in optimiser steps."""

    warm_up: Whole = 500
    """Steps with uniform weights."""
    weight_learning: Whole = 1900
    """Steps with re-weighting on, after the warm-up in the same run (2,400 in all)."""
    retrain: Whole = 0
    """Steps of a fresh run with the learned weights frozen (the paper's 10,000); 0: none."""
    learning_milestones: tuple[Whole, ...] = (1000, 2000)
    """Steps of warm-up and weight learning at which the learning rate drops."""
    retrain_milestones: tuple[Whole, ...] = (2000, 3000)
    """Steps of the retraining at which the learning rate drops."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.total == 0:
            raise ValueError("warm_up + weight_learning + retrain must be at least 1 step")
        return self

    @property
    def total(self) -> int:
        """Steps of all stages together."""
        return self.warm_up + self.weight_learning + self.retrain


class TrainingConfig(Section):
    """The loop."""

    batch: Annotated[int, Field(ge=2)] = 64
    """Global batch N: identities per step over all workers."""
    epoch_steps: Count | None = None
    """Steps between two evaluations (an 'epoch'); null: one pass over the identities."""
    stages: StagesConfig = StagesConfig()
    audio_seconds: tuple[Positive, Positive] = (2.5, 5.0)
    """Shortest and longest training window; one length per batch."""
    audio_step: Positive = 0.25
    """Training windows are multiples of this many seconds; compiled code exists once per length."""
    augment: bool = True
    """Flip, rotation, pad-and-crop on the faces."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Autocast type of the forward pass."""
    channels_last: bool = False
    """Keep images and spectra with their channels innermost: what bf16 kernels are fastest on."""
    compile: bool = False
    """Compile the encoders' residual units (torch.compile); on CPUs this needs a C++ compiler."""
    micro_batch: Count | None = None
    """Pairs per forward pass on one worker, for small memories: the loss stays that of the whole
    batch, BatchNorm normalises over these pairs; null: a worker's whole share at once."""
    recompute: bool = False
    """Compute the residual units again in the backward pass instead of keeping their insides."""

    @model_validator(mode="after")
    def _window(self) -> Self:
        low, high = self.audio_seconds
        if low > high:
            raise ValueError(f"audio_seconds: shortest <= longest must hold, but {low} > {high}")
        return self
