"""When a sweep has had enough: a pure function of what was allowed and what was used."""

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vfsearch.config import Count, Positive, Section

if TYPE_CHECKING:
    from optuna.study import Study

PRICE = "VFSEARCH_DOLLARS_PER_GPU_HOUR"
"""Variable with which a cluster tells its price."""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", value.strip())
    if match is None:
        raise ValueError(f"{value!r} must be a duration like 90s, 30m, 2h or 1.5d")
    return float(match[1]) * _UNITS[match[2]]


Duration = Annotated[Positive, BeforeValidator(_seconds)]


class Target(Section):
    """A metric that is good enough."""

    metric: str
    """Metric as logged per epoch."""
    value: Annotated[float, Field(allow_inf_nan=False)]
    """Value to reach."""
    direction: Literal["maximize", "minimize"] = "maximize"
    """Which way is better."""

    def best(self, values: Sequence[float]) -> float | None:
        """Return the best of the values, None if there is none."""
        if not values:
            return None
        return max(values) if self.direction == "maximize" else min(values)

    def reached(self, value: float) -> bool:
        """Whether the value is at least as good as the target's."""
        return value >= self.value if self.direction == "maximize" else value <= self.value


class Budget(Section):
    """Limits; whichever is reached first ends the asking, and running trials finish."""

    trials: Count | None = None
    """Trials asked, failed and pruned ones included, warm-start trials not."""
    wall_time: Duration | None = None
    """Seconds or a duration like ``2h``, over all drivers of the sweep."""
    gpu_hours: Positive | None = None
    """GPU-hours of all trials."""
    trial_hours: Positive | None = None
    """Hours that a trial is expected to take: what time and cost are estimated from until trials of
    the sweep have ended and are measured. No limit."""
    dollars_per_gpu_hour: Positive | None = None
    """Price of a GPU-hour."""
    dollars: Positive | None = None
    """Cost of all trials; needs the price."""
    target: Target | None = None
    """Stop once a trial has reached it."""
    stop_when_improvement_below: Positive | None = None
    """Stop when the upper bound on what is left to gain falls below (first objective's unit)."""
    improvement_after: Count = 20
    """Completed trials before that bound is trusted."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.dollars is not None and self.dollars_per_gpu_hour is None:
            raise ValueError(f"dollars={self.dollars} needs dollars_per_gpu_hour")
        limits = (self.trials, self.wall_time, self.gpu_hours, self.dollars)
        if all(limit is None for limit in limits):
            raise ValueError("one of trials, wall_time, gpu_hours or dollars must be given")
        return self


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a sweep has used and found so far."""

    trials: int
    """Trials asked, without those of the warm start."""
    seconds: float
    """Wall time over all drivers."""
    gpu_seconds: float
    """GPU time of all trials."""
    target: float | None = None
    """Best value of the target's metric."""
    improvement: float | None = None
    """Upper bound on what is left to gain."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Go on, or stop and why."""

    stop: bool
    reason: str


def decide(budget: Budget, spent: Spent) -> Decision:
    """Decide whether another trial may be asked; the first limit reached gives the reason."""
    hours = spent.gpu_seconds / 3600
    if budget.target is not None and spent.target is not None:
        sign = ">=" if budget.target.direction == "maximize" else "<="
        if budget.target.reached(spent.target):
            return _stop(
                f"target reached: {budget.target.metric} = {spent.target:.6g} "
                f"{sign} {budget.target.value:.6g}"
            )
    if budget.trials is not None and spent.trials >= budget.trials:
        return _stop(f"{spent.trials} of {budget.trials} trials")
    if budget.wall_time is not None and spent.seconds >= budget.wall_time:
        return _stop(f"wall time {spent.seconds:.0f} s of {budget.wall_time:.0f} s")
    if budget.gpu_hours is not None and hours >= budget.gpu_hours:
        return _stop(f"{hours:.2f} of {budget.gpu_hours:.2f} GPU-hours")
    if budget.dollars is not None and budget.dollars_per_gpu_hour is not None:
        cost = hours * budget.dollars_per_gpu_hour
        if cost >= budget.dollars:
            return _stop(f"{cost:.2f} of {budget.dollars:.2f} dollars")
    threshold = budget.stop_when_improvement_below
    if threshold is not None and spent.improvement is not None and spent.improvement < threshold:
        return _stop(f"at most {spent.improvement:.3g} left to gain, below {threshold:.3g}")
    return Decision(stop=False, reason="within the budget")


def _stop(reason: str) -> Decision:
    return Decision(stop=True, reason=reason)


def improvement_bound(study: "Study", *, after: int, seed: int) -> float | None:
    """Upper confidence bound on the regret of the best trial (Makarova et al., AutoML 2022).

    Args:
        study: A single-objective study.
        after: Completed trials needed.
        seed: Seed of the bound's random candidates.

    Returns:
        The bound in the objective's unit, or None while it cannot be computed.
    """
    from optuna.search_space import intersection_search_space
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < after or not intersection_search_space(complete):
        return None
    with warnings.catch_warnings():
        # Optuna marks the whole module as experimental, and as leaving the core after 5.x.
        warnings.simplefilter("ignore")
        from optuna.terminator import RegretBoundEvaluator

        evaluator = RegretBoundEvaluator(min_n_trials=after, seed=seed)
        return float(evaluator.evaluate(complete, study.direction))


def price_of(budget: Budget) -> float | None:
    """Dollars per GPU-hour: the budget's, else the cluster's; None: neither is known."""
    told = os.environ.get(PRICE)
    return budget.dollars_per_gpu_hour or (float(told) if told else None)
