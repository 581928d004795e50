"""A worker group: one Ray Train run whose workers serve trials until they are sent home.

A group starts once (processes, imports, process group, CUDA context, decoded corpus) and then takes
order after order. The same code serves a sweep with warm trials, one with cold trials (a group per
trial) and a single run.

What goes wrong is kept apart: an exception of the training code ends the *order* as failed and
costs a new start of the group, because other ranks may hang in a collective; a lost worker or node
ends the *group*, and the order is given to the next one, which resumes from the last checkpoint.
"""

import contextlib
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vfsearch.search.mailbox import (
    LEAVE,
    Answer,
    Finished,
    Gone,
    Mailbox,
    Order,
    Present,
    Report,
    Taken,
)
from vfsearch.search.nodes import draining
from vfsearch.search.resources import GroupShape

_POLL = 5.0
"""Seconds between two looks at the clock while waiting; events themselves arrive at once."""
_START = 900.0
"""Seconds that workers get to start; a busy cluster may have to make room first."""
_LEAVE = 20.0
"""Seconds that workers get to go home."""
_END = 120.0
"""Seconds that workers get to end an order that was stopped."""


class WorkerGroup:
    """Owns the workers; used by one thread of one process, which Ray lets them die with."""

    def __init__(self, shape: GroupShape, *, storage: Path) -> None:
        """Start the workers in the background.

        Args:
            shape: Number and resources of the workers.
            storage: Throwaway folder for Ray Train's own files, seen by every node.
        """
        self.shape = shape
        self.mailbox = f"mailbox-{uuid.uuid4().hex}"
        """By which name the driver finds it, to answer a pack."""
        self._storage = storage
        self._max_retries = 0
        # On its owner's node: a lost worker node must not take the mailbox along.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox: Any = (
            ray.remote(Mailbox)
            .options(num_cpus=0, max_concurrency=1000, scheduling_strategy=here, name=self.mailbox)
            .remote()
        )
        self._generation = 0
        self._retries = self._moves = 0
        self._spoilt = False
        self._stopping = False
        self._leaving = False
        self._begun = False
        self._thread: threading.Thread | None = None
        self._start()

    @property
    def retries(self) -> int:
        """How often the workers were lost in the present order."""
        return self._retries

    def assign(self, order: Order, *, max_retries: int) -> None:
        """Give the next order; the previous one must have ended.

        Args:
            order: What to do.
            max_retries: How often it is given again after its workers were lost.
        """
        self._max_retries = max_retries
        self._retries = self._moves = 0
        self._stopping = self._leaving = self._begun = False
        if self._spoilt or not self._alive():
            self._start()
        ray.get(self._mailbox.assign.remote(order))

    def wait(self, timeout: float) -> Report | Finished:
        """Wait for the order's next report or its end; restarts lost workers meanwhile.

        Args:
            timeout: Seconds after which an order that says nothing is ended as failed; counted
                from when the workers have begun it.
        """
        deadline = time.monotonic() + (timeout if self._begun else max(timeout, _START))
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                self._give_up()
                late = f"no report for {timeout:g} s (workers.report_timeout)"
                return self._failed(late if self._begun else "its workers did not start in time")
            event = ray.get(self._mailbox.event.remote(min(left, _POLL)))
            if isinstance(event, Taken):
                self._begun = True
                deadline = time.monotonic() + timeout
            if isinstance(event, Report):
                return event
            if isinstance(event, Finished):
                self._spoilt = event.spoilt
                return replace(event, retries=self._retries)
            if isinstance(event, Gone) and event.generation == self._generation:
                self._spoilt = True
                if self._stopping:
                    return Finished(kind="stopped", reason=None, summary={}, retries=self._retries)
                if event.out_of_memory:  # it would be short of it again
                    ray.get(self._mailbox.withdraw.remote())
                    return self._failed(f"out of memory: {event.error}")
                self._moves += self._leaving
                self._retries += not self._leaving
                self._begun = self._leaving = False
                deadline = time.monotonic() + max(timeout, _START)
                if self._retries > self._max_retries:
                    ray.get(self._mailbox.withdraw.remote())
                    lost = f"workers were lost {self._retries} times (workers.max_retries)"
                    return self._failed(f"{lost}; the last time: {event.error or 'no error'}")
                self._start()

    def answer(self, report: Report, *, go_on: bool) -> None:
        """Answer a report; without an answer the training waits.

        Where a node of the group will be taken away (a spot notice), the workers bring their
        checkpoint to safety instead and go on elsewhere, at no cost of `max_retries`.
        """
        answer: Answer = go_on
        if go_on and (leaving := draining()):
            workers: list[Present] = ray.get(self._mailbox.present.remote())
            if any(worker.node in leaving for worker in workers):
                answer, self._leaving = LEAVE, True
        ray.get(self._mailbox.answer.remote(report.ticket, answer))

    def stop(self, report: Report) -> Finished:
        """End the order at this report; waits until the workers have ended it."""
        self._stopping = True
        self.answer(report, go_on=False)
        while isinstance(event := self.wait(_END), Report):
            self.answer(event, go_on=False)
        return event

    def close(self) -> None:
        """Send the workers home and wait for it; kill those that do not go."""
        ray.get(self._mailbox.close.remote())
        if not self._join(_LEAVE):
            self._give_up()
        ray.kill(self._mailbox)

    def _failed(self, reason: str) -> Finished:
        return Finished(kind="failed", reason=reason, summary={}, retries=self._retries)

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _join(self, timeout: float) -> bool:
        if self._thread is not None:
            self._thread.join(timeout)
        return not self._alive()

    def _give_up(self) -> None:
        """Withdraw the order and kill the workers, whatever they are doing."""
        ray.get(self._mailbox.withdraw.remote())
        for worker in ray.get(self._mailbox.present.remote()):
            ray.kill(worker.actor)
        self._spoilt = True
        self._join(_LEAVE)

    def _start(self) -> None:
        self._join(_LEAVE)
        self._spoilt = False
        self._generation += 1
        ray.get(self._mailbox.admit.remote(self._generation, self._retries + self._moves))
        self._thread = threading.Thread(
            target=_fit,
            args=(self.shape, self._storage, self._mailbox, self._generation),
            name=f"worker-group-{self._generation}",
            daemon=True,
        )
        self._thread.start()


