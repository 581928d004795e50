from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.evaluation_cases import embeddings_of, small_case

from vfsearch.errors import QueryError
from vfsearch.evaluation.measure import measure, resolve
from vfsearch.evaluation.significance import compare_lists, holm, identity_shares, sign_flip


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_nor_reorders(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_sign_flip_counts_all_signs_exactly():
    shares = np.array([0.3, -0.1, 0.25])
    signs = np.array(list(product([-1.0, 1.0], repeat=3)))
    sums = [abs(sum(s * v for s, v in zip(row, shares, strict=True))) for row in signs]
    extreme = sum(value >= abs(shares.sum()) - 1e-9 for value in sums)
    assert sign_flip(shares, signs) == (1 + extreme) / 9


def test_shares_sum_to_the_difference():
    identities, lists, instances = small_case(seed=1)
    one = embeddings_of(instances, signal=0.3, seed=1)
    two = embeddings_of(instances, signal=0.9, seed=2)
    for queries in lists:
        resolved = resolve(queries, identities)
        first, second = measure(resolved, one), measure(resolved, two)
        before, after = first.metrics(), second.metrics()
        for key, shares in identity_shares(first, second).items():
            assert shares.sum() == pytest.approx(after[key] - before[key], abs=1e-12)


def test_a_better_model_is_found_and_an_equal_one_is_not():
    identities, lists, instances = small_case(seed=3, identities=30)
    weak = embeddings_of(instances, signal=0.05, seed=1)
    strong = embeddings_of(instances, signal=1.5, seed=2)
    found = compare_lists(
        {"weak": weak, "strong": strong, "twin": strong},
        lists,
        identities,
        bootstrap=200,
        permutations=999,
    )
    for entry in found:
        if (entry.first, entry.second) == ("strong", "twin"):
            assert entry.difference == 0
            assert entry.interval == (0, 0)
            assert entry.p_value in (None, 1.0)
        if (entry.first, entry.second) == ("weak", "strong") and entry.metric == "auc":
            assert entry.difference > 0.2
            assert entry.interval[0] > 0
            assert entry.p_value < 0.01
            assert entry.p_value <= entry.adjusted <= 3 * entry.p_value
    assert {entry.metric for entry in found if entry.p_value is None} == {"eer", "median_rank"}


@pytest.mark.slow
def test_permutation_p_values_are_uniform_between_equal_models():
    identities, lists, instances = small_case(seed=5, identities=16)
    auc = next(queries for queries in lists if queries.kind == "verify")
    found = []
    for trial in range(150):
        pair = {
            name: embeddings_of(instances, signal=0.5, seed=2 * trial + offset)
            for offset, name in enumerate("ab")
        }
        entries = compare_lists(pair, [auc], identities, bootstrap=1, permutations=199, seed=trial)
        found.append(entries[0].p_value)
    assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.11


def test_needs_two_models():
    identities, lists, instances = small_case(seed=1)
    with pytest.raises(QueryError, match="two models"):
        compare_lists({"a": embeddings_of(instances, signal=1, seed=0)}, lists, identities)
