"""The packed objective against each member's own, by autograd."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from vfsearch.config import LossConfig
from vfsearch.loss.packed import Factors, packed_objective
from vfsearch.training.objective import objective

losses = st.builds(
    LossConfig,
    implicit=st.floats(0.0, 3.0),
    explicit=st.floats(0.1, 3.0),
    margin=st.floats(1.0, 64.0),
    weight_ce=st.sampled_from(["per_sample", "batch_mean"]),
)


@given(
    members=st.lists(losses, min_size=1, max_size=4),
    batch=st.integers(2, 9),
    more=st.integers(0, 5),
    dim=st.integers(1, 7),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 5.0]),
    seed=st.integers(0, 2**16),
)
def test_every_member_has_its_own_objective_and_gradients(
    members: list[LossConfig], batch: int, more: int, dim: int, scale: float, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    count, identities = len(members), batch + more

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    faces, voices = normal(count, batch, dim) * scale, normal(count, batch, dim)
    omega, weights = normal(count, identities, dim), normal(count, identities).exp()
    labels = torch.stack([torch.randperm(identities, generator=random)[:batch] for _ in members])
    factors = Factors.of(members, torch.device("cpu"))

    packed = packed_objective(faces, voices, labels, omega, weights, factors)

    for k, config in enumerate(members):
        x, v, w = (t[k].clone().requires_grad_() for t in (faces, voices, omega))
        alone = objective(x, v, labels[k], w, weights[k], config)
        alone.loss.backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        assert v.grad is not None
        assert w.grad is not None
        for mine, its in (
            (packed.terms[k], alone.terms),
            (packed.identity_losses[k], alone.identity_losses),
            (packed.faces[k], x.grad),
            (packed.voices[k], v.grad),
            (packed.omega[k], w.grad),
        ):
            size = max(1.0, float(its.abs().max()))
            torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-6 * size)
