"""The decoded store: every voice and face of a split, decoded once per machine, memory-mapped.

One folder per content: raw int16 samples, raw uint8 faces and an index. All trials and workers of
a machine map the same pages. A folder appears whole, by a rename, or not at all.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from jaxtyping import Float, Int16, Int64, UInt8

from vfsearch.config import CorpusConfig, home
from vfsearch.corpus.layout import Identity, Split, SplitName, scan_split, split_hash
from vfsearch.corpus.store_build import EXCLUDED, FACES, INDEX, VOICES, Excluded, build
from vfsearch.errors import CorpusError, UnusableSplitError

FORMAT = 3


@dataclass(frozen=True, kw_only=True)
class Store:
    """Decoded voices and faces of one split; identities are rows of ``identities``."""

    name: SplitName
    identities: tuple[Identity, ...]
    split_hash: str
    faces: UInt8[np.ndarray, "faces side side 3"]
    """RGB."""
    face_identity: Int64[np.ndarray, " faces"]
    face_paths: Sequence[str]
    samples: Int16[np.ndarray, " samples"]
    """All voices, one after the other, 16 kHz."""
    voice_offsets: Int64[np.ndarray, " voices"]
    voice_lengths: Int64[np.ndarray, " voices"]
    """Samples of each voice."""
    voice_identity: Int64[np.ndarray, " voices"]
    voice_paths: Sequence[str]
    excluded: tuple[Excluded, ...]
    """Path and reason of every file that could not be used."""

    def voice(self, row: int) -> Int16[np.ndarray, " samples"]:
        """One voice, a view into the mapped samples."""
        start = int(self.voice_offsets[row])
        return self.samples[start : start + int(self.voice_lengths[row])]

    def read_faces(self, rows: Int64[np.ndarray, " batch"]) -> UInt8[np.ndarray, "batch h w 3"]:
        """Faces, copied."""
        return np.asarray(self.faces[rows])

    def read_voices(
        self, rows: Int64[np.ndarray, " batch"], samples: int
    ) -> Int16[np.ndarray, "batch samples"]:
        """The first ``samples`` of each voice; a short voice is repeated until they are full."""
        return np.stack([np.resize(self.voice(row)[:samples], samples) for row in rows.tolist()])

    def draw_voices(
        self,
        rows: Int64[np.ndarray, " batch"],
        where: Float[np.ndarray, " batch"],
        samples: int,
    ) -> Int16[np.ndarray, "batch samples"]:
        """A window of each voice, from ``where`` in [0, 1) on; a short voice is repeated."""
        out = np.empty((len(rows), samples), np.int16)
        for row, voice, place in zip(out, rows.tolist(), where.tolist(), strict=True):
            window(self.voice(voice), place, row)
        return out


def window(
    voice: Int16[np.ndarray, " samples"], where: float, out: Int16[np.ndarray, " window"]
) -> None:
    """Fill ``out`` with a voice from ``where`` in [0, 1) on; a short voice is repeated."""
    spare = len(voice) - len(out)
    if spare >= 0:
        start = int(where * (spare + 1))
        out[:] = voice[start : start + len(out)]
        return
    for start in range(0, len(out), len(voice)):
        piece = out[start : start + len(voice)]
        piece[:] = voice[: len(piece)]


def open_store(
    config: CorpusConfig, name: SplitName, progress: Callable[[int, int], None] | None = None
) -> Store:
    """Map the decoded split, decoding it first if this machine has not yet.

    Args:
        config: Corpus.
        name: Split.
        progress: Called with files done and in all while decoding.

    Raises:
        CorpusError: the corpus is not there, an identity has no usable voice or face left, or
            the store cannot be written.
    """
    split = scan_split(config, name)
    names = split_hash(split)
    folder = store_folder(config, split, names)
    root = folder.parent
    if not folder.is_dir():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / f"{folder.name}.lock"):
                if not folder.is_dir():
                    build(config, split, folder, progress or (lambda _done, _all: None))
        except OSError as error:
            raise CorpusError(
                f"{root}: the decoded store cannot be written ({error.strerror}); "
                "corpus.store should name a folder that can"
            ) from None
    store = _map(folder, split, config, names)
    _check_identities(store)
    return store


def store_folder(config: CorpusConfig, split: Split, names: str) -> Path:
    """Where the decoded split is, or will be: named by the names, sizes and times of its files.

    Args:
        config: Corpus.
        split: Its split.
        names: ``split_hash`` of it.
    """
    digest = hashlib.sha256(f"{FORMAT} {config.face_size} {names}".encode())
    for instances in (split.voices, split.faces):
        stats = np.empty((len(instances), 2), np.int64)
        stats[:, 0] = [instance.size for instance in instances]
        stats[:, 1] = [instance.modified for instance in instances]
        digest.update(stats.tobytes())
    return (config.store or home() / "store") / f"{split.name}-{digest.hexdigest()[:20]}"


def _map(folder: Path, split: Split, config: CorpusConfig, names: str) -> Store:
    side = config.face_size
    # Relative in the store, so that a moved corpus names its files where they are now.
    roots = {"voice": config.root / config.audio, "face": config.root / config.images}
    try:
        # numpy leaves a damaged archive open unless it is handed an open file.
        with (
            (folder / INDEX).open("rb") as file,
            np.load(file, allow_pickle=False) as index,
        ):
            voice_rows, face_rows = index["voice_rows"], index["face_rows"]
            offsets, lengths = index["offsets"], index["lengths"]
        told = json.loads((folder / EXCLUDED).read_text(encoding="utf-8"))
        excluded = tuple((str(roots[kind] / path), str(reason)) for kind, path, reason in told)
        faces = _mapped(folder / FACES, np.dtype(np.uint8)).reshape(-1, side, side, 3)
        samples = _mapped(folder / VOICES, np.dtype(np.int16))
        if len(faces) != len(face_rows) or len(samples) != int(lengths.sum()):
            raise ValueError("a file is cut short")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorpusError(
            f"{folder}: the decoded store is damaged ({error}); remove the folder, "
            "it is made again from the corpus"
        ) from None
    voices = [split.voices[row] for row in voice_rows]
    photographs = [split.faces[row] for row in face_rows]
    return Store(
        name=split.name,
        identities=split.identities,
        split_hash=names,
        faces=faces,
        face_identity=np.array([face.identity for face in photographs], np.int64),
        face_paths=[face.path for face in photographs],
        samples=samples,
        voice_offsets=offsets,
        voice_lengths=lengths,
        voice_identity=np.array([voice.identity for voice in voices], np.int64),
        voice_paths=[voice.path for voice in voices],
        excluded=excluded,
    )


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    if path.stat().st_size == 0:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def _check_identities(store: Store) -> None:
    problems = lost_identities(store)
    if problems:
        shown = "\n  ".join(problems[:10]) + ("\n  ..." if len(problems) > 10 else "")
        files = "".join(f"\n  {path}: {reason}" for path, reason in store.excluded[:10])
        raise UnusableSplitError(
            f"the {store.name} split loses {len(problems)} of {len(store.identities)} identities:"
            f"\n  {shown}" + (f"\nfiles left out:{files}" if files else ""),
            store.excluded,
        )


def lost_identities(store: Store) -> list[str]:
    """Identities without a usable voice or face, in words."""
    count = len(store.identities)
    voices = np.bincount(store.voice_identity, minlength=count)
    faces = np.bincount(store.face_identity, minlength=count)
    return [
        f"{who.voice_id} / {who.face_id}: no usable "
        + " and no usable ".join(
            what for what, left in (("voice", voices[row]), ("face", faces[row])) if not left
        )
        for row, who in enumerate(store.identities)
        if not (voices[row] and faces[row])
    ]
