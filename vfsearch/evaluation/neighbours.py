"""The nearest of the other modality for a few probes: what a gallery shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vfsearch.errors import QueryError, UsageError

Matrix = Float[np.ndarray, "instances dim"]


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One instance of the gallery, as near to the probe as its rank says."""

    path: str
    identity: str
    rank: int
    """1 is the nearest."""
    similarity: float
    """Cosine, in [-1, 1]."""
    match: bool
    """Same identity as the probe."""


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """One probe and the head of its ranked gallery."""

    path: str
    identity: str
    hits: tuple[Hit, ...]
    first_match: int | None
    """Rank of the first match in the whole gallery; None: the gallery has no match."""
    chance: float
    """Matches expected among as many hits drawn at random."""


def choose_probes(paths: Sequence[str], owners: Sequence[str], count: int, seed: int) -> list[int]:
    """Indices of ``count`` probes, of different identities as long as there are enough.

    The choice depends on the set of paths and the seed alone, not on the order of the rows.

    Raises:
        UsageError: there are fewer instances than probes.
    """
    if not 1 <= count <= len(paths):
        raise UsageError(
            f"probes must be between 1 and the number of instances, {len(paths)}, not {count}"
        )
    rng = np.random.default_rng(seed)
    order = sorted(range(len(paths)), key=paths.__getitem__)
    order = [order[i] for i in rng.permutation(len(order))]
    seen: set[str] = set()
    fresh: list[int] = []
    again: list[int] = []
    for index in order:
        (again if owners[index] in seen else fresh).append(index)
        seen.add(owners[index])
    return (fresh + again)[:count]


def identities_of(paths: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Identity of each path: its first component, mapped through the corpus' CSV.

    Raises:
        QueryError: a path belongs to no identity of the mapping.
    """
    unknown = [path for path in paths if path.split("/", 1)[0] not in names]
    if unknown:
        shown = ", ".join(unknown[:5])
        raise QueryError(f"{len(unknown)} paths belong to no identity of the CSV: {shown}")
    return [names[path.split("/", 1)[0]] for path in paths]


def retrieve(
    probes: Sequence[int],
    paths: Sequence[str],
    matrix: Matrix,
    owners: Sequence[str],
    gallery_paths: Sequence[str],
    gallery: Matrix,
    gallery_owners: Sequence[str],
    *,
    top: int,
) -> list[Retrieval]:
    """Rank the gallery for each probe by cosine; equal similarities are ordered by path.

    Raises:
        UsageError: ``top`` is not between 1 and the gallery's size.
        QueryError: an embedding is not finite or has length 0.
    """
    if not 1 <= top <= len(gallery_paths):
        raise UsageError(
            f"top must be between 1 and the gallery's size, {len(gallery_paths)}, not {top}"
        )
    units = _unit(gallery, gallery_paths)
    chosen = _unit(matrix[list(probes)], [paths[index] for index in probes])
    names = np.array(gallery_paths)
    found = []
    for index, scores in zip(probes, chosen @ units.T, strict=True):
        order = np.lexsort((names, -scores))
        matches = np.array([gallery_owners[i] == owners[index] for i in order])
        hits = tuple(
            Hit(
                path=gallery_paths[i],
                identity=gallery_owners[i],
                rank=rank,
                similarity=float(np.clip(scores[i], -1, 1)),
                match=bool(matches[rank - 1]),
            )
            for rank, i in enumerate(order[:top], start=1)
        )
        found.append(
            Retrieval(
                path=paths[index],
                identity=owners[index],
                hits=hits,
                first_match=int(matches.argmax()) + 1 if matches.any() else None,
                chance=float(top * matches.mean()),
            )
        )
    return found


def _unit(matrix: Matrix, paths: Sequence[str]) -> Matrix:
    rows = np.asarray(matrix, np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    bad = [
        path for path, ok in zip(paths, np.isfinite(lengths) & (lengths > 0), strict=True) if not ok
    ]
    if bad:
        raise QueryError(
            f"{len(bad)} embeddings are not finite or have length 0: {', '.join(bad[:5])}"
        )
    return np.asarray(rows / lengths[:, None])
