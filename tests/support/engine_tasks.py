"""A stand-in for training in tests of the engine; it runs in real workers."""

import json
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
                decision[0] = float(reply(epoch, {"val/match_v2f_1to2": margin * epoch / 1000}))
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
    """66 rank 1 raises, 67 rank 0 has no memory, 68 rank 1 hangs, 69 dies once, 70 dies always."""
    if margin == 70 and epoch >= 2 and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if epoch != 2:
        return
    if margin == 66 and rank == 1:
        raise ValueError("a deliberate mistake\nwith a second line")
    if margin == 67 and rank == 0:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 1 TB")
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
