import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfsearch.errors import TrackingError
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.delivery import deliver
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.spool import Spool
from vfsearch.tracking.sync import sync
from vfsearch.tracking.trial_log import TrialLog

KEY = RunKey(sweep="demo", trial=7)


def test_what_is_logged_arrives(connection: Connection, tmp_path: Path) -> None:
    log = TrialLog.open(connection, KEY, tmp_path, tags={"vfsearch.host": "a"})
    log.params({"loss.margin": 5.4})
    log.tags({"vfsearch.stop_reason": "first"})
    log.tags({"vfsearch.stop_reason": "pruned"})
    log.metrics({"val/auc_v2f": 0.5, "val/bad": float("inf"), "val/worse": float("nan")}, 1)
    for text in ("old", "new"):
        (tmp_path / "report.txt").write_text(text)
        log.artifact(tmp_path / "report.txt", "report.txt")
    assert log.close("FINISHED")
    assert log.run_id is not None
    run = connection.client().get_run(log.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"loss.margin": "5.4"}
    assert run.data.metrics == {"val/auc_v2f": 0.5}
    assert run.data.tags["vfsearch.stop_reason"] == "pruned"
    assert run.data.tags["vfsearch.nonfinite"] == "2"
    assert run.data.tags["vfsearch.host"] == "a"
    assert connection.store(run.info.artifact_uri).get("report.txt") == b"new"
    assert list((tmp_path / "demo" / "t007" / "files").iterdir()) == []


def test_rows_that_the_server_refuses_do_not_hold_up_the_others(
    connection: Connection, tmp_path: Path
) -> None:
    first = TrialLog.open(connection, KEY, tmp_path / "one")
    first.params({"loss.margin": 1})
    assert first.close("FINISHED")
    log = TrialLog.open(connection, KEY, tmp_path / "two")
    log.params({"loss.margin": 2, "loss.other": 3})
    log.metrics({"fine": 1.0, "not@allowed": 2.0, "also fine": 3.0}, 1)
    assert log.close("FINISHED")
    assert log.run_id is not None
    data = connection.client().get_run(log.run_id).data
    assert data.params == {"loss.margin": "1", "loss.other": "3"}
    assert data.metrics == {"fine": 1.0, "also fine": 3.0}
    rejected = (tmp_path / "two" / "demo" / "t007" / "rejected.log").read_text()
    assert "not@allowed" in rejected
    assert "loss.margin" in rejected


def test_two_writers_of_one_run_are_refused(connection: Connection, tmp_path: Path) -> None:
    log = TrialLog.open(connection, KEY, tmp_path)
    with pytest.raises(TrackingError, match="another living process"):
        TrialLog.open(connection, KEY, tmp_path, patience=0.1)
    assert sync(tmp_path, connection).live == ("demo/t007",)
    assert log.close("FINISHED")
    assert sync(tmp_path, connection).live == ()
    with pytest.raises(TrackingError, match="does not exist"):
        TrialLog.open(connection, KEY, tmp_path).artifact(tmp_path / "none", "none")


def test_delivering_again_from_the_beginning_changes_nothing(
    connection: Connection, tmp_path: Path
) -> None:
    log = TrialLog.open(connection, KEY, tmp_path)
    for step in range(1100):
        log.metrics({"train/loss": 1 / (step + 1), "train/implicit": float(step)}, step)
    assert log.close("FINISHED")
    spool = Spool.adopt(tmp_path / "demo" / "t007")
    assert spool is not None
    spool.note(rows=0, files=0)
    assert deliver(spool, connection).rows == 2200
    spool.release()
    history = connection.client().get_metric_history(spool.sent.run_id or "", "train/loss")
    assert sorted(m.step for m in history) == list(range(1100))


def test_files_survive_deletion_of_their_source(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, KEY)
    for name, size in (("small.json", 10), ("large.bin", 2 * 2**20)):
        path = tmp_path / name
        path.write_bytes(b"x" * size)
        kept = spool.folder / "files" / spool.keep(path)
        path.unlink()
        assert kept.read_bytes() == b"x" * size
    spool.release()


def test_a_damaged_record_is_a_clear_error(connection: Connection, tmp_path: Path) -> None:
    folder = tmp_path / "demo" / "t001"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{")
    ((name, message),) = sync(tmp_path, connection).failed
    assert name == "demo/t001"
    assert "run.json: is damaged" in message


@given(
    entries=st.lists(st.dictionaries(st.text(max_size=3), st.integers(), max_size=3), max_size=8),
    cut=st.integers(0, 400),
)
def test_a_log_cut_anywhere_keeps_its_whole_entries(
    tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, int]], cut: int
) -> None:
    root = tmp_path_factory.mktemp("spool")
    spool = Spool.create(root, KEY)
    spool.append({"kind": "metrics", "values": values} for values in entries)
    spool.release()
    log = spool.folder / "log.jsonl"
    data = log.read_bytes()[:cut]
    log.write_bytes(data)
    again = Spool.create(root, KEY)
    kept = [entry["values"] for entry, _ in again.entries(0)]
    assert kept == entries[: data.count(b"\n")]
    again.append([{"kind": "metrics", "values": {"after": 1}}])
    lines = log.read_text("utf-8").split("\n")
    assert [json.loads(line)["values"] for line in lines if line] == [*kept, {"after": 1}]
    again.release()
