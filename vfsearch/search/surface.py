"""Contours of the objective over two parameters, with nothing drawn where nothing was tried."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import contourpy
import numpy as np
from jaxtyping import Float
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

STEPS = 48
LEVELS = 7
SIDE = 1000
"""Paths are in a square of this side, y upwards turned to SVG's y downwards."""
SUPPORT = 0.5
"""Kernel weight of the trials nearby below which a point is left blank; 1 is a trial just there."""


def unit(distribution: BaseDistribution, value: Any) -> float | None:
    """Position of a value between the ends of its range on its scale, in [0, 1]; None: no number.

    An integer's or real's range of one value has no positions either.
    """
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return None
    if distribution.low == distribution.high:
        return None
    low, high, at = float(distribution.low), float(distribution.high), float(value)
    if distribution.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low)


def contours(
    points: Float[np.ndarray, "trials 2"],
    values: Float[np.ndarray, " trials"],
    edges: Sequence[float],
) -> list[str]:
    """Filled contours of a kernel mean (Nadaraya-Watson, Scott's bandwidth for a uniform design).

    Args:
        points: Positions of the trials in the unit square.
        values: Objective of the trials.
        edges: Bounds between the levels, ascending.

    Returns:
        One SVG path per level, ``len(edges) + 1`` of them, empty where the level does not occur.
    """
    width = math.sqrt(1 / 12) * len(values) ** (-1 / 6)
    axis = np.linspace(0, 1, STEPS)
    grid_x, grid_y = np.meshgrid(axis, axis)
    squares = (grid_x[..., None] - points[:, 0]) ** 2 + (grid_y[..., None] - points[:, 1]) ** 2
    weights = np.exp(-squares / (2 * width**2))
    support = weights.sum(axis=-1)
    mean = (weights * values).sum(axis=-1) / np.maximum(support, 1e-12)
    generator = contourpy.contour_generator(
        x=axis * SIDE,
        y=(1 - axis) * SIDE,
        z=np.ma.array(mean, mask=support < SUPPORT),
        fill_type=contourpy.FillType.OuterOffset,
    )
    bounds = [-math.inf, *edges, math.inf]
    return [_path(generator.filled(low, high)) for low, high in pairwise(bounds)]


def levels(values: Float[np.ndarray, " trials"]) -> list[float]:
    """Bounds of the colour levels: evenly spaced from the 5th percentile on; none for one value."""
    low, high = np.quantile(values, [0.05, 1.0])
    if not high > low:
        return []
    return [float(edge) for edge in np.linspace(low, high, LEVELS + 1)[1:-1]]


def _path(filled: Any) -> str:
    parts = []
    for outline, offsets in zip(*filled, strict=True):
        for start, end in pairwise(offsets):
            corners = " ".join(f"{x:.0f} {y:.0f}" for x, y in outline[start : end - 1])
            parts.append(f"M{corners}Z")
    return "".join(parts)
