"""Retrieval: every probe against the whole gallery, in tiles of bounded memory."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32, Int64
from torch import Tensor

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


def retrieve(
    probes: Float32[np.ndarray, "probes dim"],
    probe_identity: Int64[np.ndarray, " probes"],
    gallery: Gallery,
    *,
    device: torch.device | str = "cpu",
) -> Float64[np.ndarray, "probes columns"]:
    """Per probe: average precision, hit at 1, 5, 10, rank of the first positive.

    All are expectations over a random order of tied items. Similarities are the float32 matrix
    product of the unit vectors. Every probe's identity must be in the gallery.

    Args:
        probes: unit vectors.
        probe_identity: identity of each.
        gallery: of the other modality.
        device: where the matrix product and the counting run.
    """
    out = np.empty((len(probes), COLUMNS))
    harmonics = harmonic(int(gallery.items.sum()))
    on_cpu = torch.device(device).type == "cpu"
    columns = torch.from_numpy(gallery.columns).to(device)
    budget = TILE_BYTES if on_cpu else GPU_TILE_BYTES
    tile = max(1, min(len(probes), budget // (4 * len(columns))))
    buffer = torch.empty((tile, len(columns)), device=device)
    plain = bool((gallery.items == 1).all())
    for start in range(0, len(probes), tile):
        rows = torch.from_numpy(probes[start : start + tile]).to(device)
        scores = torch.mm(rows, columns.T, out=buffer[: len(rows)])
        owner = probe_identity[start : start + tile]
        into = out[start : start + tile]
        if on_cpu:
            _rank(scores, owner, gallery, plain, harmonics, into)
        else:
            into[:] = rank_tile(scores, owner, gallery, harmonics)
    return out


def _rank(
    scores: Tensor,
    owner: Int64[np.ndarray, " rows"],
    gallery: Gallery,
    plain: bool,
    harmonics: Float64[np.ndarray, " terms"],
    out: Float64[np.ndarray, "rows columns"],
) -> None:
    tile = scores.numpy()

    def work(start: int, stop: int) -> None:
        rank_rows(
            tile,
            start,
            stop,
            owner,
            gallery.first,
            gallery.positives,
            gallery.copies,
            gallery.items,
            plain,
            harmonics,
            out,
        )

    over_rows(len(tile), work)


def summary(per_probe: Float64[np.ndarray, "probes columns"]) -> dict[str, float]:
    """mAP, R@1/5/10 and the median rank of the first positive."""
    values = [*per_probe[:, :-1].mean(axis=0), np.median(per_probe[:, -1])]
    return {name: float(value) for name, value in zip(METRICS, values, strict=True)}
