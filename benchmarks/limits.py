"""What pairs of 600 identities permit, whatever the encoders: no file is made or read.

Identities of the synthetic corpus as their generator knows them, free of all noise: the voice by
every property of its speaker, the face by its latents, its gender and further stable properties
that no voice shares. Canonical correlations are learned from pairs and compared by a cosine. Two
things are varied: whether the gender of a voice is known or must be read linearly from pitch and
vocal tract, and how many properties of a face have nothing to say about a voice.
"""

from dataclasses import astuple

import numpy as np
from jaxtyping import Bool, Float

from benchmarks.record import Row, record
from vfsearch.corpus.ceiling import bayes_scores
from vfsearch.corpus.voice import speaker
from vfsearch.evaluation.verification import auc_eer

RHO = np.array([0.6, 0.5, 0.4])
NOISE = 0.02
PAIRS, MANY, TESTED, REPEATS = 600, 20_000, 1000, 8
SHARED = 6
"""Canonical directions kept: the four shared ones and two to spare."""


class Sample:
    """Identities drawn anew."""

    def __init__(self, size: int, alone: int, random: np.random.Generator) -> None:
        self.gender = random.random(size) < 0.5
        self.faces = random.normal(size=(size, 3))
        self.voices = RHO * self.faces + np.sqrt(1 - RHO**2) * random.normal(size=(size, 3))
        self.heard, self.seen = (self.gender ^ (random.random(size) < NOISE) for _ in range(2))
        speakers = [
            speaker(latents, bool(female), random)
            for latents, female in zip(self.voices, self.heard, strict=True)
        ]
        self.speech = np.array([np.hstack(astuple(each)) for each in speakers])
        # Pitch, tract and rate are exponentials of their latents.
        self.speech[:, :3] = np.log(self.speech[:, :3])
        self.look = np.column_stack([self.faces, self.seen, random.normal(size=(size, alone))])

    def voice(self, gender_known: bool) -> Float[np.ndarray, "identities properties"]:
        """All that is stable in a voice."""
        return np.column_stack([self.speech, self.heard]) if gender_known else self.speech

    def ceiling(self) -> Float[np.ndarray, "voices faces"]:
        """The likelihood ratio."""
        return bayes_scores(self.voices, self.faces, self.heard, self.seen, RHO, NOISE)


def whitening(
    data: Float[np.ndarray, "identities dims"],
) -> Float[np.ndarray, "dims dims"]:
    """Inverse square root of the covariance."""
    values, vectors = np.linalg.eigh(np.cov(data.T))
    return (vectors / np.sqrt(values)) @ vectors.T


def learned(train: Sample, test: Sample, gender_known: bool) -> Float[np.ndarray, "voices faces"]:
    """Cosines on the canonical directions of the training pairs, weighted by their correlation."""
    voice, face = train.voice(gender_known), train.look
    voice_mean, face_mean = voice.mean(0), face.mean(0)
    voice_white, face_white = whitening(voice), whitening(face)
    cross = voice_white @ (voice - voice_mean).T @ (face - face_mean) @ face_white
    left, strength, right = np.linalg.svd(cross / len(voice), full_matrices=False)
    weight = np.sqrt(strength[:SHARED])
    voices = (test.voice(gender_known) - voice_mean) @ voice_white @ left[:, :SHARED] * weight
    faces = (test.look - face_mean) @ face_white @ right[:SHARED].T * weight
    voices /= np.linalg.norm(voices, axis=1, keepdims=True)
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    scores: Float[np.ndarray, "voices faces"] = voices @ faces.T
    return scores


def auc(
    scores: Float[np.ndarray, "voices faces"], among: Bool[np.ndarray, "voices faces"]
) -> float:
    """Of the diagonal against the negatives among these."""
    own = np.eye(len(scores), dtype=bool)
    chosen = own | among
    return auc_eer(scores[chosen], own[chosen])[0]


def fractions(
    pairs: int, alone: int, gender_known: bool, random: np.random.Generator
) -> tuple[float, float]:
    """Share of the way from chance to the ceiling: any gender, same gender."""
    train, test = Sample(pairs, alone, random), Sample(TESTED, alone, random)
    scores, ceiling = learned(train, test, gender_known), test.ceiling()
    same = test.gender[:, None] == test.gender[None, :]
    any_, within = (
        (auc(scores, among) - 0.5) / (auc(ceiling, among) - 0.5)
        for among in (np.ones_like(same), same)
    )
    return any_, within


def main() -> None:
    """Vary what is known, how many pairs there are and what distracts."""
    rows: list[Row] = []
    random = np.random.default_rng(0)
    for gender_known in (False, True):
        for pairs in (PAIRS, MANY):
            for alone in (0, 8, 24):
                found = np.array(
                    [fractions(pairs, alone, gender_known, random) for _ in range(REPEATS)]
                )
                what = (
                    f"voice's gender {'known' if gender_known else 'heard'}, {pairs} pairs, "
                    f"{alone} distracting"
                )
                for stratum, values in zip("UG", found.T, strict=True):
                    rows.append(
                        {"what": f"{what}: auc {stratum}", "value": float(values.mean()),
                         "unit": "of Bayes", "goal": "-"}
                    )  # fmt: skip
    record("limits", rows)


if __name__ == "__main__":
    main()
