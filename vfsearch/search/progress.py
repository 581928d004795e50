"""How far a sweep is, and what it will take: pure functions of its study."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import Any

import optuna

from vfsearch.search import records
from vfsearch.search.analysis import TrialRow, better, trials_table
from vfsearch.search.budget import Budget
from vfsearch.search.definition import SweepConfig
from vfsearch.search.resources import Packing

PLACE = "vfsearch:place"
"""Study attribute: what the last driver's cluster holds (`Packing`)."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A trial that runs."""

    number: int
    params: dict[str, Any]
    epoch: int
    value: float | None
    """First objective at its last epoch."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A sweep at one moment."""

    states: dict[str, int]
    """Trials by state, in words."""
    total: int | None
    """Trials of the budget."""
    rungs: tuple[int, ...]
    """Trials that reached rung 0, 1, ... of the pruner."""
    running: tuple[Running, ...]
    best: tuple[int, float] | None
    """Trial and value of the first objective."""
    gpus_busy: float
    gpus: float
    """Of the cluster, as the last driver found it."""
    gpu_hours: float
    dollars: float | None
    """Cost so far; None: no price."""
    seconds_left: float | None
    """None: not known yet."""


def progress_of(
    study: optuna.Study, config: SweepConfig, *, now: datetime, price: float | None
) -> Progress:
    """Read how far a sweep is.

    Args:
        study: Its study.
        config: Its definition.
        now: The time, as the study's clock has it.
        price: Dollars per GPU-hour.
    """
    rows = trials_table(study)
    packing = Packing(**study.user_attrs.get(PLACE, {}))
    live = [row for row in rows if row.state == "RUNNING" and row.started is not None]
    busy = len(live) * packing.gpus_per_trial
    ages = {row.number: (now - row.started).total_seconds() for row in live if row.started}
    held = sum(row.gpus * (row.seconds or 0.0) for row in rows if row.state != "RUNNING")
    gpu_hours = (held + sum(ages.values()) * packing.gpus_per_trial) / 3600
    words = {"FAIL": "failed", "WAITING": "queued"}
    counted = Counter(words.get(row.state, row.state.lower()) for row in rows)
    return Progress(
        states=dict(sorted(counted.items())),
        total=config.budget.trials,
        rungs=_rungs(study),
        running=tuple(
            Running(
                number=row.number,
                params=row.params,
                epoch=row.epochs,
                value=row.curve.get(row.epochs),
                seconds=ages[row.number],
            )
            for row in live
        ),
        best=_best(rows, config.objectives[0].direction),
        gpus_busy=busy,
        gpus=packing.gpus,
        gpu_hours=gpu_hours,
        dollars=None if price is None else gpu_hours * price,
        seconds_left=seconds_left(rows, config.budget, packing.trials),
    )


def seconds_left(rows: Sequence[TrialRow], budget: Budget, places: int) -> float | None:
    """Estimate the rest at the mean time of the trials that have ended, else at the declared one.

    Trials that run are taken to be half done. None: nothing to go by.
    """
    total = budget.trials
    ended = [row.seconds for row in rows if row.state in ("COMPLETE", "PRUNED") and row.seconds]
    if not ended and budget.trial_hours is not None:
        ended = [budget.trial_hours * 3600]
    if total is None or not ended:
        return None
    over = sum(row.state in ("COMPLETE", "PRUNED", "FAIL") for row in rows)
    live = sum(row.state == "RUNNING" for row in rows)
    return max(total - over - live / 2, 0.0) * fmean(ended) / max(places, 1)


def _rungs(study: optuna.Study) -> tuple[int, ...]:
    reached: Counter[int] = Counter()
    for trial in study.get_trials(deepcopy=False):
        noted = trial.user_attrs.get(records.PRUNING, {}).get("rungs", {})
        reached.update(int(name.rpartition("_")[2]) for name in noted)
    return tuple(reached[rung] for rung in range(max(reached, default=-1) + 1))


def _best(rows: Sequence[TrialRow], direction: str) -> tuple[int, float] | None:
    best: tuple[int, float] | None = None
    for row in rows:
        value = row.reached[0] if row.reached else None
        if value is not None and (best is None or better(direction, value, best[1])):
            best = (row.number, value)
    return best
