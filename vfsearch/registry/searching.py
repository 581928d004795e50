"""Searching a user's own faces for the one that belongs to a voice."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vfsearch.errors import CorpusError, UsageError
from vfsearch.registry.embedder import FileEmbedder, Source, read_face

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


@dataclass(frozen=True, kw_only=True)
class Match:
    """One face and how well it fits the voice."""

    rank: int
    """1 is the best; faces of one score share the best rank."""
    path: Path
    score: float
    """Cosine similarity, -1 to 1; no probability and no evidence of identity."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The best faces, and what could not be searched."""

    matches: tuple[Match, ...]
    searched: int
    left_out: tuple[tuple[Path, str], ...]


def search(checkpoint: Path, voice_file: Path, faces_dir: Path, top: int = 10) -> SearchResult:
    """Rank the pictures below a folder by how well they fit a voice.

    Raises:
        UsageError: no such voice or folder, no picture in it, or ``top`` below 1.
        CorpusError: the voice, or every picture, cannot be decoded.
        CheckpointError: the model cannot be loaded.
    """
    if top < 1:
        raise UsageError(f"--top must be at least 1, not {top}")
    if not voice_file.is_file():
        raise UsageError(f"{voice_file}: there is no such voice file")
    if not faces_dir.is_dir():
        raise UsageError(f"{faces_dir}: there is no such folder of faces")
    paths = sorted(p for p in faces_dir.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    if not paths:
        raise UsageError(f"{faces_dir}: holds no picture ({', '.join(sorted(PICTURES))})")
    embedder = FileEmbedder.load(checkpoint)
    voice = embedder.embed([_source("voice", voice_file)])[0].astype(float)
    found: list[tuple[float, Path]] = []
    left_out: list[tuple[Path, str]] = []
    chunk = embedder.config.evaluation.batch
    for start in range(0, len(paths), chunk):
        decoded = {}
        for path in paths[start : start + chunk]:
            try:
                decoded[path] = read_face(_source("face", path), embedder.side)
            except CorpusError as error:
                left_out.append((path, str(error)))
        if decoded:
            faces = embedder.embed_faces(np.stack(list(decoded.values())))
            found += zip((faces.astype(float) @ voice).tolist(), decoded, strict=True)
    if not found:
        raise CorpusError(f"{faces_dir}: none of its {len(paths)} pictures can be decoded")
    scores = sorted((score for score, _ in found), reverse=True)
    ordered = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:top]
    return SearchResult(
        matches=tuple(
            Match(rank=scores.index(score) + 1, path=path, score=score) for score, path in ordered
        ),
        searched=len(found),
        left_out=tuple(left_out),
    )


def _source(modality: Literal["voice", "face"], path: Path) -> Source:
    return Source(modality=modality, name=str(path), data=path.read_bytes())
