"""A query list joined with identities and embeddings, and what each query scored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from vfsearch.corpus.queries import QueryList, identities_of, modalities
from vfsearch.corpus.strata import Person
from vfsearch.errors import QueryError
from vfsearch.evaluation import matching, retrieval, verification
from vfsearch.evaluation.embeddings import Embeddings
from vfsearch.evaluation.scores import pair_scores


@dataclass(frozen=True, kw_only=True, eq=False)
class Resolved:
    """A list whose queries know their identities."""

    queries: QueryList
    identities: Sequence[Person]
    probe: Int64[np.ndarray, " queries"]
    """Row in ``identities`` of each query's probe."""
    candidate: Int64[np.ndarray, "rows gallery"]
    """Of each candidate; for retrieval one row, the gallery."""

    @property
    def positive(self) -> Bool[np.ndarray, " queries"]:
        """Of a verification list: which pairs are of one identity."""
        same: Bool[np.ndarray, " queries"] = self.candidate[:, 0] == self.probe
        return same


def resolve(queries: QueryList, identities: Sequence[Person]) -> Resolved:
    """Find every path's identity.

    Raises:
        QueryError: an identity that is not in the CSV; a list on which the metric is not defined
            (a positive or negative of the wrong identity, a class of pairs missing, a probe
            without positive).
    """
    probe_modality, candidate_modality = modalities(queries.direction)
    if len(queries) == 0:
        raise QueryError(f"{queries.name}: holds no query")
    try:
        probe = identities_of(queries.probe_paths, identities, probe_modality)[queries.probes]
        candidate = identities_of(queries.candidate_paths, identities, candidate_modality)[
            queries.candidates
        ]
    except QueryError as error:
        raise QueryError(f"{queries.name}: {error}") from None
    resolved = Resolved(queries=queries, identities=identities, probe=probe, candidate=candidate)
    problem = _undefined(resolved)
    if problem:
        raise QueryError(f"{queries.name}: {problem}")
    return resolved


def _undefined(resolved: Resolved) -> str:
    queries, probe, candidate = resolved.queries, resolved.probe, resolved.candidate
    if queries.kind == "retrieval":
        alone = ~np.isin(probe, candidate[0])
        if not alone.any():
            return ""
        paths = [queries.probe_paths[row] for row in queries.probes[alone][:5]]
        return f"{int(alone.sum())} probes have no positive in the gallery: {', '.join(paths)}"
    same = candidate == probe[:, None]
    if queries.kind == "verify":
        if same.all() or not same.any():
            return f"all pairs are {'positive' if same.all() else 'negative'}: AUC is not defined"
        return ""
    wrong = ~same[:, 0] | same[:, 1:].any(axis=1)
    if not wrong.any():
        return ""
    return (
        f"line {int(np.flatnonzero(wrong)[0]) + 1} (one of {int(wrong.sum())}): the first "
        "candidate must be of the probe's identity and the others must not"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What each query of a list scored."""

    resolved: Resolved
    outcome: Float64[np.ndarray, "queries columns"]
    """match: the credit; verify: the score; retrieval: the columns of ``ranking``."""
    gallery_influence: Float64[np.ndarray, " ids"] | None = None
    """Retrieval: derivative of mAP by the weight of each identity's gallery items."""

    def metrics(self) -> dict[str, float]:
        """The list's metrics, each under its key in the JSON document."""
        kind = self.resolved.queries.kind
        if kind == "match":
            return {"accuracy": float(self.outcome.mean())}
        if kind == "verify":
            auc, eer = verification.auc_eer(self.outcome[:, 0], self.resolved.positive)
            return {"auc": auc, "eer": eer}
        return retrieval.summary(self.outcome)


def measure(
    resolved: Resolved,
    embeddings: Embeddings,
    *,
    influence: bool = False,
    device: torch.device | str = "cpu",
) -> Measured:
    """Score every query of a list; ``influence``: what intervals of mAP need, too.

    Raises:
        QueryError: paths of the list without embedding.
    """
    queries = resolved.queries
    probes = embeddings.rows(queries.probe_paths, queries.name)[queries.probes]
    candidates = embeddings.rows(queries.candidate_paths, queries.name)[queries.candidates]
    unit = embeddings.unit
    if queries.kind == "retrieval":
        gallery = retrieval.Gallery.of(
            unit[candidates[0]], resolved.candidate[0], len(resolved.identities)
        )
        ranked = retrieval.retrieve(
            unit[probes], resolved.probe, gallery, influence=influence, device=device
        )
        return Measured(
            resolved=resolved, outcome=ranked.per_probe, gallery_influence=ranked.influence
        )
    scores = pair_scores(unit, probes, candidates, device=device)
    if queries.kind == "match":
        return Measured(resolved=resolved, outcome=matching.credits(scores)[:, None])
    return Measured(resolved=resolved, outcome=scores.astype(np.float64))
