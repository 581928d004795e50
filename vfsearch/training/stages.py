"""The three stages as a pure plan: what applies at a step, without any state.

Steps count from 0 over the whole run: warm-up, weight learning (same run), then retraining from
the initial encoders with the learned identity weights frozen (METHOD.md, Training).
"""

from dataclasses import dataclass
from typing import Literal

from vfsearch.config import OptimizerConfig, ReweightingConfig, RunConfig, StagesConfig

Stage = Literal["warm_up", "weight_learning", "retrain"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Stages, learning rate, admissions and epochs of a run."""

    stages: StagesConfig
    optimizer: OptimizerConfig
    reweighting: ReweightingConfig
    epoch_steps: int

    @classmethod
    def of(cls, config: RunConfig, identities: int) -> "Plan":
        """Plan of a run; an epoch is ``epoch_steps``, or about one pass over the identities."""
        return cls(
            stages=config.training.stages,
            optimizer=config.optimizer,
            reweighting=config.reweighting,
            epoch_steps=config.training.epoch_steps or max(1, identities // config.training.batch),
        )

    @property
    def total(self) -> int:
        """Steps of the run."""
        return self.stages.total

    @property
    def learning_steps(self) -> int:
        """Steps before the retraining."""
        return self.stages.warm_up + self.stages.weight_learning

    def stage(self, step: int) -> Stage:
        """Stage that the step belongs to."""
        if step < self.stages.warm_up:
            return "warm_up"
        return "weight_learning" if step < self.learning_steps else "retrain"

    def lr(self, step: int) -> float:
        """Learning rate of the step: one drop at each milestone of its stage passed."""
        if self.stage(step) == "retrain":
            step, milestones = step - self.learning_steps, self.stages.retrain_milestones
        else:
            milestones = self.stages.learning_milestones
        passed = sum(step >= milestone for milestone in milestones)
        return self.optimizer.lr * self.optimizer.drop**passed

    def admits_before(self, step: int) -> bool:
        """True when the admission schedule moves on just before the step.

        First at the end of the warm-up, then every ``reweighting.every`` steps of weight
        learning. Without a warm-up the first comes after ``every`` steps: nothing is known before.
        """
        if self.reweighting.schedule == "none" or self.stage(step) != "weight_learning":
            return False
        since = step - self.stages.warm_up
        return step > 0 and since % self.reweighting.every == 0

    def observes(self, step: int) -> bool:
        """True when the loss averages follow the step (not in the retraining)."""
        return self.stage(step) != "retrain"

    def restarts_before(self, step: int) -> bool:
        """True when model and optimiser start anew just before the step."""
        return step == self.learning_steps and 0 < step < self.total

    def epoch_end(self, step: int) -> int:
        """First step after the epoch that begins at ``step``."""
        return min(step + self.epoch_steps, self.total)

    def epoch_start(self, end: int) -> int:
        """First step of the epoch that ends before ``end``."""
        return (end - 1) // self.epoch_steps * self.epoch_steps
