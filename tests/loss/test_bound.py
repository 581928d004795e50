"""Proposition 1 and Corollary 1: never violated, and the fast D_j is the naive one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vfsearch.loss.bound import BoundMeter, project_rows_

seeds = st.integers(0, 2**31)


def naive_distances(
    x: torch.Tensor, v: torch.Tensor, y: torch.Tensor, s: torch.Tensor, m: int
) -> list[float]:
    out = []
    for j in range(m):
        total = torch.zeros(x.shape[1], dtype=torch.float64)
        for i in range(len(x)):
            sign = m - 1 if y[i] == j else -1
            total += sign * s[y[i]] * (x[i] + v[i])
        out.append(float(total.norm()))
    return out


@settings(deadline=None)
@given(
    n=st.integers(1, 30),
    m=st.integers(2, 12),
    d=st.integers(1, 8),
    seed=seeds,
    scale=st.floats(1e-3, 30),
    weighted=st.booleans(),
    chunk=st.integers(1, 30),
)
def test_bound_holds_and_equals_the_double_loop(
    n: int, m: int, d: int, seed: int, scale: float, weighted: bool, chunk: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    x, v = (torch.randn(n, d, generator=g, dtype=torch.float64) * scale for _ in range(2))
    omega = torch.randn(m, d, generator=g, dtype=torch.float64) * scale
    y = torch.randint(0, m, (n,), generator=g)
    s = torch.rand(m, generator=g, dtype=torch.float64) if weighted else torch.ones(m).double()
    meter = BoundMeter(omega, s if weighted else None)
    for part in torch.arange(n).split(chunk):
        meter.add(x[part], v[part], y[part])
    bound = meter.measure()
    c = max(float(row.norm()) for row in omega)
    spread = sum(naive_distances(x, v, y, s, m))
    lower = 2 * math.log(m) * float(s[y].sum()) / n - c / (m * n) * spread
    assert bound.lower == pytest.approx(lower, rel=1e-9, abs=1e-9)
    assert bound.max_weight_norm == pytest.approx(c)
    assert bound.mean_weight_norm == pytest.approx(float(omega.norm(dim=1).mean()))
    assert bound.gap >= -1e-9 * (1 + abs(bound.lower))


def test_bound_is_tight_where_jensen_is() -> None:
    # All logits equal (omega = 0): loss = 2 log M = bound.
    meter = BoundMeter(torch.zeros(5, 3))
    meter.add(torch.randn(4, 3), torch.randn(4, 3), torch.arange(4))
    assert meter.measure().gap == pytest.approx(0, abs=1e-12)


def test_an_empty_bound_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        BoundMeter(torch.zeros(5, 3)).measure()


@settings(deadline=None)
@given(seed=seeds, bound=st.floats(0.01, 10))
def test_projection_is_onto_the_ball(seed: int, bound: float) -> None:
    weight = torch.randn(9, 4, generator=torch.Generator().manual_seed(seed))
    weight[0] = 0
    before = weight.clone()
    project_rows_(weight, bound)
    norms = before.norm(dim=1)
    inside = norms <= bound
    assert torch.equal(weight[inside], before[inside])
    assert torch.allclose(weight.norm(dim=1)[~inside], torch.tensor(bound), rtol=1e-5)
    assert torch.allclose(weight * norms[:, None], before * weight.norm(dim=1)[:, None], atol=1e-5)
