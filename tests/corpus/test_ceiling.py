"""The exact likelihood ratio: against densities, against the published ceiling, on disk."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from vfsearch.corpus.ceiling import FILE, Truth, bayes_scores
from vfsearch.errors import CorpusError

RHO = np.array([0.6, 0.5, 0.4])
NOISE = 0.02


def _population(
    count: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    shared, voice, face = random.normal(size=(3, count, 3))
    gender = random.random(count) < 0.5
    flips = random.random((2, count)) < NOISE
    return (
        np.sqrt(RHO) * shared + np.sqrt(1 - RHO) * voice,
        np.sqrt(RHO) * shared + np.sqrt(1 - RHO) * face,
        gender ^ flips[0],
        gender ^ flips[1],
        gender,
    )


def test_scores_are_the_ratio_of_the_densities() -> None:
    voices, faces, voice_gender, face_gender, _ = _population(12, 0)
    scores = bayes_scores(voices, faces, voice_gender, face_gender, RHO, NOISE)
    for v in range(12):
        for f in range(12):
            naive = 0.0
            for k, rho in enumerate(RHO):
                pair = [voices[v, k], faces[f, k]]
                naive += multivariate_normal([0, 0], [[1, rho], [rho, 1]]).logpdf(pair)
                naive -= norm.logpdf(pair).sum()
            # P(seen | same) = sum over the true gender; P(seen | other) = 1/4.
            shown = [voice_gender[v], face_gender[f]]
            same = sum(
                0.5 * np.prod([1 - NOISE if seen == true else NOISE for seen in shown])
                for true in (False, True)
            )
            assert scores[v, f] == pytest.approx(naive + np.log(same / 0.25), abs=1e-9)


def test_the_ceiling_is_the_published_one() -> None:
    """AUC U .857, G .736 and 1:2 U .852, G .732 at rho (.6, .5, .4) and 2 % gender noise.

    The published AUC G and U draw negatives at random, so AUC and 1:2 differ: AUC compares across
    probes, 1:2 within one.
    """
    count = 4000
    voices, faces, voice_gender, face_gender, gender = _population(count, 1)
    scores = bayes_scores(voices, faces, voice_gender, face_gender, RHO, NOISE)
    random = np.random.default_rng(2)
    other = np.array([random.permutation(count) for _ in range(20)])
    positive = np.diag(scores)
    rows = np.arange(count)
    for same_gender, auc, matching in ((False, 0.857, 0.852), (True, 0.736, 0.732)):
        keep = other != rows
        if same_gender:
            keep &= gender[other] == gender[rows]
        negative = scores[np.broadcast_to(rows, other.shape)[keep], other[keep]]
        rivals = positive[np.broadcast_to(rows, other.shape)[keep]]
        won = (rivals > negative).mean() + 0.5 * (rivals == negative).mean()
        place = np.searchsorted(np.sort(negative), positive, "left") / len(negative)
        assert place.mean() == pytest.approx(auc, abs=0.012)
        assert won == pytest.approx(matching, abs=0.012)


def test_nothing_shared_means_nothing_to_tell() -> None:
    """rho = 0 and gender noise 1/2: every score is exactly 0, one tie, which is chance."""
    voices, faces, voice_gender, face_gender, _ = _population(50, 3)
    scores = bayes_scores(voices, faces, voice_gender, face_gender, np.zeros(3), 0.5)
    assert (scores == 0).all()


def test_without_gender_noise_the_other_gender_is_as_good_as_excluded() -> None:
    voices, faces, voice_gender, face_gender, _ = _population(50, 4)
    scores = bayes_scores(voices, faces, voice_gender, face_gender, RHO, 0.0)
    agree = voice_gender[:, None] == face_gender[None, :]
    assert np.isfinite(scores).all()
    assert scores[agree].min() > scores[~agree].max()


def _truth() -> Truth:
    voices, faces, voice_gender, face_gender, _ = _population(5, 5)
    return Truth(
        voice_ids=[f"id{k}" for k in range(5)],
        face_ids=[f"F{k}" for k in range(5)],
        voice_latents=voices,
        face_latents=faces,
        voice_gender=voice_gender,
        face_gender=face_gender,
        rho=RHO,
        gender_noise=NOISE,
    )


def test_saved_and_loaded_scores_are_the_same(tmp_path: Path) -> None:
    truth = _truth()
    truth.save(tmp_path)
    loaded = Truth.load(tmp_path)
    assert loaded is not None
    assert loaded.voice_ids == truth.voice_ids
    assert loaded.face_ids == truth.face_ids
    np.testing.assert_array_equal(loaded.scores(), truth.scores())


def test_real_recordings_have_no_truth(tmp_path: Path) -> None:
    assert Truth.load(tmp_path) is None


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_damaged_truth_is_named(tmp_path: Path, keep: int) -> None:
    _truth().save(tmp_path)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorpusError, match=FILE):
        Truth.load(tmp_path)
