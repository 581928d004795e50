"""Retrieval: every probe against the whole gallery, in tiles of bounded memory."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int32, Int64

from vfsearch.evaluation.compiled import over_rows
from vfsearch.evaluation.ranking import COLUMNS, harmonic
from vfsearch.evaluation.retrieval_device import rank_tile
from vfsearch.evaluation.retrieval_kernel import rank_rows

TILE_BYTES = 24 << 20
"""Scores held at once on the CPU."""
GPU_TILE_BYTES = 512 << 20
METRICS = ("map", "r@1", "r@5", "r@10", "median_rank")


@dataclass(frozen=True, kw_only=True, eq=False)
class Gallery:
    """Distinct gallery embeddings. Equal items share one column, so that they tie exactly."""

    columns: Float32[np.ndarray, "columns dim"]
    items: Int32[np.ndarray, " columns"]
    """Gallery items in each column."""
    first: Int64[np.ndarray, " identities_and_one"]
    """``positives[first[i]:first[i + 1]]`` are the columns of identity i."""
    positives: Int64[np.ndarray, " entries"]
    copies: Int64[np.ndarray, " entries"]
    """Items of that identity in that column."""

    @staticmethod
    def of(
        unit: Float32[np.ndarray, "items dim"],
        identity: Int64[np.ndarray, " items"],
        identities: int,
    ) -> "Gallery":
        """Group equal rows and index them by identity."""
        table: dict[bytes, int] = {}
        column = np.fromiter(
            (table.setdefault(row.tobytes(), len(table)) for row in unit),
            dtype=np.int64,
            count=len(unit),
        )
        plain = len(table) == len(unit)
        kept = column if plain else np.unique(column, return_index=True)[1]
        entries, copies = np.unique(identity * len(table) + column, return_counts=True)
        owner = entries // len(table)
        return Gallery(
            columns=unit if plain else unit[kept],
            items=np.bincount(column, minlength=len(table)).astype(np.int32),
            first=np.searchsorted(owner, np.arange(identities + 1)).astype(np.int64),
            positives=(entries % len(table)).astype(np.int64),
            copies=copies.astype(np.int64),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """What every probe scored."""

    per_probe: Float64[np.ndarray, "probes results"]
    """Average precision, hit at 1, 5, 10, rank of the first positive."""
    influence: Float64[np.ndarray, " ids"] | None
    """Derivative of mAP by the weight of each identity's gallery items."""


def retrieve(
    probes: Float32[np.ndarray, "probes dim"],
    probe_identity: Int64[np.ndarray, " probes"],
    gallery: Gallery,
    *,
    influence: bool = False,
    device: torch.device | str = "cpu",
) -> Ranked:
    """Rank the positives of every probe, in tiles of bounded memory.

    All results are expectations over a random order of tied items. Similarities are the float32
    matrix product of the unit vectors. Every probe's identity must be in the gallery.

    Args:
        probes: unit vectors.
        probe_identity: identity of each.
        gallery: of the other modality.
        influence: compute the gallery's influence too.
        device: where the matrix product and the counting run.
    """
    ranker = _Ranker(gallery, len(probes), influence)
    on_cpu = torch.device(device).type == "cpu"
    columns = torch.from_numpy(gallery.columns).to(device)
    budget = TILE_BYTES if on_cpu else GPU_TILE_BYTES
    tile = max(1, min(len(probes), budget // (4 * len(columns))))
    buffer = torch.empty((tile, len(columns)), device=device)
    for start in range(0, len(probes), tile):
        rows = torch.from_numpy(probes[start : start + tile]).to(device)
        scores = torch.mm(rows, columns.T, out=buffer[: len(rows)])
        owner = probe_identity[start : start + tile]
        if on_cpu or influence:
            ranker.add(start, scores.cpu().numpy(), owner)
        else:
            ranked = rank_tile(scores, owner, gallery, ranker.harmonics)
            ranker.out[start : start + tile] = ranked
    return ranker.result()


def rank_scores(
    scores: Float[np.ndarray, "probes columns"],
    probe_identity: Int64[np.ndarray, " probes"],
    gallery: Gallery,
) -> Float64[np.ndarray, "probes results"]:
    """The same results from given scores, one for each column of the gallery."""
    ranker = _Ranker(gallery, len(scores), False)
    ranker.add(0, scores.astype(np.float32), probe_identity)
    return ranker.result().per_probe


class _Ranker:
    """Collects results tile by tile on the CPU."""

    def __init__(self, gallery: Gallery, probes: int, influence: bool) -> None:
        self.gallery = gallery
        self.harmonics = harmonic(int(gallery.items.sum()))
        self.out = np.empty((probes, COLUMNS))
        self._owner = np.repeat(np.arange(len(gallery.first) - 1), np.diff(gallery.first))
        self._plain = bool((gallery.items == 1).all())
        self._influence = np.zeros(len(gallery.first) - 1 if influence else 0)

    def add(
        self,
        start: int,
        scores: Float32[np.ndarray, "rows columns"],
        owner: Int64[np.ndarray, " rows"],
    ) -> None:
        gallery = self.gallery
        into = self.out[start : start + len(scores)]
        parts: dict[int, Float64[np.ndarray, " ids"]] = {}

        def work(first_row: int, stop: int) -> None:
            parts[first_row] = np.zeros_like(self._influence)
            rank_rows(
                scores,
                first_row,
                stop,
                owner,
                gallery.first,
                gallery.positives,
                gallery.copies,
                self._owner,
                gallery.items,
                self._plain,
                self.harmonics,
                into,
                parts[first_row],
            )

        over_rows(len(scores), work)
        # Added in the order of the rows, whichever thread was first.
        for first_row in sorted(parts):
            self._influence += parts[first_row]

    def result(self) -> Ranked:
        wanted = len(self._influence) > 0
        influence = self._influence / len(self.out) if wanted else None
        return Ranked(per_probe=self.out, influence=influence)


def summary(per_probe: Float64[np.ndarray, "probes columns"]) -> dict[str, float]:
    """mAP, R@1/5/10 and the median rank of the first positive."""
    values = [*per_probe[:, :-1].mean(axis=0), np.median(per_probe[:, -1])]
    return {name: float(value) for name, value in zip(METRICS, values, strict=True)}
