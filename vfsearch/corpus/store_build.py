"""Building a decoded store: every file read once, on all cores, what is usable written in order."""

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from vfsearch.config import CorpusConfig
from vfsearch.corpus.decoding import decode_face, decode_voice
from vfsearch.corpus.layout import Instance, Split

VOICES, FACES = "voices.i16", "faces.u8"
INDEX, EXCLUDED = "index.npz", "excluded.json"
Excluded = tuple[str, str]
"""Path and reason of a file that could not be used."""
_AHEAD = 64
"""Files decoded ahead of the one that is written."""


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
    audio, images = (os.fspath(config.root / part) for part in (config.audio, config.images))
    total = len(split.voices) + len(split.faces)
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # both decoders release the interpreter lock
        voices = _decode(
            pool, lambda i: decode_voice(f"{audio}/{i.path}"), split.voices, partial / VOICES, tell
        )
        faces = _decode(
            pool,
            lambda i: decode_face(f"{images}/{i.path}", config.face_size),
            split.faces,
            partial / FACES,
            tell,
        )
    lengths = voices.bytes[voices.bytes >= 0] // 2
    np.savez(
        partial / INDEX,
        voice_rows=np.flatnonzero(voices.bytes >= 0),
        face_rows=np.flatnonzero(faces.bytes >= 0),
        offsets=np.cumsum(lengths) - lengths,
        lengths=lengths,
    )
    excluded = [
        *(("voice", path, reason) for path, reason in voices.excluded),
        *(("face", path, reason) for path, reason in faces.excluded),
    ]
    (partial / EXCLUDED).write_text(json.dumps(excluded), encoding="utf-8")
    partial.rename(folder)


@dataclass(frozen=True)
class _Decoded:
    bytes: Int64[np.ndarray, " files"]
    """Decoded bytes of each file; -1: it could not be used."""
    excluded: list[Excluded]


def _decode(
    pool: ThreadPoolExecutor,
    decode: Callable[[Instance], np.ndarray | str],
    instances: Sequence[Instance],
    path: Path,
    tell: Callable[[int], None],
) -> _Decoded:
    """Write what is usable one after the other, in order and without holes.

    A bounded number of files is decoded ahead of the writing, so memory does not grow.
    """
    sizes = np.full(len(instances), -1, np.int64)
    excluded: list[Excluded] = []
    ahead: deque[Future[np.ndarray | str]] = deque()
    waiting = iter(instances)
    with path.open("wb") as file:
        for row, instance in enumerate(instances):
            while len(ahead) < _AHEAD and (following := next(waiting, None)) is not None:
                ahead.append(pool.submit(decode, following))
            decoded = ahead.popleft().result()
            if isinstance(decoded, str):
                excluded.append((instance.path, decoded))
            else:
                sizes[row] = file.write(np.ascontiguousarray(decoded).data)
            if (row + 1) % _AHEAD == 0:
                tell(_AHEAD)
        tell(len(instances) % _AHEAD)
        file.flush()
        os.fsync(file.fileno())
    return _Decoded(sizes, excluded)
