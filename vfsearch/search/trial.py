"""What Ray Tune runs: one trial at a time, on a worker group that outlives the trial.

`TuneConfig(reuse_actors=True)` and `Trainable.reset_config` are Tune's documented way to keep an
actor between trials; here the actor keeps its worker group, so the next trial finds everything
warm. With ``reuse_actors=False`` the same class runs cold trials: one actor and group per trial.
"""

import json
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from vfsearch.config import RunConfig
from vfsearch.search.group import WorkerGroup
from vfsearch.search.mailbox import Finished, Order, Report
from vfsearch.search.pack_book import ROUND
from vfsearch.search.resources import GroupShape


class SweepTrial(Trainable):
    """Owns a worker group; every step is one epoch, or the end of the trial."""

    def setup(self, config: dict[str, Any]) -> None:
        """Start the workers and give them the trial."""
        self._group: WorkerGroup | None = None
        self._report: Report | None = None
        self._begin(config)

    def step(self) -> dict[str, Any]:
        """Let the training go on after the last report, and wait for the next."""
        assert self._group is not None
        if self._report is not None:
            report, self._report = self._report, None
            self._group.answer(report, go_on=True)
        event = self._group.wait(self._timeout)
        if isinstance(event, Report):
            if ROUND in event.facts:  # the driver answers a pack itself
                return {
                    "facts": json.dumps(event.facts),
                    "ticket": event.ticket,
                    "mailbox": self._group.mailbox,
                }
            self._report = event
            return {
                "epoch": event.epoch,
                "metrics": json.dumps(event.metrics),
                "facts": json.dumps(event.facts),
                "retries": self._group.retries,
            }
        return self._final(event)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial, on the same workers if they fit."""
        self._stop_if_running()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Send the workers home."""
        self._stop_if_running()
        if self._group is not None:
            self._group.close()
            self._group = None

    def _begin(self, config: dict[str, Any]) -> None:
        order = Order(**json.loads(config["order"]))
        workers = RunConfig.model_validate(order.config).workers
        self._timeout = workers.report_timeout
        shape = GroupShape(**json.loads(config["shape"]))
        if self._group is not None and self._group.shape != shape:
            self._group.close()
            self._group = None
        if self._group is None:
            self._group = WorkerGroup(shape, storage=Path(config["storage"]))
        self._group.assign(order, max_retries=order.extra.get("max_retries", workers.max_retries))

    def _stop_if_running(self) -> None:
        if self._group is not None and self._report is not None:
            report, self._report = self._report, None
            self._group.stop(report)

    def _final(self, ended: Finished) -> dict[str, Any]:
        return {
            "done": True,
            "kind": ended.kind,
            "reason": ended.reason or "",
            "summary": json.dumps(ended.summary),
            "retries": ended.retries,
        }
