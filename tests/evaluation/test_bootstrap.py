import numpy as np
import pytest
from scipy.stats import norm
from support import naive_metrics as naive

from vfsearch.corpus.layout import Identity
from vfsearch.corpus.queries import QueryList
from vfsearch.evaluation import retrieval
from vfsearch.evaluation.bootstrap import draw, intervals, replicates
from vfsearch.evaluation.measure import Measured, Resolved
from vfsearch.evaluation.verification import SortedPairs, weighted_auc_eer


def people(count):
    return [
        Identity(voice_id=f"id{row}", face_id=f"F{row}", gender="m", nationality="x")
        for row in range(count)
    ]


def resolved(kind, probe, candidate, count) -> Resolved:
    """Queries named after their identities: only those matter here."""
    queries = QueryList(
        name="list",
        kind=kind,
        direction="v2f",
        stratum="U",
        probe_paths=[f"id{row}/a" for row in range(count)],
        candidate_paths=[f"F{row}/a" for row in range(count)],
        probes=probe.astype(np.int32),
        candidates=candidate.astype(np.int32),
    )
    return Resolved(queries=queries, identities=people(count), probe=probe, candidate=candidate)


def simulate(random, identities, per_identity, probe_sd, negative_sd, gallery):
    """Matching in which identities differ as probes and as negatives; accuracy known exactly."""
    mean = 0.8
    probe = np.repeat(np.arange(identities), per_identity)
    ranks = random.random((len(probe), identities - 1)).argsort(axis=1)[:, : gallery - 1]
    negatives = (probe[:, None] + 1 + ranks) % identities
    effect = random.normal(size=identities) * probe_sd
    ease = random.normal(size=identities) * negative_sd
    chance = norm.cdf(mean + effect[probe] + ease[negatives].sum(axis=1))
    right = (random.random(len(probe)) < chance).astype(float)
    known = norm.cdf(mean / np.sqrt(1 + probe_sd**2 + (gallery - 1) * negative_sd**2))
    which = resolved("match", probe, np.column_stack([probe, negatives]), identities)
    return Measured(resolved=which, outcome=right[:, None]), float(known)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("identities", "per_identity", "probe_sd", "negative_sd", "gallery"),
    [(60, 40, 0.8, 0.5, 2), (60, 30, 0.8, 0.3, 5)],
)
def test_identity_interval_covers_and_binomial_does_not(
    identities, per_identity, probe_sd, negative_sd, gallery
):
    experiments = 1200
    random = np.random.default_rng(8)
    covered = binomial = 0
    for experiment in range(experiments):
        measured, known = simulate(random, identities, per_identity, probe_sd, negative_sd, gallery)
        found = replicates(measured, draw(measured.resolved, 400, experiment))
        low, high = intervals(found)["accuracy"]
        covered += low <= known <= high
        mean, n = measured.outcome.mean(), len(measured.outcome)
        binomial += abs(mean - known) <= 1.96 * np.sqrt(mean * (1 - mean) / n)
    assert 0.93 <= covered / experiments <= 0.97
    assert binomial / experiments < 0.6


def test_without_identity_effects_the_interval_is_the_binomial_one():
    measured, _ = simulate(np.random.default_rng(0), 80, 50, 0.0, 0.0, 2)
    low, high = intervals(replicates(measured, draw(measured.resolved, 2000, 0)))["accuracy"]
    mean = measured.outcome.mean()
    width = 2 * 1.96 * np.sqrt(mean * (1 - mean) / len(measured.outcome))
    assert high - low == pytest.approx(width, rel=0.25)


def test_draws_are_of_the_lists_identities_and_repeatable():
    probe = np.array([3, 5, 5, 9])
    which = resolved("verify", probe, np.array([[3], [5], [9], [3]]), 12)
    weights = draw(which, 500, 7)
    assert (weights.sum(axis=1) == 3).all()
    assert set(np.flatnonzero(weights.any(axis=0))) == {3, 5, 9}
    assert (draw(which, 500, 7) == weights).all()
    assert (draw(which, 500, 8) != weights).any()


