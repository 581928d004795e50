"""One driver per sweep: a lock in the study's database, with a heartbeat.

A row per study holds who drives it. Taking it over is one compare-and-swap on a random token, so it
is safe on SQLite and PostgreSQL. A driver that died on this machine is recognised by its process;
one on another machine by its heartbeat, in the database's own clock.
"""

import os
import platform
import secrets
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from vfsearch.errors import SweepError

BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 60.0

_DRIVERS = sa.Table(
    "vfsearch_drivers",
    sa.MetaData(),
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("token", sa.String(64), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("machine", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("beat", sa.Float, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
)
_NOW = sa.extract("epoch", sa.func.current_timestamp())


@dataclass(frozen=True, kw_only=True)
class _Me:
    host: str
    machine: str
    pid: int
    started: float


class _LostRaceError(Exception):
    """Another driver changed the row between reading and writing it."""


class DriverLock:
    """The right to drive one sweep, held from construction until `release`.

    Raises:
        SweepError: another driver holds it.
    """

    def __init__(self, engine: sa.Engine, study: str, *, beat: float = BEAT_SECONDS) -> None:
        self._engine = engine
        self._study = study
        self._token = secrets.token_hex(16)
        _DRIVERS.create(engine, checkfirst=True)
        self._before = _acquire(engine, study, self._token)
        self._start = self._last = time.monotonic()
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._beats, args=(beat,), name=f"driver of {study}", daemon=True
        )
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Wall time of the sweep: of its earlier drivers and of this one."""
        return self._before + time.monotonic() - self._start

    def check(self) -> None:
        """Raise if the lock was lost.

        Raises:
            SweepError: another driver took over, as this one was silent for too long.
        """
        silent = time.monotonic() - self._last > EXPIRY_SECONDS
        if self._lost or (silent and not self._beat()):
            raise SweepError(
                f"sweep {self._study}: another driver took over, as the study's database could "
                f"not be reached from here for {EXPIRY_SECONDS:.0f} s; this one stops"
            )

    def release(self) -> None:
        """Give the lock back; repeated calls do nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        self._write(token="")

    def _beats(self, interval: float) -> None:
        while not self._stop.wait(interval):
            # A database that is away for a moment is not a lost lock: the next beat tries again.
            try:
                self._beat()
            except sa.exc.SQLAlchemyError:
                continue

    def _beat(self) -> bool:
        held = self._write(token=self._token)
        self._lost = not held
        self._last = time.monotonic()
        return held

    def _write(self, token: str) -> bool:
        mine = (_DRIVERS.c.study == self._study) & (_DRIVERS.c.token == self._token)
        values = {"token": token, "beat": _NOW, "seconds": self.seconds}
        with self._engine.begin() as connection:
            result = connection.execute(_DRIVERS.update().where(mine).values(values))
        return result.rowcount == 1


@retry(
    retry=retry_if_exception_type((_LostRaceError, sa.exc.OperationalError)),
    stop=stop_after_attempt(6),
    wait=wait_random(0.05, 0.3),
    reraise=True,
)
def _acquire(engine: sa.Engine, study: str, token: str) -> float:
    """Take the row or raise; return the wall time of earlier drivers."""
    me = _me()
    mine = {
        "token": token,
        "host": me.host,
        "machine": me.machine,
        "pid": me.pid,
        "started": me.started,
        "since": _NOW,
        "beat": _NOW,
    }
    try:
        with engine.begin() as connection:
            query = sa.select(_DRIVERS, _NOW.label("now")).where(_DRIVERS.c.study == study)
            row = connection.execute(query).one_or_none()
            if row is None:
                connection.execute(_DRIVERS.insert().values(study=study, seconds=0.0, **mine))
                return 0.0
            if row.token and _alive(row, me):
                raise SweepError(_refusal(study, row, me))
            unchanged = (_DRIVERS.c.study == study) & (_DRIVERS.c.token == row.token)
            result = connection.execute(_DRIVERS.update().where(unchanged).values(**mine))
            if result.rowcount != 1:
                raise _LostRaceError
            return float(row.seconds)
    except sa.exc.IntegrityError:
        raise _LostRaceError from None


def _me() -> _Me:
    pid = os.getpid()
    return _Me(
        host=platform.node(),
        machine=machine_id(),
        pid=pid,
        started=psutil.Process(pid).create_time(),
    )


def machine_id() -> str:
    """Name the set of processes whose numbers can be compared: one boot, one pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    name = boot.read_text().strip() if boot.exists() else f"{psutil.boot_time():.0f}"
    return f"{name} {namespace.readlink()}" if namespace.is_symlink() else name


def _alive(row: Any, me: _Me) -> bool:
    if row.machine != me.machine:
        return bool(float(row.now) - row.beat < EXPIRY_SECONDS)
    try:
        process = psutil.Process(row.pid)
        same_process = abs(process.create_time() - row.started) < 1
        return same_process and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _refusal(study: str, row: Any, me: _Me) -> str:
    since = datetime.fromtimestamp(row.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    text = f"sweep {study} is already driven by process {row.pid} on {row.host} since {since}"
    if row.machine == me.machine:
        return f"{text}; wait for it or stop it"
    age = float(row.now) - row.beat
    return (
        f"{text} (last heartbeat {age:.0f} s ago); if it is dead, try again in "
        f"{EXPIRY_SECONDS - age:.0f} s"
    )
