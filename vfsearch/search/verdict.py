"""Who won a race: pure statistics and a pure decision, both without study, model or cluster.

Two things move the mean of a trial's fresh seeds: which identities the split holds, common to all
finalists, and the luck of the seeds, each finalist's own. An interval that knows only the first
separates two lucky runs of one setting; see ``docs/decisions/010-racing.md``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Float64

from vfsearch.config import Section
from vfsearch.errors import SweepError
from vfsearch.evaluation.significance import holm

Direction = Literal["maximize", "minimize"]
ALPHA = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Finalist:
    """A trial with its fresh seeds, measured."""

    number: int
    values: tuple[float, ...]
    """The metric of each seed."""
    replicates: Float64[np.ndarray, " replicates"]
    """Mean over the seeds in every draw of identities; the draws are the same for all finalists."""


class Standing(Section):
    """Where a finalist stands."""

    number: int
    mean: float
    """Over its seeds."""
    interval: tuple[float, float]
    """95 %, over identities and seeds."""


class Duel(Section):
    """Two finalists; the difference is positive where the first is better."""

    first: int
    second: int
    difference: float
    interval: tuple[float, float]
    """95 %, both under the same draws of identities, each under its own seeds."""
    p_value: float
    """Two-sided, of the same draws as the interval."""
    adjusted: float
    """Holm's correction over all pairs of finalists."""

    @property
    def separated(self) -> bool:
        """Whether the interval excludes 0 and the corrected p-value agrees."""
        low, high = self.interval
        return (low > 0 or high < 0) and self.adjusted <= ALPHA


class Decision(Section):
    """The verdict, with its reasons."""

    winner: int | None
    """None: not distinguishable."""
    leader: int
    """Best mean; the winner if there is one."""
    tied: tuple[int, ...]
    """The leader and all that are not distinguishable from it; empty with a winner."""
    reasons: tuple[str, ...]
    """One per finalist other than the leader."""
    text: str


def seed_deviation(finalists: Sequence[Finalist]) -> tuple[float, int]:
    """Standard deviation between seeds of one trial, pooled, and its degrees of freedom.

    Raises:
        SweepError: fewer than two seeds everywhere.
    """
    squares = sum(
        float(np.square(np.subtract(f.values, np.mean(f.values))).sum()) for f in finalists
    )
    freedom = sum(len(f.values) - 1 for f in finalists)
    if freedom < 1:
        raise SweepError("a race needs two seeds or more: one says nothing about the others")
    return float(np.sqrt(squares / freedom)), freedom


def compare(
    finalists: Sequence[Finalist], direction: Direction, *, seed: int = 0
) -> tuple[tuple[Standing, ...], tuple[Duel, ...]]:
    """Intervals of the finalists and of all their differences.

    To each draw of identities comes one of the seeds' luck: a normal deviate of every finalist's
    mean, with a standard deviation drawn from its own uncertainty (inverse chi-squared), so that
    without variance between identities the interval is Student's t interval.

    Raises:
        SweepError: fewer than two seeds; too few replicates for a p-value to reach 5 % after
            Holm's correction.
    """
    deviation, freedom = seed_deviation(finalists)
    size, pairs = len(finalists[0].replicates), len(finalists) * (len(finalists) - 1) // 2
    if 2 * pairs / (size + 1) > ALPHA:
        raise SweepError(
            f"{len(finalists)} finalists need {int(2 * pairs / ALPHA)} replicates or more to be "
            f"told apart, not {size}"
        )
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 2])))
    luck = deviation * np.sqrt(freedom / random.chisquare(freedom, size))
    # In the order of the numbers, so that the order of the finalists changes nothing.
    drawn = {
        f.number: f.replicates + luck * random.standard_normal(size) / np.sqrt(len(f.values))
        for f in sorted(finalists, key=lambda f: f.number)
    }
    means = {f.number: float(np.mean(f.values)) for f in finalists}
    sign = 1.0 if direction == "maximize" else -1.0
    standings = [
        Standing(number=number, mean=means[number], interval=_interval(drawn[number]))
        for number in sorted(means, key=lambda n: (-sign * means[n], n))
    ]
    order = [standing.number for standing in standings]
    found = []
    for first, second in combinations(order, 2):
        moved = sign * (drawn[first] - drawn[second])
        found.append((first, second, sign * (means[first] - means[second]), moved))
    p_values = [_p_value(moved) for *_, moved in found]
    duels = [
        Duel(
            first=first,
            second=second,
            difference=difference,
            interval=_interval(moved),
            p_value=p_value,
            adjusted=adjusted,
        )
        for (first, second, difference, moved), p_value, adjusted in zip(
            found, p_values, holm(p_values), strict=True
        )
    ]
    return tuple(standings), tuple(duels)


def decide(standings: Sequence[Standing], duels: Sequence[Duel]) -> Decision:
    """Name the leader the winner if it is better than every other finalist beyond doubt.

    Args:
        standings: Best mean first.
        duels: Every pair; others than the leader's do not matter.
    """
    leader, others = standings[0].number, [s.number for s in standings[1:]]
    by_pair = {frozenset((duel.first, duel.second)): duel for duel in duels}
    reasons, tied = [], []
    for other in others:
        duel = by_pair[frozenset((leader, other))]
        better = duel.difference > 0 if duel.first == leader else duel.difference < 0
        beaten = duel.separated and better
        if not beaten:
            tied.append(other)
        low, high = (
            duel.interval if duel.first == leader else (-duel.interval[1], -duel.interval[0])
        )
        reasons.append(
            f"trial {leader} is {'better than' if beaten else 'not distinguishable from'} trial "
            f"{other}: difference {abs(duel.difference):.4f}, 95 % interval {low:.4f} to "
            f"{high:.4f}, p {duel.adjusted:.3g} (Holm)"
        )
    worse = ", ".join(str(number) for number in others if number not in tied)
    if not tied:
        text = f"trial {leader} wins: better than {worse} over fresh seeds and identities"
    else:
        names = ", ".join(str(number) for number in (leader, *tied))
        text = f"not distinguishable: trials {names}"
        if worse:
            text += f"; trial {leader} leads, and is better than {worse}"
    return Decision(
        winner=None if tied else leader,
        leader=leader,
        tied=(leader, *tied) if tied else (),
        reasons=tuple(reasons),
        text=text,
    )


def _interval(drawn: Float64[np.ndarray, " replicates"]) -> tuple[float, float]:
    low, high = np.nanpercentile(drawn, [100 * ALPHA / 2, 100 * (1 - ALPHA / 2)])
    return float(low), float(high)


def _p_value(moved: Float64[np.ndarray, " replicates"]) -> float:
    """Twice the share of draws on the other side of 0; the observed counts as one draw."""
    kept = moved[~np.isnan(moved)]
    other = min(int((kept <= 0).sum()), int((kept >= 0).sum()))
    return min(1.0, 2 * (1 + other) / (1 + len(kept)))
