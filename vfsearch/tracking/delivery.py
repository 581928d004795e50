"""Delivering a spool: rows in batches to MLflow, files to S3, the status last."""

import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vfsearch.errors import TrackingError
from vfsearch.tracking.artifacts import ArtifactStore
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.runs import ensure_run, mlflow_errors
from vfsearch.tracking.spool import ENDED, Entry, Spool

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Param, RunTag

logger = logging.getLogger(__name__)

MOST_METRICS = 1000
MOST_OTHERS = 100
"""Limits of MLflow's log-batch request: metrics, and params or tags."""


INVALID = ("INVALID_PARAMETER_VALUE",)
"""Refusals that no repetition can mend."""


@dataclass
class Delivered:
    """What one delivery moved."""

    rows: int = 0
    files: int = 0
    rejected: int = 0
    """Rows that the server refuses for good (a changed parameter, an illegal name)."""


def deliver(
    spool: Spool,
    connection: Connection,
    done: Delivered | None = None,
    *,
    only_ends: bool = False,
) -> Delivered:
    """Send everything that is in the spool now.

    ``only_ends``: the process is dead, and another may be going on with the run: that it was
    running is not sent any more.

    Rows and files advance separately, so that metrics arrive while S3 is away. Repeating it,
    also after a crash in the middle, stores nothing twice.

    Raises:
        TrackingError: a server is away; what was sent until then is noted.
    """
    done = done if done is not None else Delivered()
    # Read before the data: a status is logged last, so all that belongs to it is sent first.
    status = spool.status
    run_id = _run(spool, connection)
    trouble: TrackingError | None = None
    for lane in (_rows, _files):
        try:
            lane(spool, connection, run_id, done)
        except TrackingError as error:
            trouble = trouble or error
    if trouble is not None:
        raise trouble
    told = status in ENDED or not only_ends
    if status is not None and told and status != spool.sent.status:
        with mlflow_errors(connection, f"run {spool.key.name}"):
            if status in ENDED:
                connection.client().set_terminated(run_id, status)
            else:
                connection.client().update_run(run_id, status=status)
        spool.note(status=status)
    return done


def _run(spool: Spool, connection: Connection) -> str:
    run_id = spool.sent.run_id
    if run_id is None:
        run_id = ensure_run(connection, spool.key, spool.tags)
        spool.note(run_id=run_id)
    return run_id


def _rows(spool: Spool, connection: Connection, run_id: str, done: Delivered) -> None:
    for batch, end in _batches(spool):
        metrics, params, tags = _entities(batch)
        for part in _parts(metrics, MOST_METRICS):
            _send(spool, connection, run_id, done, "metrics", part)
        for part in _parts(params, MOST_OTHERS):
            _send(spool, connection, run_id, done, "params", part)
        for part in _parts(tags, MOST_OTHERS):
            _send(spool, connection, run_id, done, "tags", part)
        for part in _parts(_datasets(batch), MOST_OTHERS):
            _send(spool, connection, run_id, done, "datasets", part)
        spool.note(rows=end)


def _batches(spool: Spool) -> Iterator[tuple[list[Entry], int]]:
    """Entries with about as many metrics as one request takes, and the position after them."""
    batch: list[Entry] = []
    count, after = 0, spool.sent.rows
    for entry, end in spool.entries(spool.sent.rows):
        values = len(entry.get("values", ()))
        if batch and count + values > MOST_METRICS:
            yield batch, after
            batch, count = [], 0
        batch.append(entry)
        count, after = count + values, end
    if batch:
        yield batch, after


def _entities(
    batch: Sequence[Entry],
) -> tuple[list["Metric"], list["Param"], list["RunTag"]]:
    from mlflow.entities import Metric, Param, RunTag

    metrics = [
        Metric(key, value, entry["time"], entry["step"])
        for entry in batch
        if entry["kind"] == "metrics"
        for key, value in entry["values"].items()
    ]
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    for entry in batch:
        if entry["kind"] == "params":
            params = entry["values"] | params  # MLflow keeps the first value of a parameter
        elif entry["kind"] == "tags":
            tags |= entry["values"]
    return (
        metrics,
        [Param(key, value) for key, value in params.items()],
        [RunTag(key, value) for key, value in tags.items()],
    )


def _datasets(batch: Sequence[Entry]) -> list["DatasetInput"]:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(
                name=one["name"],
                digest=one["digest"],
                source_type="local",
                source=json.dumps({"uri": one["source"]}),
                profile=json.dumps(one["profile"]),
            ),
            [InputTag("mlflow.data.context", one["context"])],
        )
        for entry in batch
        if entry["kind"] == "datasets"
        for one in entry["values"]
    ]


def _parts(items: Sequence[Any], most: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while part := list(itertools.islice(iterator, most)):
        yield part


def _send(
    spool: Spool,
    connection: Connection,
    run_id: str,
    done: Delivered,
    kind: Literal["metrics", "params", "tags", "datasets"],
    items: list[Any],
) -> None:
    """One log-batch request; if the server calls it invalid, its halves, down to single rows."""
    from mlflow.exceptions import MlflowException

    rows: dict[str, Any] = {kind: items}
    try:
        with mlflow_errors(connection, f"run {spool.key.name}", through=INVALID):
            if kind == "datasets":
                connection.client().log_inputs(run_id, **rows)
            else:
                connection.client().log_batch(run_id, **rows)
        done.rows += len(items)
    except MlflowException as error:
        if len(items) == 1:
            done.rejected += 1
            logger.warning("%s: the server refuses %s: %s", spool.key.name, kind, error.message)
            with (spool.folder / "rejected.log").open("a", encoding="utf-8") as file:
                file.write(f"{kind} {dict(items[0])}: {error.message}\n")
            return
        middle = len(items) // 2
        for half in (items[:middle], items[middle:]):
            _send(spool, connection, run_id, done, kind, half)


def _files(spool: Spool, connection: Connection, run_id: str, done: Delivered) -> None:
    pending = list(spool.entries(spool.sent.files))
    newest = {entry["name"]: end for entry, end in pending if entry["kind"] == "artifact"}
    for entry, end in pending:
        if entry["kind"] == "artifact":
            kept = spool.folder / "files" / entry["file"]
            # A newer version waits behind: only that one is worth sending.
            if newest[entry["name"]] == end:
                if kept.exists():
                    _store(spool, connection, run_id).upload_file(kept, entry["name"])
                    done.files += 1
                elif end > spool.sent.files:
                    done.rejected += 1
                    logger.warning("%s: the spool lost %s", spool.key.name, entry["name"])
            spool.note(files=end)
            kept.unlink(missing_ok=True)
    if pending:
        spool.note(files=pending[-1][1])


def _store(spool: Spool, connection: Connection, run_id: str) -> ArtifactStore:
    if spool.sent.artifact_uri is None:
        with mlflow_errors(connection, f"run {spool.key.name}"):
            info = connection.client().get_run(run_id).info
        spool.note(artifact_uri=str(info.artifact_uri))
    return connection.store(spool.sent.artifact_uri)
