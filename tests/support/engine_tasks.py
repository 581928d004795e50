"""A stand-in for training in tests of the engine; it runs in real workers."""

import json
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from vfsearch.search.mailbox import Task
from vfsearch.search.serve import Reply


class Curve:
    """Reports margin x epoch for some epochs; rank 0 decides, all ranks follow.

    `loss.margin` steers what happens (see `misbehave`); a line per event goes to log.jsonl.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.served = 0

    def perform(self, task: Task, reply: Reply) -> dict[str, Any]:
        out, rank = Path(task.order.out), self.rank
        out.mkdir(parents=True, exist_ok=True)
        config = task.order.config
        margin = float(config["loss"]["margin"])
        epochs = int(config["training"]["stages"]["warm_up"])
        marker = out / "epoch.json"
        start = json.loads(marker.read_text())["epoch"] if marker.exists() else 0
        self.served += 1
        note(out, rank, "start", attempt=task.attempt, after=start, served=self.served)
        torch.distributed.barrier()
        for epoch in range(max(start, 1), epochs + 1):
            if epoch > start:  # after a restart the last epoch is only reported again
                time.sleep(float(config["optimizer"]["lr"]))
                torch.distributed.all_reduce(torch.ones(1))
                misbehave(margin, epoch, rank, task)
            decision = torch.ones(1)
            if rank == 0:
                marker.write_text(json.dumps({"epoch": epoch}))
                note(out, rank, "epoch", epoch=epoch, again=epoch == start)
                value = math.nan if (margin, epoch) == (71, 2) else margin * epoch / 1000
                decision[0] = float(reply(epoch, {"val/match_v2f_1to2": value}))
            torch.distributed.broadcast(decision, 0)
            if not decision.item():
                note(out, rank, "stopped", epoch=epoch)
                return {"stopped": True, "epoch": epoch}
        note(out, rank, "end")
        return {"stopped": False, "epoch": epochs, "best_epoch": epochs, "best_value": 1.0}

    def failed(self, task: Task, reason: str) -> None:
        note(Path(task.order.out), self.rank, "failed", reason=reason)

    def close(self) -> None:
        pass


def misbehave(margin: float, epoch: int, rank: int, task: Task) -> None:
    """66 raises, 67 no memory, 68 hangs, 69 dies once, 70 always, 72 fills the node (71: NaN)."""
    if margin == 70 and epoch >= 2 and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if epoch != 2:
        return
    if margin == 66 and rank == 1:
        raise ValueError("a deliberate mistake\nwith a second line")
    if margin == 67 and rank == 0:
        torch.empty(1 << 50, dtype=torch.uint8)
    if margin == 72 and rank == 0:
        taken = [bytearray(os.urandom(1 << 20) * 64) for _ in range(96)]
        raise AssertionError(f"nobody minds {len(taken)} x 64 MiB")
    if margin == 68 and rank == 1:
        time.sleep(10_000)
    if margin == 69 and rank == 1 and task.attempt == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def note(out: Path, rank: int, kind: str, **facts: Any) -> None:
    with (out / "log.jsonl").open("a") as log:
        log.write(
            json.dumps(facts | {"at": time.time(), "pid": os.getpid(), "rank": rank, "kind": kind})
            + "\n"
        )
