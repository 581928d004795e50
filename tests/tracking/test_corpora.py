"""Corpora on S3: pushed, fetched once per node, resumed, checked, evicted (real server)."""

import multiprocessing
import os
import shutil
import signal
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from vfsearch.config import CorpusConfig
from vfsearch.errors import CorpusError, TrackingError
from vfsearch.tracking import corpora
from vfsearch.tracking.artifacts import ArtifactStore
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.corpora import hold, push
from vfsearch.tracking.storage import Storage

FILES = {f"wav/v{i}/a/{j}.wav": bytes([i, j]) * 700 for i in range(4) for j in range(3)}
FILES |= {"vox1_train.csv": b"csv", "faces/f 1/ü.jpg": b"face"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "corpus" / ".cache").mkdir()
    (tmp_path / "corpus" / ".cache" / "hidden").write_text("no")
    return tmp_path / "corpus"


@pytest.fixture
def store(connection: Connection) -> ArtifactStore:
    """Of this test's own, on the session's server."""
    return connection.store(f"s3://vfsearch/corpora/{uuid4().hex[:8]}")


def content(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def config(store: ArtifactStore, **more: object) -> CorpusConfig:
    return CorpusConfig.model_validate({"root": store.root, **more})


@pytest.fixture(autouse=True)
def _small_archives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "ARCHIVE", 4000)


def test_what_was_pushed_is_what_arrives(folder: Path, store: ArtifactStore, home: Path) -> None:
    seen: list[tuple[int, int]] = []
    new = push(folder, store, lambda done, total: seen.append((done, total)))
    assert new > sum(map(len, FILES.values()))
    assert seen[-1] == (sum(map(len, FILES.values())),) * 2
    assert len(seen) > 3, "several archives"
    held = hold(config(store), store.storage)
    assert content(held.config.root) == FILES
    assert held.config.root.is_relative_to(home / "corpora")
    assert held.config.store == held.config.root.parent / "store"
    held.close()


def test_a_second_push_sends_only_what_is_new(folder: Path, store: ArtifactStore) -> None:
    push(folder, store)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))  # other times are not another content
    assert push(folder, store) == 0
    (folder / "zzz.txt").write_bytes(b"x" * 10)
    assert 0 < push(folder, store) < sum(map(len, FILES.values()))
    with closing(hold(config(store), store.storage)) as held:
        assert content(held.config.root)["zzz.txt"] == b"x" * 10


def test_an_address_is_kept_through_json_and_paths() -> None:
    there = CorpusConfig.model_validate({"root": "s3://bucket/a/b"})
    assert there.remote == "s3://bucket/a/b"
    again = CorpusConfig.model_validate(there.model_dump(mode="json"))
    assert again == there
    assert again.model_dump(mode="json")["root"] == "s3://bucket/a/b"
    assert CorpusConfig(root=Path("/data")).remote is None
    assert CorpusConfig(root=Path("data")).model_dump(mode="json")["root"] == "data"


