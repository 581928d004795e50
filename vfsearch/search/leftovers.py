"""What workers on other nodes have not sent to MLflow and S3: each node sends it itself.

A trial's log is in the spool of the node of its rank 0. Workers that were sent home, or killed, in
the middle of sending leave it there, where the driver cannot reach it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import optuna
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from vfsearch.search.nodes import on_every_node
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.runs import Status
from vfsearch.tracking.sync import SyncReport, sync, unsent

_DRIVER = "sweep"
"""Folder of the sweep's own log, which the driver still writes."""
_PATIENCE = 60.0
"""Seconds that the worker which holds a log gets to end."""
_SEND = 600.0
"""Seconds that the nodes get to send."""
_ENDS: Mapping[str, Status] = {"COMPLETE": "FINISHED", "PRUNED": "FINISHED", "FAIL": "FAILED"}


def ends_of(study: optuna.Study, sweep: str) -> dict[str, Status]:
    """How the runs of the trials that have ended should end, by name."""
    return {
        RunKey(sweep=sweep, trial=trial.number).name: _ENDS[trial.state.name]
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name in _ENDS
    }


def send_from_nodes(
    spool: Path, connection: Connection, sweep: str, ends: Mapping[str, Status]
) -> tuple[str, ...]:
    """Let every node send what it has of a sweep; Ray is connected, nobody works any more.

    Args:
        spool: of the experiment, the same path on every node.
        connection: to its servers.
        sweep: name.
        ends: see `ends_of`; runs of other trials stay open, a later driver goes on with them.

    Returns:
        Names of runs that are not sent; ``vfsearch sync`` on their node does it.
    """
    import ray

    sending = on_every_node(send_here, spool, connection, sweep, dict(ends))
    left: list[str] = []
    for address, answer in sending.items():
        try:
            left += ray.get(answer, timeout=_SEND)
        except (ray.exceptions.RayError, TimeoutError):
            left.append(f"all of node {address}")
    return tuple(left)


def send_here(
    spool: Path, connection: Connection, sweep: str, ends: Mapping[str, Status]
) -> tuple[str, ...]:
    """Send what this node has; see `send_from_nodes`."""
    failed: list[str] = []
    for folder in unsent(spool, sweep):
        if folder.name == _DRIVER:
            continue
        report = patiently(
            partial(sync, spool, connection, only=folder, status=ends.get(folder.name))
        )
        failed += [*(name for name, _ in report.failed), *report.live]
    return tuple(failed)


def patiently(attempt: Callable[[], SyncReport]) -> SyncReport:
    """Until the log's owner has ended; at last what there is."""
    retrying = Retrying(
        retry=retry_if_result(lambda report: bool(report.live)),
        wait=wait_fixed(1),
        stop=stop_after_delay(_PATIENCE),
    )
    try:
        report: SyncReport = retrying(attempt)
    except RetryError as error:
        report = error.last_attempt.result()
    return report
