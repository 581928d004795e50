import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import naive_metrics as naive

from vfsearch.evaluation import matching, retrieval, verification
from vfsearch.evaluation.ranking import harmonic
from vfsearch.evaluation.retrieval_device import rank_tile
from vfsearch.evaluation.scores import pair_scores

FEW = settings(max_examples=60, deadline=None)
# Few distinct values make ties; halves and small integers make them in the middle too.
SCORES = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=40)


@FEW
@given(SCORES, st.randoms(use_true_random=False))
def test_auc_and_eer_equal_their_definitions(scores, random):
    scores = np.array(scores)
    positive = np.array([True, False] + [random.random() < 0.4 for _ in scores[2:]])
    auc, eer = verification.auc_eer(scores, positive)
    assert auc == pytest.approx(naive.auc(scores, positive), abs=1e-9)
    assert eer == pytest.approx(naive.eer(scores, positive), abs=1e-9)


def test_constant_scores_are_chance_exactly():
    positive = np.arange(1000) % 3 == 0
    assert verification.auc_eer(np.full(1000, 0.3), positive) == (0.5, 0.5)
    for gallery in range(2, 11):
        credit = matching.credits(np.full((7, gallery), 0.1, np.float32))
        assert credit.tolist() == [1 / gallery] * 7


def test_perfect_and_inverted_scores():
    positive = np.array([True] * 5 + [False] * 9)
    assert verification.auc_eer(positive.astype(float), positive) == (1.0, 0.0)
    assert verification.auc_eer(-positive.astype(float), positive) == (0.0, 1.0)


@FEW
@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=4, max_size=4), min_size=1))
def test_matching_credit(rows):
    scores = np.array(rows, np.float32)
    expected = [naive.credit(row) for row in rows]
    np.testing.assert_allclose(matching.credits(scores), expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.booleans()), min_size=1, max_size=6))
def test_group_formula_is_the_mean_over_all_orders(items):
    scores = np.array([score for score, _ in items])
    positive = np.array([label for _, label in items])
    positive[0] = True
    np.testing.assert_allclose(
        naive.group_ranking(scores, positive), naive.expected_ranking(scores, positive), atol=1e-12
    )


def both_paths(probes, probe_identity, gallery_unit, gallery_identity, identities):
    gallery = retrieval.Gallery.of(gallery_unit, gallery_identity, identities)
    fast = retrieval.retrieve(probes, probe_identity, gallery).per_probe
    # The tensor path of GPUs, here on the CPU.
    scores = torch.from_numpy(probes) @ torch.from_numpy(gallery.columns).T
    tensor = rank_tile(scores, probe_identity, gallery, harmonic(len(gallery_unit)))
    return fast, tensor


@st.composite
def problems(draw):
    """Embeddings of few directions, so that many items tie; identities of one item too."""
    identities = draw(st.integers(2, 6))
    gallery_identity = list(range(identities)) + draw(
        st.lists(st.integers(0, identities - 1), max_size=40)
    )
    dim = draw(st.integers(1, 4))
    vector = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=dim, max_size=dim)
    gallery = [draw(vector) for _ in gallery_identity]
    probe_identity = draw(st.lists(st.integers(0, identities - 1), min_size=1, max_size=8))
    # Probes along the axes: similarities are then exact in any order of summation.
    axes = [draw(st.integers(0, dim - 1)) for _ in probe_identity]
    return (
        np.eye(dim, dtype=np.float32)[axes],
        np.array(probe_identity),
        naive.unit(gallery) + 0.0,
        np.array(gallery_identity),
        identities,
    )


@settings(max_examples=150, deadline=None)
@given(problems())
def test_retrieval_equals_the_definition_under_ties(problem):
    probes, probe_identity, gallery, gallery_identity, _ = problem
    scores = probes @ gallery.T
    expected = [
        naive.group_ranking(row, gallery_identity == identity)
        for row, identity in zip(scores, probe_identity, strict=True)
    ]
    for result in both_paths(*problem):
        np.testing.assert_allclose(result, expected, atol=1e-9)


@pytest.mark.parametrize(("probes", "items", "identities"), [(300, 3000, 7), (50, 5000, 2500)])
def test_retrieval_equals_a_full_sort(probes, items, identities):
    random = np.random.default_rng(3)
    gallery_identity = np.concatenate(
        [np.arange(identities), random.integers(0, identities, items - identities)]
    )
    probe_identity = random.integers(0, identities, probes)
    gallery = naive.unit(random.normal(size=(items, 24)))
    probe = naive.unit(random.normal(size=(probes, 24)) + 2 * gallery[probe_identity])
    scores = (torch.from_numpy(probe) @ torch.from_numpy(gallery).T).numpy()
    expected = [
        naive.ranking(row, gallery_identity == identity)
        for row, identity in zip(scores, probe_identity, strict=True)
    ]
    for result in both_paths(probe, probe_identity, gallery, gallery_identity, identities):
        np.testing.assert_allclose(result.mean(0), np.mean(expected, axis=0), atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 1e-20])
def test_constant_embeddings_are_one_tie(value):
    random = np.random.default_rng(0)
    gallery_identity = np.concatenate([np.arange(9), random.integers(0, 9, 500)])
    gallery = naive.unit(np.full((509, 33), value))
    probe_identity = random.integers(0, 9, 40)
    expected = [
        naive.group_ranking(np.zeros(509), gallery_identity == identity)
        for identity in probe_identity
    ]
    for result in both_paths(gallery[:40], probe_identity, gallery, gallery_identity, 9):
        np.testing.assert_allclose(result, expected, atol=1e-12)


@pytest.mark.parametrize("width", [1e-38, 1e-30, 1e-7, 1.0])
def test_positives_in_a_range_of_any_width(width):
    """The bins must not lose items when the positives' scores are nearly equal."""
    gallery = np.array([[1.0], [0.0], [1.0 / 3], [2.0 / 3]], np.float32) * np.float32(width)
    identity = np.array([0, 0, 1, 1])
    made = retrieval.Gallery.of(gallery, identity, 2)
    result = retrieval.retrieve(np.ones((2, 1), np.float32), np.array([0, 1]), made).per_probe
    expected = [naive.group_ranking(gallery[:, 0], identity == k) for k in (0, 1)]
    np.testing.assert_allclose(result, expected, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 7, 8, 128, 131])
def test_pair_scores_are_rounded_exact_products(dim):
    random = np.random.default_rng(dim)
    unit = naive.unit(random.normal(size=(50, dim)))
    probes, candidates = random.integers(0, 50, 200), random.integers(0, 50, (200, 5))
    scores = pair_scores(unit, probes, candidates)
    wide = unit.astype(np.longdouble)
    exact = (wide[probes][:, None] * wide[candidates]).sum(-1).astype(np.float32)
    np.testing.assert_array_equal(scores, exact)
