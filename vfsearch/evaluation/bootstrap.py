"""Confidence intervals by resampling identities, from per-identity sums.

Queries of one identity resemble each other, so identities are drawn, not queries: M of M with
replacement, a voice and its face together. ``weights`` counts how often each was drawn. Two-way: a
query counts by its probe's identity and by its negatives' identities.

- Verification: a negative pair of identities a and b weighs w_a w_b, a positive pair of a weighs
  w_a; AUC and EER are computed anew with these weights.
- Matching: the product over all negatives would be dominated by a few queries at N = 10. Its first
  order in the negatives is used, w_a (1 + sum_j (w_bj - 1)), centred on the estimate t:
  t + sum_q w_a (1 + sum_j (w_bj - 1)) (credit_q - t) / sum_q w_a. It needs two matrices of
  sums over identities. At N = 2 it is w_a w_b but for the denominator.
- Retrieval: exact in the probes (a weighted mean, a weighted median), first order in the gallery:
  the derivative of every probe's average precision by the weight of each other identity's items
  (infinitesimal jackknife). R@k and the median rank are not differentiable in those weights: their
  intervals are over probe identities only.
"""

import numpy as np
from jaxtyping import Float64, Int64

from vfsearch.evaluation.measure import Measured, Resolved
from vfsearch.evaluation.retrieval import METRICS as RETRIEVAL
from vfsearch.evaluation.verification import METRICS as VERIFICATION
from vfsearch.evaluation.verification import SortedPairs, weighted_auc_eer

LEVEL = 0.95
_CHUNK = 100


def draw(resolved: Resolved, replicates: int, seed: int) -> Float64[np.ndarray, "replicates ids"]:
    """How often each identity of the list is drawn in each replicate; 0 for all others."""
    present = np.union1d(resolved.probe, resolved.candidate)
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, len(present)])))
    weights = np.zeros((replicates, len(resolved.identities)))
    share = np.full(len(present), 1.0 / len(present))
    weights[:, present] = random.multinomial(len(present), share, size=replicates)
    return weights


def replicates(
    measured: Measured, weights: Float64[np.ndarray, "replicates ids"]
) -> dict[str, Float64[np.ndarray, " replicates"]]:
    """Every metric of the list in every replicate; NaN where a replicate has no such queries."""
    kind = measured.resolved.queries.kind
    if kind == "match":
        return {"accuracy": _matching(measured, weights)}
    if kind == "verify":
        resolved = measured.resolved
        pairs = SortedPairs.of(measured.outcome[:, 0], resolved.positive)
        found = weighted_auc_eer(pairs, resolved.probe, resolved.candidate[:, 0], weights)
        return {name: found[:, column] for column, name in enumerate(VERIFICATION)}
    return _retrieval(measured, weights)


def intervals(
    found: dict[str, Float64[np.ndarray, " replicates"]], level: float = LEVEL
) -> dict[str, tuple[float, float]]:
    """Percentile interval of each metric."""
    tail = 100 * (1 - level) / 2
    out = {}
    for name, values in found.items():
        low, high = np.nanpercentile(values, [tail, 100 - tail])
        out[name] = (float(low), float(high))
    return out


def _matching(
    measured: Measured, weights: Float64[np.ndarray, "replicates ids"]
) -> Float64[np.ndarray, " replicates"]:
    resolved, size = measured.resolved, weights.shape[1]
    negatives = resolved.candidate[:, 1:]
    credit = measured.outcome[:, 0]
    estimate = credit.mean()
    residual = credit - estimate
    sums = np.bincount(resolved.probe, weights=residual, minlength=size)
    counts = np.bincount(resolved.probe, minlength=size)
    crossed = np.zeros((size, size))
    for column in negatives.T:
        cell = resolved.probe * size + column
        crossed += np.bincount(cell, weights=residual, minlength=size * size).reshape(size, size)
    probes = weights @ ((1 - negatives.shape[1]) * sums)
    cells = np.einsum("ra,ra->r", weights @ crossed, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        moved: Float64[np.ndarray, " replicates"] = (probes + cells) / (weights @ counts)
    clipped: Float64[np.ndarray, " replicates"] = np.clip(estimate + moved, 0.0, 1.0)
    return clipped


def _retrieval(
    measured: Measured, weights: Float64[np.ndarray, "replicates ids"]
) -> dict[str, Float64[np.ndarray, " replicates"]]:
    probe, outcome, size = measured.resolved.probe, measured.outcome, weights.shape[1]
    total = weights @ np.bincount(probe, minlength=size)
    out: dict[str, Float64[np.ndarray, " replicates"]] = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for column, name in enumerate(RETRIEVAL[:-1]):
            sums = np.bincount(probe, weights=outcome[:, column], minlength=size)
            out[name] = (weights @ sums) / total
    if measured.gallery_influence is not None:
        moved = (weights - 1.0) @ measured.gallery_influence
        out["map"] = np.clip(out["map"] + moved, 0.0, 1.0)
    out[RETRIEVAL[-1]] = _medians(outcome[:, -1], probe, weights)
    return out


def _medians(
    values: Float64[np.ndarray, " queries"],
    identity: Int64[np.ndarray, " queries"],
    weights: Float64[np.ndarray, "replicates ids"],
) -> Float64[np.ndarray, " replicates"]:
    """Weighted medians; the mean of both middle values where the weight halves between two."""
    order = np.argsort(values, kind="stable")
    ranked, owner = values[order], identity[order]
    out = np.empty(len(weights))
    for start in range(0, len(weights), _CHUNK):
        reached = np.cumsum(weights[start : start + _CHUNK][:, owner], axis=1)
        half = reached[:, -1:] / 2
        lower = (reached < half).sum(axis=1)
        upper = (reached <= half).sum(axis=1)
        middle = (ranked[lower] + ranked[np.minimum(upper, len(ranked) - 1)]) / 2
        out[start : start + _CHUNK] = np.where(half[:, 0] > 0, middle, np.nan)
    return out
