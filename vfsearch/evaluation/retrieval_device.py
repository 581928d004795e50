"""The positives' ranks on a GPU: the same counts as the CPU kernel, in tensor operations."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from vfsearch.evaluation.ranking import COLUMNS, CUTOFFS

if TYPE_CHECKING:
    from vfsearch.evaluation.retrieval import Gallery


def rank_tile(
    scores: Float[Tensor, "rows columns"],
    owner: Int64[np.ndarray, " rows"],
    gallery: "Gallery",
    harmonics: Float64[np.ndarray, " terms"],
) -> Float64[np.ndarray, "rows results"]:
    """Metrics (columns of ``ranking``) of a tile of scores, on the tile's device."""
    device = scores.device
    count = gallery.first[owner + 1] - gallery.first[owner]
    width = int(count.max())
    place = np.minimum(np.arange(width), count[:, None] - 1) + gallery.first[owner][:, None]
    real = torch.from_numpy(np.arange(width) < count[:, None]).to(device)
    known = scores.gather(1, torch.from_numpy(gallery.positives[place]).to(device))
    copies = torch.from_numpy(gallery.copies[place]).to(device) * real
    # Padding sorts to the end and owns nothing.
    known, order = known.masked_fill(~real, torch.inf).sort(dim=1)
    copies, real = copies.gather(1, order), real.gather(1, order)
    items = torch.from_numpy(gallery.items.astype(np.int64)).to(device).expand(scores.shape)
    above = _beyond(known, scores, items, equal=False)
    least = _beyond(known, scores, items, equal=True)
    mine_above = _beyond(known, known, copies, equal=False)
    mine = _beyond(known, known, copies, equal=True) - mine_above
    tied = least - above
    return _metrics(above, tied, mine_above, mine, copies, real, harmonics).cpu().numpy()


def _beyond(
    known: Float[Tensor, "rows positives"],
    scores: Float[Tensor, "rows columns"],
    items: Tensor,
    *,
    equal: bool,
) -> Tensor:
    """Items that score above each sorted positive, or at least as high when ``equal``."""
    slot = torch.searchsorted(known, scores.contiguous(), right=equal)
    counts = torch.zeros((len(known), known.shape[1] + 1), dtype=torch.int64, device=known.device)
    counts.scatter_add_(1, slot, items)
    return counts.flip(1).cumsum(1).flip(1)[:, 1:]


def _metrics(
    above: Tensor,
    tied: Tensor,
    mine_above: Tensor,
    mine: Tensor,
    copies: Tensor,
    real: Tensor,
    harmonics: Float64[np.ndarray, " terms"],
) -> Tensor:
    """The formulas of ``ranking.rank_metrics`` for all positives of all rows at once."""
    table = torch.from_numpy(harmonics).to(above.device)
    N, n = above.double(), tied.double().clamp(min=1)
    A, r = mine_above.double(), mine.double().clamp(min=1)
    slope = torch.where(tied > 1, (r - 1) / (n - 1).clamp(min=1), torch.zeros_like(n))
    top = (above + tied).clamp(max=len(table) - 1)
    spread = table[top] - table[above.clamp(max=len(table) - 1)]
    group = slope * n + (A + 1 - slope * (N + 1)) * spread
    # A group's sum times r/n, shared among its r positives: copies/n of it for each entry.
    share = torch.where(tied > 1, group / n, (A + 1) / (N + 1)) * copies
    out = torch.empty((len(above), COLUMNS), dtype=torch.float64, device=above.device)
    out[:, 0] = torch.where(real, share, 0).sum(1) / copies.sum(1)
    best = (real.sum(1) - 1)[:, None]
    N, n, r = (value.gather(1, best)[:, 0] for value in (N, n, r))
    for column, cutoff in enumerate(CUTOFFS, start=1):
        miss = torch.ones_like(N)
        for drawn in range(cutoff):
            factor = (n - r - drawn).clamp(min=0) / (n - drawn).clamp(min=1)
            miss = torch.where(drawn < torch.minimum(cutoff - N, n), miss * factor, miss)
        out[:, column] = 1 - miss
    out[:, 4] = N + (n + 1) / (r + 1)
    return out
