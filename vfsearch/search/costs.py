"""Where the hours of a sweep went, and what stopping early saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from vfsearch.search.analysis import TrialRow


@dataclass(frozen=True, kw_only=True)
class Hours:
    """Trial-hours of a sweep by what they were spent on.

    A trial-hour is an hour in which one trial's group of workers is held; times the GPUs of a group
    it is GPU-hours.
    """

    training: float
    """Optimiser steps."""
    data: float
    """Steps that waited for their batch."""
    evaluation: float
    """Validation and checkpoints."""
    start_up: float
    """The rest of a trial's time: processes, corpus, model, reports and their answers."""
    waiting: float
    """Places for a trial that stood empty while other trials ran."""
    lost: float
    """Trials that failed, and what restarts had to do again."""
    split: bool
    """Whether the trials logged what training and evaluation took; if not, both are one."""

    @property
    def total(self) -> float:
        """All of them."""
        working = self.training + self.data + self.evaluation
        return working + self.start_up + self.waiting + self.lost


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What stopping trials early saved, against running every trial to its end."""

    trials: int
    """Trials that were stopped."""
    epochs_run: int
    epochs_full: int
    """Epochs that all trials would have run; failed and running ones count as they are."""
    hours: float
    """Trial-hours not spent, at each stopped trial's own pace."""


def hours_of(rows: Sequence[TrialRow]) -> Hours:
    """Add up a sweep's time.

    The overhead of a trial is its time less training, data and evaluation. For a trial that was
    never restarted that is start-up; for one that was, what exceeds the median of the others is
    lost. Time in which no trial ran at all (between two drivers) is nobody's.
    """
    held = [row for row in rows if row.seconds is not None and row.state != "RUNNING"]
    clean = [_overhead(row) for row in held if row.state != "FAIL" and row.restarts == 0]
    usual = median(clean) if clean else 0.0
    training = data = evaluation = start_up = lost = 0.0
    for row in held:
        if row.state == "FAIL":
            lost += row.seconds or 0.0
            continue
        overhead = _overhead(row)
        kept = overhead if row.restarts == 0 else min(overhead, usual)
        start_up += kept
        lost += overhead - kept
        training += _training(row)
        data += row.data or 0.0
        evaluation += row.evaluation or 0.0
    return Hours(
        training=training / 3600,
        data=data / 3600,
        evaluation=evaluation / 3600,
        start_up=start_up / 3600,
        waiting=_empty(held) / 3600,
        lost=lost / 3600,
        split=any(row.training is not None for row in held),
    )


def saving_of(rows: Sequence[TrialRow]) -> Saving:
    """Compare the epochs run with the epochs of trials that ran to their end."""
    full = full_length(rows)
    stopped = [row for row in rows if row.state == "PRUNED"]
    return Saving(
        trials=len(stopped),
        epochs_run=sum(row.epochs for row in rows),
        epochs_full=sum(max(row.epochs, full if row.state == "PRUNED" else 0) for row in rows),
        hours=sum(max(full - row.epochs, 0) * pace(row) for row in stopped) / 3600,
    )


def full_length(rows: Sequence[TrialRow]) -> int:
    """Epochs of a trial that is never stopped: the most that any has run."""
    complete = [row.epochs for row in rows if row.state == "COMPLETE"]
    return max(complete or [row.epochs for row in rows], default=0)


def pace(row: TrialRow) -> float:
    """Seconds per epoch of a trial, without its start-up where that is known; 0: no epoch."""
    if not row.epochs:
        return 0.0
    return _working(row) / row.epochs


def _training(row: TrialRow) -> float:
    return row.training if row.training is not None else row.seconds or 0.0


def _overhead(row: TrialRow) -> float:
    return max((row.seconds or 0.0) - _working(row), 0.0)


def _working(row: TrialRow) -> float:
    return _training(row) + (row.data or 0.0) + (row.evaluation or 0.0)


def lanes(rows: Sequence[TrialRow]) -> dict[int, int]:
    """Place of each started trial: the lowest that was free when it began, from 0."""
    began = sorted(
        (row.started.timestamp(), row.number, row) for row in rows if row.started is not None
    )
    free_at: list[float] = []
    places: dict[int, int] = {}
    for start, number, row in began:
        end = row.ended.timestamp() if row.ended is not None else float("inf")
        place = next((i for i, free in enumerate(free_at) if free <= start), len(free_at))
        free_at[place : place + 1] = [end]
        places[number] = place
    return places


def _empty(rows: Sequence[TrialRow]) -> float:
    """Seconds that places stood empty while at least one trial ran."""
    edges = sorted(
        edge
        for row in rows
        if row.started is not None and row.ended is not None
        for edge in ((row.started.timestamp(), 1), (row.ended.timestamp(), -1))
    )
    widest = running = 0
    for _, change in edges:
        running += change
        widest = max(widest, running)
    empty, running, last = 0.0, 0, None
    for moment, change in edges:
        if last is not None and running:
            empty += (widest - running) * (moment - last)
        running, last = running + change, moment
    return empty
