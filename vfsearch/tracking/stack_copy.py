"""Backup and restoration of the local stack."""

from pathlib import Path

from vfsearch.errors import StackError, UsageError, VfsearchError
from vfsearch.tracking import stack
from vfsearch.tracking.backup import Place, Report, backup
from vfsearch.tracking.database import Sqlite
from vfsearch.tracking.restore import carry_out, check_restorable
from vfsearch.tracking.snapshot import Progress, read_manifest
from vfsearch.tracking.stack import StackInfo


def backup_local(home: Path, folder: Path, progress: Progress | None = None) -> Report:
    """Back up the running local stack.

    Raises:
        StackError: it is not running; otherwise as :func:`vfsearch.tracking.backup.backup`.
    """
    info = stack.status(home).info
    if info is None:
        raise StackError("the local stack is not running; start it: vfsearch stack up")
    return backup(_place(home, info), folder, progress)


def restore_local(
    home: Path, folder: Path, snapshot: str | None = None, progress: Progress | None = None
) -> Report:
    """Bring an empty local stack to a snapshot and start it; keys and ports are its own.

    Raises:
        UsageError, StackError, TrackingError: see :mod:`vfsearch.tracking.restore`.
    """
    database = _database(home)
    if not database.is_empty():  # seen without starting anything
        raise UsageError(
            f"{database.path}: holds runs or models; a backup is restored into an empty stack "
            "only: move the folder away, or set VFSEARCH_HOME to a new one"
        )
    read_manifest(folder, snapshot)
    running = stack.status(home).up
    place = _place(home, stack.up(home, progress, storage_only=True))
    try:
        name, manifest = check_restorable(place, folder, snapshot)
    except VfsearchError:
        if not running:
            stack.down(home)
        raise
    stack.down(home, mlflow_only=True)
    report = carry_out(place, folder, name, manifest, progress)
    stack.up(home, progress)
    return report


def _place(home: Path, info: StackInfo) -> Place:
    return Place(database=_database(home), storage=info.storage(), bucket=info.bucket)


def _database(home: Path) -> Sqlite:
    return Sqlite(stack.database_path(home))
