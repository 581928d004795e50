"""The driver's book: which trial goes out, what Tune's calls mean for the study."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.sweeps import METRIC, sweep

from vfsearch.search.ledger import Ledger
from vfsearch.search.records import Asked, Ended
from vfsearch.search.searcher import Halted, StudyScheduler, StudySearcher, WhenInterrupted
from vfsearch.search.study import open_study
from vfsearch.search.sweep_study import SweepStudy

MEDIAN = {"name": "median", "startup_trials": 1, "grace": 1}


class Notes:
    def __init__(self) -> None:
        self.lines: list[tuple[str, int]] = []
        self.ends: dict[int, Ended] = {}

    def started(self, asked: Asked) -> None:
        self.lines.append(("started", asked.number))

    def epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self.lines.append((f"epoch {epoch}", number))

    def ended(self, ended: Ended) -> None:
        self.ends[ended.number] = ended


def book(study: SweepStudy, slots: int = 1) -> Ledger:
    return Ledger(
        study=study,
        slots=slots,
        gpus=2.0,
        dispatch=lambda asked: {"number": asked.number},
        facts=lambda number: {"mlflow_run_id": f"run-{number}"},
        watcher=Notes(),
    )


@pytest.fixture
def study() -> Iterator[SweepStudy]:
    config = sweep(pruner=MEDIAN, budget={"trials": 3})
    with open_study(config, create=True, resume=False) as opened:
        yield opened


def again(study: SweepStudy) -> SweepStudy:
    """What a later driver sees."""
    study.close()
    return open_study(study.config, create=False, resume=True)


def notes(ledger: Ledger) -> Notes:
    assert isinstance(ledger.watcher, Notes)
    return ledger.watcher


def result(epoch: int, value: float) -> dict[str, Any]:
    return {"epoch": epoch, "metrics": json.dumps({METRIC: value})}


class Run:
    """A Tune trial, as far as a scheduler looks at it."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


COMPLETED = {"done": True, "kind": "completed", "retries": 1}


def complete(ledger: Ledger, tune_id: str, value: float) -> None:
    assert ledger.next(tune_id) is not None
    for epoch in (1, 2):
        assert not ledger.result(tune_id, result(epoch, value))
    ledger.ended(tune_id, COMPLETED, lost=False)


def test_a_completed_trial_is_told_with_its_time_and_run(study: SweepStudy) -> None:
    ledger = book(study)
    complete(ledger, "a", 0.7)
    (trial,) = study.study.trials
    assert trial.state.name == "COMPLETE"
    assert trial.value == 0.7
    assert trial.user_attrs["retries"] == 1
    assert trial.user_attrs["mlflow_run_id"] == "run-0"
    assert trial.user_attrs["gpu_seconds"] == 2 * trial.user_attrs["seconds"] > 0
    assert notes(ledger).lines == [("started", 0), ("epoch 1", 0), ("epoch 2", 0)]


def test_restarts_are_counted_over_drivers_and_in_stopped_trials(study: SweepStudy) -> None:
    ledger = book(study)
    complete(ledger, "a", 0.7)
    assert ledger.next("b") is not None
    assert ledger.result("b", result(1, 0.6) | {"retries": 1})
    ledger.ended("b", result(1, 0.6), lost=False)  # Tune's last result of a stopped trial
    assert study.study.trials[1].user_attrs["retries"] == 1
    assert ledger.next("c") is not None
    assert not ledger.result("c", result(1, 0.9) | {"retries": 2})
    with again(study) as resumed:  # killed
        later = book(resumed)
        assert later.next("x") == {"number": 2}
        later.ended("x", COMPLETED, lost=False)
        trial = resumed.study.trials[2]
        assert (trial.user_attrs["retries"], trial.user_attrs["resumed"]) == (3, 1)


def test_a_stopped_trial_is_told_as_pruned(study: SweepStudy) -> None:
    ledger = book(study)
    complete(ledger, "a", 0.7)
    scheduler, searcher = StudyScheduler(ledger), StudySearcher(ledger)
    assert searcher.suggest("b") == {"number": 1}
    assert scheduler.on_trial_result(None, Run("b"), result(1, 0.6)) == "STOP"
    searcher.on_trial_complete("b", result(1, 0.6))
    assert study.study.trials[1].state.name == "PRUNED"
    assert "median" in (notes(ledger).ends[1].reason or "")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_fails_the_trial(study: SweepStudy, value: float) -> None:
    ledger = book(study)
    assert ledger.next("a") is not None
    assert ledger.result("a", result(1, value))
    ledger.ended("a", result(1, value), lost=False)
    assert notes(ledger).ends[0].state == "FAIL"
    assert METRIC in (notes(ledger).ends[0].reason or "")


