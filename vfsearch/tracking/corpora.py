"""Corpora on S3: pushed once as checked archives, fetched once per node, shared by its workers.

Below ``s3://bucket/prefix`` lie archives of some megabytes, named by their content, and a manifest
that lists them; it is written last. A node unpacks them into ``corpora/<content>/files`` under the
vfsearch home; its decoded stores lie beside and go with it.
"""

import fcntl
import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from vfsearch.config import CorpusConfig, home
from vfsearch.errors import CorpusError
from vfsearch.tracking.artifacts import ArtifactStore
from vfsearch.tracking.storage import Storage

MANIFEST = "manifest.json"
ARCHIVE = 64 << 20
"""Bytes of files in one archive, about; what a killed fetch has to do again at most, per thread."""
_THREADS = 4

Progress = Callable[[int, int], None]
"""(bytes done, bytes in all)."""


class Archive(BaseModel):
    """One tar file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    sha256: str
    size: int
    files: int


class Manifest(BaseModel):
    """What a corpus on S3 consists of."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    archives: tuple[Archive, ...]

    @property
    def size(self) -> int:
        """Bytes of all archives."""
        return sum(archive.size for archive in self.archives)


@dataclass(frozen=True)
class Held:
    """A corpus that no other process of this node removes while this is open."""

    config: CorpusConfig
    """The same settings, with a folder of this node as root."""
    _use: IO[bytes] | None

    def close(self) -> None:
        """Let it go."""
        if self._use is not None:
            self._use.close()


def push(folder: Path, store: ArtifactStore, progress: Progress = lambda _done, _all: None) -> int:
    """Put every file below ``folder`` into archives on S3; returns how many bytes were new.

    What is there already is not sent again; a push that dies leaves the corpus before it.

    Raises:
        CorpusError: there is no file.
        TrackingError: S3 refuses or cannot be reached.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )
    if not files:
        raise CorpusError(f"{folder}: holds no files to push")
    total, done, new = sum(path.stat().st_size for path in files), 0, 0
    archives: list[Archive] = []
    with TemporaryDirectory(prefix="vfsearch-push-") as scratch:
        tar = Path(scratch) / "archive.tar"
        for group in _groups(files):
            _pack(tar, folder, group)
            with tar.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = tar.stat().st_size
            key = f"archives/{digest[:32]}.tar"
            if not store.exists(key):
                store.upload_file(tar, key)
                new += size
            archives.append(Archive(key=key, sha256=digest, size=size, files=len(group)))
            done += sum(path.stat().st_size for path in group)
            progress(done, total)
    text = Manifest(archives=tuple(archives)).model_dump_json(indent=1)
    store.put(text.encode(), MANIFEST)
    return new


def hold(
    config: CorpusConfig, storage: Storage, progress: Progress = lambda _done, _all: None
) -> Held:
    """Have the corpus on this node, fetching it first if its root is on S3 and it is not here.

    Processes that ask at once wait for the one that fetches. What a killed fetch had unpacked is
    not fetched again. The longest unused corpora make room.

    Raises:
        CorpusError: there is no corpus at the address, or it names paths outside of it.
        TrackingError: S3 cannot be reached, or an archive is damaged.
    """
    if config.remote is None:
        return Held(config, None)
    outside = [str(p) for p in (config.audio, config.images) if p.is_absolute()]
    if outside:
        raise CorpusError(
            f"{config.remote}: corpus.audio and corpus.images must lie in it, "
            f"but are {' and '.join(outside)}"
        )
    store = ArtifactStore(config.remote, storage)
    manifest, key = _manifest(store, config.remote)
    root = home() / "corpora"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / key
    use = (root / f"{key}.use").open("ab")
    try:
        # Shared: whoever would remove the corpus wants it alone.
        fcntl.flock(use, fcntl.LOCK_SH)
        with FileLock(root / f"{key}.lock"):
            if not (folder / "files").is_dir():
                _make_room(root, key, 2 * manifest.size, int(config.cache_gib * 2**30))
                _fetch(manifest, store, folder, progress)
        (root / f"{key}.use").touch()
    except BaseException:
        use.close()
        raise
    here = {"root": folder / "files", "store": config.store or folder / "store"}
    return Held(config.model_copy(update=here), use)


def _groups(files: Sequence[Path]) -> Iterator[list[Path]]:
    group: list[Path] = []
    size = 0
    for path in files:
        group.append(path)
        size += path.stat().st_size
        if size >= ARCHIVE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _pack(tar: Path, folder: Path, group: Sequence[Path]) -> None:
    """Same files, same bytes: nothing of owner, mode or time goes in."""
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in group:
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(entry, file)


def _manifest(store: ArtifactStore, remote: str) -> tuple[Manifest, str]:
    content = store.get(MANIFEST)
    if content is None:
        raise CorpusError(
            f"{remote}: holds no corpus; put one there with 'vfsearch corpus push DIR {remote}'"
        )
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CorpusError(f"{remote}/{MANIFEST}: is damaged: {first['msg']}") from None
    names = json.dumps([archive.sha256 for archive in manifest.archives])
    return manifest, hashlib.sha256(names.encode()).hexdigest()[:20]


def _fetch(manifest: Manifest, store: ArtifactStore, folder: Path, progress: Progress) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    (partial / "files").mkdir(parents=True, exist_ok=True)
    done = 0

    def one(archive: Archive) -> int:
        unpacked = partial / f"{archive.sha256}.unpacked"
        if not unpacked.exists():
            tar = partial / f"{archive.sha256}.tar"
            store.download_file(archive.key, tar, sha256=archive.sha256)
            with tarfile.open(tar) as content:
                content.extractall(partial / "files", filter="data")
            unpacked.touch()
            tar.unlink()
        return archive.size

    with ThreadPoolExecutor(_THREADS) as pool:
        for size in pool.map(one, manifest.archives):
            done += size
            progress(done, manifest.size)
    folder.mkdir(exist_ok=True)
    (partial / "files").rename(folder / "files")
    shutil.rmtree(partial)


def _make_room(root: Path, key: str, wanted: int, limit: int) -> None:
    """Remove the longest unused corpora that nobody holds, until ``wanted`` bytes fit ``limit``."""
    others = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(key)]
    sizes = {path: sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) for path in others}
    used = {path: root / f"{path.name.partition('.')[0]}.use" for path in others}
    for path in sorted(others, key=lambda path: used[path].stat().st_mtime):
        if sum(sizes.values()) + wanted <= limit:
            return
        with used[path].open("ab") as use:
            try:
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            gone = root / f".{path.name}.gone"
            shutil.rmtree(gone, ignore_errors=True)
            path.rename(gone)
            shutil.rmtree(gone)
            del sizes[path]
