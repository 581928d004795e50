"""Ray nodes that outlive the drivers of a test file."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

_MEMORY = Path("/sys/fs/cgroup/memory")
_ENTER = f'echo $$ > "$1/cgroup.procs" && mount --bind "$1" {_MEMORY} && shift && exec "$@"'
"""The node sees its own memory group where a container sees its."""
LIMIT = 9 << 30
"""Bytes of the small node; Ray ends workers at half of it, the kernel at all of it."""


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
def _start(
    folder: Path, cpus: int, memory: Path | None
) -> tuple["subprocess.Popen[bytes]", dict[str, str]]:
    """Start a head node, in a memory group if one is given; returns once it serves."""
    port, dashboard = _free_ports(2)
    found = {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": str(folder),
    }
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block",
        "--node-ip-address=127.0.0.1", f"--port={port}", f"--num-cpus={cpus}",
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--object-store-memory={200 << 20}", f"--temp-dir={folder}", "--disable-usage-stats",
    ]  # fmt: skip
    settings = dict(found)
    if memory is not None:
        command = ["unshare", "--mount", "sh", "-c", _ENTER, "sh", str(memory), *command]
        settings |= {"RAY_memory_usage_threshold": "0.5", "RAY_memory_monitor_refresh_ms": "100"}
    return _run(command, folder / "start.log", settings), found


@retry(retry=retry_if_exception_type(_NotStarted), stop=stop_after_attempt(6), reraise=True)
def join(found: dict[str, str], folder: Path, name: str) -> "subprocess.Popen[bytes]":
    """Start a further node with one CPU and a resource of its name; `end_node` kills it."""
    (port,) = _free_ports(1)
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--block",
        f"--address={found['RAY_ADDRESS']}", "--node-ip-address=127.0.0.1", "--num-cpus=1",
        f"--dashboard-agent-listen-port={port}", f'--resources={{"{name}": 1}}',
        f"--object-store-memory={100 << 20}", "--disable-usage-stats",
    ]  # fmt: skip
    return _run(command, folder / f"{name}.log", found)


def end_node(node: "subprocess.Popen[bytes]") -> None:
    """Cut its power."""
    family: list[psutil.Process] = []
    if node.poll() is None:
        family = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=30)
    node.wait(timeout=30)


def _run(command: list[str], log: Path, settings: dict[str, str]) -> "subprocess.Popen[bytes]":
    with log.open("w") as output:
        node = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env=os.environ | settings | {"PYTHONPATH": PYTHONPATH},  # its workers inherit it
            start_new_session=True,
        )
    try:
        _wait(node, log)
    except BaseException:
        end_node(node)
        raise
    return node


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


@contextmanager
def head_node(cpus: int = 2, memory: Path | None = None) -> Iterator[tuple[dict[str, str], Path]]:
    """A head node: the environment in which drivers find it (and are allowed in), its folder."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # socket paths must be short
    try:
        node, found = _start(folder, cpus, memory)
        try:
            yield found, folder
        finally:
            end_node(node)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def ray_node() -> Iterator[dict[str, str]]:
    """Environment in which drivers find the node (and are allowed in)."""
    with head_node() as (found, _):
        yield found


@pytest.fixture
def on_small_ray_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let the drivers of this test join a node of little memory; yields its memory group."""
    if os.geteuid() != 0 or not (_MEMORY / "cgroup.procs").exists():
        pytest.skip("a node of little memory needs root and a memory group (cgroup v1)")
    group = _MEMORY / f"vfsearch-{secrets.token_hex(4)}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(LIMIT))
        with head_node(memory=group) as (found, _):
            for name, value in found.items():
                monkeypatch.setenv(name, value)
            yield group
    finally:
        group.rmdir()


@pytest.fixture
def on_ray_node(ray_node: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the drivers of this test join the file's node."""
    for name, value in ray_node.items():
        monkeypatch.setenv(name, value)
