"""1:N matching: is the positive the best of its gallery?"""

import numpy as np
from jaxtyping import Float32, Float64


def credits(
    scores: Float32[np.ndarray, "queries gallery"],
) -> Float64[np.ndarray, " queries"]:
    """Credit of each query: 1 if the positive (column 0) is the best, 1/k if k tie for best.

    The mean is the accuracy expected when ties are broken at random; a constant scorer has 1/N.
    """
    best = scores.max(axis=1, keepdims=True)
    return np.where(scores[:, 0] == best[:, 0], 1.0 / (scores == best).sum(axis=1), 0.0)
