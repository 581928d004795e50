"""Models that were brought to this machine: one folder for each content, whole or not there."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from vfsearch.config import home
from vfsearch.tracking.upload import measure

Files = Mapping[str, tuple[int, str]]
"""Bytes and hexadecimal SHA-256 of each file by its name."""


def keep(files: Files, write: Callable[[Path], None]) -> Path:
    """Folder that holds just these files; ``write`` makes them in an empty one if need be.

    What was kept before is measured again each time. Safe when several processes call it at once.
    """
    key = hashlib.sha256("".join(digest for _, digest in files.values()).encode()).hexdigest()
    folder = home() / "models" / key[:32]
    if _intact(folder, files):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as scratch:
        partial = Path(scratch) / "checkpoint"
        partial.mkdir()
        write(partial)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            partial.rename(folder)
        except OSError:
            # Another process brought the same files in between.
            if not _intact(folder, files):
                raise
    return folder


def _intact(folder: Path, files: Files) -> bool:
    return all(
        (folder / name).is_file() and measure(folder / name) == there
        for name, there in files.items()
    )
