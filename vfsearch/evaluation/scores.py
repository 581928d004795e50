"""Cosine similarities of the pairs that a query list names."""

import numpy as np
import torch
from jaxtyping import Float32, Int64

from vfsearch.evaluation.compiled import compiled, over_rows

_GPU_ROWS = 1 << 18


def pair_scores(
    unit: Float32[np.ndarray, "items dim"],
    probes: Int64[np.ndarray, " queries"],
    candidates: Int64[np.ndarray, "queries gallery"],
    *,
    device: torch.device | str = "cpu",
) -> Float32[np.ndarray, "queries gallery"]:
    """Similarity of each query's probe with each of its candidates.

    Products and sums are in float64 and the result is rounded to float32, so that equal
    similarities are equal numbers whatever the order of the sum: ties stay ties.

    Args:
        unit: unit vectors.
        probes: row of each probe.
        candidates: rows of its candidates.
        device: where to compute.
    """
    out = np.empty(candidates.shape, np.float32)
    if torch.device(device).type == "cpu":
        over_rows(len(out), lambda a, b: _dots(unit, probes[a:b], candidates[a:b], out[a:b]))
        return out
    vectors = torch.from_numpy(unit).to(device, torch.float64)
    step = max(1, _GPU_ROWS // candidates.shape[1])
    for start in range(0, len(out), step):
        left = torch.from_numpy(probes[start : start + step]).to(device)
        right = torch.from_numpy(candidates[start : start + step]).to(device)
        dots = torch.einsum("qd,qnd->qn", vectors[left], vectors[right])
        out[start : start + step] = dots.float().cpu().numpy()
    return out


@compiled
def _dots(
    unit: Float32[np.ndarray, "items dim"],
    probes: Int64[np.ndarray, " queries"],
    candidates: Int64[np.ndarray, "queries gallery"],
    out: Float32[np.ndarray, "queries gallery"],
) -> None:
    width = unit.shape[1]
    whole = width - width % 8
    lanes = np.empty(8, np.float64)
    for query in range(len(probes)):
        left = unit[probes[query]]
        for place in range(candidates.shape[1]):
            right = unit[candidates[query, place]]
            # Eight sums side by side: a single one would wait for itself at every addition.
            lanes[:] = 0.0
            for index in range(0, whole, 8):
                for lane in range(8):
                    lanes[lane] += np.float64(left[index + lane]) * np.float64(right[index + lane])
            total = 0.0
            for lane in range(8):
                total += lanes[lane]
            for index in range(whole, width):
                total += np.float64(left[index]) * np.float64(right[index])
            out[query, place] = np.float32(total)
