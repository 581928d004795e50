"""Ranks of the positives in rows of scores, without sorting the rows.

Per probe only the tie groups that hold positives matter: how many gallery items score above each
and how many are equal. The positives' scores are sorted; every other score finds its place among
them through a table of equal-width bins over their range, most of which hold none or one of them.
"""

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt32

from vfsearch.evaluation.compiled import compiled
from vfsearch.evaluation.ranking import rank_metrics

BINS = 2048
# Unsigned indices: signed ones cost a test for negative wrap-around each.
_Index = np.uintp


@compiled
def sort_positives(
    known: Float32[np.ndarray, " positives"],
    copies: Int64[np.ndarray, " positives"],
    thresholds: Float32[np.ndarray, " groups_and_one"],
    owned: Int64[np.ndarray, " groups"],
) -> int:
    """Write the distinct scores, ascending and then infinity, and each one's items; their count."""
    order = np.argsort(known)
    groups = 0
    for rank in range(len(known)):
        value = known[order[rank]]
        if groups == 0 or value != thresholds[groups - 1]:
            thresholds[groups] = value
            owned[groups] = 0
            groups += 1
        owned[groups - 1] += copies[order[rank]]
    thresholds[groups] = np.inf
    return groups


@compiled
def find_slots(
    line: Float32[np.ndarray, " gallery"],
    thresholds: Float32[np.ndarray, " groups_and_one"],
    groups: int,
    table: UInt32[np.ndarray, " bins_and_one"],
    slots: UInt32[np.ndarray, " gallery"],
) -> None:
    """Slot of each score: 2g between thresholds g-1 and g, 2g+1 when equal to g."""
    low = thresholds[0]
    width = thresholds[groups - 1] - low
    # A range too narrow to divide by: one bin, in which the walk below finds every place.
    scale = np.float32(BINS - 1) / width if width > np.float32(1e-30) else np.float32(0)
    # table[b]: the first threshold whose bin is not below b. Scores and thresholds go through
    # the same monotone arithmetic, so a score's place is never before table[its bin].
    filled = 0
    for group in range(groups):
        bin_of_group = np.int32((thresholds[group] - low) * scale)
        while filled <= bin_of_group:
            table[filled] = group
            filled += 1
    while filled <= BINS:
        table[filled] = groups
        filled += 1
    floor, high, one = np.float32(0), np.float32(BINS), _Index(1)
    for index in range(len(line)):
        spot = (line[index] - low) * scale
        spot = spot if spot > floor else floor
        spot = spot if spot < high else high
        slots[index] = np.uint32(np.int32(spot))
    for index in range(len(line)):
        score = line[index]
        place = _Index(table[_Index(slots[index])])
        # Most scores move on by none or one: that step costs no branch.
        place += _Index(thresholds[place] < score)
        while thresholds[place] < score:
            place += one
        slots[index] = np.uint32(place + place + _Index(thresholds[place] == score))


@compiled
def _gains(
    above: Int64[np.ndarray, " groups"],
    tied: Int64[np.ndarray, " groups"],
    positive: Int64[np.ndarray, " groups"],
    gain: Float64[np.ndarray, " slots"],
) -> None:
    """How much average precision one more item in each slot takes away, to first order.

    A positive of rank n with k positives up to it gives k/n, and an item above it takes k/n^2.
    A tie group counts at its middle rank, and an item in it as half an item above.
    """
    groups = len(above)
    total = 0.0
    for group in range(groups):
        total += positive[group]
    before = 0.0
    for group in range(groups):
        middle = above[group] + (tied[group] + 1) / 2
        share = before + (positive[group] + 1) / 2
        gain[2 * (groups - 1 - group) + 1] = positive[group] * share / (middle * middle) / total
        before += positive[group]
    # gain[2g+1] holds group g's own loss; sum from the worst group upwards.
    reached = 0.0
    gain[0] = 0.0
    for group in range(groups):
        own = gain[2 * group + 1]
        gain[2 * group + 1] = reached + own / 2
        reached += own
        gain[2 * group + 2] = reached


@compiled
def rank_rows(
    scores: Float32[np.ndarray, "rows columns"],
    start: int,
    stop: int,
    probe_identity: Int64[np.ndarray, " rows"],
    first: Int64[np.ndarray, " identities_and_one"],
    positives: Int64[np.ndarray, " entries"],
    copies: Int64[np.ndarray, " entries"],
    owner: Int64[np.ndarray, " entries"],
    items: Int32[np.ndarray, " columns"],
    plain: bool,
    harmonics: Float64[np.ndarray, " terms"],
    out: Float64[np.ndarray, "rows results"],
    influence: Float64[np.ndarray, " identities_or_none"],
) -> None:
    """Metrics (columns of ``ranking``) of rows start..stop.

    Args:
        scores: of each row's probe with the gallery's columns, finite.
        start: first row.
        stop: row after the last.
        probe_identity: identity of each row's probe.
        first: ``positives[first[i]:first[i + 1]]`` are the gallery columns of identity i.
        positives: gallery columns, grouped by identity.
        copies: items of that identity in that column.
        owner: the identity itself.
        items: items of any identity in each column.
        plain: every column is one item (the usual case, and faster).
        harmonics: up to the number of gallery items.
        out: results, one row per probe.
        influence: derivative of the rows' summed average precision by the weight of each identity's
            gallery items, added up; empty: not wanted.
    """
    longest = np.max(np.diff(first))
    thresholds = np.empty(longest + 1, np.float32)
    owned = np.empty(longest, np.int64)
    counts = np.empty(2 * longest + 2, np.int64)
    above = np.empty(longest, np.int64)
    tied = np.empty(longest, np.int64)
    gain = np.empty(2 * longest + 2, np.float64)
    table = np.empty(BINS + 1, np.uint32)
    slots = np.empty(scores.shape[1], np.uint32)
    for row in range(start, stop):
        line = scores[row]
        identity = probe_identity[row]
        begin, end = first[identity], first[identity + 1]
        known = line[positives[begin:end]]
        groups = sort_positives(known, copies[begin:end], thresholds, owned)
        find_slots(line, thresholds, groups, table, slots)
        counts[: 2 * groups + 2] = 0
        if plain:
            for column in range(len(slots)):
                counts[_Index(slots[column])] += 1
        else:
            for column in range(len(slots)):
                counts[_Index(slots[column])] += items[column]
        higher = counts[2 * groups]
        for group in range(groups):
            mirrored = groups - 1 - group
            above[group] = higher
            tied[group] = counts[2 * mirrored + 1]
            higher += tied[group] + counts[2 * mirrored]
        best_first = owned[:groups][::-1].copy()
        rank_metrics(above[:groups], tied[:groups], best_first, harmonics, out[row])
        if len(influence) > 0:
            _gains(above[:groups], tied[:groups], best_first, gain)
            for entry in range(begin):
                slot = _Index(slots[positives[entry]])
                influence[owner[entry]] -= copies[entry] * gain[slot]
            for entry in range(end, len(positives)):
                slot = _Index(slots[positives[entry]])
                influence[owner[entry]] -= copies[entry] * gain[slot]