def test_a_fetch_that_was_cut_off_goes_on(
    folder: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(folder, store)
    download = ArtifactStore.download_file
    fetched: list[str] = []

    def failing(self: ArtifactStore, key: str, path: Path, **more: str) -> object:
        if len(fetched) == 2:
            raise TrackingError("the line was cut")
        fetched.append(key)
        return download(self, key, path, **more)

    monkeypatch.setattr(corpora, "_THREADS", 1)
    monkeypatch.setattr(ArtifactStore, "download_file", failing)
    with pytest.raises(TrackingError, match="the line was cut"):
        hold(config(store), store.storage)
    first = list(fetched)
    fetched.clear()
    monkeypatch.setattr(
        ArtifactStore,
        "download_file",
        lambda self, key, path, **more: (fetched.append(key), download(self, key, path, **more))[1],
    )
    with closing(hold(config(store), store.storage)) as held:
        assert content(held.config.root) == FILES
    assert not set(first) & set(fetched), "what was unpacked is not fetched again"
    assert not list(held.config.root.parent.parent.glob("*.partial"))


def test_damage_on_the_way_is_noticed(folder: Path, store: ArtifactStore) -> None:
    push(folder, store)
    key = next(entry.key for entry in store.entries("archives"))
    store.put(b"something else", key)
    with pytest.raises(TrackingError, match="damaged or was replaced"):
        hold(config(store), store.storage)


def test_an_archive_cannot_write_outside(
    folder: Path, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def escape(tar: Path, _folder: Path, group: list[Path]) -> None:
        with tarfile.open(tar, "w") as archive:
            archive.add(group[0], arcname="../../../escaped")

    monkeypatch.setattr(corpora, "_pack", escape)
    push(folder, store)
    with pytest.raises(tarfile.FilterError):
        hold(config(store), store.storage)
    assert not list(tmp_path.rglob("escaped"))


def test_errors_name_the_address(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=f"vfsearch corpus push DIR {store.root}"):
        hold(config(store), store.storage)
    store.put(b"{}", "manifest.json")
    with pytest.raises(CorpusError, match=r"manifest\.json: is damaged"):
        hold(config(store), store.storage)
    with pytest.raises(CorpusError, match="must lie in it, but are /elsewhere"):
        hold(config(store, audio="/elsewhere"), store.storage)
    with pytest.raises(CorpusError, match="holds no files"):
        push(tmp_path / "nothing", store)


def _hold(
    root: str, storage: Storage, ready: Callable[[], object], done: Callable[[str], object]
) -> None:
    ready()
    held = hold(CorpusConfig.model_validate({"root": root}), storage)
    done(str(held.config.root))
    signal.pause()  # holds the corpus until it is killed


def _holders(store: ArtifactStore, count: int) -> tuple[list[multiprocessing.Process], list[str]]:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.SimpleQueue()
    processes = [
        context.Process(
            target=_hold, args=(store.root, store.storage, barrier.wait, results.put), daemon=True
        )
        for _ in range(count)
    ]
    for process in processes:
        process.start()
    return processes, [results.get() for _ in processes]


@pytest.mark.slow
def test_processes_of_a_node_share_one_fetch_and_keep_the_corpus(
    folder: Path, store: ArtifactStore, connection: Connection, home: Path
) -> None:
    push(folder, store)
    processes, roots = _holders(store, 3)
    try:
        assert len(set(roots)) == 1
        assert content(Path(roots[0])) == FILES
        other = connection.store(f"{store.root}-other")
        (folder / "more").write_bytes(b"more")
        push(folder, other)
        # There is room for one: but the first is in use by living processes.
        hold(config(other, cache_gib=1e-9), other.storage).close()
        assert Path(roots[0]).is_dir()
    finally:
        for process in processes:
            process.kill()
            process.join()
    third = connection.store(f"{store.root}-third")
    (folder / "more").write_bytes(b"most")
    push(folder, third)
    held = hold(config(third, cache_gib=1e-9), third.storage)
    assert [path.name for path in (home / "corpora").iterdir() if path.is_dir()] == [
        held.config.root.parent.name
    ], "killed processes hold nothing"
    held.close()


def test_the_longest_unused_goes_first(
    folder: Path, connection: Connection, store: ArtifactStore, home: Path
) -> None:
    stores = [connection.store(f"{store.root}-{i}") for i in range(3)]
    names = []
    for index, one in enumerate(stores):
        (folder / "more").write_bytes(bytes([index]) * 9000)
        push(folder, one)
        if index < 2:
            held = hold(config(one), one.storage)
            held.close()
            names.append(held.config.root.parent.name)
            os.utime(home / "corpora" / f"{names[-1]}.use", (1000 - index, 1000 - index))
    new = sum(entry.size for entry in stores[2].entries("archives"))
    one_more_fits = (2 * new + 40_000) / 2**30  # each takes some 27,000 bytes
    held = hold(config(stores[2], cache_gib=one_more_fits), stores[2].storage)
    left = {path.name for path in (home / "corpora").iterdir() if path.is_dir()}
    assert names[0] in left
    assert names[1] not in left
    assert held.config.root.parent.name in left
    held.close()
    shutil.rmtree(home / "corpora")
