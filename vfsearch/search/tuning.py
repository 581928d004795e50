"""Ray Tune, told to execute and to decide nothing: its own records are thrown away."""

import contextlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from vfsearch.search.ledger import Ledger
from vfsearch.search.mailbox import Order
from vfsearch.search.pack_book import PackBook
from vfsearch.search.resources import GroupShape

_TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the old reporter is silent when told so
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the sweep and tells the caller
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # nobody reads Tune's snapshots
    "TUNE_FORCE_TRIAL_CLEANUP_S": "45",  # longer than a group takes to send its workers home
    "TUNE_WARN_THRESHOLD_S": "30",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}

_OWNER = {"node:__internal_head__": 0.001}
"""What the owner of a worker group asks for: a sliver of the resource that the head node of every
Ray cluster has. It needs no CPU of its own, and lives where no worker node takes it along."""


def tune_config(order: Order, shape: GroupShape, folder: Path) -> dict[str, Any]:
    """Make the configuration of one Tune trial, read by `SweepTrial`."""
    return {
        "order": json.dumps(asdict(order)),
        "shape": json.dumps(asdict(shape)),
        "storage": str(_engine(folder) / "train"),
    }


def run_tune(ledger: Ledger | PackBook, folder: Path, *, warm: bool, max_retries: int) -> None:
    """Run Tune until the ledger gives out nothing more, or is interrupted.

    Args:
        ledger: Gives out trials and is told about them.
        folder: Of the sweep; Tune's files in it are removed before and after.
        warm: Keep the actors, and so the workers, between trials.
        max_retries: How often a trial is begun again whose owner was lost.
    """
    from ray import tune
    from ray.tune.execution import class_cache

    from vfsearch.search.searcher import Halted, StudyScheduler, StudySearcher, WhenInterrupted
    from vfsearch.search.trial import SweepTrial

    # Tune hands AWS keys of the driver's environment on, and Ray writes what it hands on into its
    # logs. Workers here inherit the environment; other nodes have a role or a file of keys.
    class_cache.ENV_VARS_TO_PROPAGATE -= {
        name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")
    }
    engine = _engine(folder)
    shutil.rmtree(engine, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(SweepTrial, _OWNER),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(ledger),
            scheduler=StudyScheduler(ledger),
            num_samples=-1,
            reuse_actors=warm,
            trial_name_creator=_short_name,
            trial_dirname_creator=_short_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(engine),
            verbose=0,
            stop=WhenInterrupted(ledger),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=max_retries),
        ),
    )
    try:
        with _interruptible(ledger), _environment(_TUNE), contextlib.suppress(Halted):
            tuner.fit()
    finally:
        shutil.rmtree(engine, ignore_errors=True)


def _engine(folder: Path) -> Path:
    return folder / "engine"


def _short_name(trial: Any) -> str:
    return f"tune-{trial.trial_id}"


@contextmanager
def _interruptible(ledger: Ledger | PackBook) -> Iterator[None]:
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
