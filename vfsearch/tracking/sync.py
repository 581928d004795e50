"""Sending what killed processes left, and closing the runs that nobody closes any more."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from vfsearch.errors import TrackingError
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.delivery import deliver
from vfsearch.tracking.runs import Status
from vfsearch.tracking.spool import ENDED, Spool, read_sent

ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class SyncReport:
    """What :func:`sync` did. Names are ``sweep/t012``."""

    sent: tuple[str, ...]
    closed: tuple[str, ...]
    """Runs of dead processes that were ended."""
    live: tuple[str, ...]
    """Left alone: their process lives and sends by itself."""
    failed: tuple[tuple[str, str], ...]
    """Not everything could be sent, and why."""
    rows: int
    files: int
    rejected: int


def sync(
    root: Path,
    connection: Connection,
    *,
    sweep: str | None = None,
    status: Status | None = "KILLED",
    progress: Callable[[str], None] | None = None,
) -> SyncReport:
    """Send every spool below ``root`` whose process is dead, and end its run as ``status``.

    Args:
        root: see :func:`vfsearch.tracking.trial_log.spool_root`.
        connection: to the experiment of the spools.
        sweep: only this sweep's.
        status: for runs whose process died without ending them; ``None`` leaves them open, for
            a sweep that is being resumed.
        progress: called with the name of each run before it is sent.
    """
    sent: list[str] = []
    closed: list[str] = []
    live: list[str] = []
    failed: list[tuple[str, str]] = []
    rows = files = rejected = 0
    for header in sorted(root.glob(f"{sweep or '*'}/*/run.json")):
        folder = header.parent
        name = f"{folder.parent.name}/{folder.name}"
        if _is_finished(folder):
            continue
        try:
            spool = Spool.adopt(folder)
            if spool is None:
                live.append(name)
                continue
            if progress is not None:
                progress(name)
            try:
                orphan = spool.status not in ENDED and status is not None
                if orphan:
                    spool.append([{"kind": "status", "status": status}])
                if not spool.is_sent():
                    done = Retrying(
                        retry=retry_if_exception_type(TrackingError),
                        stop=stop_after_attempt(ATTEMPTS),
                        wait=wait_fixed(0.5),
                        reraise=True,
                    )(deliver, spool, connection)
                    rows, files = rows + done.rows, files + done.files
                    rejected += done.rejected
                    sent.append(name)
                if orphan:
                    closed.append(name)
            finally:
                spool.release()
        except TrackingError as error:
            failed.append((name, str(error)))
    return SyncReport(
        sent=tuple(sent),
        closed=tuple(closed),
        live=tuple(live),
        failed=tuple(failed),
        rows=rows,
        files=files,
        rejected=rejected,
    )


def _is_finished(folder: Path) -> bool:
    """Whether nothing is left to do, seen without taking the lock."""
    sent, log = read_sent(folder), folder / "log.jsonl"
    size = log.stat().st_size if log.exists() else 0
    return sent.status in ENDED and min(sent.rows, sent.files) >= size
