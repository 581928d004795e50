"""A sweep as a table: every trial with what it was, what it cost and how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from vfsearch.evaluation.names import INTERVAL
from vfsearch.search.definition import Objective, SweepConfig
from vfsearch.search.records import REASON, SWEEP, WARM_START, Curves
from vfsearch.search.space import SearchSpace

TRAINING_SECONDS = ("time/step_seconds",)
"""Metrics per epoch: time in optimiser steps."""
DATA_SECONDS = ("time/data_seconds",)
"""Metrics per epoch: time in which a step waited for its batch."""
EVALUATION_SECONDS = ("time/evaluation_seconds", "time/bound_seconds", "time/checkpoint_seconds")
"""Metrics per epoch: time in evaluation and in writing checkpoints."""


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial of a sweep."""

    number: int
    state: str
    """Optuna's name: COMPLETE, PRUNED, FAIL, RUNNING or WAITING."""
    params: dict[str, Any]
    """Dotted parameters that are active in this trial."""
    values: tuple[float, ...] | None
    """One per objective; None unless COMPLETE."""
    reached: tuple[float | None, ...]
    """Per objective, its value at the trial's best epoch (also of trials that were stopped)."""
    epochs: int
    """Epochs reported."""
    curve: dict[int, float]
    """First objective by epoch."""
    seconds: float | None
    """Time that the trial held its workers; None while it runs and nothing is noted."""
    gpus: float
    """GPUs that it held; 0: it ran on CPUs."""
    training: float | None
    """Seconds of optimiser steps, over all reported epochs; None: not logged."""
    data: float | None
    """Seconds of waiting for batches, likewise."""
    evaluation: float | None
    """Seconds of evaluation and checkpoints, likewise."""
    started: datetime | None
    ended: datetime | None
    retries: int
    """Restarts after a lost worker or node."""
    resumed: int
    """How often a later driver went on with it."""
    reason: str | None
    """Why it was stopped or failed."""
    mlflow_run_id: str | None
    interval: tuple[float, float] | None = None
    """95 % of the first objective at its best epoch, over identities; None: not logged."""

    @property
    def restarts(self) -> int:
        """How often its workers began again."""
        return self.retries + self.resumed

    def document(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "number": self.number,
            "state": self.state,
            "params": self.params,
            "values": None if self.values is None else list(self.values),
            "epochs": self.epochs,
            "mlflow_run_id": self.mlflow_run_id,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "interval": None if self.interval is None else list(self.interval),
            "retries": self.retries,
            "resumed": self.resumed,
            "reason": self.reason,
            "started": None if self.started is None else self.started.isoformat(),
            "ended": None if self.ended is None else self.ended.isoformat(),
        }


def trials_table(study: optuna.Study) -> list[TrialRow]:
    """Read every trial of the sweep, by number; trials taken over by a warm start are not its own.

    Works on any Optuna study: what vfsearch notes beside Optuna's own fields may be missing.
    """
    config = sweep_of(study)
    objectives = objectives_of(study)
    space = SearchSpace(config) if config is not None else None
    # The interval is that of the metric that selects checkpoints.
    selects = config is not None and config.base.evaluation.select == objectives[0].metric
    return [
        _row(trial, objectives, space, selects=selects)
        for trial in study.get_trials(deepcopy=False)
        if WARM_START not in trial.user_attrs
    ]


def to_document(rows: Sequence[TrialRow]) -> dict[str, Any]:
    """Return what ``vfsearch trials SWEEP --json`` prints."""
    return {"trials": [row.document() for row in rows]}


def sweep_of(study: optuna.Study) -> SweepConfig | None:
    """Definition of the sweep, if the study is one of vfsearch's."""
    stored = study.user_attrs.get(SWEEP)
    return None if stored is None else SweepConfig.model_validate(stored)


def objectives_of(study: optuna.Study) -> tuple[Objective, ...]:
    """What the study optimises, with metric names where it has them."""
    config = sweep_of(study)
    if config is not None:
        return config.objectives
    count = len(study.directions)
    names = study.metric_names or [f"value {i + 1}" if count > 1 else "value" for i in range(count)]
    return tuple(
        Objective(metric=name, direction="maximize" if way.name == "MAXIMIZE" else "minimize")
        for name, way in zip(names, study.directions, strict=True)
    )


