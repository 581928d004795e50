"""Retrieval metrics of one ranking with ties, as expectations over a random order of the ties.

A ranking is given by the tie groups that hold positives, best first: how many items score higher
(``above``), how many are in the group (``tied``), how many of those are positives.
"""

import numpy as np
from jaxtyping import Float64, Int64

from vfsearch.evaluation.compiled import compiled

CUTOFFS = (1, 5, 10)
COLUMNS = 2 + len(CUTOFFS)
"""A row of results: average precision, hit at 1, 5 and 10, rank of the first positive."""


def harmonic(count: int) -> Float64[np.ndarray, " terms"]:
    """H_0 .. H_count."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, count + 1))])


@compiled
def rank_metrics(
    above: Int64[np.ndarray, " groups"],
    tied: Int64[np.ndarray, " groups"],
    positive: Int64[np.ndarray, " groups"],
    harmonics: Float64[np.ndarray, " terms"],
    out: Float64[np.ndarray, " columns"],
) -> None:
    """Expected AP, R@1, R@5, R@10 and rank of the first positive, written to ``out``.

    With A positives and N items before a group of n items, r of them positive, the position j of
    the group (from 1) holds a positive with probability r/n, and then the expected precision is
    (A + 1 + (j-1)(r-1)/(n-1)) / (N + j) (McSherry & Najork, ECIR 2008). Summed over j:
    (r/n) [b n + (A + 1 - b (N + 1)) (H_{N+n} - H_N)] with b = (r-1)/(n-1).
    """
    before = 0
    total = 0.0
    for group in range(len(above)):
        n, r, N = tied[group], positive[group], above[group]
        if n == 1:
            total += (before + 1.0) / (N + 1.0)
        else:
            slope = (r - 1.0) / (n - 1.0)
            spread = harmonics[N + n] - harmonics[N]
            total += (r / n) * (slope * n + (before + 1.0 - slope * (N + 1.0)) * spread)
        before += r
    out[0] = total / before
    n, r, N = tied[0], positive[0], above[0]
    for column, cutoff in ((1, 1), (2, 5), (3, 10)):
        miss = 1.0
        for drawn in range(min(cutoff - N, n)):
            miss *= max(n - r - drawn, 0.0) / (n - drawn)
        out[column] = 1.0 - miss
    # Expected smallest of r ranks drawn without replacement from n.
    out[4] = N + (n + 1.0) / (r + 1.0)
