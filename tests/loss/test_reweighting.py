"""The admission schedules: the released outcome, the limits of tau, the state."""

import math
from dataclasses import astuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vfsearch.config import ReweightingConfig
from vfsearch.loss.reweighting import (
    Admission,
    Reweighting,
    admit,
    admitted_at,
    identity_weights,
    is_complete,
)

CPU = torch.device("cpu")
RANK = ReweightingConfig(schedule="rank")


def naive_rank(history: list[list[float]], config: ReweightingConfig) -> list[list[float]]:
    """The released schedule, identity by identity; weights s (unscaled) after each update."""
    m = len(history[0])
    s = [0.0] * m
    out: list[list[float]] = []
    for update, losses in enumerate(history):
        inside = sum(value > 0 for value in s)
        if update == 0:
            count = max(1, int(config.admit_from * m))
        elif inside < config.admit_to * m:
            s = [config.age_factor * value for value in s]
            count = max(1, int(config.admit_step * m))
        else:
            count = 0
        waiting = sorted((losses[k], k) for k in range(m) if s[k] == 0)
        for _, k in waiting[:count]:
            s[k] = 1.0
        out.append(list(s))
    return out


def test_924_identities_give_836_admitted_and_88_never() -> None:
    g = torch.Generator().manual_seed(0)
    state = Admission.none(924, CPU)
    counts = []
    for _ in range(30):
        state = admit(state, torch.rand(924, generator=g), RANK)
        counts.append(int(state.admitted.sum()))
    assert counts[:3] == [462, 484, 506]
    assert counts[-1] == 836
    assert int((~state.admitted).sum()) == 88
    # Reached at the 18th update: step 500 + 17 x 100 = 2,200, before the stage ends at 2,400.
    assert counts.index(836) == 17
    assert state.updates == 18
    assert is_complete(RANK, 924, 18)
    assert not is_complete(RANK, 924, 17)


@settings(deadline=None)
@given(m=st.integers(2, 90), updates=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_rank_schedule_is_the_naive_one(m: int, updates: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    history = torch.rand(updates, m, generator=g)
    expected = naive_rank(history.tolist(), RANK)
    state = Admission.none(m, CPU)
    unit = RANK.model_copy(update={"scale": "unit"})
    for row, s in zip(history, expected, strict=True):
        state = admit(state, row, RANK)
        assert identity_weights(state, unit).tolist() == pytest.approx(s, rel=1e-5)
        scaled = identity_weights(state, RANK)
        assert scaled.tolist() == pytest.approx([v * m / sum(s) for v in s], rel=1e-4)
        assert int(state.admitted.sum()) == admitted_at(RANK, m, state.updates)


@settings(deadline=None)
@given(m=st.integers(2, 90), updates=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_small_tau_is_the_rank_schedule(m: int, updates: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    soft = ReweightingConfig(schedule="soft", temperature=1e-9)
    hard_state = soft_state = Admission.none(m, CPU)
    for _ in range(updates):
        # Losses drift and never tie: a permutation of distinct values.
        losses = torch.randperm(m, generator=g).float()
        hard_state, soft_state = admit(hard_state, losses, RANK), admit(soft_state, losses, soft)
        assert torch.equal(hard_state.admitted, soft_state.admitted)
        assert torch.equal(identity_weights(hard_state, RANK), identity_weights(soft_state, soft))


@settings(deadline=None)
@given(m=st.integers(2, 60), updates=st.integers(1, 30), seed=st.integers(0, 2**31))
def test_large_tau_is_uniform(m: int, updates: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    soft = ReweightingConfig(schedule="soft", temperature=1e6, age_factor=1.0)
    state = Admission.none(m, CPU)
    for _ in range(updates):
        state = admit(state, 14 * torch.rand(m, generator=g), soft)
    assert identity_weights(state, soft).tolist() == pytest.approx([1.0] * m, rel=1e-4)


@settings(deadline=None)
@given(
    m=st.integers(2, 60), updates=st.integers(1, 30), seed=st.integers(0, 2**31),
    tau=st.floats(1e-3, 1e3),
)  # fmt: skip
def test_soft_weights_are_in_range(m: int, updates: int, seed: int, tau: float) -> None:
    g = torch.Generator().manual_seed(seed)
    soft = ReweightingConfig(schedule="soft", temperature=tau)
    state = Admission.none(m, CPU)
    for _ in range(updates):
        state = admit(state, 14 * torch.rand(m, generator=g), soft)
        unit = identity_weights(state, soft.model_copy(update={"scale": "unit"}))
        assert ((unit >= 0) & (unit <= 1)).all()
        assert identity_weights(state, soft).mean().item() == pytest.approx(1, rel=1e-4)


def test_easier_is_stronger_in_the_soft_schedule() -> None:
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0])
    state = admit(Admission.none(4, CPU), losses, ReweightingConfig(temperature=0.5))
    assert state.admitted.tolist() == [True, True, False, False]
    expected = [1 / (1 + math.exp(-(2.5 - loss) / 0.5)) for loss in losses.tolist()]
    assert state.strength.tolist() == pytest.approx(expected)


def test_average_starts_at_two_log_m_and_moves_by_a_tenth() -> None:
    state = Reweighting(RANK, 924, CPU)
    assert state.losses[0].item() == pytest.approx(2 * math.log(924))
    assert state.losses[0].item() == pytest.approx(14.0, abs=0.4)
    fixed = Reweighting(ReweightingConfig(start_loss=14.0), 5, CPU)
    fixed.observe(torch.tensor([1, 3]), torch.tensor([4.0, 14.0]))
    assert fixed.losses.tolist() == pytest.approx([14.0, 13.0, 14.0, 14.0, 14.0])


def test_weights_are_uniform_before_the_first_update() -> None:
    state = Reweighting(ReweightingConfig(), 6, CPU)
    assert state.weights.tolist() == [1.0] * 6


def test_state_continues_identically() -> None:
    config = ReweightingConfig(temperature=0.7)
    g = torch.Generator().manual_seed(1)
    one = Reweighting(config, 20, CPU)
    for _ in range(3):
        one.observe(torch.randperm(20, generator=g)[:8], torch.rand(8, generator=g))
        one.admit()
    two = Reweighting(config, 20, CPU)
    two.restore({name: tensor.clone() for name, tensor in one.state().items()})
    for each in (one, two):
        each.observe(torch.arange(8), torch.linspace(0, 5, 8))
        each.admit()
    assert torch.equal(one.weights, two.weights)
    assert torch.equal(one.losses, two.losses)
    for a, b in zip(astuple(one.admission), astuple(two.admission), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
