"""Building a decoded store: every file is opened once, decoded and written by the same thread.

A voice goes wherever the file of samples ends when it is decoded, the index says where; a face has
the place of its row, and what unusable ones left free is closed at the end. What a store holds is
thus the same for any number of cores.
"""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from vfsearch.config import CorpusConfig
from vfsearch.corpus.decoding import decode_face, decode_voice
from vfsearch.corpus.layout import Split

VOICES, FACES = "voices.i16", "faces.u8"
INDEX, EXCLUDED = "index.npz", "excluded.json"
Excluded = tuple[str, str]
"""Path and reason of a file that could not be used."""
_CHUNK = 32
"""Files that a thread takes at once."""


def build(
    config: CorpusConfig, split: Split, folder: Path, progress: Callable[[int, int], None]
) -> None:
    """Decode a split into ``folder``, which appears whole, by a rename, or not at all.

    Args:
        config: Corpus.
        split: Its split.
        folder: Of the store; the caller holds its lock.
        progress: Called with files done and in all.

    Raises:
        OSError: the folder cannot be written.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed; we hold the lock
    partial.mkdir()
    side = config.face_size
    audio, images = (os.fspath(config.root / part) for part in (config.audio, config.images))
    places = np.full((len(split.voices), 2), -1, np.int64)
    good = np.zeros(len(split.faces), bool)
    excluded: list[tuple[str, str, str]] = []
    with (
        (partial / VOICES).open("wb") as voices,
        (partial / FACES).open("w+b") as faces,
        ThreadPoolExecutor(os.cpu_count()) as pool,  # decoders and writes release the lock
    ):
        samples = _Appended(voices.fileno())

        def voice(row: int) -> str | None:
            decoded = decode_voice(f"{audio}/{split.voices[row].path}")
            if isinstance(decoded, str):
                return decoded
            places[row] = samples.add(decoded) // 2, len(decoded)
            return None

        def face(row: int) -> str | None:
            decoded = decode_face(f"{images}/{split.faces[row].path}", side)
            if isinstance(decoded, str):
                return decoded
            _write_at(faces.fileno(), decoded, row * decoded.nbytes)
            good[row] = True
            return None

        done, total = 0, len(split.voices) + len(split.faces)
        for kind, work, instances in (("voice", voice, split.voices), ("face", face, split.faces)):
            for start, reasons in _in_chunks(pool, work, len(instances)):
                for row, reason in enumerate(reasons, start):
                    if reason is not None:
                        excluded.append((kind, instances[row].path, reason))
                done += len(reasons)
                progress(done, total)
        _close_gaps(faces.fileno(), np.flatnonzero(good), side * side * 3)
        for file in (voices, faces):
            os.fsync(file.fileno())
    usable = np.flatnonzero(places[:, 1] >= 0)
    np.savez(
        partial / INDEX,
        voice_rows=usable,
        face_rows=np.flatnonzero(good),
        offsets=places[usable, 0],
        lengths=places[usable, 1],
    )
    (partial / EXCLUDED).write_text(json.dumps(excluded), encoding="utf-8")
    partial.rename(folder)


def _in_chunks(
    pool: ThreadPoolExecutor, work: Callable[[int], str | None], count: int
) -> Iterator[tuple[int, list[str | None]]]:
    """First row and results of chunks of rows, in order."""
    starts = range(0, count, _CHUNK)
    made = pool.map(
        lambda first: [work(row) for row in range(first, min(first + _CHUNK, count))], starts
    )
    yield from zip(starts, made, strict=True)


class _Appended:
    """A file that several threads add to, each writing by itself."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._end = 0
        self._lock = threading.Lock()

    def add(self, values: np.ndarray) -> int:
        """Write values; the byte that they begin at."""
        with self._lock:
            begin, self._end = self._end, self._end + values.nbytes
        _write_at(self._file, values, begin)
        return begin


def _write_at(file: int, values: np.ndarray, begin: int) -> None:
    left = np.ascontiguousarray(values).data.cast("B")
    while left:
        written = os.pwrite(file, left, begin)
        left, begin = left[written:], begin + written


def _close_gaps(file: int, rows: Int64[np.ndarray, " good"], size: int) -> None:
    """Move the good rows up to one another and cut the rest off."""
    for place, row in enumerate(rows.tolist()):
        if place != row:
            os.pwrite(file, os.pread(file, size, row * size), place * size)
    os.truncate(file, len(rows) * size)
