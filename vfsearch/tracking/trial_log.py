"""What a run logs through: to the local spool at once, to the servers in the background."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from vfsearch.errors import TrackingError
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.runs import RunKey, Status
from vfsearch.tracking.sender import Sender
from vfsearch.tracking.spool import Entry, Spool

logger = logging.getLogger(__name__)


def spool_root(home: Path, experiment: str) -> Path:
    """Where the spools of an experiment are."""
    return home / "spool" / experiment


class TrialLog:
    """The log of one run, for one process: a trial's rank 0, or the driver for the sweep's run.

    No method waits for a server, and none raises because of one. What was logged is on the disk
    when a method returns; ``vfsearch sync`` sends what a killed process left.
    """

    def __init__(self, spool: Spool, connection: Connection) -> None:
        """Use :meth:`open`."""
        self._spool = spool
        self._seen = {
            (key, entry["step"])
            for entry, _ in spool.entries(0)
            if entry["kind"] == "metrics"
            for key in entry["values"]
        }
        self.nonfinite = 0
        """Metric values left out because they were infinite or not a number."""
        self.lost = 0
        """Batches that could not be written even locally (disk full)."""
        self._sender = Sender(spool, connection)
        self._sender.start()
        if spool.status != "RUNNING":
            self._append({"kind": "status", "status": "RUNNING"})
        else:
            self._sender.wake()

    @classmethod
    def open(
        cls,
        connection: Connection,
        key: RunKey,
        root: Path,
        *,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        patience: float = 30.0,
    ) -> "TrialLog":
        """Start or continue the log of a run, below ``root`` (see :func:`spool_root`).

        Without ``run_id`` the sender finds or makes the run when the server answers. Needs no
        server itself.

        Raises:
            TrackingError: another living process logs this run (after ``patience`` seconds), or
                the folder cannot be written.
        """
        spool = Spool.create(root, key, tags=tags, run_id=run_id, patience=patience)
        return cls(spool, connection)

    @property
    def run_id(self) -> str | None:
        """The MLflow run, once known."""
        return self._spool.sent.run_id

    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters; the first value of each stays."""
        self._append({"kind": "params", "values": {k: str(v) for k, v in values.items()}})

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags; the last value of each stays."""
        self._append({"kind": "tags", "values": {k: str(v) for k, v in values.items()}})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics of one step, with the time of now (see :meth:`series`)."""
        self.series({step: values})

    def series(self, steps: Mapping[int, Mapping[str, float]]) -> None:
        """Log metrics of several steps in one write, with the time of now.

        A (metric, step) that was logged before is left out: a run that was restarted from its
        checkpoint repeats an epoch. So are values that are not finite; they are counted.
        """
        now = int(time.time() * 1000)
        entries: list[Entry] = []
        bad = 0
        for step, values in steps.items():
            finite = {
                key: float(value)
                for key, value in values.items()
                if math.isfinite(value) and (key, step) not in self._seen
            }
            bad += sum(not math.isfinite(value) for value in values.values())
            if finite:
                entries.append({"kind": "metrics", "step": step, "time": now, "values": finite})
        fresh = [(key, entry["step"]) for entry in entries for key in entry["values"]]
        if bad:
            self.nonfinite += bad
            counted = {"vfsearch.nonfinite": str(self.nonfinite)}
            entries.append({"kind": "tags", "values": counted})
        self._append(*entries)
        self._seen.update(fresh)

    def artifact(self, path: Path, name: str) -> None:
        """Log a file, or every file of a folder, under ``name`` in the run's artifacts.

        The spool keeps its own copy or hard link: the caller may delete ``path`` afterwards. A
        later artifact of the same name replaces it.

        Raises:
            TrackingError: ``path`` does not exist.
        """
        if not path.exists():
            raise TrackingError(f"{path}: does not exist and cannot be logged as {name}")
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())

        def entries() -> list[Entry]:
            return [
                {
                    "kind": "artifact",
                    "name": name if file == path else f"{name}/{file.relative_to(path).as_posix()}",
                    "file": self._spool.keep(file),
                }
                for file in files
            ]

        self._guarded(entries)

    def end(self, status: Status) -> None:
        """Note how the run ended, at once and locally; ``close(None)`` then sends it."""
        self._append({"kind": "status", "status": status})

    def close(self, status: Status | None = "FINISHED", timeout: float = 60.0) -> bool:
        """End the run and send the rest for at most ``timeout`` seconds.

        ``None`` leaves the run running, for a process that hands it to another. Returns whether
        the servers have everything; if not, ``vfsearch sync`` sends it later.
        """
        if status is not None:
            self.end(status)
        return self._sender.close(timeout)

    def _append(self, *entries: Entry) -> None:
        self._guarded(lambda: list(entries))

    def _guarded(self, make: Callable[[], list[Entry]]) -> None:
        try:
            entries = make()
            if entries:
                self._spool.append(entries)
        except OSError as error:
            self.lost += 1
            logger.warning("%s: cannot be written: %s", self._spool.folder, error)
            return
        self._sender.wake()
