"""Which MLflow run belongs to which sweep, trial and seed: found again, never made twice.

A run is identified by tags. Creation is not idempotent in MLflow, so the right to create is
taken by a conditional write on S3 (``claims/…``), of which exactly one wins; the loser removes
its own run and takes the winner's.
"""

import json
import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from vfsearch.errors import TrackingError
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.storage import AlreadyExists

if TYPE_CHECKING:
    from mlflow import MlflowClient

SETTLED = 60.0
"""Seconds after which two processes that made the same run at once have agreed on one."""

Status = Literal["FINISHED", "FAILED", "KILLED"]


def find_run(connection: Connection, key: RunKey, *, older: float = 0.0) -> str | None:
    """The run with this identity, the oldest if there should be several; ``None`` if none.

    ``older``: seconds that it must have existed.
    """
    found = _search(connection, key, older)
    return found[0] if found else None


def _search(connection: Connection, key: RunKey, older: float = 0.0) -> list[str]:
    client = connection.client()
    wanted = key.tags()
    conditions = [f"tags.`{name}` = '{value}'" for name, value in wanted.items()]
    if older:
        conditions.append(f"attributes.start_time < {int((time.time() - older) * 1000)}")
    with mlflow_errors(connection, f"run {key.name}"):
        found = client.search_runs(
            [connection.experiment_id],
            filter_string=" and ".join(conditions),
            order_by=["attributes.start_time ASC"],
        )
    return [str(run.info.run_id) for run in found]


def ensure_run(connection: Connection, key: RunKey, tags: Mapping[str, str] | None = None) -> str:
    """The run of this identity, made if it is not there; also its parents.

    Safe when several processes call it at once, on one machine or on many.

    Raises:
        TrackingError: a server cannot be reached or refuses.
    """
    claim = f"claims/{key.sweep}/{key.name if key.trial is not None else 'sweep'}.json"
    store, client = connection.store(), connection.client()
    if (winner := _claimed(client, store.get(claim))) is not None:
        return winner
    parent = ensure_run(connection, key.parent) if key.parent is not None else None
    # A run without claim that is no newborn of a race: the claims were lost with their bucket.
    adopted = find_run(connection, key, older=SETTLED)
    own = adopted or _create(connection, key, parent, tags or {})
    data = json.dumps({"run_id": own}).encode()
    try:
        store.put(data, claim, only_if_absent=True)
        winner = own
    except AlreadyExists:
        winner = _claimed(client, store.get(claim)) or own
        if winner == own:
            # The claimed run was deleted by somebody: this one takes its place.
            store.put(data, claim)
    _discard_others(connection, key, winner)
    return winner


def _discard_others(connection: Connection, key: RunKey, winner: str) -> None:
    """Delete runs of the same identity: losers of a race, and those whose reply was lost.

    When the connection breaks after the server has made a run, the client asks again and a
    second one is made that nobody knows of.
    """
    from mlflow.exceptions import MlflowException

    client = connection.client()
    gone = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
    for run_id in _search(connection, key):
        if run_id != winner:
            try:
                with mlflow_errors(connection, f"run {key.name}", through=gone):
                    client.delete_run(run_id)
            except MlflowException:
                continue  # another process was quicker


def _create(
    connection: Connection, key: RunKey, parent: str | None, tags: Mapping[str, str]
) -> str:
    all_tags = {**tags, **key.tags()}
    if parent is not None:
        all_tags["mlflow.parentRunId"] = parent
    with mlflow_errors(connection, f"run {key.name}"):
        run = connection.client().create_run(
            connection.experiment_id, tags=all_tags, run_name=key.name
        )
    return str(run.info.run_id)


def _claimed(client: "MlflowClient", data: bytes | None) -> str | None:
    """The run that a claim names, if it still lives."""
    from mlflow.exceptions import MlflowException

    if data is None:
        return None
    run_id = str(json.loads(data)["run_id"])
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise TrackingError(f"run {run_id}: {error.message}") from None
    return run_id if run.info.lifecycle_stage == "active" else None


def with_log10(params: Mapping[str, object], log_scaled: Collection[str]) -> dict[str, object]:
    """The parameters, and ``log10.<name>`` for those searched on a logarithmic scale.

    MLflow draws every axis linearly; three decades of a temperature would fall into one corner.
    """
    extra = {
        f"log10.{name}": round(math.log10(value), 6)
        for name in log_scaled
        if isinstance(value := params.get(name), int | float) and value > 0
    }
    return {**params, **extra}


def close_running(
    connection: Connection, sweep: str, *, spare: Collection[str] = ()
) -> tuple[str, ...]:
    """End the trials' runs of a sweep that nobody works on, as killed; returns their names.

    A run may be there without a spool on this machine: its worker died before it logged, or on
    another machine.

    Args:
        connection: to the experiment.
        sweep: of which the driver is dead, or the caller.
        spare: names of runs that are alive, or whose spool will end them.

    Raises:
        TrackingError: the server is away.
    """
    client = connection.client()
    wanted = f"tags.`vfsearch.sweep` = '{sweep}' and attributes.status = 'RUNNING'"
    with mlflow_errors(connection, f"sweep {sweep}"):
        found = client.search_runs([connection.experiment_id], filter_string=wanted)
        closed = []
        for run in found:
            key = RunKey.from_tags(run.data.tags)
            if key is not None and key.trial is not None and key.name not in spare:
                client.set_terminated(run.info.run_id, "KILLED")
                closed.append(key.name)
    return tuple(closed)


@contextmanager
def mlflow_errors(
    connection: Connection, what: str, *, through: Collection[str] = ()
) -> Iterator[None]:
    """Turn what the MLflow client raises into one error that says where and what.

    MLflow's exceptions with an error code of ``through`` pass unchanged.

    Raises:
        TrackingError: for any MlflowException or lost connection.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except MlflowException as error:
        if error.error_code in through:
            raise
        raise TrackingError(f"{connection.uri}: {what}: {error.message}") from None
    except RequestException as error:
        raise TrackingError(f"{connection.uri}: {what}: cannot be reached ({error})") from None
