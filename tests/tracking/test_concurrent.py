"""Eight processes that log at once lose nothing, with SQLite and with PostgreSQL behind MLflow."""

import dataclasses
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from vfsearch.config import TrackingConfig
from vfsearch.tracking.connection import Connection, connect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROCESSES, EPOCHS, METRICS = 8, 25, 20

WRITER = """
import pickle, sys
from pathlib import Path
from vfsearch.tracking.runs import RunKey
from vfsearch.tracking.trial_log import DatasetInfo, TrialLog
connection = pickle.loads(bytes.fromhex(sys.stdin.readline()))
number, folder = int(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
log = TrialLog.open(connection, RunKey(sweep="crowd", trial=number), folder / "spool")
log.params({"loss.margin": number})
log.datasets([DatasetInfo(name="corpus/val", digest="d" * 32, context="validation", source="x")])
for step in range(EPOCHS):
    log.metrics({f"val/m{k}": number + step * k for k in range(METRICS)}, step)
(folder / f"{number}.bin").write_bytes(bytes([number]) * 100_000)
log.artifact(folder / f"{number}.bin", "model.bin")
assert log.close("FINISHED", timeout=300)
""".replace("EPOCHS", str(EPOCHS)).replace("METRICS", str(METRICS))


@contextmanager
def mlflow_on(database: str, connection: Connection, folder: Path) -> Iterator[str]:
    """Another MLflow server, over this database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | connection.environment()
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "mlflow.log").open("w") as log:
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


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_eight_processes_at_once_lose_nothing(
    database: str,
    connection: Connection,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    if database == "sqlite":
        _crowd(connection, tmp_path)
        return
    url = request.getfixturevalue("postgres_url").replace("postgresql://", "postgresql+psycopg://")
    with mlflow_on(url, connection, tmp_path) as uri:
        other = connect(TrackingConfig(uri=uri, experiment="crowd"))
        _crowd(dataclasses.replace(other, storage=connection.storage), tmp_path)


def _crowd(connection: Connection, folder: Path) -> None:
    text = pickle.dumps(connection).hex() + "\n"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(number), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for writer in writers:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(text)
        writer.stdin.flush()
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    client = connection.client()
    runs = client.search_runs([connection.experiment_id], "tags.`vfsearch.kind` = 'trial'")
    assert sorted(run.data.params["loss.margin"] for run in runs) == [str(n) for n in range(8)]
    for run in runs:
        number = int(run.data.params["loss.margin"])
        assert run.info.status == "FINISHED"
        assert len(run.inputs.dataset_inputs) == 1
        for k in range(METRICS):
            history = client.get_metric_history(run.info.run_id, f"val/m{k}")
            wanted = Counter((step, float(number + step * k)) for step in range(EPOCHS))
            assert Counter((m.step, m.value) for m in history) == wanted
        store = connection.store(run.info.artifact_uri)
        assert store.get("model.bin") == bytes([number]) * 100_000
    parents = client.search_runs([connection.experiment_id], "tags.`vfsearch.kind` = 'sweep'")
    assert len(parents) == 1
