"""Backup of a stack in use and restoration into an empty one: the same champion, and on it goes."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.proxy import Proxy
from support.registry_models import LENIENT, Models

from vfsearch.config import CorpusConfig, TrackingConfig
from vfsearch.errors import StackError, TrackingError, UsageError
from vfsearch.registry.promotion import promote
from vfsearch.registry.rollback import history
from vfsearch.registry.versions import open_registry
from vfsearch.tracking import stack
from vfsearch.tracking.backup import Place, backup
from vfsearch.tracking.connection import Connection, connect
from vfsearch.tracking.database import Kind, Sqlite
from vfsearch.tracking.restore import restore
from vfsearch.tracking.snapshot import object_path, read_manifest, snapshots
from vfsearch.tracking.storage import list_objects

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def source_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A stack of this module's own: other tests damage objects on purpose."""
    home = tmp_path_factory.mktemp("source")
    stack.up(home)
    yield home
    stack.down(home)


@pytest.fixture(scope="module")
def source(source_home: Path) -> Connection:
    return connect(TrackingConfig(), home=source_home)


def place(home: Path) -> Place:
    info = stack.up(home, storage_only=True)
    return Place(
        database=Sqlite(stack.database_path(home)), storage=info.storage(), bucket=info.bucket
    )


@pytest.fixture(scope="module")
def target_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose stack is still empty."""
    home = tmp_path_factory.mktemp("target")
    yield home
    stack.down(home)


@dataclass(frozen=True)
class PromotingMeanwhile:
    """A database during whose copy somebody promotes: between history and the other objects."""

    inner: Sqlite
    connection: Connection
    run: str
    corpus: CorpusConfig

    @property
    def kind(self) -> Kind:
        return self.inner.kind

    def dump(self, target: Path) -> None:
        self.inner.dump(target)
        promote(self.connection, self.run, self.corpus, LENIENT)

    def is_empty(self) -> bool:
        return self.inner.is_empty()

    def load(self, source: Path) -> None:
        self.inner.load(source)


@pytest.fixture(scope="module")
def backups(
    source_home: Path,
    source: Connection,
    models: Models,
    tiny_corpus: CorpusConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Two snapshots: the second is taken while a third model becomes champion."""
    folder = tmp_path_factory.mktemp("backups") / "all"
    promote(source, models.run(source, 1), tiny_corpus, LENIENT)
    first = backup(place(source_home), folder)
    assert first.moved == first.objects > 0
    promote(source, models.run(source, 2), tiny_corpus, LENIENT)
    live = place(source_home)
    third = models.run(source, 3)
    busy = PromotingMeanwhile(Sqlite(stack.database_path(source_home)), source, third, tiny_corpus)
    second = backup(replace(live, database=busy), folder)
    assert snapshots(folder) == [first.snapshot, second.snapshot]
    # What the first one copied is not copied again.
    assert second.moved <= second.objects - first.objects
    return folder


