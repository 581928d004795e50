"""What runs on every worker: take an order, perform it, say how it ended, take the next."""

import importlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from vfsearch.search.mailbox import Finished, Task

Reply = Callable[[int, dict[str, float]], bool]
"""(epoch, metrics) -> go on; called on rank 0 only, waits for the sweep's decision."""
Perform = Callable[[Task, Reply, int], dict[str, Any]]
"""(task, reply, rank) -> summary, with ``stopped: True`` if a reply ended it."""


def serve_trials(setting: dict[str, Any]) -> None:
    """Serve orders until the mailbox has none left (Ray Train's function per worker)."""
    from ray.train import get_context

    mailbox, generation = setting["mailbox"], setting["generation"]
    rank = get_context().get_world_rank()
    ray.get(mailbox.enter.remote(generation, ray.get_runtime_context().current_actor))
    done = 0
    while (task := ray.get(mailbox.take.remote(generation, done))) is not None:
        done = task.sequence
        ended = _perform(task, mailbox, generation, rank)
        if rank == 0 or ended.kind == "failed":
            ray.get(mailbox.ended.remote(generation, task.sequence, ended))


def _perform(task: Task, mailbox: Any, generation: int, rank: int) -> Finished:
    def reply(epoch: int, metrics: dict[str, float]) -> bool:
        go_on = ray.get(mailbox.report.remote(generation, task.sequence, epoch, metrics))
        return bool(go_on)

    try:
        summary = _load(task.order.task)(task, reply, rank)
    except Exception as error:
        if is_broken_link(error):
            raise  # a peer is gone: the owner restarts the group, and the order goes on
        _keep_traceback(Path(task.order.out), rank)
        spoilt = not getattr(error, "on_every_rank", False)
        ended = Finished(kind="failed", reason=explain(error), summary={}, spoilt=spoilt)
        if spoilt:  # other ranks may wait for this one in a collective: start afresh
            ray.get(mailbox.ended.remote(generation, task.sequence, ended))
            raise
        return ended
    kind = "stopped" if summary.get("stopped") else "completed"
    return Finished(kind=kind, reason=None, summary=summary)


def _load(name: str) -> Perform:
    module, _, function = name.partition(":")
    perform: Perform = vars(importlib.import_module(module))[function]
    return perform


def _keep_traceback(out: Path, rank: int) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"error-rank{rank}.txt").write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:
        pass  # the reason itself is told; a full disk must not hide it


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the host or of the GPU ran out."""
    import torch

    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text)
    )


def is_broken_link(error: BaseException) -> bool:
    """Whether the error only says that another rank is gone (gloo and NCCL, torch 2.11-2.14)."""
    import torch.distributed

    return isinstance(error, torch.distributed.DistError | ray.exceptions.RayError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    )


def explain(error: BaseException) -> str:
    """Say in one line why an order failed."""
    first = (str(error).strip().splitlines() or [""])[0]
    if is_out_of_memory(error):
        return f"out of memory: {first or type(error).__name__}"
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