def test_weighted_auc_equals_that_of_repeated_pairs():
    random = np.random.default_rng(2)
    probe, candidate = random.integers(0, 6, 80), random.integers(0, 6, 80)
    positive = probe == candidate
    scores = np.round(random.normal(size=80) + positive, 1)
    weights = random.integers(0, 4, size=(30, 6)).astype(float)
    found = weighted_auc_eer(SortedPairs.of(scores, positive), probe, candidate, weights)
    for drawn, (auc, eer) in zip(weights, found, strict=True):
        times = np.where(positive, drawn[probe], drawn[probe] * drawn[candidate]).astype(int)
        if times[positive].sum() == 0 or times[~positive].sum() == 0:
            assert np.isnan(auc)
            assert np.isnan(eer)
            continue
        many, labels = np.repeat(scores, times), np.repeat(positive, times)
        assert auc == pytest.approx(naive.auc(many, labels), abs=1e-9)
        assert eer == pytest.approx(naive.eer(many, labels), abs=1e-9)


def test_any_number_of_replicates_gives_each_its_own_result():
    """Replicates are computed side by side: the others, and the number of them, change nothing."""
    random = np.random.default_rng(6)
    probe, candidate = random.integers(0, 9, 200), random.integers(0, 9, 200)
    positive = probe == candidate
    scores = np.round(random.normal(size=200) + positive, 1)
    pairs = SortedPairs.of(scores, positive)
    weights = random.integers(0, 3, size=(21, 9)).astype(float)
    weights[4] = 0.0
    whole = weighted_auc_eer(pairs, probe, candidate, weights)
    assert np.isnan(whole[4]).all()
    for row in range(21):
        alone = weighted_auc_eer(pairs, probe, candidate, weights[row : row + 1])
        np.testing.assert_array_equal(alone[0], whole[row])
    assert weighted_auc_eer(pairs, probe, candidate, weights[4:5]).shape == (1, 2)


def test_median_and_means_of_repeated_probes():
    random = np.random.default_rng(4)
    probe = random.integers(0, 5, 40)
    which = resolved("retrieval", probe, np.arange(5)[None], 5)
    outcome = np.column_stack([random.random((40, 4)), random.integers(1, 20, 40)])
    weights = draw(which, 50, 0)
    found = replicates(Measured(resolved=which, outcome=outcome), weights)
    for row, drawn in enumerate(weights):
        many = np.repeat(outcome, drawn[probe].astype(int), axis=0)
        if len(many) == 0:
            continue
        assert found["map"][row] == pytest.approx(many[:, 0].mean())
        assert found["r@10"][row] == pytest.approx(many[:, 3].mean())
        assert found["median_rank"][row] == np.median(many[:, 4])


def test_gallery_influence_is_the_derivative_of_map():
    """Against really repeating an identity's items a little: weights 1 and 1 + 1/8 of 8 copies."""
    random = np.random.default_rng(1)
    identity = np.repeat(np.arange(6), 8)
    gallery = naive.unit(random.normal(size=(48, 5)))
    probes = naive.unit(random.normal(size=(12, 5)))
    probe_identity = np.arange(12) % 6
    copies = 400
    made = retrieval.Gallery.of(gallery, identity, 6)
    ranked = retrieval.retrieve(probes, probe_identity, made, influence=True)

    def weighted_ap(row, own, weights):
        scores = gallery @ probes[row]
        positive = identity == own
        total = 0.0
        for place in np.flatnonzero(positive):
            above = scores > scores[place]
            rank = 1 + (above & positive).sum() + (weights[identity] * (above & ~positive)).sum()
            total += (1 + (above & positive).sum()) / rank
        return total / positive.sum()

    for other in range(6):
        bumped = np.ones(6)
        bumped[other] += 1 / copies
        change = [
            weighted_ap(row, own, bumped) - weighted_ap(row, own, np.ones(6))
            for row, own in enumerate(probe_identity)
        ]
        derivative = np.mean(change) * copies
        assert ranked.influence[other] == pytest.approx(derivative, rel=0.02, abs=1e-6)