@pytest.mark.parametrize(
    ("last", "lost", "reason"),
    [
        ({"done": True, "kind": "failed", "reason": "out of memory: 1 TB"}, False, "out of memory"),
        ({}, True, "owned its workers was lost"),
        (None, True, "owned its workers was lost"),
        ({}, False, "ended without a result"),
    ],
)
def test_failures_are_told_with_their_reason(
    study: SweepStudy, last: dict[str, Any] | None, lost: bool, reason: str
) -> None:
    ledger = book(study)
    assert ledger.next("a") is not None
    ledger.ended("a", last, lost=lost)
    assert notes(ledger).ends[0].state == "FAIL"
    assert reason in (notes(ledger).ends[0].reason or "")


def test_slots_and_budget_bound_what_is_given_out(study: SweepStudy) -> None:
    ledger = book(study, slots=2)
    searcher = StudySearcher(ledger)
    assert searcher.suggest("a") == {"number": 0}
    assert searcher.suggest("b") == {"number": 1}
    assert searcher.suggest("c") is None
    ledger.ended("a", {}, lost=True)
    assert searcher.suggest("c") == {"number": 2}
    ledger.ended("b", {}, lost=True)
    assert searcher.suggest("d") == "FINISHED"
    assert ledger.stop_reason == "3 of 3 trials"


def test_gpu_hours_are_counted_over_drivers_also_of_one_that_was_killed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("vfsearch.search.ledger.time.monotonic", lambda: now[0])
    budget = {"dollars": 6.0, "dollars_per_gpu_hour": 3.0}  # two GPU-hours, one hour of a trial
    config = sweep(name="priced", budget=budget)
    with open_study(config, create=True, resume=False) as study:
        ledger = book(study)
        assert ledger.next("a") is not None
        now[0] += 1200
        assert not ledger.result("a", result(1, 0.5))
        now[0] += 5  # killed here: what came after the last note is lost, and no more
        with again(study) as resumed:
            later = book(resumed)
            assert later.next("b") == {"number": 0}
            now[0] += 1200
            later.ended("b", {}, lost=True)
            assert resumed.study.trials[0].user_attrs["gpu_seconds"] == 2 * 2400
            assert later.next("c") == {"number": 1}
            now[0] += 1199
            assert later._next() is not None, "running ones count, but not all is spent"
            now[0] += 1
            assert later.next("d") is None
            assert later.stop_reason == "6.00 of 6.00 dollars"


def test_running_trials_come_first_after_a_restart(study: SweepStudy) -> None:
    ledger = book(study, slots=2)
    for name in ("a", "b"):
        assert ledger.next(name) is not None
    assert not ledger.result("a", result(1, 0.7))
    with again(study) as resumed:
        later = book(resumed)
        assert later.next("x") == {"number": 0}
        later.ended("x", {}, lost=True)
        assert later.next("y") == {"number": 1}
        later.ended("y", {}, lost=True)
        assert later.next("z") == {"number": 2}


def test_a_decision_that_the_driver_did_not_live_to_take_is_taken_after_the_restart(
    study: SweepStudy,
) -> None:
    ledger = book(study)
    complete(ledger, "a", 0.7)
    assert ledger.next("b") is not None
    assert study.report(1, 1, {METRIC: 0.6}) is None  # killed here
    with again(study) as resumed:
        later = book(resumed)
        assert later.next("x") == {"number": 2}
        assert notes(later).ends[1].state == "PRUNED"
        assert resumed.study.trials[1].user_attrs["mlflow_run_id"] == "run-1"


def test_an_interrupt_stops_all_and_leaves_the_trial_running(study: SweepStudy) -> None:
    ledger = book(study)
    assert ledger.next("a") is not None
    stopper = WhenInterrupted(ledger)
    assert not stopper.stop_all()
    ledger.interrupt()
    with pytest.raises(Halted):
        stopper.stop_all()
    assert StudySearcher(ledger).suggest("b") == "FINISHED"
    ledger.settle()
    with again(study) as resumed:
        (asked,) = resumed.running()
        assert asked.number == 0
        spent = resumed.study.trials[0].user_attrs["seconds"]
        later = book(resumed)
        assert later.next("x") is not None
        later.ended("x", COMPLETED, lost=False)
        assert resumed.study.trials[0].user_attrs["seconds"] > spent


def test_an_error_of_the_study_ends_the_sweep_and_is_raised_by_the_driver(
    study: SweepStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = book(study)
    assert ledger.next("a") is not None

    def gone(*_: object) -> None:
        raise OSError("the database is gone")

    monkeypatch.setattr(study, "report", gone)
    assert StudyScheduler(ledger).on_trial_result(None, Run("a"), result(1, 0.5)) == "STOP"
    StudySearcher(ledger).on_trial_complete("a", result(1, 0.5))
    with pytest.raises(Halted):
        WhenInterrupted(ledger).stop_all()
    with pytest.raises(OSError, match="database is gone"):
        ledger.settle()
    assert study.study.trials[0].state.name == "RUNNING"
