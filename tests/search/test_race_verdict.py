"""The verdict of a race: what it may conclude, and how often it is wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from vfsearch.errors import SweepError
from vfsearch.search.verdict import ALPHA, Decision, Finalist, compare, decide

SIZE = 400
value = st.floats(0, 1, allow_nan=False, width=32)


@st.composite
def races(draw: st.DrawFn) -> list[Finalist]:
    """Finalists with a few seeds each, and replicates around their means."""
    count, seeds = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    spread = draw(st.sampled_from([0.0, 0.001, 0.05]))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    shared = random.normal(0, spread, SIZE)
    rows = [draw(st.lists(value, min_size=seeds, max_size=seeds)) for _ in range(count)]
    return [
        Finalist(
            number=number,
            values=tuple(row),
            replicates=np.mean(row) + shared + random.normal(0, spread / 4, SIZE),
        )
        for number, row in enumerate(rows)
    ]


def verdict(finalists: list[Finalist], direction: str = "maximize", seed: int = 0) -> Decision:
    return decide(*compare(finalists, direction, seed=seed))  # type: ignore[arg-type]


@settings(deadline=None)
@given(races())
def test_a_winner_is_separated_from_every_other_finalist(finalists: list[Finalist]) -> None:
    standings, duels = compare(finalists, "maximize")
    decision = decide(standings, duels)
    means = {f.number: np.mean(f.values) for f in finalists}
    assert means[decision.leader] == max(means.values())
    assert len(decision.reasons) == len(finalists) - 1
    mine = [duel for duel in duels if decision.leader in (duel.first, duel.second)]
    if decision.winner is not None:
        assert decision.winner == decision.leader
        assert decision.tied == ()
        for duel in mine:
            assert duel.interval[0] > 0 or duel.interval[1] < 0
            assert duel.adjusted <= ALPHA
    else:
        unclear = {n for duel in mine if not duel.separated for n in (duel.first, duel.second)}
        assert set(decision.tied) == unclear
        assert "not distinguishable" in decision.text
    assert all(duel.adjusted >= duel.p_value for duel in duels)


@settings(deadline=None)
@given(races(), st.randoms(use_true_random=False))
def test_the_order_of_the_finalists_does_not_matter(
    finalists: list[Finalist], order: object
) -> None:
    shuffled = list(finalists)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert verdict(shuffled) == verdict(finalists)


@settings(deadline=None)
@given(races())
def test_minimising_is_maximising_the_negative(finalists: list[Finalist]) -> None:
    mirrored = [
        Finalist(number=f.number, values=tuple(-v for v in f.values), replicates=-f.replicates)
        for f in finalists
    ]
    here, there = verdict(finalists), verdict(mirrored, "minimize")
    assert here.leader == there.leader
    # The seeds' luck is drawn with the other sign, so an interval at the very edge may differ.
    sure = all(abs(d.p_value - ALPHA) > 0.04 for d in compare(finalists, "maximize")[1])
    if sure and len(finalists) == 2:
        assert here.winner == there.winner


@settings(deadline=None)
@given(st.lists(value, min_size=2, max_size=5), st.integers(2, 5))
def test_equal_finalists_are_never_told_apart(values: list[float], count: int) -> None:
    alike = [
        Finalist(number=n, values=tuple(values), replicates=np.full(SIZE, np.mean(values)))
        for n in range(count)
    ]
    decision = verdict(alike)
    assert decision.winner is None
    assert decision.tied == tuple(range(count))


def test_without_variance_between_identities_the_interval_is_students() -> None:
    values = {0: (0.80, 0.82, 0.84), 1: (0.70, 0.71, 0.75)}
    flat = [
        Finalist(number=n, values=v, replicates=np.full(200_000, np.mean(v)))
        for n, v in values.items()
    ]
    _, (duel,) = compare(flat, "maximize")
    pooled = np.sqrt(np.mean([np.var(v, ddof=1) for v in values.values()]))
    half = student.ppf(0.975, 4) * pooled * np.sqrt(2 / 3)
    assert duel.interval == pytest.approx(
        (duel.difference - half, duel.difference + half), abs=2e-3
    )


@pytest.mark.parametrize("seed_spread", [0.0, 0.02])
def test_equally_good_settings_get_a_winner_in_at_most_one_race_of_twenty(
    seed_spread: float,
) -> None:
    random = np.random.default_rng(5)
    wrong, rounds, people, seeds, size = 0, 300, 60, 3, 999
    for _ in range(rounds):
        draws = random.multinomial(people, np.full(people, 1 / people), size=size) / people
        finalists = []
        for number in range(3):
            luck = random.normal(0, seed_spread, (seeds, 1))
            outcome = 0.8 + luck + random.normal(0, 0.05, (seeds, people))
            finalists.append(
                Finalist(
                    number=number,
                    values=tuple(outcome.mean(axis=1)),
                    replicates=draws @ outcome.mean(axis=0),
                )
            )
        wrong += verdict(finalists).winner is not None
    # Binomial: 5 % of 300 and three standard deviations.
    assert wrong <= 0.05 * rounds + 3 * np.sqrt(rounds * 0.05 * 0.95)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_clear_difference_is_found(seed: int) -> None:
    random = np.random.default_rng(seed)
    finalists = [
        Finalist(
            number=n,
            values=tuple(mean + 0.002 * np.array([-1, 0, 1])),
            replicates=mean + random.normal(0, 0.005, SIZE),
        )
        for n, mean in enumerate([0.7, 0.9, 0.8])
    ]
    decision = verdict(finalists)
    assert decision.winner == 1
    assert decision.text.startswith("trial 1 wins: better than 2, 0")


def test_what_cannot_be_decided_is_refused() -> None:
    single = [Finalist(number=n, values=(0.5,), replicates=np.full(SIZE, 0.5)) for n in range(2)]
    with pytest.raises(SweepError, match="two seeds or more"):
        compare(single, "maximize")
    few = [Finalist(number=n, values=(0.5, 0.6), replicates=np.full(50, 0.5)) for n in range(3)]
    with pytest.raises(SweepError, match="need 120 replicates"):
        compare(few, "maximize")
