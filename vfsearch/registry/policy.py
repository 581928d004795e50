"""What a model must show before it becomes the champion: the rules, not the decision.

``tracking/promotion.yaml`` holds the documented defaults and equals the defaults here. Metric
names are those of the evaluation without the ``test/`` prefix, e.g. ``match_v2f_1to2`` and, for a
stratum other than U, ``match_v2f_1to2_G``. All values are fractions, not percent.
"""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from vfsearch.config import Count, NonNegative, Positive, Section, Whole, read_yaml, validate

_METRIC = re.compile(
    r"(match_(v2f|f2v)_1to\d+|(auc|map|r_at_\d+)_(v2f|f2v))(_(G|N|GN))?",
)


def _known(metric: str) -> str:
    if not _METRIC.fullmatch(metric):
        raise ValueError(
            f"{metric!r} is no metric that grows with quality; use match_v2f_1to2, auc_f2v, "
            "map_v2f, r_at_5_f2v, ... with _G, _N or _GN for a stratum"
        )
    return metric


Metric = Annotated[str, AfterValidator(_known)]
Share = Annotated[float, Field(gt=-1, lt=1, allow_inf_nan=False)]

_MATCHING = ("match_v2f_1to2", "match_f2v_1to2")
_KEPT = (
    *_MATCHING,
    "match_v2f_1to2_G",
    "match_f2v_1to2_G",
    "match_v2f_1to2_N",
    "match_f2v_1to2_N",
    "match_v2f_1to2_GN",
    "match_f2v_1to2_GN",
    "auc_v2f",
    "auc_f2v",
)


class Minimum(Section):
    """A bar that every candidate must clear, champion or not."""

    metric: Metric
    """What is measured."""
    above_chance: Share | None = None
    """The lower bound of the interval must exceed chance by more than this."""
    at_least: Share | None = None
    """The lower bound of the interval must be at least this."""

    @model_validator(mode="after")
    def _some_bar(self) -> Self:
        if self.above_chance is None and self.at_least is None:
            raise ValueError(f"{self.metric}: give above_chance, at_least or both")
        return self


class Improvement(Section):
    """How much better than the champion, with what certainty."""

    metrics: tuple[Metric, ...] = _MATCHING
    """Each must improve; asking for all of them needs no correction for several tests."""
    margin: NonNegative = 0.0
    """Lower bound of the paired difference must exceed this."""


class NoWorse(Section):
    """What must not be lost on the way."""

    metrics: tuple[Metric, ...] = _KEPT
    """Compared wherever the champion has a value."""
    tolerance: NonNegative = 0.02
    """Largest loss, as a difference of the estimates."""


class Limits(Section):
    """Cost of using the model."""

    evaluation_seconds: Positive = 3600
    """Longest embedding and scoring of the test split, seconds."""
    model_megabytes: Positive = 1000
    """Largest weights file, 10^6 bytes."""


class PromotionPolicy(Section):
    """Every rule of a promotion.

    Two rules have no switch: a model trained on identities of the test split is refused, and so
    is one whose figures are not finite numbers.
    """

    minimum: tuple[Minimum, ...] = tuple(
        Minimum(metric=metric, above_chance=0.0) for metric in _MATCHING
    )
    """Bars for every candidate."""
    improvement: Improvement = Improvement()
    """Against the champion, if there is one."""
    no_worse: NoWorse = NoWorse()
    """Against the champion, if there is one."""
    limits: Limits = Limits()
    """Time and size."""
    same_dataset: bool = True
    """The test split and query lists must be those on which the champion was promoted."""

    resamples: Annotated[int, Field(ge=100)] = 2000
    """Bootstrap resamples of identities."""
    seed: Whole = 0
    """Seed of query lists and resampling."""
    galleries: tuple[Annotated[int, Field(ge=2)], ...] = (2, 5, 10)
    """Gallery sizes evaluated for decision and card."""
    instances: Count | None = None
    """At most this many voices and faces per identity (the first by name); null: all."""

    @model_validator(mode="after")
    def _measured(self) -> Self:
        named = {bar.metric for bar in self.minimum}
        named.update(self.improvement.metrics, self.no_worse.metrics)
        for metric in sorted(named):
            size = re.search(r"_1to(\d+)", metric)
            if size and int(size[1]) not in self.galleries:
                raise ValueError(
                    f"{metric} is asked for, but galleries={list(self.galleries)} "
                    f"does not hold {size[1]}"
                )
        return self


def load_policy(path: Path | None) -> PromotionPolicy:
    """Read a policy file; ``None`` gives the defaults.

    Raises:
        ConfigError: every problem of the file, each with its line.
    """
    if path is None:
        return PromotionPolicy()
    data, lines = read_yaml(path)
    return validate(PromotionPolicy, data, str(path), lines)