def better(direction: str, one: float, other: float) -> bool:
    """Whether ``one`` is strictly better than ``other``."""
    return one > other if direction == "maximize" else one < other


def ranked(rows: Sequence[TrialRow], objective: Objective) -> list[TrialRow]:
    """Completed trials, best first by the first objective; the earlier of equals first."""
    sign = -1 if objective.direction == "maximize" else 1
    complete = [row for row in rows if row.values is not None]
    return sorted(complete, key=lambda row: (sign * (row.values or (0.0,))[0], row.number))


def pareto_front(rows: Sequence[TrialRow], objectives: Sequence[Objective]) -> list[int]:
    """Numbers of the completed trials that no other completed trial dominates."""
    signs = [-1 if objective.direction == "maximize" else 1 for objective in objectives]
    points = {
        row.number: tuple(sign * value for sign, value in zip(signs, row.values, strict=True))
        for row in rows
        if row.values is not None
    }

    def dominated(point: tuple[float, ...]) -> bool:
        return any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True))
            for other in points.values()
        )

    return sorted(number for number, point in points.items() if not dominated(point))


def _row(
    trial: FrozenTrial,
    objectives: Sequence[Objective],
    space: SearchSpace | None,
    *,
    selects: bool,
) -> TrialRow:
    curves = Curves.of(trial)
    first = objectives[0]
    curve = curves.curve(first.metric) or dict(sorted(trial.intermediate_values.items()))
    notes = trial.user_attrs
    seconds = notes.get("seconds")
    if seconds is None and trial.duration is not None:
        seconds = trial.duration.total_seconds()
    values = None
    if trial.state == TrialState.COMPLETE and trial.values is not None:
        values = tuple(float(value) for value in trial.values)
    return TrialRow(
        number=trial.number,
        state=trial.state.name,
        params=trial.params if space is None else space.active(trial.params),
        values=values,
        reached=values or _reached(curves, curve, objectives),
        epochs=int(notes.get("epochs") or max(curve, default=0)),
        curve=curve,
        seconds=None if seconds is None else float(seconds),
        gpus=_gpus(notes),
        training=_spent(curves, TRAINING_SECONDS),
        data=_spent(curves, DATA_SECONDS),
        evaluation=_spent(curves, EVALUATION_SECONDS),
        started=trial.datetime_start,
        ended=trial.datetime_complete,
        retries=int(notes.get("retries") or 0),
        resumed=int(notes.get("resumed") or 0),
        reason=notes.get(REASON),
        mlflow_run_id=notes.get("mlflow_run_id"),
        interval=_interval(curves, first) if selects else None,
    )


def _interval(curves: Curves, objective: Objective) -> tuple[float, float] | None:
    row = curves.epochs.get(curves.best_epoch(objective) or 0, {})
    return (row[INTERVAL[0]], row[INTERVAL[1]]) if INTERVAL[0] in row else None


def _gpus(notes: Mapping[str, Any]) -> float:
    seconds, gpu_seconds = notes.get("seconds"), notes.get("gpu_seconds")
    return float(gpu_seconds / seconds) if seconds and gpu_seconds else 0.0


def _reached(
    curves: Curves, curve: dict[int, float], objectives: Sequence[Objective]
) -> tuple[float | None, ...]:
    first = objectives[0]
    if not curve:
        return (None,) * len(objectives)
    sign = -1 if first.direction == "maximize" else 1
    best = curves.best_epoch(first) or min(curve, key=lambda at: (sign * curve[at], at))
    others = [curves.epochs.get(best, {}).get(o.metric) for o in objectives[1:]]
    return (curve[best], *others)


def _spent(curves: Curves, names: tuple[str, ...]) -> float | None:
    found = [
        seconds
        for metrics in curves.epochs.values()
        for name, seconds in metrics.items()
        if name in names
    ]
    return sum(found) if found else None
