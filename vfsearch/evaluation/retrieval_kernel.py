"""Ranks of the positives in rows of scores, without sorting the rows.

Per probe only the tie groups that hold positives matter: how many gallery items score above each
and how many are equal. The positives' scores are sorted; every other score finds its place among
them through a table of equal-width bins over their range, most of which hold none or one of them.
"""

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt16, UInt32

from vfsearch.evaluation.compiled import compiled
from vfsearch.evaluation.ranking import rank_metrics

BINS = 2048
_BLOCK = 1024
# Unsigned indices: signed ones cost a test for negative wrap-around each.
_Index = np.uintp


@compiled
def _count(
    line: Float32[np.ndarray, " gallery"],
    thresholds: Float32[np.ndarray, " groups_and_one"],
    groups: int,
    table: UInt32[np.ndarray, " bins_and_one"],
    places: UInt16[np.ndarray, " block"],
    counts: Int64[np.ndarray, " slots"],
    items: Int32[np.ndarray, " gallery"],
    plain: bool,
) -> None:
    """Count the scores between thresholds g-1 and g in slot 2g, those equal to g in 2g+1."""
    low = thresholds[0]
    width = thresholds[groups - 1] - low
    # A range too narrow to divide by: one bin, in which the walk below finds every place.
    scale = np.float32(BINS - 1) / width if width > np.float32(1e-30) else np.float32(0)
    # table[b]: the first threshold whose bin is not below b. Scores and thresholds go through
    # the same monotone arithmetic, so a score's place is never before table[its bin].
    filled = 0
    for group in range(groups):
        place = np.int32((thresholds[group] - low) * scale)
        while filled <= place:
            table[filled] = group
            filled += 1
    while filled <= BINS:
        table[filled] = groups
        filled += 1
    floor, high, one = np.float32(0), np.float32(BINS), _Index(1)
    for offset in range(0, len(line), _BLOCK):
        block = line[offset : offset + _BLOCK]
        for index in range(len(block)):
            spot = (block[index] - low) * scale
            spot = spot if spot > floor else floor
            spot = spot if spot < high else high
            places[index] = np.uint16(np.int32(spot))
        if plain:
            for index in range(len(block)):
                score = block[index]
                slot = _Index(table[_Index(places[index])])
                # Most scores move on by none or one: that step costs no branch.
                slot += _Index(thresholds[slot] < score)
                while thresholds[slot] < score:
                    slot += one
                counts[slot + slot + _Index(thresholds[slot] == score)] += 1
        else:
            for index in range(len(block)):
                score = block[index]
                slot = _Index(table[_Index(places[index])])
                while thresholds[slot] < score:
                    slot += one
                counts[slot + slot + _Index(thresholds[slot] == score)] += items[offset + index]


@compiled
def rank_rows(
    scores: Float32[np.ndarray, "rows gallery"],
    start: int,
    stop: int,
    probe_identity: Int64[np.ndarray, " rows"],
    first: Int64[np.ndarray, " identities_and_one"],
    positives: Int64[np.ndarray, " entries"],
    copies: Int64[np.ndarray, " entries"],
    items: Int32[np.ndarray, " gallery"],
    plain: bool,
    harmonics: Float64[np.ndarray, " terms"],
    out: Float64[np.ndarray, "rows columns"],
) -> None:
    """Metrics (columns of ``ranking``) of rows start..stop.

    Args:
        scores: of each row's probe with the distinct gallery embeddings, finite.
        start: first row.
        stop: row after the last.
        probe_identity: identity of each row's probe.
        first: ``positives[first[i]:first[i + 1]]`` are the gallery columns of identity i.
        positives: gallery columns, grouped by identity.
        copies: items of that identity in that column.
        items: items of any identity in each column.
        plain: every column is one item (the usual case, and faster).
        harmonics: up to the number of gallery items.
        out: results, one row per probe.
    """
    longest = np.max(np.diff(first))
    thresholds = np.empty(longest + 1, np.float32)
    owned = np.empty(longest, np.int64)
    counts = np.empty(2 * longest + 2, np.int64)
    above = np.empty(longest, np.int64)
    tied = np.empty(longest, np.int64)
    table = np.empty(BINS + 1, np.uint32)
    places = np.empty(_BLOCK, np.uint16)
    for row in range(start, stop):
        line = scores[row]
        begin, end = first[probe_identity[row]], first[probe_identity[row] + 1]
        known = line[positives[begin:end]]
        order = np.argsort(known)
        groups = 0
        for rank in range(end - begin):
            value = known[order[rank]]
            if groups == 0 or value != thresholds[groups - 1]:
                thresholds[groups] = value
                owned[groups] = 0
                groups += 1
            owned[groups - 1] += copies[begin + order[rank]]
        thresholds[groups] = np.inf
        counts[: 2 * groups + 2] = 0
        _count(line, thresholds, groups, table, places, counts, items, plain)
        higher = counts[2 * groups]
        for group in range(groups):
            mirrored = groups - 1 - group
            above[group] = higher
            tied[group] = counts[2 * mirrored + 1]
            higher += tied[group] + counts[2 * mirrored]
        rank_metrics(
            above[:groups], tied[:groups], owned[:groups][::-1].copy(), harmonics, out[row]
        )
