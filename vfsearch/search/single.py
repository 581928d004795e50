"""One training run outside a sweep: the same workers and the same code as a trial, without Tune."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vfsearch.config import RunConfig, flat, home
from vfsearch.errors import SweepError
from vfsearch.search.cluster import connected
from vfsearch.search.mailbox import TRAINING, Finished, Order, Report
from vfsearch.search.resources import shape_of
from vfsearch.search.sweep import absolute, connecting
from vfsearch.search.tracks import Tracked
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.runs import find_run
from vfsearch.tracking.sync import sync
from vfsearch.tracking.trial_log import spool_root

if TYPE_CHECKING:
    from vfsearch.search.group import WorkerGroup

Progress = Callable[[int, Mapping[str, float]], None]
"""(epoch, metrics), after each epoch."""


@dataclass(frozen=True, kw_only=True)
class SingleOutcome:
    """How a run ended."""

    out: Path
    epoch: int
    best_epoch: int
    best_value: float
    """``evaluation.select`` of the best epoch."""
    retries: int
    run_id: str | None
    """MLflow run; None without tracking."""


def run_single(
    config: RunConfig,
    out: Path,
    *,
    name: str,
    progress: Progress,
    address: str | None = None,
    performer: str = TRAINING,
) -> SingleOutcome:
    """Train one run, or continue it from ``out/checkpoints/last``.

    Args:
        config: The run.
        out: Its folder.
        name: Name of its MLflow run.
        progress: Is told about each epoch, from this thread.
        address: Ray cluster; None: ``RAY_ADDRESS``, else this machine.
        performer: Who trains in the workers, as ``module:class``.

    Raises:
        SweepError: the workers never fit, or the training failed (with its reason).
        TrackingError: the tracking server cannot be reached.
    """
    with (
        connecting(config.tracking) as connection,
        connected(address) as nodes,
        TemporaryDirectory(prefix="vfsearch-run-") as storage,
    ):
        from vfsearch.search.group import (
            WorkerGroup,
        )  # imports ray, after `connected` has set it up

        shape = shape_of(config.workers, nodes)
        server = connection.result()
        tracked = _tracked(server, name, config) if server is not None else None
        group = WorkerGroup(shape, storage=Path(storage))
        try:
            order = order_for(config, out, number=0, performer=performer, tracked=tracked)
            group.assign(order, max_retries=config.workers.max_retries)
            finished = follow(group, config.workers.report_timeout, progress)
        finally:
            group.close()
    run_id = None if tracked is None else _sent(tracked)
    return _outcome(finished, out, run_id)


def order_for(
    config: RunConfig, out: Path, *, number: int, performer: str, tracked: Tracked | None
) -> Order:
    """The order of one run outside Tune, as its workers get it."""
    return Order(
        number=number,
        config=absolute(config).model_dump(mode="json"),
        out=str(out.absolute()),
        performer=performer,
        extra={} if tracked is None else {"tracked": tracked.to_json()},
    )


def follow(group: "WorkerGroup", timeout: float, progress: Progress) -> Finished:
    """Let the order of a group run to its end."""
    while isinstance(event := group.wait(timeout), Report):
        progress(event.epoch, event.metrics)
        group.answer(event, go_on=True)
    return event


def _tracked(connection: Connection, name: str, config: RunConfig) -> Tracked:
    return Tracked(
        connection=connection,
        key=RunKey(sweep=name),
        spool=spool_root(home(), connection.experiment),
        params=flat(config),
    )


def _sent(tracked: Tracked) -> str | None:
    """Send what the workers left, and find the run."""
    sync(tracked.spool, tracked.connection, sweep=tracked.key.sweep)
    return find_run(tracked.connection, tracked.key)


def _outcome(finished: Finished, out: Path, run_id: str | None) -> SingleOutcome:
    if finished.kind == "failed":
        raise SweepError(f"{out}: the training failed: {finished.reason}")
    summary: dict[str, Any] = finished.summary
    return SingleOutcome(
        out=out,
        epoch=int(summary["epoch"]),
        best_epoch=int(summary["best_epoch"]),
        best_value=float(summary["best_value"]),
        retries=finished.retries,
        run_id=run_id,
    )
