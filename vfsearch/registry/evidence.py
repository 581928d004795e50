"""What a promotion decision rests on, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One metric of one model: estimate, interval and what it is to be read against."""

    value: float
    low: float
    high: float
    chance: float
    bayes: float | None = None
    oracles: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Candidate minus champion, on the same queries and the same resampled identities."""

    value: float
    low: float
    high: float
    p_value: float | None = None
    """Two-sided, by flipping signs over identities; told, not decided on."""


@dataclass(frozen=True, kw_only=True)
class Scorecard:
    """One model on the test split.

    ``dataset`` identifies split, query lists and evaluation version. ``seen`` holds the
    identities of the test split that the model was trained on; ``None``: it cannot be told.
    """

    figures: Mapping[str, Figure]
    dataset: str
    seconds: float
    bytes: int
    seen: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a decision rests on.

    ``promoted_on`` is the dataset on which the champion was promoted.
    """

    candidate: Scorecard
    champion: Scorecard | None = None
    differences: Mapping[str, Difference] = field(default_factory=dict)
    promoted_on: str | None = None
