"""Tune's searcher, scheduler and stopper: adapters without state over the sweep's ledger."""

from collections.abc import Callable
from typing import Any, TypeVar

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from vfsearch.search.ledger import Ledger
from vfsearch.search.pack_book import PackBook

T = TypeVar("T")


class _OverLedger:
    """Holds the ledger, and keeps it out of the snapshots that Tune makes and nobody reads."""

    _ledger: Ledger | PackBook

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _guard(self, action: Callable[[], T], otherwise: T) -> T:
        try:
            return action()
        except Exception as error:
            self._ledger.error = self._ledger.error or error
            return otherwise


class StudySearcher(_OverLedger, Searcher):
    """Proposes what the study asks."""

    def __init__(self, ledger: Ledger | PackBook) -> None:
        super().__init__(metric=None, mode=None)
        self._ledger = ledger

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's configuration, None while all slots are taken, or FINISHED."""
        if not self._ledger.over and self._ledger.full:
            return None
        config = (
            None if self._ledger.over else self._guard(lambda: self._ledger.next(trial_id), None)
        )
        return Searcher.FINISHED if config is None else config

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Book the end of the trial."""
        self._guard(lambda: self._ledger.ended(trial_id, result, lost=error), None)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study is the truth."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing: the study is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: a resumed sweep is a new Tuner over the same study."""


class StudyScheduler(_OverLedger, FIFOScheduler):
    """Reports every epoch to the study and stops what the study prunes."""

    def __init__(self, ledger: Ledger | PackBook) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = ledger

    def on_trial_result(self, _controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Return Tune's STOP or CONTINUE."""
        stop = self._guard(lambda: self._ledger.result(trial.trial_id, result), True)
        decision: str = TrialScheduler.STOP if stop else TrialScheduler.CONTINUE
        return decision


class Halted(BaseException):
    """Leaves Tune at once, without its clean-up, which would wait for the running epochs.

    Whatever Tune holds can be thrown away at any moment; the processes go with Ray's connection.
    """


class WhenInterrupted(_OverLedger, Stopper):
    """Ends the sweep at the next turn of Tune's loop after an interrupt or an error."""

    def __init__(self, ledger: Ledger | PackBook) -> None:
        self._ledger = ledger

    def __call__(self, _trial_id: str, _result: dict[str, Any]) -> bool:
        """Stop no single trial: that is the scheduler's."""
        return False

    def stop_all(self) -> bool:
        """Go on, or leave.

        Raises:
            Halted: after an interrupt, or an error of the study.
        """
        if self._ledger.interrupted or self._ledger.error is not None:
            raise Halted
        return False
