"""Servers that fail, processes that are killed: in the end nothing is missing or double."""

import dataclasses
import hashlib
import itertools
import os
import pickle
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.proxy import Fate, Proxy

from vfsearch.tracking.connection import Connection
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.stack import StackInfo
from vfsearch.tracking.sync import sync
from vfsearch.tracking.trial_log import TrialLog

pytestmark = [pytest.mark.fault, pytest.mark.slow]


@pytest.fixture
def proxies(running_stack: StackInfo) -> Iterator[tuple[Proxy, Proxy]]:
    with Proxy(running_stack.tracking_uri) as mlflow, Proxy(running_stack.s3_endpoint) as s3:
        yield mlflow, s3


@pytest.fixture
def through(connection: Connection, proxies: tuple[Proxy, Proxy]) -> Connection:
    """The connection of the test, through both proxies."""
    mlflow, s3 = proxies
    return dataclasses.replace(
        connection,
        uri=mlflow.url,
        storage=dataclasses.replace(connection.storage, endpoint=s3.url),
    )


def _history(connection: Connection, run_id: str, key: str) -> Counter[tuple[int, float]]:
    client = connection.client()
    return Counter((m.step, m.value) for m in client.get_metric_history(run_id, key))


def _check_artifacts(connection: Connection, run_id: str, wanted: dict[str, bytes]) -> None:
    store = connection.store(connection.client().get_run(run_id).info.artifact_uri)
    assert {entry.key for entry in store.entries()} == set(wanted)
    for name, data in wanted.items():
        stored = store.head(name)
        assert stored is not None
        assert stored.size == len(data)
        assert stored.sha256 == hashlib.sha256(data).hexdigest()
        assert store.get(name) == data


def test_every_metric_once_and_every_artifact_through_failing_servers(
    connection: Connection, through: Connection, proxies: tuple[Proxy, Proxy], tmp_path: Path
) -> None:
    for proxy in proxies:
        # One of two requests fails, in six ways. Not in a cycle: parts of an upload that are sent
        # side by side, each again and again, would meet the same failure for ever.
        drawn = random.Random(1).choices(list(Fate), [6, 1, 1, 1, 1, 1, 1], k=997)
        assert set(drawn[:30]) == set(Fate)
        proxy.fate = lambda method, path, number, drawn=drawn: drawn[number % len(drawn)]
    files = {
        "checkpoints/last/model.safetensors": os.urandom(20 * 2**20),
        "checkpoints/last/state.json": b"{}",
        "queries/val.txt": b"1 a b\n" * 1000,
    }
    folder = tmp_path / "out"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    log = TrialLog.open(through, RunKey(sweep="flaky", trial=1), tmp_path / "spool")
    log.params({"loss.margin": 5.4})
    for step in range(60):
        log.metrics({f"val/m{k}": step + k / 10 for k in range(20)}, step)
        if step == 20:
            log.artifact(folder, "")
            for name in files:
                (folder / name).unlink()  # the spool keeps what training throws away
        if step == 30:
            for proxy in proxies:
                proxy.fate_before, proxy.fate = proxy.fate, lambda m, p, n: Fate.DROP
        if step == 50:
            for proxy in proxies:
                proxy.fate = proxy.fate_before
    assert log.close("FINISHED", timeout=120)
    assert log.run_id is not None
    run = connection.client().get_run(log.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"loss.margin": "5.4"}
    for k in range(20):
        wanted = Counter((step, step + k / 10) for step in range(60))
        assert _history(connection, log.run_id, f"val/m{k}") == wanted
    _check_artifacts(connection, log.run_id, files)
    found = connection.client().search_runs(
        [connection.experiment_id], "tags.`vfsearch.sweep` = 'flaky'"
    )
    assert Counter(run.data.tags["vfsearch.kind"] for run in found) == {"sweep": 1, "trial": 1}
    assert "Uploads" not in connection.storage.client().list_multipart_uploads(
        Bucket="vfsearch", Prefix=connection.artifacts.removeprefix("s3://vfsearch/") + "/"
    )
    used = {fate for proxy in proxies for _, _, fate in proxy.seen}
    assert used == set(Fate)


KILLED = """
import pickle, sys
from pathlib import Path
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.trial_log import TrialLog
connection = pickle.loads(bytes.fromhex(sys.stdin.readline()))
folder = Path(sys.argv[1])
log = TrialLog.open(connection, RunKey(sweep="killed", trial=2), folder / "spool")
log.params({"loss.margin": 1.5})
(folder / "model.bin").write_bytes(b"weights" * 400000)
log.artifact(folder / "model.bin", "checkpoints/best/model.bin")
(folder / "model.bin").unlink()
for step in range(30):
    log.metrics({"val/auc_v2f": step / 30}, step)
print("logged", flush=True)
sys.stdin.read()
"""


