"""Training whose workers kill themselves at chosen places; otherwise it is the real one."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vfsearch.search.mailbox import Task
from vfsearch.search.performer import TrainTrial
from vfsearch.search.serve import Reply
from vfsearch.training.run import Run


@dataclass(frozen=True, kw_only=True)
class Kill:
    """SIGKILL of one rank at one place of one attempt."""

    rank: int
    step: int | None = None
    """Before this optimiser step, in the middle of an epoch."""
    written: int | None = None
    """When the files of this epoch's checkpoint are written and it has no name yet."""
    answered: int | None = None
    """When the report of this epoch was answered, before anything is made of it."""


PLAN = {
    (0, 0): Kill(rank=0, written=2),
    (0, 1): Kill(rank=0, answered=3),
    (1, 0): Kill(rank=1, step=5),
}
"""By trial and attempt."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KilledTraining(TrainTrial):
    """See `PLAN`."""

    def __init__(self, rank: int) -> None:
        super().__init__(rank)
        self.rank = rank

    def perform(self, task: Task, reply: Reply) -> dict[str, Any]:
        kill = PLAN.get((task.order.number, task.attempt))
        if kill is None or kill.rank != self.rank:
            return super().perform(task, reply)
        with pytest.MonkeyPatch.context() as patch:
            if kill.step is not None:
                patch.setattr(Run, "advance", before_step(Run.advance, kill.step))
            if kill.written is not None:
                patch.setattr(Path, "rename", before_naming(Path.rename, kill.written))
            if kill.answered is not None:
                reply = after_epoch(reply, kill.answered)
            return super().perform(task, reply)


def before_step(advance: Callable[..., Any], step: int) -> Callable[..., Any]:
    def killed(run: Run, *arguments: Any) -> Any:
        if run.step == step:
            die()
        return advance(run, *arguments)

    return killed


def before_naming(rename: Callable[..., Path], epoch: int) -> Callable[..., Path]:
    def killed(path: Path, target: Path) -> Path:
        if path.name == f".epoch-{epoch:05d}.partial":
            die()
        return rename(path, target)

    return killed


def after_epoch(reply: Reply, epoch: int) -> Reply:
    def killed(at: int, metrics: dict[str, float], facts: dict[str, str] | None = None, /) -> bool:
        go_on = reply(at, metrics, facts)
        if at == epoch:
            die()
        return go_on

    return killed
