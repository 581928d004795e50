"""What a run logs through: to the local spool at once, to the servers in the background."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vfsearch.errors import TrackingError
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.runs import Status
from vfsearch.tracking.sender import Sender
from vfsearch.tracking.spool import Entry, Spool

logger = logging.getLogger(__name__)


def spool_root(home: Path, experiment: str) -> Path:
    """Where the spools of an experiment are."""
    return home / "spool" / experiment


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Data of a run, as MLflow shows it in the table of runs."""

    name: str
    digest: str
    """Up to 36 characters; data of the same name and digest are the same."""
    context: str
    """What for: training, validation."""
    source: str
    """Folder."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    """Sizes and full hashes, for people."""


class TrialLog:
    """The log of one run, for one process: a trial's rank 0, or the driver for the sweep's run.

    No method waits for a server, and none raises because of one. What was logged is on the disk
    when a method returns; ``vfsearch sync`` sends what a killed process left. While the disk is
    full it is held in memory instead, and written as soon as there is room.
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
        self._held: list[Callable[[], list[Entry]]] = []
        self._writing = threading.Lock()
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
        spool = Spool.create(
            root, key, tags=tags, tracking=connection.settings(), run_id=run_id, patience=patience
        )
        return cls(spool, connection)

    @property
    def run_id(self) -> str | None:
        """The MLflow run, once known."""
        return self._spool.sent.run_id

    @property
    def held(self) -> int:
        """Batches that wait in memory for room on the disk."""
        return len(self._held)

    def last_step(self, prefix: str) -> int | None:
        """Last step at which a metric of this prefix was logged; None if there is none."""
        steps = [step for key, step in self._seen if key.startswith(prefix)]
        return max(steps, default=None)

    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters; the first value of each stays."""
        self._append({"kind": "params", "values": {k: str(v) for k, v in values.items()}})

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags; the last value of each stays."""
        self._append({"kind": "tags", "values": {k: str(v) for k, v in values.items()}})

    def datasets(self, datasets: Sequence[DatasetInfo]) -> None:
        """Log what the run was trained and evaluated on; repeating it changes nothing."""
        self._append({"kind": "datasets", "values": [asdict(one) for one in datasets]})

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

        self._guarded(lambda: self._keep(files, path, name))

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
        self._guarded(list)
        if self._held:
            logger.error("%s: %d batches are lost, the disk is full", self._name, self.held)
        return self._sender.close(timeout) and not self._held

    @property
    def _name(self) -> str:
        return str(self._spool.folder)

    def _append(self, *entries: Entry) -> None:
        self._guarded(lambda: list(entries))

    def _keep(self, files: Sequence[Path], path: Path, name: str) -> list[Entry]:
        kept: list[Entry] = []
        try:
            for file in files:
                if not file.exists():  # deleted while it waited for room on the disk
                    logger.error("%s: %s is lost, it is gone", self._name, file)
                    continue
                below = "" if file == path else f"/{file.relative_to(path).as_posix()}"
                kept.append(
                    {"kind": "artifact", "name": name + below, "file": self._spool.keep(file)}
                )
        except OSError:
            for entry in kept:
                self._spool.forget(entry["file"])
            raise
        return kept

    def _guarded(self, make: Callable[[], list[Entry]]) -> None:
        """Write what waits and then this, in order; what cannot be written waits."""
        with self._writing:
            waiting = [*self._held, make]
            for done, next_ in enumerate(waiting):
                try:
                    if entries := next_():
                        self._spool.append(entries)
                except OSError as error:
                    if not self._held:
                        logger.warning("%s: cannot be written, held back: %s", self._name, error)
                    self._held = waiting[done:]
                    return
            self._held = []
        self._sender.wake()
