"""One driver per sweep, with real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.sweeps import sweep

from vfsearch.errors import SweepError
from vfsearch.search import driver
from vfsearch.search.driver import DriverLock
from vfsearch.search.study import open_study

HOLD = """
import sys
from vfsearch.search.driver import DriverLock
import sqlalchemy as sa
lock = DriverLock(sa.create_engine(sys.argv[1]), "small", beat=0.05)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    address: str = request.getfixturevalue("postgres_url")
    return address.replace("postgresql://", "postgresql+psycopg://")


def hold(url: str) -> subprocess.Popen[str]:
    """Start a process that drives the sweep until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.fault
def test_a_second_driver_is_refused_and_a_killed_one_replaced_at_once(url: str) -> None:
    process = hold(url)
    engine = sa.create_engine(url)
    try:
        with pytest.raises(SweepError) as caught:
            DriverLock(engine, "small")
        message = str(caught.value)
        assert f"process {process.pid} on " in message
        assert " since 20" in message
        DriverLock(engine, "another").release()
    finally:
        kill(process)
    lock = DriverLock(engine, "small")
    lock.check()
    lock.release()
    engine.dispose()


def test_two_drivers_in_one_process_are_refused_as_well(url: str) -> None:
    first = open_study(sweep(storage=url), create=True, resume=False)
    with pytest.raises(SweepError, match=f"process {os.getpid()}"):
        open_study(sweep(storage=url), create=True, resume=True)
    first.close()
    open_study(sweep(storage=url), create=False, resume=True).close()


@pytest.mark.slow
def test_of_many_at_once_exactly_one_gets_it(url: str) -> None:
    engine = sa.create_engine(url)
    DriverLock(engine, "small").release()
    claim = HOLD.replace("sys.stdin.read()", "sys.stdin.readline()")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", claim, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    first = []
    for process in processes:
        assert process.stdout is not None
        first.append(process.stdout.readline())
    for process in processes:
        process.communicate("\n")
    assert sorted(first) == ["", "", "held\n"]
    engine.dispose()


def test_a_driver_elsewhere_is_judged_by_its_heartbeat(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(url)
    here = driver.machine_id()
    monkeypatch.setattr(driver, "machine_id", lambda: "another machine")
    remote = DriverLock(engine, "small", beat=3600)
    monkeypatch.setattr(driver, "machine_id", lambda: here)
    with pytest.raises(SweepError, match=r"last heartbeat \d+ s ago.*try again in"):
        DriverLock(engine, "small")
    table = driver._DRIVERS
    with engine.begin() as connection:
        connection.execute(table.update().values(beat=table.c.beat - driver.EXPIRY_SECONDS - 5))
    mine = DriverLock(engine, "small")
    # The other one notices at its next heartbeat that it was replaced, and must stop.
    assert remote._beat() is False
    with pytest.raises(SweepError, match="another driver took over"):
        remote.check()
    mine.check()
    remote.release()
    mine.check()
    with pytest.raises(SweepError):  # the late release has not opened the lock
        DriverLock(engine, "small")
    mine.release()
    engine.dispose()


def test_a_lost_lock_stops_every_change(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_study(sweep(storage=url), create=True, resume=False) as study:
        asked = study.ask()
        assert asked is not None
        with study._storage.engine.begin() as connection:
            connection.execute(driver._DRIVERS.update().values(token="of another"))
        assert study._lock._beat() is False
        for change in (
            lambda: study.ask(),
            lambda: study.report(0, 1, {}),
            lambda: study.complete(0, {"val/match_v2f_1to2": 0.5}),
            lambda: study.fail(0, "x"),
        ):
            with pytest.raises(SweepError, match="another driver took over"):
                change()


def test_wall_time_adds_up_over_drivers(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = sa.create_engine(url)
    now = [100.0]
    monkeypatch.setattr(driver.time, "monotonic", lambda: now[0])
    first = DriverLock(engine, "small", beat=3600)
    now[0] += 30
    first.release()
    now[0] += 500
    second = DriverLock(engine, "small", beat=3600)
    now[0] += 12
    assert second.seconds == pytest.approx(42)
    second.release()
    engine.dispose()
