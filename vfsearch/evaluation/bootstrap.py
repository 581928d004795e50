"""Confidence intervals by resampling identities, from per-identity sums.

Queries of one identity resemble each other, so identities are drawn, not queries: M of M with
replacement, a voice and its face together. ``weights`` counts how often each was drawn. Two-way: a
query counts by its probe's identity and by its negatives' identities.

- Verification: a negative pair of identities a and b weighs w_a w_b, a positive pair of a weighs
  w_a; AUC and EER are computed anew with these weights.
- Matching: the product of N weights would be dominated by a few queries at N = 10. Its first order
  is used, w_a + sum_j (w_bj - 1) for probe a and negatives b_j, around the estimate t:
  t + sum_q (w_a + sum_j (w_bj - 1)) (credit_q - t) / sum_q w_a.
- Retrieval: exact in the probes (a weighted mean, a weighted median), first order in the gallery:
  the derivative of every probe's average precision by the weight of each other identity's items
  (infinitesimal jackknife). R@k and the median rank are not differentiable in those weights: their
  intervals are over probe identities only.

Drawing probes and negatives counts the noise of a single query once for each of its identities, and
centring a few identities hides a share of their variance. Accuracy's and AUC's replicates are
therefore moved from or towards the estimate by one factor, until their variance is
V = (sums by identity squared - (N-1) sums of queries squared) (M / (M-N))^2, never below that of
independent queries, times (t_{M-1} / z)^2 for the 97.5 % quantiles. EER is left as drawn, wider.
"""

import numpy as np
from jaxtyping import Float64, Int64
from scipy.special import ndtri, stdtrit

from vfsearch.evaluation.measure import Measured, Resolved
from vfsearch.evaluation.retrieval import METRICS as RETRIEVAL
from vfsearch.evaluation.verification import SortedPairs, placements, weighted_auc_eer

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
        return _verification(measured, weights)
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
    credit = measured.outcome[:, 0]
    estimate = float(credit.mean())
    residual = credit - estimate
    negatives = resolved.candidate[:, 1:]
    sums = np.bincount(resolved.probe, weights=residual, minlength=size)
    for column in negatives.T:
        sums += np.bincount(column, weights=residual, minlength=size)
    noise = float((residual**2).sum())
    repeated = negatives.shape[1] * noise
    variance = _variance(sums, noise, repeated, _identities(resolved), resolved.queries.gallery)
    counts = np.bincount(resolved.probe, minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = (weights @ sums) / (weights @ counts)
    return _drawn_together(estimate + moved, estimate, variance / len(credit) ** 2)


def _verification(
    measured: Measured, weights: Float64[np.ndarray, "replicates ids"]
) -> dict[str, Float64[np.ndarray, " replicates"]]:
    resolved, size = measured.resolved, weights.shape[1]
    scores, positive = measured.outcome[:, 0], resolved.positive
    pairs = SortedPairs.of(scores, positive)
    found = weighted_auc_eer(pairs, resolved.probe, resolved.candidate[:, 0], weights)
    # A pair's influence on the AUC: its placement among the other class, centred, over its class.
    placement = placements(scores, positive)
    estimate = float(placement[positive].mean())
    influence = (placement - estimate) / np.where(positive, positive.sum(), (~positive).sum())
    rest = ~positive
    sums = np.bincount(resolved.probe, weights=influence, minlength=size)
    sums += np.bincount(resolved.candidate[rest, 0], weights=influence[rest], minlength=size)
    noise = float((influence**2).sum())
    twice = float((influence[rest] ** 2).sum())
    variance = _variance(sums, noise, twice, _identities(resolved), 2)
    return {
        "auc": _drawn_together(found[:, 0], estimate, variance),
        "eer": found[:, 1],
    }


def _identities(resolved: Resolved) -> int:
    return len(np.union1d(resolved.probe, resolved.candidate))


def _variance(
    sums: Float64[np.ndarray, " ids"], noise: float, repeated: float, identities: int, gallery: int
) -> float:
    """V of the module's text, for queries whose residuals squared sum to ``noise``."""
    shared = float((sums**2).sum()) - repeated
    hidden = identities / max(identities - gallery, 1)
    upper = (1 + LEVEL) / 2
    wide = float(stdtrit(max(identities - 1, 1), upper) / ndtri(upper))
    return max(shared * hidden**2, noise) * wide**2


def _drawn_together(
    found: Float64[np.ndarray, " replicates"], estimate: float, variance: float
) -> Float64[np.ndarray, " replicates"]:
    """Replicates moved towards the estimate by one factor, to the variance wanted."""
    spread = float(np.nanmean((found - estimate) ** 2))
    factor = np.sqrt(variance / spread) if spread > 0 else 1.0
    clipped: Float64[np.ndarray, " replicates"]
    clipped = np.clip(estimate + factor * (found - estimate), 0.0, 1.0)
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
