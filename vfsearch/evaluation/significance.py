"""Models on the same queries: paired differences, intervals, p-values, Holm's correction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float64

from vfsearch.corpus.queries import QueryList
from vfsearch.corpus.strata import Person
from vfsearch.errors import QueryError
from vfsearch.evaluation.bootstrap import draw, intervals, replicates
from vfsearch.evaluation.embeddings import Embeddings
from vfsearch.evaluation.measure import Measured, measure, resolve
from vfsearch.evaluation.retrieval import METRICS as RETRIEVAL
from vfsearch.evaluation.verification import placements

_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One metric of one list, second model minus first."""

    name: str
    """Of the list."""
    metric: str
    first: str
    second: str
    values: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    """95 % interval of the difference: both models under the same draws of identities."""
    p_value: float | None
    """Two-sided, by flipping the sign of each probe identity's share of the difference; None where
    the metric is no sum over identities (EER, median rank): read the interval."""
    adjusted: float | None
    """Holm's correction over the pairs of models of this list and metric."""


def compare_lists(
    models: Mapping[str, Embeddings],
    lists: Sequence[QueryList],
    identities: Sequence[Person],
    *,
    bootstrap: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[Comparison]:
    """Compare every pair of models on every list.

    Raises:
        QueryError: fewer than two models, no replicates or permutations, or what evaluation raises.
    """
    if len(models) < 2:
        raise QueryError(f"a comparison needs two models or more, not {len(models)}")
    if bootstrap < 1 or permutations < 1:
        raise QueryError(
            "a comparison needs bootstrap >= 1 and permutations >= 1, "
            f"but bootstrap={bootstrap} and permutations={permutations}"
        )
    out: list[Comparison] = []
    for queries in lists:
        resolved = resolve(queries, identities)
        weights = draw(resolved, bootstrap, seed)
        measured = {
            name: measure(resolved, embeddings, influence=True, device=device)
            for name, embeddings in models.items()
        }
        values = {name: each.metrics() for name, each in measured.items()}
        redrawn = {name: replicates(each, weights) for name, each in measured.items()}
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1])))
        # The same flips for every metric and pair of models.
        signs = random.integers(0, 2, size=(permutations, len(identities))) * 2.0 - 1.0
        family: list[Comparison] = []
        for first, second in combinations(models, 2):
            shares = identity_shares(measured[first], measured[second])
            bounds = intervals(
                {key: redrawn[second][key] - redrawn[first][key] for key in values[first]}
            )
            family += [
                Comparison(
                    name=queries.name,
                    metric=key,
                    first=first,
                    second=second,
                    values=(values[first][key], values[second][key]),
                    difference=values[second][key] - values[first][key],
                    interval=bounds[key],
                    p_value=sign_flip(shares[key], signs) if key in shares else None,
                    adjusted=None,
                )
                for key in values[first]
            ]
        out += _adjust(family)
    return out


def identity_shares(first: Measured, second: Measured) -> dict[str, Float64[np.ndarray, " ids"]]:
    """Each probe identity's share of the metrics' differences; every array sums to its difference.

    A verification pair's share of the AUC is the fraction of the other class that it stands on the
    right side of (DeLong's placements), centred so that the shares of both classes sum to the AUC
    once.
    """
    resolved = first.resolved
    size = len(resolved.identities)

    def by_probe(values: Float64[np.ndarray, " queries"]) -> Float64[np.ndarray, " ids"]:
        return np.bincount(resolved.probe, weights=values, minlength=size)

    if resolved.queries.kind == "verify":
        positive = resolved.positive
        delta = placements(second.outcome[:, 0], positive)
        delta -= placements(first.outcome[:, 0], positive)
        count = np.where(positive, positive.sum(), (~positive).sum())
        return {"auc": by_probe((delta - delta[positive].mean() / 2) / count)}
    delta = (second.outcome - first.outcome) / len(resolved.probe)
    if resolved.queries.kind == "match":
        return {"accuracy": by_probe(delta[:, 0])}
    return {name: by_probe(delta[:, column]) for column, name in enumerate(RETRIEVAL[:-1])}


def sign_flip(
    shares: Float64[np.ndarray, " ids"], signs: Float64[np.ndarray, "permutations ids"]
) -> float:
    """Two-sided p-value: how often random signs give a sum as far from zero as the shares'.

    The observed signs count as one of the permutations, so p is never 0.
    """
    observed = abs(shares.sum())
    extreme = np.abs(signs @ shares) >= observed - _ROUNDING
    return float((1 + extreme.sum()) / (1 + len(signs)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given."""
    order = np.argsort(p_values, kind="stable")
    out = [0.0] * len(p_values)
    largest = 0.0
    for step, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[index]))
        out[index] = largest
    return out


def _adjust(family: list[Comparison]) -> list[Comparison]:
    out = list(family)
    for metric in dict.fromkeys(entry.metric for entry in family):
        places = [
            place
            for place, entry in enumerate(family)
            if entry.metric == metric and entry.p_value is not None
        ]
        corrected = holm([p for place in places if (p := family[place].p_value) is not None])
        for place, value in zip(places, corrected, strict=True):
            out[place] = replace(family[place], adjusted=value)
    return out
