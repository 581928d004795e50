"""Backup of a live stack.

A live backup is consistent by its order, since objects are never deleted and a reference is
written after what it refers to: first the promotion history (each record names a registered
version), then the database (each run and version names objects), then the other objects.
"""

import hashlib
import importlib.metadata
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from filelock import FileLock, Timeout

import vfsearch
from vfsearch.errors import StackError, TrackingError, UsageError
from vfsearch.tracking.database import Database
from vfsearch.tracking.snapshot import (
    Entry,
    Manifest,
    Progress,
    database_file,
    new_name,
    object_path,
    read_manifest,
    snapshot_folder,
    snapshots,
    write_manifest,
)
from vfsearch.tracking.storage import Storage, list_objects, s3_errors
from vfsearch.tracking.upload import BLOCK, measure, noted_sha256

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

HISTORY = re.compile(r"(?:.*/)?registry/[^/]+/history/\d+\.json")
AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Place:
    """A stack, as far as its data goes."""

    database: Database
    storage: Storage
    bucket: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a backup or a restoration did."""

    snapshot: str
    objects: int
    bytes: int
    moved: int
    """Objects that had to be transferred."""


def report(name: str, manifest: Manifest, moved: int) -> Report:
    """What was done with a snapshot."""
    return Report(
        snapshot=name,
        objects=len(manifest.objects),
        bytes=sum(entry.size for entry in manifest.objects),
        moved=moved,
    )


def backup(place: Place, folder: Path, progress: Progress | None = None) -> Report:
    """Add a snapshot of a stack in use to a backup folder; what is there already is not copied.

    Raises:
        StackError: another backup runs, or database or folder cannot be read or written.
        TrackingError: the bucket cannot be reached, or an object is not what was noted.
    """
    tell = progress or (lambda _: None)
    name = new_name()
    with _locked(folder), s3_errors(f"s3://{place.bucket}"):
        client = place.storage.client()
        known = _known(folder, place.bucket)
        snapshot_folder(folder, name).mkdir(parents=True)
        tell("copying the promotion history")
        listed = list_objects(client, place.bucket)
        history = {key: entry for key, entry in listed.items() if HISTORY.fullmatch(key)}
        tell("copying the database")
        dump = database_file(folder, name, place.database.kind)
        copied = _copy(client, place.bucket, folder, history, known)
        place.database.dump(dump)
        rest = {
            key: entry
            for key, entry in list_objects(client, place.bucket).items()
            if not HISTORY.fullmatch(key)
        }
        tell(f"copying what is new of {len(rest)} objects")
        copied += _copy(client, place.bucket, folder, rest, known)
        entries = tuple(sorted((entry for entry, _ in copied), key=lambda entry: entry.key))
        manifest = Manifest(
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            vfsearch=vfsearch.__version__,
            mlflow=importlib.metadata.version("mlflow"),
            bucket=place.bucket,
            database=place.database.kind,
            database_sha256=measure(dump)[1],
            objects=entries,
        )
        write_manifest(folder, name, manifest)
    moved = sum(new for _, new in copied)
    return report(name, manifest, moved)


def _known(folder: Path, bucket: str) -> dict[str, Entry]:
    """Objects of the newest snapshot, by key."""
    if not snapshots(folder):
        return {}
    _, manifest = read_manifest(folder)
    if manifest.bucket != bucket:
        raise UsageError(f"{folder}: holds backups of bucket {manifest.bucket}, not of {bucket}")
    return {entry.key: entry for entry in manifest.objects}


def _copy(
    client: "S3Client",
    bucket: str,
    folder: Path,
    listed: "Mapping[str, ObjectTypeDef]",
    known: Mapping[str, Entry],
) -> list[tuple[Entry, bool]]:
    """Entries of the objects, and whether each was fetched; without those deleted meanwhile."""

    def one(key: str) -> tuple[Entry, bool] | None:
        seen = listed[key]
        etag, modified = seen["ETag"], seen["LastModified"].isoformat()
        before = known.get(key)
        if (
            before is not None
            and (before.etag, before.modified, before.size) == (etag, modified, seen["Size"])
            and object_path(folder, before.sha256).exists()
        ):
            return before, False
        try:
            size, sha256 = _fetch(client, bucket, key, folder)
        except client.exceptions.NoSuchKey:
            return None
        return Entry(key=key, size=size, sha256=sha256, etag=etag, modified=modified), True

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [found for found in pool.map(one, listed) if found is not None]


def _fetch(client: "S3Client", bucket: str, key: str, folder: Path) -> tuple[int, str]:
    reply = client.get_object(Bucket=bucket, Key=key)
    partial = folder / "objects" / f"{uuid4().hex}.part"
    partial.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    try:
        with partial.open("wb") as file:
            for block in reply["Body"].iter_chunks(BLOCK):
                digest.update(block)
                size += file.write(block)
            file.flush()
            os.fsync(file.fileno())
        sha256 = digest.hexdigest()
        noted = noted_sha256(reply) or sha256
        if noted != sha256 or size != reply["ContentLength"]:
            raise TrackingError(
                f"s3://{bucket}/{key}: has {size} bytes and SHA-256 {sha256} where "
                f"{reply['ContentLength']} and {noted} were noted; the object is damaged"
            )
        target = object_path(folder, sha256)
        target.parent.mkdir(exist_ok=True)
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
    return size, sha256


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        with FileLock(folder / "lock", timeout=0):
            for left in folder.glob("objects/*.part"):  # of a killed backup, as all below
                left.unlink()
            for left in folder.glob("snapshots/*"):
                if not (left / "manifest.json").exists():
                    shutil.rmtree(left)
            yield
    except Timeout:
        raise StackError(f"{folder}: another backup is being made there") from None
    except OSError as error:
        raise StackError(f"{error.filename or folder}: {error.strerror}") from None
