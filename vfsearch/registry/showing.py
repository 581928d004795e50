"""The gallery of a model, kept with its run."""

from pathlib import Path

from vfsearch.errors import TrackingError, UsageError
from vfsearch.registry.resolve import get_run
from vfsearch.tracking.additions import add_to_run
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.run_key import RunKey

FOLDER = "gallery"


def log_showcase(connection: Connection, run_id: str, *files: Path) -> str:
    """Add the page and the film to the run's artifacts, below ``gallery/``; returns the folder.

    They are in the local spool first: if a server is away, ``vfsearch sync`` sends them.

    Raises:
        UsageError: there is no such run, or vfsearch did not make it.
        TrackingError: a server is away, or the spool cannot be written.
    """
    run = get_run(connection, run_id)
    key = RunKey.from_tags(run.data.tags)
    if key is None:
        raise UsageError(f"run {run_id} was not made by vfsearch: its gallery is not kept with it")
    named = {f"{FOLDER}/{file.name}": file for file in files}
    trouble = add_to_run(
        connection.settings(), key, files=named, connection=connection, run_id=run_id
    )
    if trouble is not None:
        raise TrackingError(f"{trouble}; the gallery is sent by: vfsearch sync")
    return f"{run.info.artifact_uri}/{FOLDER}"
