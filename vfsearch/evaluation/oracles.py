"""Scorers that know only identities: chance, attributes of the CSV, the Bayes ceiling.

A score per pair of identities decides every query, so each is measured exactly, ties included, on
the same list as the model.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from vfsearch.corpus.ceiling import Truth, bayes_scores
from vfsearch.corpus.strata import Person, Stratum
from vfsearch.errors import QueryError
from vfsearch.evaluation import matching, retrieval
from vfsearch.evaluation.measure import Measured, Resolved


def chance_scores(identities: Sequence[Person]) -> Float64[np.ndarray, "ids ids"]:
    """One score for all: measured with ties shared, exactly chance."""
    return np.zeros((len(identities), len(identities)))


def gender_scores(identities: Sequence[Person]) -> Float64[np.ndarray, "ids ids"]:
    """1 for identities of one gender, else 0."""
    return _shared([person.gender for person in identities])


def gender_nationality_scores(identities: Sequence[Person]) -> Float64[np.ndarray, "ids ids"]:
    """The number of attributes, gender and nationality, that two identities share."""
    shared = gender_scores(identities)
    shared += _shared([person.nationality for person in identities])
    return shared


def bayes_scores_of(
    truth: Truth, identities: Sequence[Person], stratum: Stratum
) -> Float64[np.ndarray, "voices faces"]:
    """The Bayes-optimal score of each identity's voices (row) with each one's faces (column).

    Among negatives of the probe's own gender the genders that voice and face show tell nothing of
    identity (their noise is independent), so there the optimal score is that of the latents alone.

    Raises:
        QueryError: identities that the truth does not have.
    """
    voices = {name: row for row, name in enumerate(truth.voice_ids)}
    faces = {name: row for row, name in enumerate(truth.face_ids)}
    missing = [
        person.voice_id
        for person in identities
        if person.voice_id not in voices or person.face_id not in faces
    ]
    if missing:
        raise QueryError(
            f"{len(missing)} identities are not in the corpus's truth file: "
            f"{', '.join(missing[:5])}"
        )
    row = [voices[person.voice_id] for person in identities]
    column = [faces[person.face_id] for person in identities]
    blind = np.zeros(len(row), dtype=bool)
    return bayes_scores(
        truth.voice_latents[row],
        truth.face_latents[column],
        blind if "G" in stratum else truth.voice_gender[row],
        blind if "G" in stratum else truth.face_gender[column],
        truth.rho,
        truth.gender_noise,
    )


def _shared(labels: Sequence[str]) -> Float64[np.ndarray, "ids ids"]:
    table = np.array(labels)
    same: Float64[np.ndarray, "ids ids"] = (table[:, None] == table).astype(np.float64)
    return same


def measure_identities(resolved: Resolved, scores: Float64[np.ndarray, "ids ids"]) -> Measured:
    """What every query of a list scores when only identities count.

    Args:
        resolved: the list.
        scores: of a probe of the row's identity with a candidate of the column's.
    """
    if resolved.queries.kind == "retrieval":
        size = len(resolved.identities)
        count = np.bincount(resolved.candidate[0], minlength=size)
        present = np.flatnonzero(count)
        gallery = retrieval.Gallery(
            columns=np.empty((len(present), 0), np.float32),
            items=count[present].astype(np.int32),
            first=np.searchsorted(present, np.arange(size + 1)).astype(np.int64),
            positives=np.arange(len(present)),
            copies=count[present].astype(np.int64),
        )
        # All probes of one identity rank the gallery alike.
        probes, row = np.unique(resolved.probe, return_inverse=True)
        ranked = retrieval.rank_scores(scores[np.ix_(probes, present)], probes, gallery)
        return Measured(resolved=resolved, outcome=ranked[row])
    pairs = scores[resolved.probe[:, None], resolved.candidate].astype(np.float32)
    if resolved.queries.kind == "match":
        return Measured(resolved=resolved, outcome=matching.credits(pairs)[:, None])
    return Measured(resolved=resolved, outcome=pairs.astype(np.float64))
