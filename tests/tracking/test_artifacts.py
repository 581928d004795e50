import dataclasses
import hashlib
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.proxy import Fate, Proxy
from support.team_fixtures import DOMAIN, TeamS3

from vfsearch.errors import TrackingError
from vfsearch.tracking import upload
from vfsearch.tracking.artifacts import ArtifactStore
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.storage import AlreadyExists


@pytest.fixture
def store(connection: Connection) -> ArtifactStore:
    return connection.store(f"s3://vfsearch/tests/{connection.experiment}")


@pytest.mark.parametrize("size", [0, 1000, upload.MULTIPART_FROM - 1, upload.MULTIPART_FROM + 7])
def test_what_comes_back_is_what_was_sent(store: ArtifactStore, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    stored = store.upload_file(tmp_path / "a", "deep/folder/a")
    assert stored == store.head("deep/folder/a")
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert store.download_file("deep/folder/a", tmp_path / "b").sha256 == stored.sha256
    assert (tmp_path / "b").read_bytes() == data


def test_folders_keep_their_shape(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("a.txt", "x/b.txt", "x/y/c.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    store.upload_folder(source, "ckpt")
    store.put(b"not of the folder", "ckpt-2/d")
    assert [entry.key for entry in store.entries("ckpt")] == [
        "ckpt/a.txt",
        "ckpt/x/b.txt",
        "ckpt/x/y/c.txt",
    ]
    store.download_folder("ckpt", tmp_path / "target")
    assert (tmp_path / "target" / "x" / "y" / "c.txt").read_text() == "x/y/c.txt"
    with pytest.raises(TrackingError, match="holds no objects"):
        store.download_folder("nothing", tmp_path / "none")


def test_damage_on_the_server_is_noticed_and_nothing_is_left(
    store: ArtifactStore, connection: Connection, tmp_path: Path
) -> None:
    store.put(b"right", "file")
    full = f"tests/{connection.experiment}/file"
    connection.storage.client().put_object(
        Bucket="vfsearch", Key=full, Body=b"wrong", Metadata={"sha256": "0" * 64}
    )
    with pytest.raises(TrackingError, match="damaged or was replaced"):
        store.download_file("file", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_one_of_many_conditional_writers_wins(store: ArtifactStore) -> None:
    def write(number: int) -> bool:
        try:
            store.put(str(number).encode(), "claim", only_if_absent=True)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert sum(won) == 1
    assert store.get("claim") == str(won.index(True)).encode()


@pytest.mark.parametrize("size", [10, upload.MULTIPART_FROM + 1])
def test_conditional_upload_does_not_replace(
    store: ArtifactStore, tmp_path: Path, size: int
) -> None:
    (tmp_path / "a").write_bytes(b"a" * size)
    (tmp_path / "b").write_bytes(b"b" * size)
    store.upload_file(tmp_path / "a", "file", only_if_absent=True)
    store.upload_file(tmp_path / "a", "file", only_if_absent=True)  # the same content: fine
    with pytest.raises(AlreadyExists):
        store.upload_file(tmp_path / "b", "file", only_if_absent=True)
    assert store.get("file") == b"a" * size


def test_a_file_that_changes_during_the_upload_is_refused(
    connection: Connection, store: ArtifactStore, tmp_path: Path
) -> None:
    from botocore.exceptions import ClientError

    path = tmp_path / "file"
    for size in (10, upload.MULTIPART_FROM + 1):
        path.write_bytes(b"a" * size)
        _, measured = upload.measure(path)
        path.write_bytes(b"b" * size)
        with pytest.raises((TrackingError, ClientError), match=r"changed while|BadDigest"):
            upload.upload(
                connection.storage.client(),
                "vfsearch",
                f"tests/{connection.experiment}/changing",
                path,
                size=size,
                sha256=measured,
                options={},
                condition={},
            )
        assert not store.exists("changing")
        assert store.entries() == []


@pytest.mark.parametrize("key_id", [None, "alias/team"])
def test_each_object_is_encrypted_as_asked(
    team_s3: TeamS3, tmp_path: Path, key_id: str | None
) -> None:
    storage = dataclasses.replace(
        team_s3.storage("administrator"),
        encryption="aws:kms" if key_id else "AES256",
        kms_key=key_id,
    )
    store = ArtifactStore(f"s3://vfsearch/encrypted/{storage.encryption}", storage)
    for key, size in (("small", 10), ("large", upload.MULTIPART_FROM + 1)):
        (tmp_path / key).write_bytes(b"x" * size)
        stored = store.upload_file(tmp_path / key, key)
        reply = storage.client().head_object(
            Bucket="vfsearch", Key=f"encrypted/{storage.encryption}/{key}"
        )
        assert reply["ServerSideEncryption"] == storage.encryption
        assert reply.get("SSEKMSKeyId") == key_id
        assert store.download_file(key, tmp_path / "back") == stored
    store.put(b"1", "once", only_if_absent=True)
    with pytest.raises(AlreadyExists):
        store.put(b"2", "once", only_if_absent=True)


def test_both_styles_of_addressing_reach_the_same_object(
    team_s3: TeamS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    asked: set[str] = set()

    def on_loopback(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(DOMAIN):
            asked.add(str(host))
            host = "127.0.0.1"
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", on_loopback)
    path_style = team_s3.storage("administrator")
    named = dataclasses.replace(
        path_style, endpoint=f"http://{DOMAIN}:{team_s3.port}", addressing="virtual"
    )
    data = os.urandom(upload.MULTIPART_FROM + 1)
    (tmp_path / "file").write_bytes(data)
    store = ArtifactStore("s3://vfsearch/styles", named)
    stored = store.upload_file(tmp_path / "file", "file")
    store.put(b"1", "once", only_if_absent=True)
    assert asked == {f"vfsearch.{DOMAIN}"}
    other = ArtifactStore("s3://vfsearch/styles", path_style)
    assert other.head("file") == stored
    assert other.get("file") == data
    assert [entry.key for entry in other.entries()] == ["file", "once"]
    assert asked == {f"vfsearch.{DOMAIN}"}


def test_throttled_requests_are_sent_again(connection: Connection, tmp_path: Path) -> None:
    assert connection.storage.endpoint is not None
    (tmp_path / "large").write_bytes(os.urandom(upload.MULTIPART_FROM + 1))
    with Proxy(connection.storage.endpoint) as proxy:
        # Of all requests every second one: also within one multipart upload.
        proxy.fate = lambda method, path, number: Fate.PASS if number % 2 else Fate.SLOW_DOWN
        through = dataclasses.replace(connection.storage, endpoint=proxy.url)
        store = ArtifactStore(f"s3://vfsearch/tests/{connection.experiment}", through)
        stored = store.upload_file(tmp_path / "large", "large")
        store.put(b"1", "once", only_if_absent=True)
        assert [entry.key for entry in store.entries()] == ["large", "once"]
        assert store.download_file("large", tmp_path / "back").sha256 == stored.sha256
        refused = [seen for seen in proxy.seen if seen[2] is Fate.SLOW_DOWN]
        assert any("partNumber" in path for _, path, _ in refused)
        assert len(refused) >= 8

        proxy.fate = lambda method, path, number: Fate.SLOW_DOWN
        with pytest.raises(TrackingError, match="refuses GetObject: SlowDown"):
            store.get("once")


def test_keys_of_the_environment_do_not_replace_the_file(
    connection: Connection, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "else")
    monkeypatch.setenv("AWS_PROFILE", "unknown")
    store.put(b"x", "file")
    assert store.get("file") == b"x"


def test_errors_say_where_and_why(connection: Connection, tmp_path: Path) -> None:
    store = connection.store()
    with pytest.raises(TrackingError, match="No such file"):
        store.upload_file(tmp_path / "missing", "key")
    with pytest.raises(TrackingError, match="must be s3://bucket/prefix"):
        ArtifactStore("file:///tmp").exists("a")
    with pytest.raises(TrackingError, match=r"s3://no-such-bucket/a.*NoSuchBucket"):
        ArtifactStore("s3://no-such-bucket", connection.storage).download_file("a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