def command(home: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(Path(sys.executable).parent / "vfsearch"), *map(str, arguments)],
        env={**os.environ, "VFSEARCH_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def test_damage_is_found_before_anything_is_changed(backups: Path, target_home: Path) -> None:
    _, manifest = read_manifest(backups)
    victim = object_path(backups, manifest.objects[0].sha256)
    whole = victim.read_bytes()
    empty = place(target_home)
    for damaged in (whole + b"x", None):
        victim.unlink()
        if damaged is not None:
            victim.write_bytes(damaged)
        with pytest.raises(StackError, match=rf"is damaged: 1 of .*{victim.name}.*nothing was"):
            restore(empty, backups)
    victim.write_bytes(whole)
    assert list_objects(empty.storage.client(), empty.bucket) == {}
    assert not stack.database_path(target_home).exists()


def test_a_stack_in_use_is_refused(backups: Path, source_home: Path, target_home: Path) -> None:
    done = command(source_home, "stack", "restore", backups)
    assert done.returncode == 2
    assert "holds runs or models" in done.stderr
    assert stack.status(source_home).up, "it is left as it was"
    used = place(target_home)
    client = used.storage.client()
    client.put_object(Bucket=used.bucket, Key="somebody/else", Body=b"1")
    with pytest.raises(UsageError, match=r"holds 1 objects that are not of this backup.*somebody"):
        restore(used, backups)
    client.delete_object(Bucket=used.bucket, Key="somebody/else")
    with pytest.raises(UsageError, match="of bucket vfsearch"):
        restore(replace(used, bucket="other"), backups)
    with pytest.raises(UsageError, match="has no snapshot yesterday"):
        restore(used, backups, "yesterday")


KILLED = """
import pickle, sys
from vfsearch.tracking.restore import restore
place, folder = pickle.loads(bytes.fromhex(sys.stdin.readline()))
restore(place, folder)
"""


@pytest.mark.fault
def test_killed_in_the_middle_it_can_be_repeated_and_the_champion_is_the_same(
    backups: Path,
    source: Connection,
    target_home: Path,
    models: Models,
    tiny_corpus: CorpusConfig,
) -> None:
    empty = place(target_home)
    assert empty.storage.endpoint is not None
    with Proxy(empty.storage.endpoint) as proxy:
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

        def kill_at_fifth_upload(method: str, path: str) -> None:
            if method == "PUT" and len([s for s in proxy.seen if s[0] == "PUT"]) >= 5:
                child.send_signal(signal.SIGKILL)

        proxy.on_request = kill_at_fifth_upload
        storage = replace(empty.storage, endpoint=proxy.url)
        child.communicate(
            (pickle.dumps((replace(empty, storage=storage), backups)).hex() + "\n").encode(), 120
        )
        assert child.returncode == -signal.SIGKILL
    _, manifest = read_manifest(backups)
    left = list_objects(empty.storage.client(), empty.bucket)
    assert 0 < len(left) < len(manifest.objects)

    done = command(target_home, "stack", "restore", backups)
    assert done.returncode == 0, done.stderr
    assert f"database and {len(manifest.objects)} objects" in done.stdout

    restored = connect(TrackingConfig(), home=target_home)
    held = [(r.version, r.run_id, r.at) for r in history(source)]
    assert len(held) == 3
    # The third promotion came after the copy had begun: it is wholly absent, not half.
    assert [(r.version, r.run_id, r.at) for r in history(restored)] == held[:2]
    registry = open_registry(restored, create=False)
    champion = registry.by_alias("champion")
    assert champion is not None
    assert (champion.version, champion.run_id) == held[1][:2]
    theirs = open_registry(source, create=False).version(champion.version)
    assert theirs is not None
    assert champion.tags == {
        **theirs.tags,
        "vfsearch.champion_held": champion.tags["vfsearch.champion_held"],
    }
    again = promote(restored, held[1][1], tiny_corpus, LENIENT)
    assert (again.outcome, again.version) == ("unchanged", champion.version)
    following = promote(restored, models.run(restored, 4), tiny_corpus, LENIENT)
    assert (following.outcome, following.champion_before) == ("promoted", champion.version)
    assert following.evidence is not None
    assert following.evidence.champion is not None, "the old champion was evaluated from S3"

    refused = command(target_home, "stack", "restore", backups)
    assert refused.returncode == 2
    assert "empty stack only" in refused.stderr


def test_an_object_damaged_on_the_server_is_no_backup(
    source_home: Path, backups: Path, tmp_path: Path
) -> None:
    live = place(source_home)
    client = live.storage.client()
    client.put_object(Bucket=live.bucket, Key="bad", Body=b"other", Metadata={"sha256": "0" * 64})
    try:
        with pytest.raises(TrackingError, match=r"s3://vfsearch/bad.*the object is damaged"):
            backup(live, tmp_path)
        assert snapshots(tmp_path) == []
    finally:
        client.delete_object(Bucket=live.bucket, Key="bad")
    before = snapshots(backups)
    done = command(source_home, "stack", "backup", "--out", backups)
    assert done.returncode == 0, done.stderr
    assert len(snapshots(backups)) == len(before) + 1
    stopped = command(tmp_path / "no-stack", "stack", "backup", "--out", tmp_path)
    assert stopped.returncode == 5
    assert "vfsearch stack up" in stopped.stderr
