"""The driver's side of a sweep: which Tune trial is which trial of the study, and what happened.

Tune asks through `StudySearcher` and reports through `StudyScheduler`; both only call this ledger,
and the ledger only the study. An error of the study (a database that is gone) ends the sweep in
order and is raised by the driver, instead of being buried in Tune's log.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from vfsearch.search.records import EVALUATION, Asked, Ended
from vfsearch.search.sweep_study import SweepStudy


class Watcher(Protocol):
    """Who is told about the progress (the command line draws it)."""

    def started(self, asked: Asked) -> None:
        """A trial begins or continues."""

    def epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """A trial has reported an epoch."""

    def ended(self, ended: Ended) -> None:
        """A trial has ended."""


_NOTED = 10.0
"""Seconds after which the time of a running trial is noted again: what a kill may lose of it."""


@dataclass(kw_only=True)
class _Live:
    number: int
    since: float
    noted: float
    retries: int = 0
    """Restarts under this driver."""
    stop: str | None = None
    """Why the trial was stopped at its last report."""
    pruned: bool = False
    epoch: int = 0


@dataclass(kw_only=True)
class Ledger:
    """Book of one driver; used by Tune's event loop alone."""

    study: SweepStudy
    slots: int
    gpus: float
    """GPUs of one trial."""
    dispatch: Callable[[Asked], dict[str, Any]]
    """Makes the Tune configuration of a trial."""
    facts: Callable[[int], Mapping[str, Any]]
    """What else the study should know of a trial that ends, like its run's id."""
    watcher: Watcher
    interrupted: bool = False
    error: BaseException | None = None
    stop_reason: str | None = None
    _live: dict[str, _Live] = field(default_factory=dict)
    _waiting: list[Asked] = field(default_factory=list)
    _spent: dict[int, float] = field(default_factory=dict)
    """Seconds per trial of this sweep, over all its drivers."""
    _retried: dict[int, int] = field(default_factory=dict)
    """Restarts per trial under earlier drivers."""

    def __post_init__(self) -> None:
        self._waiting = self.study.running()
        for trial in self.study.study.get_trials(deepcopy=False):
            self._spent[trial.number] = float(trial.user_attrs.get("seconds", 0.0))
            self._retried[trial.number] = int(trial.user_attrs.get("retries", 0))

    @property
    def over(self) -> bool:
        """Whether no further trial will be given out."""
        return self.interrupted or self.error is not None or self.stop_reason is not None

    @property
    def full(self) -> bool:
        """Whether every slot is taken."""
        return len(self._live) >= self.slots

    def next(self, tune_id: str) -> dict[str, Any] | None:
        """Give out a trial of the study: those that an earlier driver left running come first."""
        asked = self._next()
        if asked is None:
            return None
        config = self.dispatch(asked)
        now = time.monotonic()
        self._live[tune_id] = _Live(number=asked.number, since=now, noted=now)
        self.watcher.started(asked)
        return config

    def rename(self, tune_id: str, other: str) -> None:
        """Know a trial that was given out by another name from here on."""
        self._live[other] = self._live.pop(tune_id)

    def _next(self) -> Asked | None:
        while self._waiting:
            asked = self._waiting.pop(0)
            self._count_resumption(asked.number)
            if asked.epoch == 0:
                return asked
            verdict = self.study.should_prune(asked.number, asked.epoch)
            if not verdict.prune:
                return asked
            self.study.note(asked.number, **self.facts(asked.number))
            self.watcher.ended(self.study.prune(asked.number, asked.epoch, verdict.reason))
        running = sum(time.monotonic() - live.since for live in self._live.values())
        gpu_seconds = self.gpus * (sum(self._spent.values()) + running)
        self.stop_reason = self.study.stop_reason(self.study.seconds, gpu_seconds)
        if self.stop_reason is not None:
            return None
        asked_now = self.study.ask()
        if asked_now is None:
            self.stop_reason = "every point of the grid was asked"
        return asked_now

    def _count_resumption(self, number: int) -> None:
        trial = next(t for t in self.study.study.get_trials(deepcopy=False) if t.number == number)
        self.study.note(number, resumed=int(trial.user_attrs.get("resumed", 0)) + 1)

    def result(self, tune_id: str, result: Mapping[str, Any]) -> bool:
        """Book an epoch; True: stop the trial here."""
        live = self._live[tune_id]
        live.epoch = int(result["epoch"])
        metrics: dict[str, float] = json.loads(result["metrics"])
        facts: dict[str, str] = json.loads(result.get("facts", "{}"))
        if EVALUATION in facts:
            self.study.measured_by(live.number, facts[EVALUATION])
        live.stop = self.study.report(live.number, live.epoch, metrics)
        self.watcher.epoch(live.number, live.epoch, metrics)
        retries = int(result.get("retries", 0))
        if retries > live.retries or time.monotonic() - live.noted >= _NOTED:
            live.retries = retries
            self._note_time(live)
        if live.stop is None:
            verdict = self.study.should_prune(live.number, live.epoch)
            if verdict.prune:
                live.stop, live.pruned = verdict.reason, True
        return live.stop is not None

    def ended(self, tune_id: str, result: Mapping[str, Any] | None, *, lost: bool) -> None:
        """Book the end of a trial.

        Args:
            tune_id: Tune's identifier.
            result: Tune's last result of the trial.
            lost: The process that owned the workers is gone, and Tune's retries are used up.
        """
        live = self._live.pop(tune_id, None)
        if live is None or self.error is not None:
            return
        result = result or {}
        live.retries = max(live.retries, int(result.get("retries", 0)))
        self._spent[live.number] = self._note_time(live)
        self.study.note(live.number, **self.facts(live.number))
        self.watcher.ended(self._tell(live, result, lost=lost))

    def interrupt(self) -> None:
        """Give out no more; what is running stays so in the study, for a later driver."""
        self.interrupted = True

    def settle(self) -> None:
        """After Tune is gone: raise what stopped it, keep the time of trials that did not end.

        Raises:
            Exception: what the study raised while Tune was running.
        """
        if self.error is not None:
            raise self.error
        for live in self._live.values():
            self._note_time(live)
        self._live.clear()

    def _note_time(self, live: _Live) -> float:
        live.noted = time.monotonic()
        seconds = self._spent.get(live.number, 0.0) + live.noted - live.since
        retries = self._retried.get(live.number, 0) + live.retries
        self.study.note(
            live.number, seconds=seconds, gpu_seconds=seconds * self.gpus, retries=retries
        )
        return seconds

    def _tell(self, live: _Live, result: Mapping[str, Any], *, lost: bool) -> Ended:
        if live.stop is not None and live.pruned:
            return self.study.prune(live.number, live.epoch, live.stop)
        if live.stop is not None:
            return self.study.fail(live.number, live.stop)
        if lost:
            return self.study.fail(live.number, "the process that owned its workers was lost")
        if result.get("kind") == "completed":
            return self.study.complete(live.number)
        return self.study.fail(live.number, str(result.get("reason") or "ended without a result"))
