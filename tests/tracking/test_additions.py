"""What is added to a run from outside, and spools that find their own server."""

import os
from pathlib import Path

import pytest
from support.tracked_runs import trial_run

from vfsearch.config import TrackingConfig
from vfsearch.errors import TrackingError
from vfsearch.tracking.additions import add_to_run
from vfsearch.tracking.connection import Connection, connect
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.runs import close_running, ensure_run
from vfsearch.tracking.sync import sync, sync_all
from vfsearch.tracking.trial_log import DatasetInfo, TrialLog, spool_root

KEY = RunKey(sweep="demo", trial=3)


def test_an_addition_leaves_the_runs_own_log_and_status_alone(
    connection: Connection, home: Path, tmp_path: Path
) -> None:
    log = TrialLog.open(connection, KEY, spool_root(home, connection.experiment))
    page = tmp_path / "page.html"
    page.write_text("first")
    tracking = connection.settings()
    # While the run's own process lives and holds its log.
    assert add_to_run(tracking, KEY, files={"report.html": page}, connection=connection) is None
    page.write_text("second")
    assert log.close("FINISHED")
    assert log.run_id is not None
    assert RunKey.from_tags(connection.client().get_run(log.run_id).data.tags) == KEY
    told = add_to_run(
        tracking, KEY, files={"report.html": page}, tags={"seen": "yes"}, connection=connection
    )
    assert told is None
    run = connection.client().get_run(log.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["seen"] == "yes"
    assert connection.store(run.info.artifact_uri).get("report.html") == b"second"


def test_an_addition_goes_to_the_run_that_is_named_whatever_its_experiment(
    connection: Connection, stack_home: Path, tmp_path: Path
) -> None:
    other = connect(TrackingConfig(experiment=f"{connection.experiment}-other"), home=stack_home)
    run_id = trial_run(other, "demo", 3)
    (tmp_path / "page.html").write_text("page")
    tracking = connection.settings()
    files = {"page.html": tmp_path / "page.html"}
    told = add_to_run(tracking, KEY, files=files, connection=connection, run_id=run_id)
    assert told is None
    artifacts = connection.client().get_run(run_id).info.artifact_uri
    assert connection.store(artifacts).get("page.html") == b"page"
    assert list(connection.client().search_runs([connection.experiment_id])) == []


def test_what_cannot_be_sent_is_kept_and_sync_finds_its_server(
    connection: Connection, home: Path, tmp_path: Path
) -> None:
    run_id = trial_run(connection, "demo", 3)
    (tmp_path / "page.html").write_text("page")
    away = TrackingConfig(uri="http://127.0.0.1:9", experiment=connection.experiment)
    why = add_to_run(away, KEY, files={"report.html": tmp_path / "page.html"})
    assert why is not None
    assert "127.0.0.1:9" in why
    asked: list[TrackingConfig] = []

    def reach(tracking: TrackingConfig) -> Connection:
        asked.append(tracking)
        if len(asked) == 1:
            raise TrackingError("away")
        return connection

    assert sync_all(home / "spool", reach).failed == (("demo/t003+files", "away"),)
    done = sync_all(home / "spool", reach)
    assert (done.sent, done.closed, done.files) == (("demo/t003+files",), (), 1)
    assert asked == [away, away], "the server that the spool names, not the default one"
    assert sync_all(home / "spool", reach) == type(done)()
    artifacts = connection.client().get_run(run_id).info.artifact_uri
    assert connection.store(artifacts).get("report.html") == b"page"


def test_the_runs_of_a_dead_driver_are_closed_also_without_a_spool(
    connection: Connection, home: Path
) -> None:
    root = spool_root(home, connection.experiment)
    own, lives = RunKey(sweep="demo"), RunKey(sweep="demo", trial=1)
    TrialLog.open(connection, own, root).close(None)  # its driver was killed
    alone = trial_run(connection, "demo", 0)  # made by the driver, its worker never logged
    other = ensure_run(connection, RunKey(sweep="other", trial=0))
    log = TrialLog.open(connection, lives, root)
    done = sync_all(home / "spool", lambda _: connection)
    assert set(done.closed) == {"demo/sweep", "demo/t000"}
    assert done.live == ("demo/t001",)
    client = connection.client()
    assert client.get_run(alone).info.status == "KILLED"
    assert client.get_run(other).info.status == "RUNNING"
    log.close(None)
    assert close_running(connection, "demo", spare=["t001"]) == ()
    assert close_running(connection, "demo") == ("t001",)


def test_a_dataset_is_logged_once_however_often_it_is_sent(
    connection: Connection, tmp_path: Path
) -> None:
    data = DatasetInfo(
        name="corpus/vox1_val",
        digest="0123456789abcdef" * 2,
        context="validation",
        source="/data/vox1_val.csv",
        profile={"identities": 112},
    )
    for _ in range(2):
        log = TrialLog.open(connection, KEY, tmp_path)
        log.datasets([data])
        assert log.close("FINISHED")
    assert log.run_id is not None
    ((one),) = connection.client().get_run(log.run_id).inputs.dataset_inputs
    assert (one.dataset.name, one.dataset.digest) == (data.name, data.digest)
    assert {tag.key: tag.value for tag in one.tags} == {"mlflow.data.context": "validation"}


def test_a_full_disk_tears_no_line_and_loses_nothing_that_finds_room_later(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = TrialLog.open(connection, KEY, tmp_path)
    log.metrics({"val/auc": 0.1}, 1)
    (tmp_path / "model.bin").write_bytes(b"weights")
    written, fsync = [], os.fsync

    def full(handle: int) -> None:
        written.append(handle)  # the line is in the file, but the disk does not take it
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        log.metrics({"val/auc": 0.2}, 2)
        log.artifact(tmp_path / "model.bin", "model.bin")
        log.metrics({"val/auc": 0.3}, 3)
    assert written
    assert log.held == 3
    assert os.fsync is fsync
    log.metrics({"val/auc": 0.4}, 4)
    assert log.held == 0
    assert log.close("FINISHED")
    assert log.run_id is not None
    history = connection.client().get_metric_history(log.run_id, "val/auc")
    assert [(m.step, m.value) for m in history] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    artifacts = connection.client().get_run(log.run_id).info.artifact_uri
    assert connection.store(artifacts).get("model.bin") == b"weights"


def test_runs_of_a_spool_folder_are_not_ended_by_an_addition(
    connection: Connection, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "page.html").write_text("page")
    away = TrackingConfig(uri="http://127.0.0.1:9", experiment=connection.experiment)
    run_id = trial_run(connection, "demo", 3)
    assert add_to_run(away, KEY, files={"page.html": tmp_path / "page.html"})
    done = sync(spool_root(home, connection.experiment), connection)
    assert done.closed == ()
    assert connection.client().get_run(run_id).info.status == "RUNNING"
