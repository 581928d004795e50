"""A pack on its worker: trains the members that the sweep sends, and keeps a record of each."""

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from vfsearch.config import RunConfig
from vfsearch.search.mailbox import Order, Task
from vfsearch.search.pack_book import ROUND
from vfsearch.search.performer import GO_HOME, SEND
from vfsearch.search.records import EVALUATION
from vfsearch.search.run_record import RunRecord
from vfsearch.search.serve import Reply, explain
from vfsearch.search.tracks import Tracked
from vfsearch.training.loop import EpochReport, Outcome, Stores
from vfsearch.training.pack.loop import Left, Orders, train_pack
from vfsearch.training.pack.member import Entry

logger = logging.getLogger(__name__)


class TrainPack:
    """Trains one pack after the other (a `Performer`); always the only worker of its group."""

    def __init__(self, rank: int) -> None:
        """Keep nothing yet."""
        assert rank == 0, "a pack is one process"
        self._records: dict[int, RunRecord] = {}
        # One at a time: figures and sending must not crowd out the training.
        self._later = ThreadPoolExecutor(1, "finish-trial")

    def perform(self, task: Task, reply: Reply) -> dict[str, Any]:
        """Train members until the sweep sends no more."""
        from ray.train.torch import get_device

        config = RunConfig.model_validate(task.order.config)
        device = get_device()
        assert isinstance(device, torch.device)
        stores = Stores.open(config)
        director = SweepDirector(reply, stores, self._records, self._later)
        train_pack(director, device=device, stores=stores)
        return {"stopped": False}

    def failed(self, task: Task, reason: str) -> None:
        """Close the records of all members as failed."""
        for record in self._records.values():
            record.failed(reason, Path(task.order.out) / "error-rank0.txt")
            self._later.submit(record.send, SEND)
        self._records.clear()

    def close(self) -> None:
        """Wait a moment for what is being sent."""
        done = self._later.submit(lambda: None)
        self._later.shutdown(wait=False)
        done.exception(timeout=GO_HOME)


def _complete(record: RunRecord, outcome: Outcome) -> None:
    try:
        record.complete(outcome, SEND)
    except Exception:
        # As in a trial alone, the trial stands: only its figures or its ranks are not there.
        logger.exception("what a trial leaves besides its checkpoints could not be written")


class SweepDirector:
    """The sweep's decisions, asked once per round (a `training.pack.loop.Director`)."""

    def __init__(
        self,
        reply: Reply,
        stores: Stores,
        records: dict[int, RunRecord],
        later: ThreadPoolExecutor,
    ) -> None:
        self._reply, self._stores, self._records, self._later = reply, stores, records, later
        self._begins = True
        self._rounds = 0

    def direct(self, reports: dict[int, EpochReport], left: Sequence[Left]) -> Orders:
        """Tell the sweep about a round and wait for what it wants next."""
        ended = [self._end(gone) for gone in left]
        for number, report in reports.items():
            self._records[number].epoch(report)
        told = {
            "begins": self._begins,
            "left": ended,
            "reports": [
                {
                    "number": number,
                    "epoch": report.epoch,
                    "metrics": json.dumps(report.metrics),
                    "facts": json.dumps({EVALUATION: report.evaluator.key}),
                }
                for number, report in reports.items()
            ],
        }
        self._begins = False
        self._rounds += 1
        answer = self._reply(self._rounds, {}, {ROUND: json.dumps(told)})
        if not isinstance(answer, str):
            raise ConnectionAbortedError("the sweep took the pack back")
        wanted = json.loads(answer)
        return Orders(
            stop=frozenset(wanted["stop"]),
            join=[self._begin(Order(**order)) for order in wanted["join"]],
        )

    def _begin(self, order: Order) -> Entry:
        config, out = RunConfig.model_validate(order.config), Path(order.out)
        tracked = order.extra.get("tracked")
        # The machine's load is everybody's: sampled once per member it would say nothing more.
        quiet = config.tracking.model_copy(update={"system_seconds": 0.0})
        record = RunRecord(
            config.model_copy(update={"tracking": quiet}),
            out,
            None if tracked is None else Tracked.from_json(tracked),
            seeds=[config.seed],
            workers=[],
            world=1,
        )
        record.stores(self._stores)
        self._records[order.number] = record
        return Entry(number=order.number, config=config, out=out)

    def _end(self, gone: Left) -> dict[str, Any]:
        record = self._records.pop(gone.number)
        if gone.outcome is not None:
            record.ended(gone.outcome)
            self._later.submit(_complete, record, gone.outcome)
            kind = "stopped" if gone.outcome.stopped else "completed"
            return {"number": gone.number, "kind": kind}
        assert gone.error is not None
        reason = explain(gone.error)
        record.failed(reason, Path())
        self._later.submit(record.send, SEND)
        return {"number": gone.number, "kind": "failed", "reason": reason}
