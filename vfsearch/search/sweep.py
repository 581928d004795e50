"""A sweep: Ray Tune executes, the study decides, and nothing is left behind."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from vfsearch.config import RunConfig, home
from vfsearch.search.cluster import connected
from vfsearch.search.definition import SweepConfig
from vfsearch.search.ledger import Ledger, Watcher
from vfsearch.search.mailbox import Order
from vfsearch.search.resources import GroupShape, shape_of, slots
from vfsearch.search.records import Asked
from vfsearch.search.study import open_study

_TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the old reporter is silent when told so
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the sweep and tells the caller
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # nobody reads Tune's snapshots
    "TUNE_FORCE_TRIAL_CLEANUP_S": "45",  # longer than a group takes to send its workers home
    "TUNE_WARN_THRESHOLD_S": "30",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """How a driver's part of a sweep ended."""

    name: str
    folder: Path
    stop_reason: str
    """Why no further trial was asked."""


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How the sweep is executed; the same results whatever it is."""

    address: str | None = None
    """Ray cluster; None: ``RAY_ADDRESS``, else this machine."""
    warm: bool = True
    """Keep the workers between trials."""
    task: str = "vfsearch.search.task:train_trial"
    """What the workers do for a trial, as ``module:function``."""


def sweep_folder(name: str) -> Path:
    """Folder of a sweep: study, trials' checkpoints."""
    return home() / "sweeps" / name


def run_sweep(
    config: SweepConfig,
    *,
    resume: bool,
    watcher: Watcher,
    mode: Mode = Mode(),  # noqa: B008
) -> SweepOutcome:
    """Run a sweep to the end of its budget.

    Args:
        config: The sweep.
        resume: Continue the sweep of this name: trials that ended stay, those that were running
            go on from their last checkpoint.
        watcher: Is told about the progress, from this thread.
        mode: How.

    Raises:
        SweepError: it can never fit the cluster, exists already, or is being run elsewhere.
        KeyboardInterrupt: after an orderly stop; ``resume`` continues it.
    """
    folder = sweep_folder(config.name)
    with open_study(config, create=True, resume=resume) as study, connected(mode.address) as nodes:
        shape = shape_of(config.base.workers, nodes)
        ledger = Ledger(
            study=study,
            slots=slots(shape, nodes, config.concurrency),
            gpus=shape.workers * shape.gpus,
            dispatch=lambda asked: _tune_config(asked, folder, nodes, mode),
            watcher=watcher,
        )
        with _interruptible(ledger), _environment(_TUNE):
            _tune(ledger, config, folder, mode)
        if ledger.error is None:
            ledger.settle()
    if ledger.error is not None:
        raise ledger.error
    if ledger.interrupted:
        raise KeyboardInterrupt
    return SweepOutcome(
        name=config.name, folder=folder, stop_reason=ledger.stop_reason or "no trial was left"
    )


def _tune(ledger: Ledger, config: SweepConfig, folder: Path, mode: Mode) -> None:
    from ray import tune

    from vfsearch.search.searcher import StudyScheduler, StudySearcher, WhenInterrupted
    from vfsearch.search.trial import SweepTrial

    engine = folder / "engine"
    shutil.rmtree(engine, ignore_errors=True)
    # A sliver of the resource that every Ray cluster's head node has: the owners of the groups
    # need no CPU of their own, and live where no worker node takes them along.
    trainable = tune.with_resources(SweepTrial, {"node:__internal_head__": 0.001})
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(ledger),
            scheduler=StudyScheduler(ledger),
            num_samples=-1,
            reuse_actors=mode.warm,
            trial_name_creator=lambda trial: f"tune-{trial.trial_id}",
            trial_dirname_creator=lambda trial: f"tune-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(engine),
            verbose=0,
            stop=WhenInterrupted(ledger),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=config.base.workers.max_retries),
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(engine, ignore_errors=True)


def _tune_config(
    asked: Asked, folder: Path, nodes: list[dict[str, float]], mode: Mode
) -> dict[str, Any]:
    order = Order(
        number=asked.number,
        config=absolute(asked.config).model_dump(mode="json"),
        out=str(folder / "trials" / trial_name(asked.number)),
        task=mode.task,
        extra={},
    )
    shape: GroupShape = shape_of(asked.config.workers, nodes)
    return {
        "order": json.dumps(asdict(order)),
        "shape": json.dumps(asdict(shape)),
        "storage": str(folder / "engine" / "train"),
    }


def trial_name(number: int) -> str:
    """Stable name of a trial: of its folder and of its run."""
    return f"t{number:03d}"


def absolute(config: RunConfig) -> RunConfig:
    """Make the corpus folder absolute: workers may start in another directory."""
    corpus = config.corpus.model_copy(update={"root": config.corpus.root.absolute()})
    if corpus.store is not None:
        corpus = corpus.model_copy(update={"store": corpus.store.absolute()})
    return config.model_copy(update={"corpus": corpus})


@contextmanager
def _interruptible(ledger: Ledger) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the sweep in order; a second one acts as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def interrupt(number: int, _frame: FrameType | None) -> None:
        ledger.interrupt()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set variables that Tune reads, where the user has not set them."""
    added = [name for name in settings if name not in os.environ]
    os.environ.update({name: settings[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
