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
LANES = 8
"""Weightings computed side by side: eight float64 are one vector register."""


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
    out = np.full((len(weights), 2), np.nan)
    left, right = probe[pairs.order], candidate[pairs.order]
    # Sums of whole numbers, exact in any order; classes that were not drawn stay NaN.
    size = weights.shape[1]
    own = np.bincount(left[pairs.positive], minlength=size)
    both = np.zeros((size, size))
    np.add.at(both, (left[~pairs.positive], right[~pairs.positive]), 1.0)
    totals = np.stack([weights @ own, ((weights @ both) * weights).sum(axis=1)], axis=1)
    usable = np.flatnonzero((totals > 0).all(axis=1))
    found = np.empty((len(usable), 2))
    # Replicates side by side, LANES at a time: one step through the pairs serves them all.
    lanes = np.ones((-(-len(usable) // LANES), size, LANES))
    sums = np.ones((len(lanes), 2, LANES))
    for lane in range(LANES):
        share = usable[lane::LANES]
        lanes[: len(share), :, lane] = weights[share]
        sums[: len(share), :, lane] = totals[share]

    def work(start: int, stop: int) -> None:
        for group in range(start, stop):
            block = np.empty((LANES, 2))
            _group(left, right, pairs.positive, pairs.last, lanes[group], sums[group], block)
            kept = found[group * LANES : (group + 1) * LANES]
            kept[:] = block[: len(kept)]

    over_rows(len(lanes), work)
    out[usable] = found
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
def _group(
    probe: Int64[np.ndarray, " pairs"],
    candidate: Int64[np.ndarray, " pairs"],
    positive: Bool[np.ndarray, " pairs"],
    last: Bool[np.ndarray, " pairs"],
    weights: Float64[np.ndarray, "identities lanes"],
    totals: Float64[np.ndarray, "two lanes"],
    out: Float64[np.ndarray, "lanes two"],
) -> None:
    """``_sweep`` for several weightings at once; ``totals``: of positives and of negatives."""
    area, eer = np.zeros(LANES), np.full(LANES, -1.0)
    accepted_true, accepted_false = np.zeros(LANES), np.zeros(LANES)
    new_true, new_false = np.zeros(LANES), np.zeros(LANES)
    per_true, per_false = 1.0 / totals[0], 1.0 / totals[1]
    open_lanes = LANES
    for index in range(len(probe)):
        own = weights[probe[index]]
        if positive[index]:
            for lane in range(LANES):
                new_true[lane] += own[lane]
        else:
            other = weights[candidate[index]]
            for lane in range(LANES):
                new_false[lane] += own[lane] * other[lane]
        if not last[index]:
            continue
        if open_lanes > 0:
            furthest = -1.0
            for lane in range(LANES):
                ahead = (accepted_false[lane] + new_false[lane]) * per_false[lane]
                ahead += (accepted_true[lane] + new_true[lane]) * per_true[lane]
                furthest = max(furthest, ahead if eer[lane] < 0.0 else -1.0)
            # With room for rounding; the lanes themselves are then looked at exactly.
            if furthest >= 1.0 - 1e-9:
                for lane in range(LANES):
                    before = accepted_false[lane] / totals[1, lane]
                    before += accepted_true[lane] / totals[0, lane] - 1.0
                    step = new_false[lane] / totals[1, lane] + new_true[lane] / totals[0, lane]
                    if eer[lane] < 0.0 and before + step >= 0.0 and step > 0.0:
                        part = min(max(-before / step, 0.0), 1.0)
                        crossing = accepted_false[lane] + part * new_false[lane]
                        eer[lane] = crossing / totals[1, lane]
                        open_lanes -= 1
        for lane in range(LANES):
            area[lane] += new_false[lane] * (accepted_true[lane] + 0.5 * new_true[lane])
            accepted_true[lane] += new_true[lane]
            accepted_false[lane] += new_false[lane]
            new_true[lane] = 0.0
            new_false[lane] = 0.0
    for lane in range(LANES):
        out[lane, 0] = area[lane] / (totals[0, lane] * totals[1, lane])
        # Rounding may leave the last point a hair below 1.
        out[lane, 1] = eer[lane] if eer[lane] >= 0.0 else 1.0