def _fit(shape: GroupShape, storage: Path, mailbox: Any, generation: int) -> None:
    """Run one generation of workers; Ray's own retries are off, the owner decides."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from vfsearch.search.serve import serve_trials

    workers = shape.workers if shape.fewest is None else (shape.fewest, shape.workers)
    resources = {"CPU": shape.cpus} | ({"GPU": shape.gpus} if shape.gpus else {})
    trainer = TorchTrainer(
        serve_trials,
        train_loop_config={"mailbox": mailbox, "generation": generation},
        torch_config=TorchConfig(backend="nccl" if shape.gpus else "gloo"),
        scaling_config=ScalingConfig(
            # Typed as of Train V1, which is not what runs.
            num_workers=workers,  # type: ignore[arg-type]
            elastic_resize_monitor_interval_s=shape.resize_seconds,  # type: ignore[call-arg]
            use_gpu=shape.gpus > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=f"group-{ray.get_runtime_context().get_worker_id()[:12]}-{generation}",
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=0),
        ),
    )
    gone = Gone(generation=generation, error=None)
    try:
        trainer.fit()
    except Exception as error:
        short = out_of_memory(error)
        gone = replace(gone, error=_first_line(short or error), out_of_memory=short is not None)
    with contextlib.suppress(ray.exceptions.RayError):  # the owner closed the mailbox, and knows
        ray.get(mailbox.gone.remote(gone))


def out_of_memory(error: Exception) -> ray.exceptions.OutOfMemoryError | None:
    """The error by which Ray says that it ended a worker to save its node, if it is among these."""
    for one in (error, *getattr(error, "worker_failures", {}).values()):
        for cause in (one, getattr(one, "health_check_failure", None)):
            if isinstance(cause, ray.exceptions.OutOfMemoryError):
                return cause
    return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
