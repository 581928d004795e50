"""A trial on a worker: training, and on rank 0 the log of its run.

What costs time to open stays open between trials: the decoded stores are mapped once per worker.
Sending to the servers goes on in the background while the next trial trains; whatever a killed
worker could not send is in the spool, and the driver sends it.
"""

import gc
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vfsearch.config import CorpusConfig, RunConfig
from vfsearch.search.driver import machine_id
from vfsearch.search.lines import TrialLines
from vfsearch.search.mailbox import LEAVE, Task
from vfsearch.search.mirror import TrialMirror
from vfsearch.search.records import EVALUATION
from vfsearch.search.run_record import RunRecord
from vfsearch.search.seeds import train_seeds
from vfsearch.search.serve import NodeLeavesError, Reply
from vfsearch.search.tracks import Tracked
from vfsearch.tracking.connection import storage_of
from vfsearch.tracking.corpora import Held, hold
from vfsearch.training.distributed import World, gather_values
from vfsearch.training.loop import EpochReport, Stores

logger = logging.getLogger(__name__)
SEND = 300.0
"""Seconds that the log of a trial may take to be sent once the trial has ended."""
GO_HOME = 15.0
"""Seconds that a worker which is sent home waits for its logs."""


class TrainTrial:
    """Trains orders one after the other (a `Performer`)."""

    def __init__(self, rank: int) -> None:
        """Keep nothing yet."""
        self._rank = rank
        self._lines = TrialLines(rank)
        self._corpus: CorpusConfig | None = None
        self._stores: Stores | None = None
        self._held: Held | None = None
        self._record: RunRecord | None = None
        self._mirror: TrialMirror | None = None
        self._pending: list[threading.Thread] = []

    def perform(self, task: Task, reply: Reply) -> dict[str, Any]:
        """Train, or go on from the last checkpoint in the order's folder."""
        from ray.train.torch import get_device

        config, out = RunConfig.model_validate(task.order.config), Path(task.order.out)
        device = get_device()
        assert isinstance(device, torch.device)
        self._lines.begin(out, task.attempt)
        logger.info("begun on %s", device)
        seeds = task.order.extra.get("seeds", [config.seed])
        world = World.current()
        workers = local_workers(world, device)
        self._record = None
        if self._rank == 0:
            tracked = task.order.extra.get("tracked")
            self._record = RunRecord(
                config,
                out,
                None if tracked is None else Tracked.from_json(tracked),
                seeds=seeds,
                workers=workers,
                world=world.size,
            )
            self._mirror = _mirror(task, config, out)
        stores = self._open(config)
        if self._record is not None:
            self._record.stores(stores)
        reporter = _Reporter(reply, self._record, self._mirror)
        outcome = train_seeds(config, seeds, out, reporter, device=device, stores=stores)
        logger.info("ended after epoch %d", outcome.epoch)
        self._close_mirror()
        record, self._record = self._record, None
        if record is not None:
            record.ended(outcome)
            # The figure, the lists and the sending: the next trial need not wait for them.
            self._later(record.complete, outcome, SEND)
        # The graph of DDP's hooks is cyclic: free the model now, not in the next trial.
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return {
            "stopped": outcome.stopped,
            "epoch": outcome.epoch,
            "best_epoch": outcome.best_epoch,
            "best_value": outcome.best_value,
            "evaluation": reporter.evaluation,
        }

    def failed(self, task: Task, reason: str) -> None:
        """Close the run's record as failed."""
        logger.error("failed: %s", reason)
        self._close_mirror()
        record, self._record = self._record, None
        if record is not None:
            record.failed(reason, Path(task.order.out) / f"error-rank{self._rank}.txt")
            self._later(record.send, SEND)

    def close(self) -> None:
        """Wait a moment for what is being sent, and let the corpus go."""
        for thread in self._pending:
            thread.join(GO_HOME / len(self._pending))
        if self._held is not None:
            self._held.close()

    def _open(self, config: RunConfig) -> Stores:
        """The decoded corpus: fetched from S3 once per node, mapped once per worker."""
        if self._stores is None or self._corpus != config.corpus:
            if self._held is not None:
                self._held.close()
            self._held = hold(config.corpus, storage_of(config.tracking))
            here = config.model_copy(update={"corpus": self._held.config})
            self._corpus, self._stores = config.corpus, Stores.open(here)
        return self._stores

    def _close_mirror(self) -> None:
        mirror, self._mirror = self._mirror, None
        if mirror is not None:
            self._later(mirror.close)

    def _later(self, action: Callable[..., object], *arguments: object) -> None:
        self._pending = [thread for thread in self._pending if thread.is_alive()]
        thread = threading.Thread(target=action, args=arguments, name="finish-trial", daemon=True)
        thread.start()
        self._pending.append(thread)


def _mirror(task: Task, config: RunConfig, out: Path) -> TrialMirror | None:
    """Where the trial's checkpoints are kept on S3; fetches what this node has not."""
    if "recovery" not in task.order.extra:
        return None
    tracked = Tracked.from_json(task.order.extra["tracked"])
    mirror = TrialMirror(out, tracked.connection.store(task.order.extra["recovery"]))
    if task.attempt or task.order.extra["begun"]:
        mirror.pull(config)
    return mirror


class _Reporter:
    """Writes each epoch down before it asks whether to go on."""

    def __init__(self, reply: Reply, record: RunRecord | None, mirror: TrialMirror | None) -> None:
        self._reply, self._record, self._mirror = reply, record, mirror
        self.evaluation: str | None = None

    def report(self, report: EpochReport) -> bool:
        self.evaluation = report.evaluator.key
        if self._record is not None:
            self._record.epoch(report)
        if self._mirror is not None:
            self._mirror.note()
        answer = self._reply(report.epoch, report.metrics, {EVALUATION: self.evaluation})
        if answer == LEAVE:
            if self._record is not None:
                self._record.leave(GO_HOME)
            saved = self._mirror is None or self._mirror.close()
            raise NodeLeavesError(
                "its epochs are on S3" if saved else "its last epoch is not on S3"
            )
        return bool(answer)


def local_workers(world: World, device: torch.device) -> list[int]:
    """Process ids of the run's workers on this machine; every rank must call it."""
    machine = int.from_bytes(hashlib.sha256(machine_id().encode()).digest()[:7])
    mine = torch.tensor([[machine, os.getpid()]], dtype=torch.int64, device=device)
    return [pid for host, pid in gather_values(mine, world, world.size).tolist() if host == machine]
