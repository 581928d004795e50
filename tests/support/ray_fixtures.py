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
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@retry(
    retry=retry_if_exception_type(ConnectionError),
    stop=stop_after_delay(180),
    wait=wait_fixed(0.2),
    reraise=True,
)
def _wait(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


@pytest.fixture(scope="module")
def ray_node() -> Iterator[dict[str, str]]:
    """Environment in which drivers find the node (and are allowed in)."""
    port, dashboard = _free_ports(2)
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # socket paths must be short
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
    with (folder / "start.log").open("w") as log:
        node = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=os.environ | found | {"PYTHONPATH": PYTHONPATH},  # its workers inherit it
            start_new_session=True,
        )
    try:
        _wait(port)
        _wait(dashboard)
        yield found
    finally:
        family = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        node.terminate()
        _, left = psutil.wait_procs(family, timeout=30)
        for process in left:
            process.kill()
        node.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def on_ray_node(ray_node: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the drivers of this test join the file's node."""
    for name, value in ray_node.items():
        monkeypatch.setenv(name, value)
