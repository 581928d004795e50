"""What a study keeps of a trial beside Optuna's own fields, and how it is read back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from optuna.trial import FrozenTrial

from vfsearch.config import RunConfig
from vfsearch.evaluation.names import INTERVAL
from vfsearch.search.definition import Objective, SweepConfig
from vfsearch.search.parameters import run_keys

ASKED = "asked"
"""Set when every parameter of a trial is stored: it may run."""
CURVES = "curves"
"""Metrics per epoch: ``{"epochs": [1, 2], "metrics": {"val/...": [0.5, 0.6]}}``."""
PRUNING = "pruning"
"""The last decision of the pruner and the rungs it noted."""
REASON = "reason"
"""Why a trial was pruned or failed."""
AVERAGED = "seeds/averaged"
"""Metric of an epoch: over how many seeds its metrics are means; without it, one."""
WARM_START = "warm_start"
"""Where a trial that was taken over came from."""
START = "start"
"""The queued point of a trial that was given in the sweep file."""
GRID = "grid"
"""Index of a grid point."""
EVALUATION = "evaluation"
"""By which evaluation a trial was measured; see `comparable`."""
STUDY_EVALUATION = "vfsearch:evaluation"
"""Study attribute: the evaluation that all its trials must share."""
SWEEP = "vfsearch:sweep"
"""Study attribute: the sweep's definition."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A trial to run."""

    number: int
    """Number in the study; the stable name of the trial is made of it."""
    params: dict[str, Any]
    """Dotted parameters (and names of chosen bundles) that are active in this trial."""
    seeds: tuple[int, ...]
    """Seeds of the trial's runs: a function of the sweep's seed and the number."""
    epoch: int
    """Last epoch that the study has of this trial; 0 for a new one."""
    config: RunConfig
    """The validated run."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The pruner's decision on one epoch of one trial; stored, so it never changes."""

    prune: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a trial ended in the study (also when it had ended before the call)."""

    number: int
    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    reason: str | None
    values: tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Metrics of one trial by epoch."""

    epochs: dict[int, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, trial: FrozenTrial) -> Self:
        """Read the curves of a trial."""
        stored = trial.user_attrs.get(CURVES, {"epochs": [], "metrics": {}})
        return cls(
            epochs={
                epoch: {
                    metric: values[index]
                    for metric, values in stored["metrics"].items()
                    if values[index] is not None
                }
                for index, epoch in enumerate(stored["epochs"])
            }
        )

    def stored(self) -> dict[str, Any]:
        """Return the compact form: one list per metric."""
        metrics = dict.fromkeys(name for values in self.epochs.values() for name in values)
        return {
            "epochs": sorted(self.epochs),
            "metrics": {
                name: [self.epochs[epoch].get(name) for epoch in sorted(self.epochs)]
                for name in metrics
            },
        }

    def with_epoch(self, epoch: int, metrics: Mapping[str, float]) -> "Curves":
        """Add or replace one epoch."""
        return Curves(epochs={**self.epochs, epoch: dict(metrics)})

    def curve(self, metric: str, until: int | None = None) -> dict[int, float]:
        """Values of one metric by epoch, up to and with ``until``."""
        return {
            epoch: values[metric]
            for epoch, values in sorted(self.epochs.items())
            if metric in values and (until is None or epoch <= until)
        }

    def best_epoch(self, objective: Objective) -> int | None:
        """Epoch with the best value of the objective, the earliest of equals.

        With several seeds per trial, among the epochs that are means over the most of them.
        """
        sign = -1 if objective.direction == "maximize" else 1
        most = max((row.get(AVERAGED, 1.0) for row in self.epochs.values()), default=1.0)
        ranked = [
            (sign * value, epoch)
            for epoch, value in self.curve(objective.metric).items()
            if self.epochs[epoch].get(AVERAGED, 1.0) == most
        ]
        return min(ranked)[1] if ranked else None

    @property
    def last(self) -> int:
        """Last epoch; 0 before the first."""
        return max(self.epochs, default=0)


def kept(config: SweepConfig, metrics: Mapping[str, float]) -> dict[str, float]:
    """Choose the metrics that decisions and their replay need; the tracking has the others."""
    named = {AVERAGED, *INTERVAL, *(objective.metric for objective in config.objectives)}
    named |= {name for rule in config.metric_constraints for name in rule.names}
    if config.budget.target is not None:
        named.add(config.budget.target.metric)
    return {
        name: float(value)
        for name, value in metrics.items()
        if math.isfinite(value)
        and (name in named or name == "train/loss" or name.startswith(("val/", "time/")))
    }


def missing(config: SweepConfig, metrics: Mapping[str, float]) -> str | None:
    """Say which objective or constrained metric has no finite value, if any."""
    names = [objective.metric for objective in config.objectives]
    settings = run_keys()
    for rule in config.metric_constraints:
        names += [name for name in rule.names if name not in settings]
    for name in names:
        if name not in metrics:
            return f"{name} is not among the metrics"
        if not math.isfinite(metrics[name]):
            return f"{name} is {metrics[name]}"
    return None


def ended(trial: FrozenTrial) -> Ended:
    """Read how a finished trial ended."""
    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    match trial.state.name:
        case "COMPLETE":
            state = "COMPLETE"
        case "PRUNED":
            state = "PRUNED"
        case _:
            state = "FAIL"
    return Ended(
        number=trial.number,
        state=state,
        reason=trial.user_attrs.get(REASON),
        values=None if trial.values is None else tuple(trial.values),
    )
