"""A trial's checkpoints on S3: what it goes on from when its node, and its disk, are gone."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_exponential

from vfsearch.config import RunConfig
from vfsearch.errors import TrackingError
from vfsearch.search.latest import Latest
from vfsearch.tracking.artifacts import ArtifactStore
from vfsearch.training.checkpoint import STATE, link, parse_state, target
from vfsearch.training.run import SAME_RUN
from vfsearch.training.steps import NAME as STEPS

_RECORD = "record.json"
"""``{"checkpoints": {"last": "epoch-00003", "best": "epoch-00002"}, ...}``, one entry per seed."""
_LEAVE = 60.0
"""Seconds that the end of a trial waits for its last upload."""

_PATIENCE = 600.0
"""Seconds that a trial which must go on waits for S3; without it, its epochs would be lost."""

Record = dict[str, dict[str, str]]


class TrialMirror:
    """Keeps on S3 what ``last`` and ``best`` of a trial's checkpoints point to, and its steps.

    The record is written after the files that it names, so what it names is whole. Training never
    waits: epochs that end while an upload runs are skipped but for the newest.
    """

    def __init__(self, out: Path, store: ArtifactStore) -> None:
        """Mirror the trial folder ``out`` at the root of ``store``."""
        self._out, self._store = out, store
        self._staged = out / ".mirrored"
        self._swap = threading.Lock()
        self._latest = Latest(self._push, f"mirror of {out.name}")

    @retry(
        retry=retry_if_exception_type(TrackingError),
        wait=wait_exponential(multiplier=0.5, max=10),
        stop=stop_after_delay(_PATIENCE),
        reraise=True,
    )
    def pull(self, config: RunConfig) -> bool:
        """Fetch what is ahead of the local checkpoints, if it is of this run.

        Raises:
            TrackingError: S3 could not be reached for minutes.
        """
        content = self._store.get(_RECORD)
        record: Record = {} if content is None else json.loads(content)
        ahead = {
            root: names
            for root, names in record.items()
            if (target(self._out / root, "last") or "") < names["last"]
        }
        if not ahead or not self._same_run(record, config):
            return False
        for root, names in ahead.items():
            self._fetch(root, names)
        return True

    def note(self) -> None:
        """A checkpoint was written; it is held on to until it is on S3."""
        self._stage()
        self._latest.note()

    def close(self) -> bool:
        """Wait a moment for the last upload; False: S3 does not have it."""
        done = self._latest.close(_LEAVE)
        for end in ("", ".sending"):
            shutil.rmtree(self._staged.with_suffix(end), ignore_errors=True)
        return done

    def _same_run(self, record: Record, config: RunConfig) -> bool:
        """Whether the mirrored checkpoints are of these settings (their seed aside).

        A head that was lost before its proposal reached S3 may have given the trial's number to
        others.
        """
        root, names = next(iter(record.items()))
        content = self._store.get(f"{root}/{names['last']}/{STATE}")
        if content is None:
            return False
        old = parse_state(content, f"{root}/{STATE}").config
        return all(getattr(old, s) == getattr(config, s) for s in SAME_RUN if s != "seed")

    def _fetch(self, root: str, names: dict[str, str]) -> None:
        here = self._out / root
        here.mkdir(parents=True, exist_ok=True)
        for folder in dict.fromkeys(names.values()):
            partial = here / f".{folder}.partial"
            for stale in (partial, here / folder):
                shutil.rmtree(stale, ignore_errors=True)
            self._store.download_folder(f"{root}/{folder}", partial)
            partial.rename(here / folder)
        steps = Path(root).parent / STEPS
        if self._store.exists(steps.as_posix()):
            self._store.download_file(steps.as_posix(), self._out / steps)
        for name in ("best", "last"):  # `last` makes it a checkpoint: it goes last
            link(here, name, here / names[name])

    def _roots(self) -> Iterator[Path]:
        yield from (self._out / "checkpoints", *sorted(self._out.glob("seed-*/checkpoints")))

    def _stage(self) -> None:
        """Link the files: the training may remove the folders before they are sent."""
        fresh, old = (self._staged.with_suffix(end) for end in (".new", ".old"))
        for stale in (fresh, old):
            shutil.rmtree(stale, ignore_errors=True)
        record: Record = {}
        for root in self._roots():
            name = root.relative_to(self._out).as_posix()
            record[name] = {
                which: found for which in ("last", "best") if (found := target(root, which))
            }
            for folder in set(record[name].values()):
                (fresh / name / folder).mkdir(parents=True)
                for file in (root / folder).iterdir():
                    os.link(file, fresh / name / folder / file.name)
            if (steps := root.parent / STEPS).exists():  # grows: a copy
                shutil.copy(steps, fresh / steps.relative_to(self._out))
        (fresh / _RECORD).write_text(json.dumps(record), encoding="utf-8")
        with self._swap:
            if self._staged.exists():
                self._staged.rename(old)
            fresh.rename(self._staged)
        shutil.rmtree(old, ignore_errors=True)

    def _push(self) -> None:
        sending = self._staged.with_suffix(".sending")  # what an earlier try did not bring over
        with self._swap:
            if self._staged.exists():
                shutil.rmtree(sending, ignore_errors=True)
                self._staged.rename(sending)
        if not sending.exists():  # two notes, and the first push took the second's files along
            return
        files = {p.relative_to(sending).as_posix() for p in sending.rglob("*") if p.is_file()}
        for key in sorted(files - {_RECORD}):
            self._store.upload_file(sending / key, key)
        self._store.put((sending / _RECORD).read_bytes(), _RECORD)
        self._store.remove(e.key for e in self._store.entries() if e.key not in files)
        shutil.rmtree(sending)
