"""A sweep's SQLite study on S3: what a new head node continues from."""

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from vfsearch.errors import TrackingError
from vfsearch.search.definition import SweepConfig
from vfsearch.search.latest import Latest
from vfsearch.search.ledger import Watcher
from vfsearch.search.records import Asked, Ended
from vfsearch.search.storage import BUSY_SECONDS
from vfsearch.tracking.artifacts import ArtifactStore
from vfsearch.tracking.connection import Connection

_KEY, _TRIALS = "study.db", "trials"
_BEFORE_A_TRIAL = 20.0
"""Seconds that a new trial waits for its proposal to be on S3."""
_AT_THE_END = 60.0


def recovery_store(
    config: SweepConfig, connection: Connection | None, *, on_cluster: bool
) -> ArtifactStore | None:
    """Where study and checkpoints of the sweep are kept besides; None: nowhere."""
    wanted = config.base.tracking.recovery
    if connection is None or not (on_cluster if wanted == "auto" else wanted):
        return None
    return connection.store(f"{connection.artifacts}/recovery/{config.name}")


def restore_study(database: Path, store: ArtifactStore) -> bool:
    """Fetch the study if there is none here.

    Raises:
        TrackingError: S3 cannot be reached.
    """
    if database.exists() or not store.exists(_KEY):
        return False
    store.download_file(_KEY, database)
    return True


class StudySnapshot:
    """Sends the study to S3 after everything that happens in it (a `Watcher` before another).

    A proposal is on S3 before its trial starts (unless S3 is away): a new head never gives the same
    number to other parameters. What is lost with a head is at most the last reports, and the
    trials' checkpoints bring them back.
    """

    def __init__(self, database: Path, store: ArtifactStore, watcher: Watcher) -> None:
        """Send ``database`` to the root of ``store``, and hand events on to ``watcher``."""
        self._database, self._store, self._watcher = database, store, watcher
        self._over: list[int] = []
        self._finished = False
        self._latest = Latest(self._send, "study snapshot")

    def started(self, asked: Asked) -> None:
        """Hand on; the proposal was sent by `proposed`."""
        self._watcher.started(asked)

    def epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Send the report."""
        self._latest.note()
        self._watcher.epoch(number, epoch, metrics)

    def ended(self, ended: Ended) -> None:
        """Send the end; the trial's mirrored checkpoints go once it is on S3."""
        self._over.append(ended.number)
        self._latest.note()
        self._watcher.ended(ended)

    def proposed(self) -> None:
        """Send a proposal before its trial is begun."""
        self._latest.note()
        self._latest.wait(_BEFORE_A_TRIAL)

    def close(self, *, finished: bool) -> bool:
        """Send the last state; False: S3 does not have it.

        Args:
            finished: No trial runs or will go on: what late uploads left behind is removed.
        """
        self._finished = finished
        self._latest.note()
        return self._latest.close(_AT_THE_END)

    def _send(self) -> None:
        over = list(self._over)
        finished = self._finished
        with TemporaryDirectory(prefix="vfsearch-study-") as folder:
            copy = Path(folder) / _KEY
            _copy(self._database, copy)
            self._store.upload_file(copy, _KEY)
        for number in over:
            self._store.remove(entry.key for entry in self._store.entries(mirror_key(number)))
            self._over.remove(number)
        if finished:
            self._store.remove(entry.key for entry in self._store.entries(_TRIALS))


def _copy(database: Path, copy: Path) -> None:
    """SQLite's own backup: consistent while others write."""
    try:
        with (
            contextlib.closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as source,
            contextlib.closing(sqlite3.connect(copy)) as destination,
        ):
            source.backup(destination)
    except sqlite3.Error as error:  # tried again like a server that is away
        raise TrackingError(f"{database}: cannot be copied: {error}") from None


def mirror_key(number: int) -> str:
    """Where the mirrored checkpoints of a trial are, below the sweep's recovery store."""
    return f"{_TRIALS}/{number:05d}"
