"""Settings of what surrounds the training: evaluation, workers, tracking."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vfsearch.config.base import Count, Location, NonNegative, Positive, Section, Whole


class EvaluationConfig(Section):
    """Evaluation on the validation split, each epoch."""

    galleries: tuple[Annotated[int, Field(ge=2)], ...] = (2, 5, 10)
    """Gallery sizes N of 1:N matching."""
    strata: tuple[Literal["U", "G", "N", "GN"], ...] = ("U", "G")
    """Negatives from all identities, same gender, same nationality, both."""
    seed: int = 0
    """Seed of the generated query lists."""
    instances: Count | None = None
    """At most this many voices and faces per identity (the first by name); null: all."""
    audio_seconds: Positive = 10.0
    """Window at evaluation: the first seconds, tiled if short."""
    batch: Count = 64
    """Instances per forward pass."""
    bound_pairs: Whole | None = 1
    """Pairs of each training identity over which Proposition 1 is measured (``bound/...``); null:
    every file of the training split; 0: not measured."""
    select: str = "val/match_v2f_1to2"
    """Metric that decides which checkpoint is the best of the run (higher is better)."""


class WorkersConfig(Section):
    """Data-parallel workers of one run: ``count``, or elastic between ``min`` and ``max``."""

    count: Count = 2
    """Workers; the global batch is shared among them. Elastic: as many as ``max``."""
    min: Count | None = None
    """Fewest workers with which a run goes on when nodes are lost; null: not elastic."""
    max: Count | None = None
    """Most workers, to which it grows as nodes join; the global batch stays, in more parts."""
    resize_seconds: Positive = 60
    """Seconds between two looks for room to grow."""
    use_gpu: Literal["auto"] | bool = "auto"
    """``auto``: one GPU per worker if the machine or cluster has any."""
    cpus: Positive = 1
    """CPUs per worker."""
    gpus: Positive = 1
    """GPUs per worker when GPUs are used; a fraction shares one."""
    max_retries: Whole = 2
    """Restarts after a lost worker or node, per trial."""
    report_timeout: Positive = 1800
    """Seconds without a report after which a trial is ended."""

    @model_validator(mode="before")
    @classmethod
    def _elastic(cls, data: Any) -> Any:
        if not isinstance(data, dict) or (data.get("min") is None and data.get("max") is None):
            return data
        low, high = data.get("min"), data.get("max")
        if not (isinstance(low, int) and isinstance(high, int) and low < high):
            raise ValueError(f"workers.min < workers.max must hold, but min={low} and max={high}")
        if data.get("count", high) != high:
            raise ValueError(
                f"workers.count is workers.max where both are set, but count={data['count']} and "
                f"max={high}; leave count out"
            )
        return {**data, "count": high}

    @property
    def fewest(self) -> int:
        """Workers without which a run cannot go on."""
        return self.count if self.min is None else self.min


class TrackingConfig(Section):
    """MLflow and S3."""

    enabled: bool = True
    """Log to MLflow and S3; off: metrics and artifacts stay in the run folder."""
    uri: Location | None = None
    """MLflow server; null: ``MLFLOW_TRACKING_URI``, else the local stack."""
    experiment: str = "vfsearch"
    """MLflow experiment."""
    artifacts: Location | None = None
    """``s3://bucket/prefix``; null: the local stack's bucket."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """S3 addresses: ``endpoint/bucket`` (path) or ``bucket.endpoint`` (virtual)."""
    encryption: Literal["AES256", "aws:kms"] | None = None
    """Server-side encryption asked for with each object; null: the bucket's default."""
    kms_key: str | None = None
    """Key of ``aws:kms`` (id, ARN or alias); null: the account's default key."""
    system_seconds: NonNegative = 10.0
    """Seconds between two samples of CPU, memory and GPUs; 0: none."""
    recovery: Literal["auto"] | bool = "auto"
    """Keep study and checkpoints of a running sweep on S3 too; ``auto``: on a cluster."""

    @model_validator(mode="after")
    def _key_of_kms(self) -> Self:
        if self.kms_key is not None and self.encryption != "aws:kms":
            raise ValueError(
                "kms_key needs encryption=aws:kms, but "
                f"kms_key={self.kms_key} and encryption={self.encryption}"
            )
        return self
