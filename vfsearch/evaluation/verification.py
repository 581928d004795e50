"""Verification: area under the ROC and equal error rate, with ties and weights.

The ROC joins by straight lines the points (false accepts, true accepts) of all distinct
thresholds, from (0, 0) to (1, 1). A group of tied scores is thus one line, as if its pairs came in
random order: the area is the Mann-Whitney probability with half credit for ties, and the equal
error rate, where false accepts equal false rejects on that line, is exactly 0.5 for constant
scores. No convex hull is taken.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from vfsearch.evaluation.compiled import compiled, over_rows

METRICS = ("auc", "eer")


@dataclass(frozen=True, kw_only=True, eq=False)
class SortedPairs:
    """Pairs from the highest score to the lowest."""

    order: Int64[np.ndarray, " pairs"]
    """Original index of each sorted pair."""
    positive: Bool[np.ndarray, " pairs"]
    last: Bool[np.ndarray, " pairs"]
    """Whether the next pair's score is lower: the end of a tie group."""

    @staticmethod
    def of(
        scores: Float[np.ndarray, " pairs"], positive: Bool[np.ndarray, " pairs"]
    ) -> "SortedPairs":
        """Sort once; every weighting of the pairs is then one pass."""
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        return SortedPairs(
            order=order,
            positive=np.ascontiguousarray(positive[order]),
            last=np.concatenate([ranked[1:] != ranked[:-1], [True]]),
        )


def auc_eer(
    scores: Float[np.ndarray, " pairs"], positive: Bool[np.ndarray, " pairs"]
) -> tuple[float, float]:
    """Area under the ROC and equal error rate; both classes must be there."""
    pairs = SortedPairs.of(scores, positive)
    out = np.empty(2)
    _sweep(np.ones(len(scores)), pairs.positive, pairs.last, out)
    return float(out[0]), float(out[1])


def placements(
    scores: Float[np.ndarray, " pairs"], positive: Bool[np.ndarray, " pairs"]
) -> Float64[np.ndarray, " pairs"]:
    """Share of the other class that each pair stands on the right side of, ties half.

    The mean over either class is the AUC (DeLong, DeLong & Clarke-Pearson 1988).
    """
    overall = _middle_ranks(scores)
    out = np.empty(len(scores))
    for own in (positive, ~positive):
        # Rank among all less rank among one's own: how many of the other class are below.
        out[own] = (overall[own] - _middle_ranks(scores[own])) / (~own).sum()
    out[~positive] = 1.0 - out[~positive]
    return out


def _middle_ranks(values: Float[np.ndarray, " items"]) -> Float64[np.ndarray, " items"]:
    """Ranks from 1, ties at the middle of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Float64[np.ndarray, " items"] = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks


def weighted_auc_eer(
    pairs: SortedPairs,
    probe: Int64[np.ndarray, " pairs"],
    candidate: Int64[np.ndarray, " pairs"],
    weights: Float64[np.ndarray, "replicates identities"],
) -> Float64[np.ndarray, "replicates two"]:
    """AUC and EER of every replicate of the identities' weights.

    A pair of two identities weighs the product of their weights, a pair of one identity its
    weight once (it was drawn once, voice and face together).

    Args:
        pairs: sorted once.
        probe: identity of the probe, in the original order of the pairs.
        candidate: identity of the candidate.
        weights: how often each identity was drawn.
    """
    out = np.empty((len(weights), 2))
    left, right = probe[pairs.order], candidate[pairs.order]

    def work(start: int, stop: int) -> None:
        _replicates(left, right, pairs.positive, pairs.last, weights[start:stop], out[start:stop])

    over_rows(len(weights), work)
    return out


@compiled
def _sweep(
    weight: Float64[np.ndarray, " pairs"],
    positive: Bool[np.ndarray, " pairs"],
    last: Bool[np.ndarray, " pairs"],
    out: Float64[np.ndarray, " two"],
) -> None:
    positives = negatives = 0.0
    for index in range(len(weight)):
        if positive[index]:
            positives += weight[index]
        else:
            negatives += weight[index]
    if positives <= 0 or negatives <= 0:
        out[:] = np.nan
        return
    area = 0.0
    eer = -1.0
    accepted_true = accepted_false = new_true = new_false = 0.0
    for index in range(len(weight)):
        if positive[index]:
            new_true += weight[index]
        else:
            new_false += weight[index]
        if not last[index]:
            continue
        area += new_false * (accepted_true + 0.5 * new_true)
        if eer < 0:
            # False accepts minus false rejects grows from -1 to 1; its zero is on this line.
            before = accepted_false / negatives + accepted_true / positives - 1.0
            step = new_false / negatives + new_true / positives
            if before + step >= 0.0 and step > 0.0:
                part = min(max(-before / step, 0.0), 1.0)
                eer = (accepted_false + part * new_false) / negatives
        accepted_true += new_true
        accepted_false += new_false
        new_true = new_false = 0.0
    out[0] = area / (positives * negatives)
    # Rounding may leave the last point a hair below 1.
    out[1] = eer if eer >= 0.0 else 1.0


@compiled
def _replicates(
    probe: Int64[np.ndarray, " pairs"],
    candidate: Int64[np.ndarray, " pairs"],
    positive: Bool[np.ndarray, " pairs"],
    last: Bool[np.ndarray, " pairs"],
    weights: Float64[np.ndarray, "replicates identities"],
    out: Float64[np.ndarray, "replicates two"],
) -> None:
    product = np.empty(len(probe), np.float64)
    for replicate in range(len(weights)):
        drawn = weights[replicate]
        for index in range(len(probe)):
            weight = drawn[probe[index]]
            product[index] = weight if positive[index] else weight * drawn[candidate[index]]
        _sweep(product, positive, last, out[replicate])
