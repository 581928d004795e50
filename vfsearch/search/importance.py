"""Which parameters matter, stopped trials and conditional parameters included."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from jaxtyping import Float
from optuna.distributions import BaseDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import TrialState, create_trial

from vfsearch.search.analysis import TrialRow
from vfsearch.search.definition import Objective

SHUFFLES = 40
"""Random reorderings of the results for the level that chance reaches."""
FEWEST = 10
"""Trials below which nothing is said about a parameter."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much one parameter decides whether a trial is among the best tenth."""

    name: str
    value: float
    """PED-ANOVA's divergence, >= 0, in no unit; comparable within one sweep."""
    chance: float
    """95th percentile of the same with the results shuffled over the trials."""
    trials: int
    """Trials in which the parameter existed."""


def importances(
    rows: Sequence[TrialRow],
    distributions: Mapping[str, BaseDistribution],
    objective: Objective,
    *,
    index: int = 0,
    seed: int = 0,
) -> list[Importance]:
    """PED-ANOVA (Watanabe et al., IJCAI 2023) per parameter, most important first.

    It compares the best tenth of the trials with all, so trials that were stopped take part with
    the best value that they reached: they were stopped for not being among the best. Optuna's
    evaluator weighs a conditional parameter by the share of trials in which it exists.

    Args:
        rows: Trials of the sweep.
        distributions: Distribution per parameter.
        objective: The objective in question.
        index: Which of the objectives that is.
        seed: Of the shuffles.

    Returns:
        One per parameter with a choice; none while fewer than ten trials have a value.
    """
    known = [
        (row, value)
        for row in rows
        if row.state in ("COMPLETE", "PRUNED") and (value := row.reached[index]) is not None
    ]
    names = [
        name
        for name, distribution in distributions.items()
        if not distribution.single() and any(name in row.params for row, _ in known)
    ]
    values = np.array([value for _, value in known])
    if len(known) < FEWEST or len(np.unique(values)) < 2 or not names:
        return []
    points = [{name: row.params[name] for name in names if name in row.params} for row, _ in known]
    kinds = {name: distributions[name] for name in names}
    study = _study(points, kinds)
    sign = 1.0 if objective.direction == "minimize" else -1.0
    rng = np.random.default_rng(seed)
    measured = _divergences(study, names, sign * values)
    shuffled = [_divergences(study, names, sign * rng.permutation(values)) for _ in range(SHUFFLES)]
    found = [
        Importance(
            name=name,
            value=measured[name],
            chance=float(np.quantile([one[name] for one in shuffled], 0.95)),
            trials=sum(name in point for point in points),
        )
        for name in names
    ]
    return sorted(found, key=lambda one: -one.value)


def _study(
    points: Sequence[Mapping[str, Any]], kinds: Mapping[str, BaseDistribution]
) -> optuna.Study:
    study = optuna.create_study()
    study.add_trials(
        [
            create_trial(
                state=TrialState.COMPLETE,
                params=dict(point),
                distributions={name: kinds[name] for name in point},
                value=0.0,
            )
            for point in points
        ]
    )
    return study


def _divergences(
    study: optuna.Study, names: Sequence[str], losses: Float[np.ndarray, " trials"]
) -> dict[str, float]:
    """PED-ANOVA with the losses, lower is better, in place of the trials' own values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, and says that lower targets are better
        return PedAnovaImportanceEvaluator().evaluate(
            study, params=list(names), target=lambda trial: float(losses[trial.number])
        )
