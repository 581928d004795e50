"""The training loop: load, step, evaluate, checkpoint, report. Runs on every rank.

Knows torch.distributed if it is initialised, nothing of the engine that started it: plain
``torchrun``, a unit test and a trial of a sweep run the same code with another reporter.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from vfsearch.config import RunConfig
from vfsearch.corpus.features import Features, open_split
from vfsearch.corpus.store import Store
from vfsearch.errors import ConfigError
from vfsearch.evaluation.epoch import EpochEvaluator
from vfsearch.evaluation.training_bound import TrainingBound
from vfsearch.model.execution import eagerly
from vfsearch.training import checkpoint as files
from vfsearch.training.distributed import World, agree, average_buffers
from vfsearch.training.meter import EpochMeter, epoch_metrics
from vfsearch.training.resume import resume
from vfsearch.training.run import Run
from vfsearch.training.steps import StepFile, StepRow


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One epoch, as rank 0 reports it. ``epoch`` counts from 1 and never restarts."""

    epoch: int
    step: int
    metrics: dict[str, float]
    best: bool
    checkpoint: Path
    """Folder of this epoch's checkpoint; unchanged until two epochs later."""
    evaluator: EpochEvaluator
    """What measured it."""
    steps: tuple[StepRow, ...] = ()
    """What each optimiser step of the epoch recorded."""


class Reporter(Protocol):
    """Who is told about epochs (on rank 0 only)."""

    def report(self, report: EpochReport) -> bool:
        """Take note of an epoch; False ends the run after it.

        After a resume the epoch of the checkpoint is reported once more: a kill may have come
        between checkpoint and report.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended; the same on every rank but for the folders, which only rank 0 has."""

    epoch: int
    step: int
    stopped: bool
    """True when the reporter ended it early."""
    best_epoch: int
    best_value: float
    """``evaluation.select`` of the best epoch."""
    history: tuple[dict[str, float], ...]
    """Metrics of every epoch."""
    last: Path
    best: Path


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The splits of a run, decoded or as features."""

    train: Store | Features
    val: Store | Features

    @classmethod
    def open(cls, config: RunConfig) -> "Stores":
        """Open both; builds what is not decoded yet."""
        return cls(train=open_split(config, "train"), val=open_split(config, "val"))


def train(
    config: RunConfig,
    out: Path,
    reporter: Reporter,
    *,
    device: torch.device,
    stores: Stores | None = None,
) -> Outcome:
    """Train one run, or continue it from ``out/checkpoints/last``.

    Args:
        config: the run.
        out: its folder; only rank 0 reads and writes there.
        reporter: told about each epoch on rank 0; its decision holds on every rank.
        device: of this rank.
        stores: opened splits to use instead of opening ``config.corpus`` (warm workers).

    Raises:
        ConfigError: ``evaluation.select`` is no metric of this evaluation.
        CheckpointError: ``last`` is damaged or of another run.
        TrainingDiverged: a loss or parameter is not finite.
    """
    world, root = World.current(), out / "checkpoints"
    stores = stores or Stores.open(config)
    evaluator = EpochEvaluator(stores.val, config.evaluation)
    bound = TrainingBound(stores.train, config.evaluation)
    steps = StepFile(out)
    check_select(config, evaluator)
    with deterministic(device):
        run = Run(config, stores.train, device=device, world=world)
        state = resume(run, root)
        if world.rank == 0:
            steps.resume(run.step)
        go_on = state is None or _report(reporter, state, run, root, steps, evaluator)
        while go_on and run.step < run.plan.total:
            meter = EpochMeter(run.step)
            run.begin_epoch()
            for _ in range(run.step, run.plan.epoch_end(run.step)):
                with meter.timed("data"):
                    batch = next(run.stream)
                with meter.timed("step"):
                    meter.add(run.advance(batch))
            run.epoch += 1
            table = meter.table()
            metrics = epoch_metrics(run, table)
            with meter.timed("evaluation"), eagerly(config.training):
                average_buffers(run.model, world)
                run.model.eval()
                metrics |= evaluator(run.model, device=device, rank=world.rank, world=world.size)
            with meter.timed("bound"), eagerly(config.training):
                metrics |= bound(
                    run.model,
                    run.model.classifier.weight,
                    run.reweighting.weights,
                    device=device,
                    rank=world.rank,
                    world=world.size,
                )
            metrics |= {f"time/{what}_seconds": value for what, value in meter.seconds.items()}
            state = _state(run, metrics, state)
            with meter.timed("checkpoint"):
                if world.rank == 0:
                    steps.append(meter.first, table)
                    files.save_checkpoint(
                        root, state, run.model.state_dict(), run.training_tensors()
                    )
            state.history[-1]["time/checkpoint_seconds"] = meter.seconds["checkpoint"]
            go_on = _report(reporter, state, run, root, steps, evaluator)
    assert state is not None, "a plan has at least one step"
    return outcome(state, root, stopped=not go_on)


def _state(
    run: Run, metrics: dict[str, float], before: files.CheckpointState | None
) -> files.CheckpointState:
    value = metrics[run.config.evaluation.select]
    best = before.best if before else None
    if best is None or value > best.value:
        best = files.Best(epoch=run.epoch, value=value)
    return files.CheckpointState(
        config=run.config,
        step=run.step,
        epoch=run.epoch,
        sampler=run.stream.state(),
        best=best,
        history=[*(before.history if before else []), metrics],
        split_hash=run.store.split_hash,
        identities=[identity.voice_id for identity in run.store.identities],
        features=run.store.extraction if isinstance(run.store, Features) else None,
    )


def _report(
    reporter: Reporter,
    state: files.CheckpointState,
    run: Run,
    root: Path,
    steps: StepFile,
    evaluator: EpochEvaluator,
) -> bool:
    go_on = True
    if run.world.rank == 0:
        go_on = reporter.report(
            EpochReport(
                epoch=state.epoch,
                step=state.step,
                metrics=dict(state.history[-1]),
                best=state.best.epoch == state.epoch,
                checkpoint=(root / "last").resolve(),
                steps=steps.rows(run.plan.epoch_start(state.step), state.step),
                evaluator=evaluator,
            )
        )
    return agree(go_on, run.world, run.device)


def outcome(state: files.CheckpointState, root: Path, *, stopped: bool) -> Outcome:
    """How a run with this last state ended."""
    return Outcome(
        epoch=state.epoch,
        step=state.step,
        stopped=stopped,
        best_epoch=state.best.epoch,
        best_value=state.best.value,
        history=tuple(state.history),
        last=root / "last",
        best=root / "best",
    )


def check_select(config: RunConfig, evaluator: EpochEvaluator) -> None:
    """Refuse a run that chooses its best epoch by a metric that is not measured.

    Raises:
        ConfigError: names the metrics there are.
    """
    if config.evaluation.select not in evaluator.keys:
        raise ConfigError(
            [
                f"evaluation.select: {config.evaluation.select!r} is no metric of this "
                f"evaluation, it should be one of {', '.join(evaluator.keys)}"
            ]
        )


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """On CPU refuse nondeterministic kernels; CUDA would need a process-wide environment."""
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic  # its attributes are made at run time
    fills = memory.fill_uninitialized_memory
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        # Nothing reads memory that it has not written: filling it first costs a tenth of a step.
        memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = fills
