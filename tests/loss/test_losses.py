"""Implicit and explicit loss against their naive definitions, and the gradients' balance."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vfsearch.loss.explicit import (
    ExplicitTerms,
    explicit_diagnostics,
    explicit_loss,
    explicit_terms,
)
from vfsearch.loss.implicit import cross_entropies, implicit_loss

sizes = st.integers(1, 9)
seeds = st.integers(0, 2**31)


def naive_explicit(a: torch.Tensor, c: torch.Tensor, y: torch.Tensor, m: float) -> list[float]:
    out = []
    for i in range(len(a)):
        hat = [row / row.norm() for row in c]
        total = m
        for j in range(len(a)):
            if y[j] != y[i]:
                total += math.exp(float(a[i] @ hat[j]) - float(a[i] @ hat[i]))
        out.append(math.log(total))
    return out


@settings(deadline=None)
@given(n=sizes, d=sizes, seed=seeds, m=st.floats(1, 20), scale=st.floats(0.1, 5))
def test_explicit_is_eq_5(n: int, d: int, seed: int, m: float, scale: float) -> None:
    g = torch.Generator().manual_seed(seed)
    a, c = (torch.randn(n, d, generator=g, dtype=torch.float64) * scale for _ in range(2))
    y = torch.randint(0, 5, (n,), generator=g)
    terms = explicit_terms(a, c, y, m)
    assert terms.loss.tolist() == pytest.approx(naive_explicit(a, c, y, m), abs=1e-9)
    assert (terms.loss >= math.log(m) - 1e-12).all()


@settings(deadline=None)
@given(n=st.integers(2, 9), seed=seeds, m=st.floats(1, 20))
def test_gradient_masses_are_autograds(n: int, seed: int, m: float) -> None:
    g = torch.Generator().manual_seed(seed)
    a, c = (torch.randn(n, 6, generator=g, dtype=torch.float64) for _ in range(2))
    y = torch.arange(n)
    terms = explicit_terms(a, c, y, m)
    sim = (a @ F.normalize(c, dim=1).T).requires_grad_()
    neg = torch.exp(sim - sim.diagonal()[:, None]) * (1 - torch.eye(n, dtype=torch.float64))
    torch.log(m + neg.sum(1)).sum().backward()
    grad = sim.grad
    off = grad - torch.diag(grad.diagonal())
    assert torch.allclose(terms.positive_mass, grad.diagonal().abs())
    assert torch.allclose(terms.negative_mass, off.abs().sum(1))
    assert torch.allclose(terms.hardest_mass, off.abs().max(1).values)
    # The supplement's claim (sec. 2.2): no imbalance of positives and negatives in Eq. 5.
    assert torch.allclose(terms.positive_mass, terms.negative_mass)


@pytest.mark.parametrize(("gap", "exact", "hinge"), [(-8.0, 1.69, 0.0), (0.0, 4.22, 4.4)])
def test_hinge_deviates_as_stated(gap: float, exact: float, hinge: float) -> None:
    # N = 64, m = 5.4, every negative at the same gap to the positive (METHOD.md, Losses).
    n = 64
    angle = torch.eye(n, dtype=torch.float64)
    terms = explicit_terms(-gap * angle, angle, torch.arange(n), 5.4)
    assert terms.loss.mean().item() == pytest.approx(exact, abs=0.01)
    assert terms.hinge.mean().item() == pytest.approx(hinge, abs=1e-9)
    ones = torch.ones(n, dtype=torch.float64)
    deviation = explicit_diagnostics(terms, terms, ones)["explicit_deviation"].item()
    assert deviation == pytest.approx(2 * (hinge - exact), abs=0.02)


def test_margin_one_is_n_pair_cross_entropy() -> None:
    a, c = torch.randn(5, 3), torch.randn(5, 3)
    terms = explicit_terms(a, c, torch.arange(5), 1.0)
    logits = a @ F.normalize(c, dim=1).T
    assert torch.allclose(
        terms.loss, F.cross_entropy(logits, torch.arange(5), reduction="none"), atol=1e-6
    )


def test_only_the_candidates_norm_is_free() -> None:
    a, c = torch.randn(5, 3), torch.randn(5, 3)
    loss = explicit_terms(a, c, torch.arange(5), 5.4).loss
    assert torch.allclose(loss, explicit_terms(a, 7 * c, torch.arange(5), 5.4).loss, atol=1e-5)
    assert not torch.allclose(loss, explicit_terms(7 * a, c, torch.arange(5), 5.4).loss)


def test_batch_of_one_identity_has_finite_loss_and_no_gradient() -> None:
    a = torch.randn(3, 4, requires_grad=True)
    terms = explicit_terms(a, torch.randn(3, 4), torch.zeros(3, dtype=torch.long), 5.4)
    terms.loss.sum().backward()
    assert torch.allclose(terms.loss, torch.full((3,), math.log(5.4)))
    assert a.grad.abs().max() == 0


def test_extreme_similarities_stay_finite() -> None:
    a = torch.eye(4) * 1e4
    terms = explicit_terms(a, -torch.eye(4), torch.arange(4), 5.4)
    assert terms.loss.isfinite().all()
    assert terms.negative_mass.isfinite().all()


@settings(deadline=None)
@given(n=sizes, m=st.integers(2, 9), seed=seeds)
def test_implicit_is_the_definition(n: int, m: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x, v = (torch.randn(n, 4, generator=g, dtype=torch.float64) for _ in range(2))
    omega = torch.randn(m, 4, generator=g, dtype=torch.float64)
    y = torch.randint(0, m, (n,), generator=g)
    s = torch.rand(n, generator=g, dtype=torch.float64)
    ce = [
        [math.log(sum(math.exp(w @ e[i]) for w in omega)) - float(omega[y[i]] @ e[i])
         for i in range(n)]
        for e in (x, v)
    ]  # fmt: skip
    face, voice = cross_entropies(x, v, y, omega)
    assert face.tolist() == pytest.approx(ce[0], abs=1e-9)
    assert voice.tolist() == pytest.approx(ce[1], abs=1e-9)
    per_sample = sum(float(s[i]) * (ce[0][i] + ce[1][i]) for i in range(n)) / n
    mean = sum(map(sum, ce)) / n * float(s.mean())
    assert implicit_loss(face, voice, s, "per_sample").item() == pytest.approx(per_sample)
    assert implicit_loss(face, voice, s, "batch_mean").item() == pytest.approx(mean)


def test_explicit_is_weighted_per_sample() -> None:
    def terms(loss: list[float]) -> ExplicitTerms:
        t = torch.tensor(loss)
        return ExplicitTerms(
            loss=t, hinge=t, positive_mass=t, negative_mass=t, hardest_mass=t
        )  # fmt: skip

    weights = torch.tensor([0.0, 2.0])
    assert explicit_loss(terms([1.0, 3.0]), terms([5.0, 7.0]), weights).item() == 10.0
