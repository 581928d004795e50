"""What a lost node or head is continued from: checkpoints and study on S3 (real server)."""

import json
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from support.tiny_run import Recorder, tiny_config, tiny_stores

from vfsearch.errors import TrackingError
from vfsearch.search.latest import Latest
from vfsearch.search.mirror import TrialMirror
from vfsearch.search.records import Asked, Ended
from vfsearch.search.snapshot import StudySnapshot, mirror_key, restore_study
from vfsearch.tracking.artifacts import ArtifactStore
from vfsearch.tracking.connection import Connection
from vfsearch.training.loop import EpochReport, train


@pytest.fixture
def store(connection: Connection) -> ArtifactStore:
    return connection.store(f"s3://vfsearch/recovery/{uuid4().hex[:8]}")


class Mirrored(Recorder):
    """Mirrors every epoch, as a trial's reporter does."""

    def __init__(self, mirror: TrialMirror, stop_at: int) -> None:
        super().__init__(stop_at=stop_at)
        self.mirror = mirror

    def report(self, report: EpochReport) -> bool:
        self.mirror.note()
        return super().report(report)


def run(out: Path, store: ArtifactStore, stop_at: int = 0) -> list[dict[str, float]]:
    """Train, mirrored, from whatever S3 has; the metrics of every epoch but for the times."""
    mirror = TrialMirror(out, store)
    mirror.pull(tiny_config())
    outcome = train(
        tiny_config(),
        out,
        Mirrored(mirror, stop_at),
        device=torch.device("cpu"),
        stores=tiny_stores(),
    )
    mirror.close()
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in outcome.history]


def test_a_trial_goes_on_on_another_disk_bit_for_bit(store: ArtifactStore, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", store.__class__(f"{store.root}-whole", store.storage))
    assert len(run(tmp_path / "first", store, stop_at=2)) == 2
    shutil.rmtree(tmp_path / "first")
    assert run(tmp_path / "second", store) == whole
    steps = (tmp_path / "second" / "steps.csv").read_text()
    assert steps == (tmp_path / "whole" / "steps.csv").read_text()
    left = {entry.key.split("/")[1] for entry in store.entries("checkpoints")}
    record = json.loads(store.get("record.json") or b"")["checkpoints"]
    assert left == set(record.values()), "what nothing points to is removed"
    assert not list((tmp_path / "second").glob(".mirrored*"))


def test_two_notes_before_one_push_are_one(store: ArtifactStore, tmp_path: Path) -> None:
    run(tmp_path / "trial", store, stop_at=1)
    mirror = TrialMirror(tmp_path / "trial", store)
    for _ in range(20):
        mirror.note()
    assert mirror.close(), "its thread lives, and has sent the last"
    assert not list((tmp_path / "trial").glob(".mirrored*"))


def test_only_what_is_ahead_and_of_the_same_run_is_fetched(
    store: ArtifactStore, tmp_path: Path
) -> None:
    out = tmp_path / "trial"
    run(out, store, stop_at=1)
    mirror = TrialMirror(out, store)
    assert not mirror.pull(tiny_config()), "the local one is as new"
    shutil.rmtree(out / "checkpoints")
    other = tiny_config(optimizer={"lr": 0.5})
    assert not mirror.pull(other), "a head that was lost gave the number to other settings"
    assert not (out / "checkpoints").exists()
    assert mirror.pull(tiny_config(seed=99)), "one of several seeds"
    assert (out / "checkpoints" / "last" / "state.json").exists()
    mirror.close()


def test_nothing_is_pulled_where_nothing_is(store: ArtifactStore, tmp_path: Path) -> None:
    mirror = TrialMirror(tmp_path / "trial", store)
    assert not mirror.pull(tiny_config())
    mirror.close()


def test_the_newest_is_done_again_until_it_succeeds() -> None:
    done: list[int] = []
    noted = 0
    away = threading.Event()
    tried = threading.Event()
    away.set()

    def action() -> None:
        tried.set()
        if away.is_set():
            raise TrackingError("away")
        done.append(noted)

    latest = Latest(action, "test")
    noted = 1
    latest.note()
    assert tried.wait(60)
    assert not latest.wait(0.01), "it is not done while the server is away"
    noted = 2
    away.clear()
    latest.note()
    assert latest.wait(60)
    assert done[-1] == 2
    assert latest.close(60)
    assert latest.close(1), "closing twice does nothing"


class Heard:
    """A watcher that counts."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def started(self, asked: Asked) -> None:
        self.events.append("started")

    def epoch(self, number: int, epoch: int, metrics: object) -> None:
        self.events.append("epoch")

    def ended(self, ended: Ended) -> None:
        self.events.append("ended")


def test_the_study_of_a_lost_head_comes_back(store: ArtifactStore, tmp_path: Path) -> None:
    database, heard = tmp_path / "head" / "study.db", Heard()
    database.parent.mkdir()
    with closing(sqlite3.connect(database)) as study:
        study.execute("PRAGMA journal_mode=WAL")
        study.execute("CREATE TABLE told (number INTEGER)")
        snapshot = StudySnapshot(database, store, heard)
        study.execute("INSERT INTO told VALUES (0)")
        study.commit()
        snapshot.proposed()
        # The head is lost here: what was proposed is on S3, without a close.
        assert restore_study(tmp_path / "new" / "study.db", store)
        with closing(sqlite3.connect(tmp_path / "new" / "study.db")) as copy:
            assert copy.execute("SELECT number FROM told").fetchall() == [(0,)]
        store.put(b"checkpoint", f"{mirror_key(0)}/checkpoints/epoch-00001/model.safetensors")
        store.put(b"checkpoint", f"{mirror_key(1)}/checkpoints/epoch-00001/model.safetensors")
        snapshot.epoch(0, 1, {})
        snapshot.ended(Ended(number=0, state="COMPLETE", reason=None, values=(1.0,)))
        study.execute("INSERT INTO told VALUES (1)")
        study.commit()
        assert snapshot.close(finished=False)
    assert heard.events == ["epoch", "ended"]
    assert [entry.key for entry in store.entries("trials")] == [
        f"{mirror_key(1)}/checkpoints/epoch-00001/model.safetensors"
    ], "the checkpoints of a trial that ended go, the others stay"
    again = StudySnapshot(database, store, heard)
    assert again.close(finished=True)
    assert [entry.key for entry in store.entries()] == ["study.db"]
    assert not restore_study(database, store), "a study that is here is never replaced"
    assert not restore_study(
        tmp_path / "none.db", store.__class__(f"{store.root}-x", store.storage)
    )
