"""The definitions, written without regard to speed: oracles of the fast paths."""

from fractions import Fraction
from itertools import pairwise, permutations

import numpy as np


def unit(matrix):
    matrix = np.asarray(matrix, np.float64)
    norm = np.linalg.norm(matrix, axis=1, keepdims=True)
    return (matrix / np.where(norm > 0, norm, 1)).astype(np.float32)


def auc(scores, positive):
    pos, neg = scores[positive], scores[~positive]
    wins = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p in pos for n in neg)
    return wins / (len(pos) * len(neg))


def eer(scores, positive):
    """Zero of false accepts minus false rejects on the line through all distinct thresholds."""
    points = [(0.0, 0.0)]
    for threshold in sorted(set(scores.tolist()), reverse=True):
        accepted = scores >= threshold
        points.append((float(accepted[~positive].mean()), float(accepted[positive].mean())))
    for (f0, t0), (f1, t1) in pairwise(points):
        g0, g1 = f0 + t0 - 1, f1 + t1 - 1
        if g0 <= 0 <= g1 and g1 > g0:
            return f0 - g0 / (g1 - g0) * (f1 - f0)
    raise AssertionError(points)


def credit(scores):
    best = max(scores)
    return 1 / sum(s == best for s in scores) if scores[0] == best else 0.0


def orders(scores, positive):
    """Every order of the items that sorts the scores, each equally likely (tiny lists only)."""
    return [
        [positive[i] for i in order]
        for order in permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]


def expected_ranking(scores, positive):
    """AP, hits and first rank, averaged over all orders of the ties, in exact fractions."""
    found = []
    for labels in orders(list(scores), list(positive)):
        ranks = [place for place, label in enumerate(labels, start=1) if label]
        ap = sum(Fraction(k, rank) for k, rank in enumerate(ranks, start=1)) / len(ranks)
        found.append([ap, *(Fraction(ranks[0] <= k) for k in (1, 5, 10)), Fraction(ranks[0])])
    return [float(sum(column) / len(found)) for column in zip(*found, strict=True)]


def ranking(scores, positive, draws=0, seed=0):
    """The same without ties (one order)."""
    order = np.argsort(-scores, kind="stable")
    ranks = np.flatnonzero(positive[order]) + 1
    ap = np.mean(np.arange(1, len(ranks) + 1) / ranks)
    return [ap, *(float(ranks[0] <= k) for k in (1, 5, 10)), float(ranks[0])]


def group_ranking(scores, positive):
    """AP and first rank under ties by summing over the positions of each tie group."""
    total, above, mine = 0.0, 0, 0
    first = None
    for value in sorted(set(scores.tolist()), reverse=True):
        n = int((scores == value).sum())
        r = int((scores[positive] == value).sum())
        for j in range(1, n + 1):
            if r:
                expected_before = (j - 1) * (r - 1) / (n - 1) if n > 1 else 0.0
                total += r / n * (mine + 1 + expected_before) / (above + j)
        if r and first is None:
            first = above + (n + 1) / (r + 1)
            hits = []
            for k in (1, 5, 10):
                miss = 1.0
                for drawn in range(max(0, min(k - above, n))):
                    miss *= max(n - r - drawn, 0) / (n - drawn)
                hits.append(1 - miss)
        above += n
        mine += r
    return [total / mine, *hits, first]
