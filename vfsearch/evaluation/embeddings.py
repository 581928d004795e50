"""Embeddings by path: reading, checking, and their unit vectors."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from vfsearch.errors import QueryError

_BLOCK = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Embeddings:
    """Voices and faces together, each named as in the query lists."""

    paths: Sequence[str]
    matrix: Float32[np.ndarray, "items dim"]
    source: str = "the embeddings"
    """What messages call them."""

    def __post_init__(self) -> None:
        """Check once, so that every later use can rely on it.

        Raises:
            QueryError: wrong shapes, a path given twice, a value that is not finite.
        """
        shape = self.matrix.shape
        if len(shape) != 2 or shape[0] != len(self.paths) or shape[1] < 1:
            raise QueryError(
                f"{self.source}: 'embedding' must be one row per path, but there are "
                f"{len(self.paths)} paths and an array of shape {shape}"
            )
        for start in range(0, shape[0], _BLOCK):
            bad = ~np.isfinite(self.matrix[start : start + _BLOCK]).all(axis=1)
            if bad.any():
                rows = np.flatnonzero(bad) + start
                raise QueryError(
                    f"{self.source}: the embedding of {self.paths[rows[0]]} is not finite "
                    "(NaN or infinity)"
                )
        if len(self._rows) != len(self.paths):
            twice = next(path for row, path in enumerate(self.paths) if self._rows[path] != row)
            raise QueryError(f"{self.source}: the path {twice} is given twice")

    @staticmethod
    def load(file: Path) -> "Embeddings":
        """Read ``path`` (unicode [n]) and ``embedding`` (float32 [n, d]) of an ``.npz`` file.

        Raises:
            QueryError: not such a file (pickled content included), or what the constructor refuses.
        """
        if not file.is_file():
            raise QueryError(f"{file}: there is no such file")
        try:
            opened = np.load(file, allow_pickle=False)
            if isinstance(opened, np.ndarray):
                raise ValueError("a single array")
            with opened as content:
                missing = [key for key in ("path", "embedding") if key not in content.files]
                if missing:
                    raise QueryError(
                        f"{file}: has no array {' and no '.join(missing)}; 'path' (unicode) and "
                        f"'embedding' (float32, n x d) should be there, not {content.files}"
                    )
                paths, matrix = content["path"], content["embedding"]
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise QueryError(f"{file}: is no readable .npz of plain arrays ({error})") from None
        if paths.ndim != 1 or paths.dtype.kind != "U":
            raise QueryError(
                f"{file}: 'path' must be a unicode array of one dimension, not {paths.dtype} "
                f"of shape {paths.shape}"
            )
        if matrix.dtype.kind != "f":
            raise QueryError(f"{file}: 'embedding' must be float32, not {matrix.dtype}")
        with np.errstate(over="ignore"):
            matrix = matrix.astype(np.float32, copy=False)
        return Embeddings(paths=paths.tolist(), matrix=matrix, source=str(file))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self.paths)}

    @cached_property
    def unit(self) -> Float32[np.ndarray, "items dim"]:
        """Rows divided by their L2 norm (in float64, then rounded); a zero row stays zero."""
        out = np.empty(self.matrix.shape, np.float32)
        for start in range(0, len(out), _BLOCK):
            block = self.matrix[start : start + _BLOCK].astype(np.float64)
            norm = np.linalg.norm(block, axis=1, keepdims=True)
            # Adding zero turns -0.0 into 0.0, so that equal rows are equal bytes.
            out[start : start + _BLOCK] = block / np.where(norm > 0, norm, 1.0) + 0.0
        return out

    def rows(self, paths: Sequence[str], name: str) -> Int64[np.ndarray, " paths"]:
        """Row of each path of the list ``name``.

        Raises:
            QueryError: paths without embedding, the first five and their number.
        """
        found = [self._rows.get(path, -1) for path in paths]
        missing = [path for path, row in zip(paths, found, strict=True) if row < 0]
        if missing:
            more = " ..." if len(missing) > 5 else ""
            raise QueryError(
                f"{name}: {len(missing)} of {len(paths)} paths have no embedding in "
                f"{self.source}: {', '.join(missing[:5])}{more}"
            )
        return np.array(found, dtype=np.int64)
