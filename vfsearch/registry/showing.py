"""The gallery of a model, kept with its run."""

from pathlib import Path

from vfsearch.registry.resolve import get_run
from vfsearch.tracking.connection import Connection

FOLDER = "gallery"


def log_showcase(connection: Connection, run_id: str, *files: Path) -> str:
    """Upload the page and the film to the run's artifacts, below ``gallery/``; returns the folder.

    Raises:
        UsageError: there is no such run.
        TrackingError: a server is away.
    """
    root = str(get_run(connection, run_id).info.artifact_uri)
    store = connection.store(root)
    for file in files:
        store.upload_file(file, f"{FOLDER}/{file.name}")
    return f"{root}/{FOLDER}"
