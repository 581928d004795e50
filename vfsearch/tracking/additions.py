"""Adding to a run that others have logged: a report, a gallery, a remark.

Through a spool of its own beside the run's, so that neither the run's process nor its status is
touched, and nothing is lost while the servers are away.
"""

from collections.abc import Mapping
from pathlib import Path

from vfsearch.config import TrackingConfig, home
from vfsearch.errors import TrackingError
from vfsearch.tracking.connection import Connection, connect
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.spool import Spool
from vfsearch.tracking.sync import SyncReport, sync
from vfsearch.tracking.trial_log import spool_root


def add_to_run(
    tracking: TrackingConfig,
    key: RunKey,
    *,
    files: Mapping[str, Path] | None = None,
    tags: Mapping[str, str] | None = None,
    connection: Connection | None = None,
    run_id: str | None = None,
) -> str | None:
    """Add artifacts and tags to a run; what was there under the same name is replaced.

    Args:
        tracking: the run's servers and experiment.
        key: the run.
        files: by their name among the artifacts, like ``{"report.html": Path("report.html")}``.
        tags: values by name.
        connection: to the servers, if there is one already.
        run_id: the run, where it is known (it may be of another experiment).

    Returns:
        None if everything was sent, else why not; ``vfsearch sync`` sends it then.

    Raises:
        TrackingError: the local spool cannot be written.
    """
    root = spool_root(home(), tracking.experiment)
    settings = connection.settings() if connection is not None else tracking
    spool = Spool.create(root, key, tracking=settings, addition=True, run_id=run_id)
    try:
        kept = {name: spool.keep(path) for name, path in (files or {}).items()}
        spool.append(
            [
                *({"kind": "artifact", "name": name, "file": file} for name, file in kept.items()),
                *([{"kind": "tags", "values": dict(tags)}] if tags else []),
            ]
        )
    except OSError as error:
        raise TrackingError(f"{spool.folder}: cannot be written ({error.strerror})") from None
    finally:
        spool.release()
    try:
        done = sync(root, connection or connect(tracking), sweep=key.sweep, only=spool.folder)
    except TrackingError as error:
        return str(error)
    return _trouble(done)


def _trouble(done: SyncReport) -> str | None:
    if done.live:
        return "another process is sending it"
    return done.failed[0][1] if done.failed else None
