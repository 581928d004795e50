"""The durable local record of one run, from which it is sent to MLflow and S3.

One folder per run, and a second one (``…+files``) for what is added to it from outside::

    run.json     identity and tags of the run, and where its servers are
    log.jsonl    what was logged, in order, each batch fsynced
    files/       artifacts not yet sent: kept here, so that nobody can delete them too early
    sent.json    how far the log was sent (replaced in one step), run id, last status sent
    owner.lock   held (flock) by the process that logs or sends

Everything after the noted position may be sent again: with its original timestamp a metric that
arrives twice is stored once, and so is a file of the same content.
"""

import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from filelock import FileLock, Timeout

from vfsearch.config import TrackingConfig
from vfsearch.errors import TrackingError
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.spool_files import Header, read_header, read_sent, replace

COPY_BELOW = 2**20
"""Files below this many bytes are copied, larger ones hard-linked: they are never rewritten."""

Lane = Literal["rows", "files"]
Entry = dict[str, Any]
ENDED = ("FINISHED", "FAILED", "KILLED")


class Spool:
    """An owned spool folder. One thread may append while another reads and advances."""

    def __init__(self, folder: Path, lock: FileLock, header: Header) -> None:
        """Use :meth:`create` or :meth:`adopt`."""
        self.folder = folder
        self.key = RunKey.from_json(header.key)
        self.tags = dict(header.tags)
        self.addition = header.addition
        self._lock = lock
        self._appending = threading.Lock()
        self._log = folder / "log.jsonl"
        (folder / "files").mkdir(exist_ok=True)
        self._mend()
        self._kept = sum(1 for _ in self.entries(0)) + len(list((folder / "files").iterdir()))
        self.sent = read_sent(folder)
        self.status: str | None = None
        """The last status that was logged."""
        for entry, _ in self.entries(0):
            if entry["kind"] == "status":
                self.status = entry["status"]

    @classmethod
    def create(
        cls,
        root: Path,
        key: RunKey,
        *,
        tags: Mapping[str, str] | None = None,
        tracking: TrackingConfig | None = None,
        addition: bool = False,
        run_id: str | None = None,
        patience: float = 30.0,
    ) -> Self:
        """Make or continue the spool of a run; waits up to ``patience`` seconds for its owner.

        Raises:
            TrackingError: another process logs this run, or the folder cannot be written.
        """
        header = Header(
            key=key.to_json(), tags=dict(tags or {}), tracking=tracking, addition=addition
        )
        folder = root / key.sweep / header.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _owner_lock(folder)
            lock.acquire(timeout=patience)
            replace(folder / "run.json", header.model_dump_json())
            spool = cls(folder, lock, header)
        except Timeout:
            raise TrackingError(f"{folder}: another living process logs this run") from None
        except OSError as error:
            raise TrackingError(f"{folder}: cannot be written ({error.strerror})") from None
        if run_id is not None and spool.sent.run_id != run_id:
            spool.note(run_id=run_id, artifact_uri=None)
        return spool

    @classmethod
    def adopt(cls, folder: Path) -> Self | None:
        """Take over the spool of a dead process; ``None`` if its owner lives.

        Raises:
            TrackingError: ``run.json`` is damaged.
        """
        lock = _owner_lock(folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        try:
            return cls(folder, lock, read_header(folder))
        except OSError as error:
            lock.release()
            raise TrackingError(f"{folder}: cannot be read ({error.strerror})") from None
        except TrackingError:
            lock.release()
            raise

    def append(self, entries: Iterable[Entry]) -> None:
        """Add entries; on the disk when this returns, and not at all if it raises."""
        entries = list(entries)
        lines = "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in entries)
        with self._appending, self._log.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                data = memoryview(lines.encode("utf-8"))
                while data:
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)  # a disk that is full takes the first half of a line
                raise
        for entry in entries:
            if entry["kind"] == "status":
                self.status = entry["status"]

    def keep(self, path: Path) -> str:
        """Hold on to a file until it is sent; returns its name under ``files/``."""
        self._kept += 1
        name = f"{self._kept:06d}{path.suffix}"
        target = self.folder / "files" / name
        if path.stat().st_size >= COPY_BELOW:
            try:
                target.hardlink_to(path)
            except OSError:
                pass  # another file system: copy
            else:
                return name
        partial = target.with_suffix(".partial")
        try:
            shutil.copyfile(path, partial)
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)
        return name

    def forget(self, name: str) -> None:
        """Let go of a file that `keep` took."""
        (self.folder / "files" / name).unlink(missing_ok=True)

    def entries(self, start: int) -> Iterator[tuple[Entry, int]]:
        """Whole entries from byte ``start`` on, each with the position after it."""
        if not self._log.exists():
            return
        with self._log.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                start += len(line)
                yield json.loads(line), start

    def note(self, **changes: Any) -> None:
        """Replace ``sent.json`` with these fields changed."""
        self.sent = self.sent.model_copy(update=changes)
        replace(self.folder / "sent.json", self.sent.model_dump_json())

    def is_sent(self) -> bool:
        """Whether the servers have everything, the status included."""
        size = self._log.stat().st_size if self._log.exists() else 0
        return (
            self.sent.rows >= size and self.sent.files >= size and self.sent.status == self.status
        )

    def release(self) -> None:
        """Give the folder up."""
        self._lock.release()

    def _mend(self) -> None:
        """Cut off a last line that a killed process left half-written."""
        if not self._log.exists():
            return
        data = self._log.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with self._log.open("r+b") as file:
                file.truncate(whole)


def _owner_lock(folder: Path) -> FileLock:
    # Taken by the thread that logs, given up by the one that sends.
    return FileLock(folder / "owner.lock", thread_local=False)
