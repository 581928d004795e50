"""A whole run."""

from typing import Self

from pydantic import model_validator

from vfsearch.config.base import Section, Whole
from vfsearch.config.model import CorpusConfig, ModelConfig
from vfsearch.config.platform import EvaluationConfig, TrackingConfig, WorkersConfig
from vfsearch.config.training import (
    ClassifierConfig,
    LossConfig,
    OptimizerConfig,
    ReweightingConfig,
    TrainingConfig,
)


class RunConfig(Section):
    """One training run."""

    seed: Whole = 0
    """Seed of initialisation, sampling and augmentation."""
    corpus: CorpusConfig
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    reweighting: ReweightingConfig = ReweightingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    workers: WorkersConfig = WorkersConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.training.batch % self.workers.count:
            raise ValueError(
                "training.batch must be a multiple of workers.count, but "
                f"batch={self.training.batch} and count={self.workers.count}"
            )
        share, part = self.training.batch // self.workers.count, self.training.micro_batch
        if part is not None and (part < 2 or share % part):
            # BatchNorm normalises over a part: each must have two rows, and all equally many.
            raise ValueError(
                "training.micro_batch must be 2 or more and divide a worker's share of the batch, "
                f"but is {part} and the share is {share}"
            )
        if self.workers.min is not None and self.most_pairs_per_pass < 4:
            # With fewer workers a share is split: BatchNorm wants two rows in each part.
            raise ValueError(
                "elastic workers need 4 pairs or more per pass, but training.batch="
                f"{self.training.batch}, workers.max={self.workers.count} and "
                f"training.micro_batch={part} leave {self.most_pairs_per_pass}"
            )
        return self

    @property
    def most_pairs_per_pass(self) -> int:
        """Pairs that a worker takes through the encoders at once, at any number of workers."""
        return self.training.micro_batch or self.training.batch // self.workers.count

    @model_validator(mode="after")
    def _features_are_fixed(self) -> Self:
        if self.corpus.features is None:
            return self
        wrong = [
            f"model.{what}.frozen must be true"
            for what, encoder in (("face", self.model.face), ("voice", self.model.voice))
            if not encoder.frozen
        ]
        if self.training.augment:
            wrong.append("training.augment must be false")
        if wrong:
            raise ValueError(
                "corpus.features holds what fixed encoders made of whole files, so "
                + " and ".join(wrong)
            )
        return self
