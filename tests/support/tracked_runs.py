"""Runs as the driver and the workers of a sweep make them."""

from collections.abc import Mapping

from vfsearch.tracking.connection import Connection
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.runs import ensure_run


def trial_run(
    connection: Connection, sweep: str, number: int, params: Mapping[str, object] | None = None
) -> str:
    """The run of a trial, with its parameters."""
    run_id = ensure_run(connection, RunKey(sweep=sweep, trial=number))
    for name, value in (params or {}).items():
        connection.client().log_param(run_id, name, str(value))
    return run_id
