"""The durable study: what was asked, reported and told, and nothing else, is the truth.

`SweepStudy` is the only door to Optuna for the engine. Every method may be repeated after a crash
with the same arguments and leaves the same study behind. Epochs count from 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from vfsearch.config import RunConfig
from vfsearch.search.definition import SweepConfig

Metrics = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A trial to run."""

    number: int
    """Number in the study; the stable name of the trial is made of it."""
    params: dict[str, Any]
    """Dotted parameters (and names of chosen bundles) that are active in this trial."""
    seed: int
    """Seed of the trial: a function of the sweep's seed and the number."""
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


class SweepStudy:
    """One sweep's study, with its driver's lock held from `open_study` until `close`."""

    config: SweepConfig

    def ask(self) -> Asked | None:
        """Propose the next trial (queued points first); None when the grid is exhausted.

        Raises:
            SweepError: no point satisfies the constraints.
        """
        raise NotImplementedError

    def running(self) -> list[Asked]:
        """Trials asked but not ended, in order: after a resume, run these first.

        Call ``should_prune(number, epoch)`` for those with ``epoch > 0`` before running them: the
        driver may have died between the report and the decision.
        """
        raise NotImplementedError

    def report(self, number: int, epoch: int, metrics: Metrics) -> str | None:
        """Store the metrics of an epoch.

        Returns:
            None, or the reason why the trial cannot go on (an objective is missing or not finite;
            the trial should then be ended with `fail`).
        """
        raise NotImplementedError

    def should_prune(self, number: int, epoch: int) -> Verdict:
        """Decide once, from the study alone, whether the trial stops after this epoch."""
        raise NotImplementedError

    def complete(self, number: int, metrics: Metrics | None = None) -> Ended:
        """Tell COMPLETE with the objectives at the trial's best epoch (by the first objective).

        Args:
            number: Trial.
            metrics: Metrics of the selected epoch; default: taken from what was reported.

        Returns:
            state FAIL with a reason instead, if an objective is missing or not finite.
        """
        raise NotImplementedError

    def prune(self, number: int, epoch: int, reason: str) -> Ended:
        """Tell PRUNED after ``epoch``."""
        raise NotImplementedError

    def fail(self, number: int, reason: str) -> Ended:
        """Tell FAIL with the reason."""
        raise NotImplementedError

    def note(self, number: int, **attributes: Any) -> None:
        """Record attributes of an unfinished trial: mlflow_run_id, seconds, retries, ..."""
        raise NotImplementedError

    def stop_reason(self, seconds: float, gpu_seconds: float) -> str | None:
        """Why no further trial should be asked (budget, target, terminator), or None.

        Args:
            seconds: Wall time of the sweep so far, over all its drivers.
            gpu_seconds: GPU time so far.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release the driver's lock and the connections."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_study(config: SweepConfig, *, create: bool, resume: bool) -> SweepStudy:
    """Create or open the study of a sweep and take its driver's lock.

    Args:
        config: The sweep.
        create: Make the study if there is none.
        resume: Continue one that exists.

    Raises:
        SweepError: it exists and ``resume`` is off, it does not exist and ``create`` is off, the
            space has changed, another driver runs it, or the database cannot be reached.
    """
    raise NotImplementedError