def test_sync_sends_what_a_killed_process_left(
    connection: Connection, through: Connection, proxies: tuple[Proxy, Proxy], tmp_path: Path
) -> None:
    for proxy in proxies:
        proxy.fate = lambda method, path, number: Fate.DROP  # away all the time
    root = tmp_path / "spool"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(pickle.dumps(through).hex() + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "logged\n"
        assert sync(root, connection).live == ("killed/t002",)
        process.send_signal(signal.SIGKILL)
    # What a crash in the middle of a write leaves.
    with (root / "killed" / "t002" / "log.jsonl").open("ab") as file:
        file.write(b'{"kind": "metrics", "step": 31, "ti')
    report = sync(root, connection)
    assert report.failed == ()
    assert report.closed == ("killed/t002",)
    (run,) = connection.client().search_runs(
        [connection.experiment_id], "tags.`vfsearch.kind` = 'trial'"
    )
    run_id = run.info.run_id
    assert run.info.status == "KILLED"
    assert _history(connection, run_id, "val/auc_v2f") == Counter((s, s / 30) for s in range(30))
    _check_artifacts(connection, run_id, {"checkpoints/best/model.bin": b"weights" * 400000})
    again = sync(root, connection)
    assert (again.sent, again.rows, again.files) == ((), 0, 0)
    # The trial is resumed: the same run, running again, repeated steps are not doubled.
    log = TrialLog.open(connection, RunKey(sweep="killed", trial=2), root)
    log.metrics({"val/auc_v2f": 29 / 30}, 29)
    log.metrics({"val/auc_v2f": 1.0}, 30)
    assert log.close("FINISHED")
    assert log.run_id == run_id
    wanted = Counter((s, s / 30) for s in range(31))
    assert _history(connection, run_id, "val/auc_v2f") == wanted
    assert connection.client().get_run(run_id).info.status == "FINISHED"


def test_logging_does_not_wait_for_a_slow_server(
    through: Connection, proxies: tuple[Proxy, Proxy], tmp_path: Path
) -> None:
    for proxy in proxies:
        proxy.delay = 0.2
    through.client()  # the import of MLflow is not what is measured
    log = TrialLog.open(through, RunKey(sweep="slow", trial=0), tmp_path)
    taken = []
    for step in range(200):
        start = time.perf_counter()
        log.metrics({f"val/m{k}": float(step) for k in range(40)}, step)
        taken.append(time.perf_counter() - start)
    assert log.close(timeout=100)
    # Waiting for a single request would be 0.2 s each.
    assert statistics.median(taken) < 0.02
    assert sum(taken) < 200 * 0.05


def test_a_server_that_is_away_raises_nothing_and_loses_nothing(
    connection: Connection, through: Connection, proxies: tuple[Proxy, Proxy], tmp_path: Path
) -> None:
    proxies[0].fate = lambda method, path, number: Fate.DROP
    log = TrialLog.open(through, RunKey(sweep="away", trial=0), tmp_path)
    log.metrics({"val/auc_v2f": 0.5}, 1)
    assert not log.close("FINISHED", timeout=1)
    log._sender.join(20)
    report = sync(tmp_path, connection)
    assert report.sent == ("away/t000",)
    assert report.closed == ()  # it was ended by itself, only not told
    (run,) = connection.client().search_runs(
        [connection.experiment_id], "tags.`vfsearch.kind` = 'trial'"
    )
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"val/auc_v2f": 0.5}


def test_metrics_arrive_while_only_s3_is_away(
    connection: Connection, through: Connection, proxies: tuple[Proxy, Proxy], tmp_path: Path
) -> None:
    from vfsearch.tracking.runs import ensure_run

    key = RunKey(sweep="half", trial=0)
    run_id = ensure_run(connection, key)
    proxies[1].fate = lambda method, path, number: Fate.ERROR_503
    (tmp_path / "file").write_bytes(b"data")
    log = TrialLog.open(through, key, tmp_path / "spool", run_id=run_id)
    log.artifact(tmp_path / "file", "file")
    log.metrics({"val/auc_v2f": 0.5}, 1)
    assert not log.close("FINISHED", timeout=8)
    log._sender.join(20)
    client = connection.client()
    assert client.get_run(run_id).data.metrics == {"val/auc_v2f": 0.5}
    assert client.get_run(run_id).info.status == "RUNNING"  # not ended before it is complete
    assert sync(tmp_path / "spool", connection).files == 1
    assert client.get_run(run_id).info.status == "FINISHED"
    _check_artifacts(connection, run_id, {"file": b"data"})


UPLOAD = """
import pickle, sys
from pathlib import Path
connection = pickle.loads(bytes.fromhex(sys.stdin.readline()))
connection.store().upload_file(Path(sys.argv[1]), "interrupted/big.bin")
"""


def test_an_upload_killed_in_the_middle_leaves_nothing_visible(
    connection: Connection, through: Connection, proxies: tuple[Proxy, Proxy], tmp_path: Path
) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(os.urandom(40 * 2**20))
    parts = itertools.count(1)
    process = subprocess.Popen(
        [sys.executable, "-c", UPLOAD, str(big)], stdin=subprocess.PIPE, text=True
    )

    def kill_at_third_part(method: str, path: str) -> None:
        if "partNumber" in path and next(parts) == 3:
            process.send_signal(signal.SIGKILL)

    proxies[1].on_request = kill_at_third_part
    process.communicate(pickle.dumps(through).hex() + "\n", timeout=60)
    assert process.returncode == -signal.SIGKILL
    store = connection.store()
    assert not store.exists("interrupted/big.bin")
    assert store.entries("interrupted") == []
    client = connection.storage.client()
    mine = {
        "Bucket": "vfsearch",
        "Prefix": connection.artifacts.removeprefix("s3://vfsearch/") + "/interrupted/",
    }
    assert len(client.list_multipart_uploads(**mine)["Uploads"]) == 1
    stored = store.upload_file(big, "interrupted/big.bin")
    assert stored.sha256 == hashlib.sha256(big.read_bytes()).hexdigest()
    assert "Uploads" not in client.list_multipart_uploads(**mine)
