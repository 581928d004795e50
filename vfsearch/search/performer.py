"""A trial on a worker: training, and on rank 0 the log of its run.

What costs time to open stays open between trials: the decoded stores are mapped once per worker.
Sending to the servers goes on in the background while the next trial trains; whatever a killed
worker could not send is in the spool, and the driver sends it.
"""

import gc
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from vfsearch.config import CorpusConfig, RunConfig
from vfsearch.corpus.queries import write_list
from vfsearch.evaluation.epoch import EpochEvaluator
from vfsearch.search.mailbox import Task
from vfsearch.search.seeds import train_seeds
from vfsearch.search.serve import Reply
from vfsearch.search.tracks import Tracked
from vfsearch.tracking.trial_log import TrialLog
from vfsearch.training.figure import draw_run
from vfsearch.training.loop import EpochReport, Outcome, Stores
from vfsearch.training.steps import NAME as STEPS

PER_STEP = ("positive_mass", "negative_mass", "hardest_negative_mass")
"""What is logged of every optimiser step; ``steps.csv`` has every term."""
_SEND = 300.0
"""Seconds that the log of a trial may take to be sent once the trial has ended."""
_GO_HOME = 15.0
"""Seconds that a worker which is sent home waits for its logs."""


class TrainTrial:
    """Trains orders one after the other (a `Performer`)."""

    def __init__(self, rank: int) -> None:
        """Keep nothing yet."""
        self._rank = rank
        self._corpus: CorpusConfig | None = None
        self._stores: Stores | None = None
        self._log: TrialLog | None = None
        self._pending: list[threading.Thread] = []

    def perform(self, task: Task, reply: Reply) -> dict[str, Any]:
        """Train, or go on from the last checkpoint in the order's folder."""
        from ray.train.torch import get_device

        config, out = RunConfig.model_validate(task.order.config), Path(task.order.out)
        device = get_device()
        assert isinstance(device, torch.device)
        self._log = self._open_log(task, config, out) if self._rank == 0 else None
        reporter = _Reporter(reply, self._log)
        seeds = task.order.extra.get("seeds", [config.seed])
        stores = self._open(config)
        outcome = train_seeds(config, seeds, out, reporter, device=device, stores=stores)
        if self._rank == 0:
            self._finish(outcome, config, out)
        # The graph of DDP's hooks is cyclic: free the model now, not in the next trial.
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return {
            "stopped": outcome.stopped,
            "epoch": outcome.epoch,
            "best_epoch": outcome.best_epoch,
            "best_value": outcome.best_value,
        }

    def failed(self, task: Task, reason: str) -> None:
        """Close the trial's log as failed."""
        log, self._log = self._log, None
        if log is not None:
            log.tags({"vfsearch.state": "FAIL", "vfsearch.reason": reason})
            error = Path(task.order.out) / f"error-rank{self._rank}.txt"
            if error.exists():
                log.artifact(error, "error.txt")
            log.end("FAILED")
            self._later(_send, log)

    def close(self) -> None:
        """Wait a moment for what is being sent."""
        for thread in self._pending:
            thread.join(_GO_HOME / len(self._pending))

    def _open(self, config: RunConfig) -> Stores:
        if self._stores is None or self._corpus != config.corpus:
            self._corpus, self._stores = config.corpus, Stores.open(config)
        return self._stores

    def _open_log(self, task: Task, config: RunConfig, out: Path) -> TrialLog | None:
        out.mkdir(parents=True, exist_ok=True)
        resolved = out / "config.yaml"
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        resolved.write_text(text, encoding="utf-8")
        if "tracked" not in task.order.extra:
            return None
        tracked = Tracked.from_json(task.order.extra["tracked"])
        log = TrialLog.open(tracked.connection, tracked.key, tracked.spool, tags=tracked.tags)
        log.params(tracked.params)
        log.artifact(resolved, "config.yaml")
        return log

    def _finish(self, outcome: Outcome, config: RunConfig, out: Path) -> None:
        """Leave the figure and the sending to a thread: the next trial need not wait for them."""
        log, self._log = self._log, None
        if log is not None:
            best = {f"best/{k}": v for k, v in outcome.history[outcome.best_epoch - 1].items()}
            log.metrics(best | {"best/epoch": outcome.best_epoch}, step=outcome.best_epoch)
            log.artifact(outcome.best.resolve(), "checkpoints/best")
            log.artifact(outcome.last.resolve(), "checkpoints/last")
            metrics = out / "metrics.json"
            metrics.write_text(json.dumps(outcome.history, indent=1) + "\n", encoding="utf-8")
            log.artifact(metrics, "metrics.json")
            log.artifact(out / STEPS, STEPS)
            # The lists are a function of the split and the settings: these are the ones used.
            for queries in EpochEvaluator(self._open(config).val, config.evaluation).lists:
                log.artifact(write_list(queries, out / "queries"), f"queries/{queries.name}.txt")
            log.tags({"vfsearch.state": "PRUNED" if outcome.stopped else "COMPLETE"})
            log.end("FINISHED")
        self._later(_draw_and_send, outcome, out, log)

    def _later(self, action: Callable[..., None], *arguments: object) -> None:
        self._pending = [thread for thread in self._pending if thread.is_alive()]
        thread = threading.Thread(target=action, args=arguments, name="finish-trial", daemon=True)
        thread.start()
        self._pending.append(thread)


def _draw_and_send(outcome: Outcome, out: Path, log: TrialLog | None) -> None:
    draw_run(outcome.history, out / "run.png")
    if log is not None:
        log.artifact(out / "run.png", "run.png")
        _send(log)


def _send(log: TrialLog) -> None:
    log.close(None, _SEND)


class _Reporter:
    """Writes each epoch to the log before it asks whether to go on."""

    def __init__(self, reply: Reply, log: TrialLog | None) -> None:
        self._reply, self._log = reply, log

    def report(self, report: EpochReport) -> bool:
        if self._log is not None:
            self._log.metrics(report.metrics, step=report.epoch)
            self._log.series(
                {row.step: {f"step/{name}": row[name] for name in PER_STEP} for row in report.steps}
            )
        return self._reply(report.epoch, report.metrics)
