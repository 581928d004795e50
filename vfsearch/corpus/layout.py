"""Identities and files of a corpus in the VoxCeleb1 / VGGFace layout.

``<audio root>/<VoxCeleb1_ID>/<video>/<n>.wav`` and ``<image root>/<VGGFace1_ID>/<n>.jpg``, joined
by the released CSVs (columns ``VoxCeleb1_ID,VGGFace1_ID,Gender,Nationality,Set``).
"""

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from vfsearch.config import CorpusConfig
from vfsearch.errors import CorpusError

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
COLUMNS = ("VoxCeleb1_ID", "VGGFace1_ID", "Gender", "Nationality", "Set")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One person: the key of the voices and the key of the faces."""

    voice_id: str
    face_id: str
    gender: Literal["m", "f"]
    nationality: str


class Instance(NamedTuple):
    """One recording or photograph. A tuple: there are 220,000 of them in the paper's corpus."""

    path: str
    """As query lists name it: POSIX, relative to the audio or image root."""
    identity: int
    """Row in the split's identities."""
    size: int
    """Bytes; -1 where the name leads to nothing."""
    modified: int
    """Nanoseconds since 1970; -1 where the name leads to nothing."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Identities of a split and their files, sorted by path."""

    name: SplitName
    identities: tuple[Identity, ...]
    voices: tuple[Instance, ...]
    faces: tuple[Instance, ...]


def read_identities(path: Path) -> tuple[Identity, ...]:
    """Identities of a released CSV; rows whose ``Set`` is ``none`` are skipped.

    Raises:
        CorpusError: missing, not in the released format, or repeated; with every bad line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise CorpusError(f"{path}: identities cannot be read ({reason})") from None
    rows = csv.DictReader(io.StringIO(text))
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise CorpusError(
            f"{path}:1: the columns should be {','.join(COLUMNS)}, "
            f"not {','.join(rows.fieldnames or ['nothing'])}"
        )
    found: list[Identity] = []
    problems: list[str] = []
    voices: set[str] = set()
    faces: set[str] = set()
    for line, row in enumerate(rows, start=2):
        if any(row[column] is None for column in COLUMNS):
            problems.append(f"{path}:{line}: {len(COLUMNS)} columns should be here")
            continue
        if row["Set"] == "none":
            continue
        gender = row["Gender"]
        if gender not in ("m", "f"):
            problems.append(f"{path}:{line}: Gender should be m or f, not {gender!r}")
            continue
        voice_id, face_id = row["VoxCeleb1_ID"], row["VGGFace1_ID"]
        bad = [name for name in (voice_id, face_id) if not _safe(name)]
        if bad:
            problems.append(f"{path}:{line}: {bad[0]!r} cannot be a folder's name")
        for name, seen in ((voice_id, voices), (face_id, faces)):
            if name in seen:
                problems.append(f"{path}:{line}: {name} is listed twice")
            seen.add(name)
        found.append(
            Identity(
                voice_id=voice_id,
                face_id=face_id,
                gender="m" if gender == "m" else "f",
                nationality=row["Nationality"],
            )
        )
    if problems:
        raise CorpusError("\n  ".join(problems))
    if not found:
        raise CorpusError(f"{path}: no identity is left (rows with Set == none are skipped)")
    return tuple(found)


def _safe(name: str) -> bool:
    return bool(name) and "/" not in name and name not in (".", "..") and name == name.strip()


def format_identities(identities: Iterable[Identity], subset: str) -> str:
    """A CSV in the released format (CRLF line ends)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for who in identities:
        writer.writerow([who.voice_id, who.face_id, who.gender, who.nationality, subset])
    return out.getvalue()


def csv_path(config: CorpusConfig, name: SplitName) -> Path:
    """The CSV of a split."""
    return (
        config.root
        / {
            "train": config.train_csv,
            "val": config.val_csv,
            "test": config.test_csv,
        }[name]
    )


def scan_split(config: CorpusConfig, name: SplitName) -> Split:
    """List the files of a split's identities; files are not opened.

    Raises:
        CorpusError: no corpus folder, no CSV, no audio or image root.
    """
    return scan_csv(config, csv_path(config, name), name)


def scan_csv(config: CorpusConfig, path: Path, name: SplitName) -> Split:
    """List the files of a CSV's identities, as `scan_split` does; the split is called ``name``."""
    if not config.root.is_dir():
        raise CorpusError(
            f"{config.root}: there is no corpus folder here (corpus.root); make one with "
            "'vfsearch corpus synth' or name the folder that holds wav/ and faces/"
        )
    identities = read_identities(path)
    roots = (config.root / config.audio, config.root / config.images)
    for root, what, key in zip(
        roots, ("voices", "faces"), ("corpus.audio", "corpus.images"), strict=True
    ):
        if not root.is_dir():
            raise CorpusError(f"{root}: there is no folder of {what} here ({key})")
    return Split(
        name=name,
        identities=identities,
        voices=_instances(roots[0], [who.voice_id for who in identities], ".wav", depth=2),
        faces=_instances(roots[1], [who.face_id for who in identities], ".jpg", depth=1),
    )


def _instances(root: Path, folders: Sequence[str], suffix: str, depth: int) -> tuple[Instance, ...]:
    base = os.fspath(root)
    found = [
        instance
        for row, folder in enumerate(folders)
        for instance in _files(base, folder, suffix, depth, row)
    ]
    # Paths differ, so nothing after them is compared.
    return tuple(sorted(found))


def _files(base: str, folder: str, suffix: str, depth: int, identity: int) -> list[Instance]:
    found: list[Instance] = []
    try:
        entries = os.scandir(f"{base}/{folder}")
    except (FileNotFoundError, NotADirectoryError):
        return found
    with entries:
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if depth > 1:
                if entry.is_dir():
                    found += _files(base, path, suffix, depth - 1, identity)
            elif path.endswith(suffix):
                try:
                    status = entry.stat()
                except OSError:  # a link to nothing: decoding will say so
                    found.append(Instance(path, identity, -1, -1))
                else:
                    found.append(Instance(path, identity, status.st_size, status.st_mtime_ns))
    return found


def split_hash(split: Split) -> str:
    """SHA-256 over the identities and the names of the files: the identity of the data."""
    digest = hashlib.sha256()
    for who in split.identities:
        digest.update(f"{who.voice_id},{who.face_id},{who.gender},{who.nationality}\n".encode())
    for instances in (split.voices, split.faces):
        digest.update(b"--\n")
        digest.update("".join(f"{instance.path}\n" for instance in instances).encode())
    return digest.hexdigest()
