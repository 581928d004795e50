"""Eight processes that log at once lose nothing, with SQLite and with PostgreSQL behind MLflow."""

import dataclasses
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.mlflow_server import mlflow_on

from vfsearch.config import TrackingConfig
from vfsearch.tracking.connection import Connection, connect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROCESSES, EPOCHS, METRICS = 8, 25, 20

WRITERS = """
import multiprocessing, pickle, sys
from pathlib import Path
from mlflow import MlflowClient  # once, before the processes part
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.trial_log import DatasetInfo, TrialLog

connection, folder = pickle.loads(bytes.fromhex(sys.stdin.readline())), Path(sys.argv[1])
context = multiprocessing.get_context("fork")
together = context.Barrier(PROCESSES)


def write(number):
    together.wait()
    log = TrialLog.open(connection, RunKey(sweep="crowd", trial=number), folder / "spool")
    log.params({"loss.margin": number})
    data = DatasetInfo(name="corpus/val", digest="d" * 32, context="validation", source="x")
    log.datasets([data])
    for step in range(EPOCHS):
        log.metrics({f"val/m{k}": number + step * k for k in range(METRICS)}, step)
    (folder / f"{number}.bin").write_bytes(bytes([number]) * 100_000)
    log.artifact(folder / f"{number}.bin", "model.bin")
    sys.exit(0 if log.close("FINISHED", timeout=300) else 1)


writers = [context.Process(target=write, args=(number,)) for number in range(PROCESSES)]
for writer in writers:
    writer.start()
for writer in writers:
    writer.join()
sys.exit(max(writer.exitcode for writer in writers))
"""
for name, value in (("PROCESSES", PROCESSES), ("EPOCHS", EPOCHS), ("METRICS", METRICS)):
    WRITERS = WRITERS.replace(name, str(value))


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
    done = subprocess.run(
        [sys.executable, "-c", WRITERS, str(folder)],
        input=pickle.dumps(connection).hex() + "\n",
        text=True,
    )
    assert done.returncode == 0
    client = connection.client()
    runs = client.search_runs([connection.experiment_id], "tags.`vfsearch.kind` = 'trial'")
    assert sorted(run.data.params["loss.margin"] for run in runs) == [
        str(n) for n in range(PROCESSES)
    ]
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
