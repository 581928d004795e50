"""Restoration of a backup into an empty stack: checked first, repeatable, all or nothing to see."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vfsearch.errors import UsageError
from vfsearch.tracking.artifacts import ArtifactStore
from vfsearch.tracking.backup import AT_ONCE, Place, Report, report
from vfsearch.tracking.snapshot import (
    Entry,
    Manifest,
    Progress,
    database_file,
    object_path,
    read_manifest,
    verify,
)
from vfsearch.tracking.storage import list_objects, s3_errors


def check_restorable(place: Place, folder: Path, snapshot: str | None) -> tuple[str, Manifest]:
    """The snapshot, if it is whole, fits the stack, and the stack is empty; changes nothing.

    Objects that an interrupted restoration of the same snapshot left do not count.

    Raises:
        UsageError: no such snapshot, another kind of database or bucket, or the stack is in use.
        StackError: the snapshot is damaged.
    """
    name, manifest = read_manifest(folder, snapshot)
    if manifest.database != place.database.kind:
        raise UsageError(
            f"{folder}: snapshot {name} is of a {manifest.database} database and cannot be "
            f"restored into {place.database.kind}"
        )
    if manifest.bucket != place.bucket:
        raise UsageError(
            f"{folder}: snapshot {name} is of bucket {manifest.bucket}, which its runs name; "
            f"restore it into a bucket of that name, not {place.bucket}"
        )
    if not place.database.is_empty():
        raise UsageError(
            "the database holds runs or models; a backup is restored into an empty stack only"
        )
    with s3_errors(f"s3://{place.bucket}"):
        there = list_objects(place.storage.client(), place.bucket)
    sizes = {entry.key: entry.size for entry in manifest.objects}
    others = [key for key, entry in there.items() if sizes.get(key) != entry["Size"]]
    if others:
        raise UsageError(
            f"s3://{place.bucket} holds {len(others)} objects that are not of this backup, e.g. "
            f"{others[0]}; a backup is restored into an empty stack only"
        )
    verify(folder, name, manifest)
    return name, manifest


def carry_out(
    place: Place, folder: Path, name: str, manifest: Manifest, progress: Progress | None = None
) -> Report:
    """Restore a snapshot that was checked; the database comes last, so this can be repeated.

    Raises:
        TrackingError: the bucket cannot be reached or refuses.
        StackError: the database cannot be written.
    """
    tell = progress or (lambda _: None)
    tell(f"uploading {len(manifest.objects)} objects")
    store = ArtifactStore(f"s3://{place.bucket}", place.storage)

    def send(entry: Entry) -> bool:
        there = store.head(entry.key)
        if there is not None and (there.size, there.sha256) == (entry.size, entry.sha256):
            return False
        store.upload_file(object_path(folder, entry.sha256), entry.key)
        return True

    with ThreadPoolExecutor(AT_ONCE) as pool:
        moved = sum(pool.map(send, manifest.objects))
    tell("putting the database in place")
    place.database.load(database_file(folder, name, manifest.database))
    return report(name, manifest, moved)


def restore(
    place: Place, folder: Path, snapshot: str | None = None, progress: Progress | None = None
) -> Report:
    """Bring an empty stack to a snapshot (the newest); errors as of the two functions above."""
    name, manifest = check_restorable(place, folder, snapshot)
    return carry_out(place, folder, name, manifest, progress)
