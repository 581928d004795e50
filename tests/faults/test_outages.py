"""Disks that are full and servers that are killed and started again: nothing missing or double."""

import dataclasses
import hashlib
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from support.mlflow_server import free_port, mlflow_on
from support.proxy import Fate, Proxy
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from vfsearch.config import TrackingConfig
from vfsearch.tracking import stack
from vfsearch.tracking.connection import Connection, connect
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.trial_log import TrialLog

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(900)]

KEY = RunKey(sweep="outage", trial=1)


class SmallDisk:
    """A file system of a few megabytes that can be filled."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ballast = root / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 4096)
        assert os.statvfs(self.root).f_bavail == 0

    def free(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    root = tmp_path / "small"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "vfsearch-test", str(root)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield SmallDisk(root)
    subprocess.run(["umount", "-l", str(root)], check=True)


def _check(connection: Connection, run_id: str, steps: int, files: dict[str, bytes]) -> None:
    client = connection.client()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run_id, "val/auc_v2f")
    assert sorted((m.step, m.value) for m in history) == [(s, s / 100) for s in range(steps)]
    store = connection.store(run.info.artifact_uri)
    for name, data in files.items():
        assert store.get(name) == data
        stored = store.head(name)
        assert stored is not None
        assert stored.sha256 == hashlib.sha256(data).hexdigest()


def _artifact(log: TrialLog, folder: Path, files: dict[str, bytes]) -> None:
    """Log one more file, and delete it at once."""
    name = f"checkpoints/{len(files)}.bin"
    files[name] = os.urandom(300_000)
    path = folder / "file.bin"
    path.write_bytes(files[name])
    log.artifact(path, name)
    path.unlink()


def test_a_server_with_a_full_disk_that_is_killed_and_started_again(
    connection: Connection,
    stack_home: Path,
    small_disk: SmallDisk,
    tmp_path: Path,
) -> None:
    """MLflow's disk is full, S3 answers 507; both are killed; then there is room again."""
    database, port = small_disk.root / "mlflow.db", free_port()
    uri = f"sqlite:///{database}"
    files: dict[str, bytes] = {}
    with ExitStack() as opened:
        proxy = opened.enter_context(Proxy(connection.storage.endpoint or ""))
        server = opened.enter_context(ExitStack())
        url = server.enter_context(mlflow_on(uri, connection, tmp_path, port))
        near = connect(TrackingConfig(uri=url, experiment="outage"))
        near = dataclasses.replace(near, storage=connection.storage)
        storage = dataclasses.replace(connection.storage, endpoint=proxy.url)
        log = TrialLog.open(dataclasses.replace(near, storage=storage), KEY, tmp_path / "spool")
        step = 0

        def some() -> None:
            nonlocal step
            for step in range(step, step + 10):  # noqa: B020 - goes on where it was
                log.metrics({"val/auc_v2f": step / 100}, step)
            step += 1
            _artifact(log, tmp_path, files)

        some()
        small_disk.fill()
        proxy.fate = lambda method, path, number: Fate.ERROR_507
        failures = log._sender.failures
        # More than fits into what SQLite still has: the server must have refused some of it.
        log.series({s: {f"train/m{k}": float(k) for k in range(400)} for s in range(50)})
        some()
        _until(lambda: log._sender.failures > failures)
        server.close()  # SIGKILL
        (weed,) = (p for p in psutil.process_iter(["cmdline"]) if _is_s3(p, stack_home))
        weed.send_signal(signal.SIGKILL)
        weed.wait(30)
        some()
        small_disk.free()
        stack.up(stack_home)
        proxy.fate = lambda method, path, number: Fate.PASS
        server.enter_context(mlflow_on(uri, connection, tmp_path, port))
        some()
        assert log.close("FINISHED", timeout=200)
        assert log.run_id is not None
        _check(near, log.run_id, step, files)
        client = near.client()
        for k in (0, 399):
            history = client.get_metric_history(log.run_id, f"train/m{k}")
            assert sorted(m.step for m in history) == list(range(50))
        with sqlite3.connect(database) as check:
            assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        check.close()


def test_a_full_disk_of_the_spool_holds_back_and_loses_nothing(
    connection: Connection, small_disk: SmallDisk, tmp_path: Path
) -> None:
    files: dict[str, bytes] = {}
    log = TrialLog.open(connection, KEY, small_disk.root)
    for step in range(5):
        log.metrics({"val/auc_v2f": step / 100}, step)
    _artifact(log, tmp_path, files)
    small_disk.fill()
    for step in range(5, 60):  # more than the rest of the log's last page
        log.metrics({"val/auc_v2f": step / 100, "x" * 200: 1.0}, step)
    assert log.held > 0
    kept = tmp_path / "kept.bin"
    kept.write_bytes(b"k" * 10_000)
    log.artifact(kept, "kept.bin")
    files["kept.bin"] = b"k" * 10_000
    small_disk.free()
    log.metrics({"val/auc_v2f": 0.6}, 60)
    assert log.held == 0
    assert log.close("FINISHED", timeout=120)
    assert log.run_id is not None
    _check(connection, log.run_id, 61, files)


def _is_s3(process: psutil.Process, home: Path) -> bool:
    command = process.info["cmdline"] or []
    return "mini" in command and any(str(home) in part for part in command)


def _until(done: Callable[[], bool]) -> None:
    """Wait for what the sender does in the background."""
    Retrying(
        retry=retry_if_result(lambda value: not value),
        wait=wait_fixed(0.05),
        stop=stop_after_delay(120),
    )(done)
