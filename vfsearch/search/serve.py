"""What runs on every worker: take an order, perform it, say how it ended, take the next."""

import contextlib
import importlib
import traceback
from pathlib import Path
from typing import Any, Protocol

import ray

from vfsearch.errors import ConfigError, TrainingDiverged
from vfsearch.search.mailbox import Answer, Finished, Present, Task


class Reply(Protocol):
    """How rank 0 reports an epoch; waits for the sweep's decision."""

    def __call__(
        self, epoch: int, metrics: dict[str, float], facts: dict[str, str] | None = None, /
    ) -> Answer:
        """Whether to go on, or what a pack does next.

        ``facts``: what holds for the whole run, see `mailbox.Report`.
        """
        ...


class NodeLeavesError(Exception):
    """The order goes on elsewhere: a node of the group will be taken away."""


_SYMMETRIC = (TrainingDiverged, ConfigError)
"""Errors that every rank raises at the same point: no rank is left waiting for another."""


class Performer(Protocol):
    """Performs orders on one worker; made once, so it can keep what the next order needs."""

    def __init__(self, rank: int) -> None: ...

    def perform(self, task: Task, reply: Reply) -> dict[str, Any]:
        """Do the order; returns a summary with ``stopped: True`` if a reply ended it."""
        ...

    def failed(self, task: Task, reason: str) -> None:
        """Take note that `perform` raised; must not raise."""
        ...

    def close(self) -> None:
        """The worker goes home."""
        ...


def serve_trials(setting: dict[str, Any]) -> None:
    """Serve orders until the mailbox has none left (Ray Train's function per worker)."""
    from ray.train import get_context

    mailbox, generation = setting["mailbox"], setting["generation"]
    context, here = get_context(), ray.get_runtime_context()
    rank = context.get_world_rank()
    performers: dict[str, Performer] = {}
    me = Present(
        rank=rank,
        world=context.get_world_size(),
        actor=here.current_actor,
        node=here.get_node_id(),
    )
    ray.get(mailbox.enter.remote(generation, me))
    done = 0
    while (task := ray.get(mailbox.take.remote(generation, done))) is not None:
        done = task.sequence
        name = task.order.performer
        try:
            if name not in performers:
                performers[name] = _load(name)(rank)
            finished = _perform(performers[name], task, mailbox, generation)
        except Exception as error:
            # A lost peer or node ends the group, not the order.
            if not isinstance(error, NodeLeavesError) and not is_broken_link(error):
                finished = _failure(error, task, rank)
                if name in performers:
                    performers[name].failed(task, finished.reason or "")
                ray.get(mailbox.finished.remote(generation, task.sequence, finished))
            if not isinstance(error, _SYMMETRIC):
                raise  # other ranks may wait for this one in a collective: start afresh
        else:
            if rank == 0:
                ray.get(mailbox.finished.remote(generation, task.sequence, finished))
    for performer in performers.values():
        performer.close()


def _perform(performer: Performer, task: Task, mailbox: Any, generation: int) -> Finished:
    def reply(
        epoch: int, metrics: dict[str, float], facts: dict[str, str] | None = None, /
    ) -> Answer:
        answer: Answer = ray.get(
            mailbox.report.remote(generation, task.sequence, epoch, metrics, facts)
        )
        return answer

    summary = performer.perform(task, reply)
    if summary.get("stopped"):
        return Finished(kind="stopped", reason=None, summary=summary)
    return Finished(kind="completed", reason=None, summary=summary)


def _failure(error: Exception, task: Task, rank: int) -> Finished:
    out = Path(task.order.out)
    with contextlib.suppress(OSError):  # a full disk must not hide the reason itself
        out.mkdir(parents=True, exist_ok=True)
        (out / f"error-rank{rank}.txt").write_text(traceback.format_exc(), encoding="utf-8")
    spoilt = not isinstance(error, _SYMMETRIC)
    return Finished(kind="failed", reason=explain(error), summary={}, spoilt=spoilt)


def _load(name: str) -> type[Performer]:
    module, _, attribute = name.partition(":")
    performer: type[Performer] = vars(importlib.import_module(module))[attribute]
    return performer


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the host or of the GPU ran out."""
    import torch

    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text)
    )


def is_broken_link(error: BaseException) -> bool:
    """Whether the error only says that another process is gone (gloo and NCCL, torch 2.11+)."""
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
