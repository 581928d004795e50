"""Query lists evaluated: metrics, intervals, chance, oracles and the ceiling where known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from vfsearch.corpus.ceiling import Truth
from vfsearch.corpus.queries import Direction, Kind, QueryList
from vfsearch.corpus.strata import Person, Stratum
from vfsearch.errors import QueryError
from vfsearch.evaluation.bootstrap import draw, intervals, replicates
from vfsearch.evaluation.embeddings import Embeddings
from vfsearch.evaluation.measure import measure, resolve
from vfsearch.evaluation.oracles import (
    bayes_scores_of,
    chance_scores,
    gender_nationality_scores,
    gender_scores,
    measure_identities,
)

Scores = Float64[np.ndarray, "ids ids"]
ORACLES: dict[str, Callable[[Sequence[Person]], Scores]] = {
    "gender": gender_scores,
    "gender_nationality": gender_nationality_scores,
}


_CEILED = frozenset({"accuracy", "auc", "eer", "map", "r@1"})
"""Metrics that no score beats the likelihood ratio in; a list of ten faces may do better by not
showing one identity many times."""


@dataclass(frozen=True, kw_only=True)
class ListResult:
    """One list, evaluated. Metric keys: accuracy; auc, eer; map, r@1, r@5, r@10, median_rank."""

    name: str
    kind: Kind
    direction: Direction
    stratum: Stratum
    gallery: int
    """Candidates per query."""
    n: int
    """Queries."""
    metrics: dict[str, float]
    interval: dict[str, tuple[float, float]]
    """95 % interval by the two-way identity bootstrap; empty when it was skipped."""
    chance: dict[str, float]
    oracles: dict[str, dict[str, float]]
    ceiling: dict[str, float] = field(default_factory=dict)
    """The Bayes-optimal score's metrics where it is optimal, of a corpus that knows it."""
    fraction_of_bayes: dict[str, float] = field(default_factory=dict)
    """(metric - chance) / (ceiling - chance)."""


def evaluate_lists(
    embeddings: Embeddings,
    lists: Sequence[QueryList],
    identities: Sequence[Person],
    *,
    bootstrap: int = 2000,
    seed: int = 0,
    truth: Truth | None = None,
    device: torch.device | str = "cpu",
) -> list[ListResult]:
    """Evaluate embeddings on query lists.

    Args:
        embeddings: voices and faces, by path.
        lists: as read or generated.
        identities: of the split's CSV.
        bootstrap: replicates of the intervals; 0 skips them.
        seed: of the bootstrap.
        truth: latents of a synthetic corpus, for the Bayes ceiling.
        device: where the similarities are computed.

    Raises:
        QueryError: see ``resolve`` and ``measure``; a truth of another corpus; bootstrap < 0.
    """
    if bootstrap < 0:
        raise QueryError(f"bootstrap replicates must be 0 or more, not {bootstrap}")
    tables = {name: scores(identities) for name, scores in ORACLES.items()}
    return [
        _evaluate(embeddings, queries, identities, bootstrap, seed, truth, tables, device)
        for queries in lists
    ]


def _evaluate(
    embeddings: Embeddings,
    queries: QueryList,
    identities: Sequence[Person],
    bootstrap: int,
    seed: int,
    truth: Truth | None,
    tables: dict[str, Scores],
    device: torch.device | str,
) -> ListResult:
    resolved = resolve(queries, identities)
    measured = measure(resolved, embeddings, influence=bootstrap > 0, device=device)
    metrics = measured.metrics()
    chance = measure_identities(resolved, chance_scores(identities)).metrics()
    ceiling: dict[str, float] = {}
    if truth is not None:
        scores = bayes_scores_of(truth, identities, queries.stratum)
        scores = scores if queries.direction == "v2f" else scores.T
        optimal = measure_identities(resolved, scores).metrics()
        ceiling = {name: value for name, value in optimal.items() if name in _CEILED}
    interval = {}
    if bootstrap:
        interval = intervals(replicates(measured, draw(resolved, bootstrap, seed)))
    return ListResult(
        name=queries.name,
        kind=queries.kind,
        direction=queries.direction,
        stratum=queries.stratum,
        gallery=queries.gallery,
        n=len(queries),
        metrics=metrics,
        interval=interval,
        chance=chance,
        oracles={
            name: measure_identities(resolved, table).metrics() for name, table in tables.items()
        },
        ceiling=ceiling,
        fraction_of_bayes=fraction_of_bayes(metrics, chance, ceiling),
    )


def fraction_of_bayes(
    metrics: dict[str, float], chance: dict[str, float], ceiling: dict[str, float]
) -> dict[str, float]:
    """How much of the way from chance to the ceiling; without metrics whose ceiling is chance."""
    return {
        name: (metrics[name] - chance[name]) / (best - chance[name])
        for name, best in ceiling.items()
        if best != chance[name]
    }


def to_document(results: Sequence[ListResult]) -> dict[str, Any]:
    """The JSON document of ``vfsearch evaluate``; ceiling and fraction only where known."""
    lists = []
    for result in results:
        entry: dict[str, Any] = {
            "name": result.name,
            "kind": result.kind,
            "direction": result.direction,
            "stratum": result.stratum,
            "n": result.n,
            "metrics": result.metrics,
            "interval": {name: list(bounds) for name, bounds in result.interval.items()},
            "chance": result.chance,
            "oracles": result.oracles,
        }
        if result.ceiling:
            entry["ceiling"] = result.ceiling
            entry["fraction_of_bayes"] = result.fraction_of_bayes
        lists.append(entry)
    return {"lists": lists}
