"""The folder of a backup: objects stored once by content, and snapshots that list them.

::

    objects/3f/3fa1…                  an object's bytes, named by their SHA-256
    snapshots/2026-11-24T140301Z/     one backup
        database.sqlite               or database.postgresql
        manifest.json                 every object and digest; written last, so a snapshot is whole
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from vfsearch.errors import StackError, UsageError
from vfsearch.tracking.database import Kind
from vfsearch.tracking.upload import measure

Progress = Callable[[str], None]


class Entry(BaseModel):
    """One object of the bucket."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    size: int
    sha256: str
    etag: str
    """By which the next backup sees that the object is still the same."""
    modified: str


class Manifest(BaseModel):
    """One snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    made_at: str
    """UTC, ISO 8601."""
    vfsearch: str
    mlflow: str
    bucket: str
    database: Kind
    database_sha256: str
    objects: tuple[Entry, ...]


def object_path(folder: Path, sha256: str) -> Path:
    """Where the bytes with this digest lie."""
    return folder / "objects" / sha256[:2] / sha256


def snapshots(folder: Path) -> list[str]:
    """Names of the whole snapshots, oldest first."""
    return sorted(path.parent.name for path in folder.glob("snapshots/*/manifest.json"))


def new_name() -> str:
    """Name of a snapshot made now."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S.%fZ")


def snapshot_folder(folder: Path, name: str) -> Path:
    """Folder of a snapshot."""
    return folder / "snapshots" / name


def database_file(folder: Path, name: str, kind: Kind) -> Path:
    """The database dump of a snapshot."""
    return snapshot_folder(folder, name) / f"database.{kind}"


def read_manifest(folder: Path, name: str | None = None) -> tuple[str, Manifest]:
    """A snapshot (the newest) and its name.

    Raises:
        UsageError: there is no such snapshot.
        StackError: its manifest is damaged.
    """
    found = snapshots(folder)
    if not found:
        raise UsageError(f"{folder}: holds no backup; make one: vfsearch stack backup --out DIR")
    name = name or found[-1]
    if name not in found:
        raise UsageError(f"{folder}: has no snapshot {name}; it has: {', '.join(found)}")
    path = snapshot_folder(folder, name) / "manifest.json"
    try:
        return name, Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise StackError(f"{path}: is damaged: {what}") from None


def write_manifest(folder: Path, name: str, manifest: Manifest) -> None:
    """Make the snapshot valid."""
    path = snapshot_folder(folder, name) / "manifest.json"
    partial = path.with_suffix(".new")
    with partial.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def verify(folder: Path, name: str, manifest: Manifest) -> None:
    """Read everything of a snapshot and compare digests.

    Raises:
        StackError: something is missing or damaged.
    """
    dump = database_file(folder, name, manifest.database)
    wanted = {dump: manifest.database_sha256}
    wanted |= {object_path(folder, entry.sha256): entry.sha256 for entry in manifest.objects}
    bad = [path for path, digest in wanted.items() if not _is(path, digest)]
    if bad:
        raise StackError(
            f"{folder}: snapshot {name} is damaged: {len(bad)} of {len(wanted)} files are missing "
            f"or changed, first {bad[0].relative_to(folder)}; nothing was restored"
        )


def _is(path: Path, digest: str) -> bool:
    try:
        return measure(path)[1] == digest
    except OSError:
        return False
