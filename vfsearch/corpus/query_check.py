"""What is wrong with a query list, beyond its syntax."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64

from vfsearch.corpus.queries import QueryList, identities_of, modalities
from vfsearch.corpus.strata import Person, stratum_keys
from vfsearch.errors import QueryError


def check_list(queries: QueryList, identities: Sequence[Person]) -> list[str]:
    """Problems of a list against the identities of its CSV; empty when it is sound.

    Checked: every identity known; the positive of a match line of the probe's identity, its
    negatives of others, distinct, and of the list's stratum; verification pairs of both classes;
    for every probe of a retrieval list a positive in the gallery, and no path twice.
    """
    probe_modality, candidate_modality = modalities(queries.direction)
    problems: list[str] = []
    mapped: list[Int64[np.ndarray, " paths"]] = []
    for paths, modality in (
        (queries.probe_paths, probe_modality),
        (queries.candidate_paths, candidate_modality),
    ):
        try:
            mapped.append(identities_of(paths, identities, modality))
        except QueryError as error:
            problems.append(f"{queries.name}: {error}")
    if problems:
        return problems
    probe = mapped[0][queries.probes]
    candidate = mapped[1][queries.candidates]
    if queries.kind == "retrieval":
        return _retrieval(queries, probe, candidate[0])
    same = candidate == probe[:, None]
    if queries.kind == "match":
        problems += _lines(queries, ~same[:, 0], "the first candidate is not of the probe")
        problems += _lines(queries, same[:, 1:].any(axis=1), "a negative is of the probe")
        ordered = np.sort(candidate[:, 1:], axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
        problems += _lines(queries, twice, "two negatives are of one identity")
    elif same.all() or not same.any():
        problems.append(
            f"{queries.name}: has {'no negative' if same.all() else 'no positive'} pair"
        )
    key = stratum_keys(identities, queries.stratum)
    outside = (key[candidate] != key[probe][:, None]) & ~same
    problems += _lines(
        queries, outside.any(axis=1), f"a negative is not of the probe's stratum {queries.stratum}"
    )
    return problems


def _lines(queries: QueryList, bad: Bool[np.ndarray, " queries"], what: str) -> list[str]:
    if not bad.any():
        return []
    first = (np.flatnonzero(bad)[:5] + 1).tolist()
    more = " ..." if int(bad.sum()) > 5 else ""
    numbers = ", ".join(map(str, first))
    return [f"{queries.name}: {what}: {int(bad.sum())} lines ({numbers}{more})"]


def _retrieval(
    queries: QueryList,
    probe: Int64[np.ndarray, " queries"],
    candidate: Int64[np.ndarray, " gallery"],
) -> list[str]:
    problems: list[str] = []
    alone = ~np.isin(probe, candidate)
    if alone.any():
        paths = [queries.probe_paths[row] for row in queries.probes[alone][:5]]
        problems.append(
            f"{queries.name}: {int(alone.sum())} probes have no positive in the gallery: "
            f"{', '.join(paths)}"
        )
    for what, rows, table in (
        ("probes", queries.probes, queries.probe_paths),
        ("gallery paths", queries.candidates[0], queries.candidate_paths),
    ):
        extra = len(rows) - len(table)
        if extra:
            problems.append(f"{queries.name}: {extra} {what} are given twice")
    return problems
