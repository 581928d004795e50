"""A Ray cluster of one node that outlives the drivers of a test file."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.engine_runs import PYTHONPATH
from tenacity import (
    retry,
    retry_if_exception_type,
    retry_if_result,
    stop_after_attempt,
    wait_fixed,
)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class _NotStarted(Exception):  # noqa: N818 - the node may start at the next try
    pass


@retry(
    # Ray gives a node thirty seconds to start, which a busy machine may not have.
    retry=retry_if_exception_type(_NotStarted),
    stop=stop_after_attempt(6),
    reraise=True,
)
def _start(folder: Path) -> tuple["subprocess.Popen[bytes]", dict[str, str]]:
    """Start a node; returns once it serves."""
    port, dashboard = _free_ports(2)
    found = {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block",
        "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2",
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--object-store-memory={200 << 20}", f"--temp-dir={folder}", "--disable-usage-stats",
    ]  # fmt: skip
    log = folder / "start.log"
    with log.open("w") as output:
        node = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env=os.environ | found | {"PYTHONPATH": PYTHONPATH},  # its workers inherit it
            start_new_session=True,
        )
    _wait(node, log)
    return node, found


@retry(retry=retry_if_result(lambda done: not done), wait=wait_fixed(0.2))
def _wait(node: "subprocess.Popen[bytes]", log: Path) -> bool:
    """Whether the node has said that it blocks now.

    Raises:
        _NotStarted: it has ended instead.
    """
    said = log.read_text()
    if node.poll() is not None:
        raise _NotStarted(said)
    return "--block" in said


@pytest.fixture(scope="module")
def ray_node() -> Iterator[dict[str, str]]:
    """Environment in which drivers find the node (and are allowed in)."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # socket paths must be short
    try:
        node, found = _start(folder)
        yield found
        family = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=30)
        node.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def on_ray_node(ray_node: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the drivers of this test join the file's node."""
    for name, value in ray_node.items():
        monkeypatch.setenv(name, value)
