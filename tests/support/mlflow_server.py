"""A further MLflow server for tests, over a database of the test's choice."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from vfsearch.tracking.connection import Connection


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def mlflow_on(
    database: str, connection: Connection, folder: Path, port: int | None = None
) -> Iterator[str]:
    """Its address; artifacts go to the bucket of ``connection``. It is killed hard at the end."""
    port = port or free_port()
    environment = os.environ | connection.environment()
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "mlflow.log").open("a") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database,
             "--default-artifact-root", f"{connection.artifacts}/other",
             "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    @retry(
        retry=retry_if_exception_type(requests.ConnectionError),
        stop=stop_after_delay(240),
        wait=wait_fixed(0.3),
        reraise=True,
    )
    def wait() -> None:
        assert server.poll() is None, (folder / "mlflow.log").read_text()[-3000:]
        requests.get(f"{url}/health", timeout=20).raise_for_status()

    try:
        wait()
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
