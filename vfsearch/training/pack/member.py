"""One run in a pack: what it keeps beside its tensors, and when it goes to disk.

An epoch of a member is a few milliseconds long, far less than writing it down. So a member keeps
its last and best epochs in memory and is written at most every `SAVE_SECONDS`, when it ends and
when it leaves. What a crash then loses is trained again, to the same numbers.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vfsearch.config import RunConfig
from vfsearch.corpus.features import Features
from vfsearch.evaluation.epoch import EpochEvaluator
from vfsearch.training import checkpoint as files
from vfsearch.training.loop import EpochReport, Outcome, outcome
from vfsearch.training.meter import EpochMeter, epoch_metrics
from vfsearch.training.resume import resume
from vfsearch.training.run import Run
from vfsearch.training.steps import StepFile, StepRow

SAVE_SECONDS = 20.0
"""Time between two checkpoints of a member."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run that joins a pack."""

    number: int
    """Its name in the pack."""
    config: RunConfig
    out: Path
    """Its folder."""


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """An epoch as it goes to disk."""

    epoch: int
    step: int
    sampler: dict[str, int]
    model: dict[str, Tensor]
    training: dict[str, Tensor]


class Member:
    """A run, its history and its checkpoints."""

    def __init__(self, entry: Entry, run: Run, evaluator: EpochEvaluator) -> None:
        """Take up the run's last checkpoint, if it has one.

        ``evaluator`` is the member's own: it keeps what the last model embedded.

        Raises:
            CheckpointError: it is damaged, or of another run.
        """
        self.entry, self.run, self.evaluator = entry, run, evaluator
        self._root = entry.out / "checkpoints"
        self._steps = StepFile(entry.out)
        self._unwritten: list[tuple[int, list[list[float]]]] = []
        self._best_tensors: _Saved | None = None
        state = resume(run, self._root)
        self._steps.resume(run.step)
        self.history: list[dict[str, float]] = list(state.history) if state else []
        self._best = state.best if state else None
        self._written = run.epoch
        self._saved_at = time.monotonic()

    @property
    def resumed(self) -> bool:
        """Whether it has epochs behind it that must be reported once more."""
        return self.run.epoch > 0

    @property
    def finished(self) -> bool:
        """Whether its plan is done."""
        return self.run.step >= self.run.plan.total

    def record(self, meter: EpochMeter, evaluated: dict[str, float]) -> None:
        """Book an epoch that was just trained and evaluated.

        Raises:
            TrainingDiverged: a loss or a parameter is not finite.
        """
        run, table = self.run, meter.table()
        metrics = epoch_metrics(run, table) | evaluated
        metrics |= {f"time/{what}_seconds": value for what, value in meter.seconds.items()}
        self.history.append(metrics)
        self._unwritten.append((meter.first, table))
        value = metrics[run.config.evaluation.select]
        if self._best is None or value > self._best.value:
            self._best = files.Best(epoch=run.epoch, value=value)
            self._best_tensors = self._snapshot()

    def save_if_due(self) -> None:
        """Write the member if that was long ago, or if this was its last epoch."""
        if self.finished or time.monotonic() - self._saved_at >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the best epoch, if it is not on disk, and the last one.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        if self._written == self.run.epoch:
            return
        start = time.perf_counter()
        for first, table in self._unwritten:
            self._steps.append(first, table)
        self._unwritten.clear()
        best = self._best_tensors
        if best is not None and self._written < best.epoch < self.run.epoch:
            self._write(best)
        self._write(self._snapshot())
        self._best_tensors = None
        self._written = self.run.epoch
        self._saved_at = time.monotonic()
        self.history[-1]["time/checkpoint_seconds"] = time.perf_counter() - start

    def report(self) -> EpochReport:
        """The last epoch."""
        run = self.run
        assert self._best is not None
        return EpochReport(
            epoch=run.epoch,
            step=run.step,
            metrics=dict(self.history[-1]),
            best=self._best.epoch == run.epoch,
            checkpoint=self._root.resolve() / files.folder_name(run.epoch),
            steps=self._rows(),
            evaluator=self.evaluator,
        )

    def outcome(self, *, stopped: bool) -> Outcome:
        """How it ended; everything is on disk then."""
        self.save()
        return outcome(self._state(self._snapshot()), self._root, stopped=stopped)

    def _rows(self) -> tuple[StepRow, ...]:
        if not self._unwritten:
            return self._steps.rows(self.run.plan.epoch_start(self.run.step), self.run.step)
        first, table = self._unwritten[-1]
        return tuple(
            StepRow(step=step, terms=tuple(terms)) for step, terms in enumerate(table, start=first)
        )

    def _snapshot(self) -> _Saved:
        run = self.run
        return _Saved(
            epoch=run.epoch,
            step=run.step,
            sampler=run.stream.state(),
            model={name: t.detach().clone() for name, t in run.model.state_dict().items()},
            training={name: t.detach().clone() for name, t in run.training_tensors().items()},
        )

    def _write(self, saved: _Saved) -> None:
        files.save_checkpoint(self._root, self._state(saved), saved.model, saved.training)

    def _state(self, saved: _Saved) -> files.CheckpointState:
        run, best = self.run, self._best
        assert best is not None
        return files.CheckpointState(
            config=run.config,
            step=saved.step,
            epoch=saved.epoch,
            sampler=saved.sampler,
            best=best,
            history=self.history[: saved.epoch],
            split_hash=run.store.split_hash,
            identities=[identity.voice_id for identity in run.store.identities],
            features=run.store.extraction if isinstance(run.store, Features) else None,
        )
