"""Sending what killed processes left, and closing the runs that nobody closes any more."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from vfsearch.config import TrackingConfig
from vfsearch.errors import TrackingError
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.delivery import deliver
from vfsearch.tracking.runs import Status, close_running
from vfsearch.tracking.spool import ENDED, Spool
from vfsearch.tracking.spool_files import read_header, read_sent

ATTEMPTS = 5

Progress = Callable[[str], None]
"""Called with the name of each run before it is sent."""


@dataclass(frozen=True, kw_only=True)
class SyncReport:
    """What :func:`sync` did. Names are ``sweep/t012``."""

    sent: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    """Runs of dead processes that were ended."""
    live: tuple[str, ...] = ()
    """Left alone: their process lives and sends by itself."""
    failed: tuple[tuple[str, str], ...] = ()
    """Not everything could be sent, and why."""
    rows: int = 0
    files: int = 0
    rejected: int = 0

    def __add__(self, other: "SyncReport") -> "SyncReport":
        return SyncReport(
            sent=self.sent + other.sent,
            closed=self.closed + other.closed,
            live=self.live + other.live,
            failed=self.failed + other.failed,
            rows=self.rows + other.rows,
            files=self.files + other.files,
            rejected=self.rejected + other.rejected,
        )


def sync(
    root: Path,
    connection: Connection,
    *,
    sweep: str | None = None,
    only: Path | None = None,
    status: Status | None = "KILLED",
    progress: Progress | None = None,
) -> SyncReport:
    """Send every spool below ``root`` whose process is dead, and end its run as ``status``.

    Args:
        root: see :func:`vfsearch.tracking.trial_log.spool_root`.
        connection: to the experiment of the spools.
        sweep: only this sweep's.
        only: only this spool.
        status: for runs whose process died without ending them; ``None`` leaves them open.
        progress: see :data:`Progress`.
    """
    folders = unsent(root, sweep) if only is None else [only]
    return _send(folders, connection, status, progress)


def sync_all(
    spool: Path,
    connect: Callable[[TrackingConfig], Connection],
    *,
    sweep: str | None = None,
    progress: Progress | None = None,
) -> SyncReport:
    """Send every spool of a machine, each to the server that it belongs to.

    Where the driver of a sweep is found dead, its trials' runs that are left without a spool on
    this machine are closed as well.

    Args:
        spool: folder of the experiments' spools.
        connect: reaches a server.
        sweep: only this sweep's.
        progress: see :data:`Progress`.
    """
    groups: defaultdict[TrackingConfig, list[Path]] = defaultdict(list)
    done = SyncReport()
    for folder in chain.from_iterable(unsent(root, sweep) for root in sorted(spool.glob("*"))):
        try:
            tracking = read_header(folder).tracking
        except TrackingError as error:
            done += SyncReport(failed=((_name(folder), str(error)),))
            continue
        groups[tracking or TrackingConfig(experiment=folder.parents[1].name)].append(folder)
    for tracking, folders in groups.items():
        try:
            connection = connect(tracking)
        except TrackingError as error:
            done += SyncReport(failed=tuple((_name(folder), str(error)) for folder in folders))
            continue
        part = _send(folders, connection, "KILLED", progress)
        done += part + _close_left(part, connection)
    return done


def unsent(root: Path, sweep: str | None = None) -> list[Path]:
    """Spool folders of an experiment that are not sent, or not known to be ended."""
    folders = sorted(header.parent for header in root.glob(f"{sweep or '*'}/*/run.json"))
    return [folder for folder in folders if not _is_finished(folder)]


def _send(
    folders: Sequence[Path],
    connection: Connection,
    status: Status | None,
    progress: Progress | None,
) -> SyncReport:
    done = SyncReport()
    for folder in folders:
        name = _name(folder)
        try:
            spool = Spool.adopt(folder)
            if spool is None:
                done += SyncReport(live=(name,))
                continue
            if progress is not None:
                progress(name)
            try:
                done += _send_one(spool, name, connection, status)
            finally:
                spool.release()
        except (TrackingError, OSError) as error:
            done += SyncReport(failed=((name, str(error)),))
    return done


def _send_one(spool: Spool, name: str, connection: Connection, status: Status | None) -> SyncReport:
    orphan = not spool.addition and spool.status not in ENDED and status is not None
    if orphan:
        spool.append([{"kind": "status", "status": status}])
    closed = (name,) if orphan else ()
    if spool.is_sent():
        return SyncReport(closed=closed)
    moved = Retrying(
        retry=retry_if_exception_type(TrackingError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_fixed(0.5),
        reraise=True,
    )(deliver, spool, connection, only_ends=status is None)
    return SyncReport(
        sent=(name,),
        closed=closed,
        rows=moved.rows,
        files=moved.files,
        rejected=moved.rejected,
    )


def _close_left(report: SyncReport, connection: Connection) -> SyncReport:
    """Close what the sweeps' dead drivers left on the server only."""
    busy = (*report.live, *(name for name, _ in report.failed))
    done = SyncReport()
    for name in report.closed:
        sweep, _, run = name.partition("/")
        if run != "sweep":
            continue
        spare = [other.partition("/")[2] for other in busy if other.startswith(f"{sweep}/")]
        try:
            left = close_running(connection, sweep, spare=spare)
        except TrackingError as error:
            done += SyncReport(failed=((name, str(error)),))
        else:
            done += SyncReport(closed=tuple(f"{sweep}/{run}" for run in left))
    return done


def _name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def _is_finished(folder: Path) -> bool:
    """Whether nothing is left to do, seen without taking the lock."""
    sent, log = read_sent(folder), folder / "log.jsonl"
    size = log.stat().st_size if log.exists() else 0
    everything = min(sent.rows, sent.files) >= size
    if folder.name.endswith("+files"):
        return everything
    return sent.status in ENDED and everything
