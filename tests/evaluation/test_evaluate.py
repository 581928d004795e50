import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import naive_metrics as naive
from support.evaluation_cases import embeddings_of, small_case

from vfsearch.corpus.ceiling import Truth
from vfsearch.corpus.layout import read_identities
from vfsearch.corpus.queries import read_list
from vfsearch.errors import QueryError
from vfsearch.evaluation.embeddings import Embeddings
from vfsearch.evaluation.evaluate import evaluate_lists, to_document
from vfsearch.evaluation.measure import resolve
from vfsearch.evaluation.oracles import (
    chance_scores,
    gender_nationality_scores,
    gender_scores,
    measure_identities,
)

LISTS = Path(__file__).parents[1] / "data" / "lists"


def by_definition(queries, identities, embeddings):
    """Metrics of a list with Python loops over the naive definitions."""
    vector = dict(zip(embeddings.paths, naive.unit(embeddings.matrix), strict=True))
    voice = {person.voice_id: row for row, person in enumerate(identities)}
    face = {person.face_id: row for row, person in enumerate(identities)}
    owner = {**voice, **face}
    probes = [queries.probe_paths[row] for row in queries.probes]
    rows = [[queries.candidate_paths[c] for c in row] for row in queries.candidates]

    def score(probe, candidates):
        left = vector[probe].astype(np.float64)
        return np.array([np.float32(vector[c].astype(np.float64) @ left) for c in candidates])

    def own(probe, candidates):
        return np.array([owner[probe.split("/")[0]] == owner[c.split("/")[0]] for c in candidates])

    if queries.kind == "match":
        credits = [naive.credit(score(p, row)) for p, row in zip(probes, rows, strict=True)]
        return {"accuracy": np.mean(credits)}
    if queries.kind == "verify":
        scores = np.array([score(p, row)[0] for p, row in zip(probes, rows, strict=True)])
        same = np.array([own(p, row)[0] for p, row in zip(probes, rows, strict=True)])
        return {"auc": naive.auc(scores, same), "eer": naive.eer(scores, same)}
    found = [naive.group_ranking(score(p, rows[0]), own(p, rows[0])) for p in probes]
    columns = np.array(found)
    return {
        **dict(zip(("map", "r@1", "r@5", "r@10"), columns[:, :4].mean(0), strict=True)),
        "median_rank": np.median(columns[:, 4]),
    }


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_metric_equals_its_definition(seed):
    identities, lists, instances = small_case(seed=seed)
    embeddings = embeddings_of(instances, signal=0.6, seed=seed)
    # Copies of one voice and of one face under other names must tie.
    matrix = embeddings.matrix.copy()
    matrix[3:9], matrix[45:55] = matrix[2], matrix[44]
    embeddings = replace(embeddings, matrix=matrix)
    for queries, result in zip(
        lists, evaluate_lists(embeddings, lists, identities, bootstrap=0), strict=True
    ):
        expected = by_definition(queries, identities, embeddings)
        assert result.metrics == pytest.approx(expected, abs=1e-6)
        assert result.interval == {}


@pytest.mark.parametrize("value", [0.0, 0.37, -5.0])
def test_constant_embeddings_are_exactly_chance(value):
    identities, lists, instances = small_case(seed=1)
    count = len(instances.voice_paths) + len(instances.face_paths)
    constant = Embeddings(
        paths=[*instances.voice_paths, *instances.face_paths],
        matrix=np.full((count, 7), value, np.float32),
    )
    for result in evaluate_lists(constant, lists, identities, bootstrap=50):
        assert result.metrics == result.chance
        if result.kind == "match":
            assert result.metrics["accuracy"] == pytest.approx(1 / result.gallery, abs=1e-15)
        if result.kind == "verify":
            assert result.metrics == {"auc": 0.5, "eer": 0.5}


def test_chance_and_oracles_of_the_paper():
    """METHOD: chance mAP 0.572 % (V to F) and 0.569 %; AUC of the oracles 72.9 and 89.8."""
    identities = read_identities(LISTS / "vox1_test.csv")
    retrieval = read_list(LISTS / "reterival_v2f_test.txt.gz")
    turned = replace(
        retrieval,
        direction="f2v",
        probe_paths=retrieval.candidate_paths,
        candidate_paths=retrieval.probe_paths,
        probes=retrieval.candidates[0],
        candidates=retrieval.probes[None],
    )
    for queries, expected in ((retrieval, 0.00572), (turned, 0.00569)):
        chance = measure_identities(resolve(queries, identities), chance_scores(identities))
        assert chance.metrics()["map"] == pytest.approx(expected, abs=5e-6)
    verify = resolve(read_list(LISTS / "verify_v2f_test.txt.gz"), identities)
    for scores, expected in ((gender_scores, 0.729), (gender_nationality_scores, 0.898)):
        assert measure_identities(verify, scores(identities)).metrics()["auc"] == pytest.approx(
            expected, abs=5e-4
        )


def test_gender_is_chance_among_one_gender():
    identities, lists, instances = small_case(seed=2)
    embeddings = embeddings_of(instances, signal=1, seed=0)
    for result in evaluate_lists(embeddings, lists, identities, bootstrap=0):
        if result.stratum == "G":
            assert result.oracles["gender"] == result.chance


def test_an_identity_oracle_equals_embeddings_that_say_the_same():
    identities, lists, instances = small_case(seed=4)
    owner = np.concatenate([instances.voice_identity, instances.face_identity])
    gender = np.array([[1.0, 0.0] if p.gender == "m" else [0.0, 1.0] for p in identities])
    says = Embeddings(
        paths=[*instances.voice_paths, *instances.face_paths],
        matrix=gender[owner].astype(np.float32),
    )
    for result in evaluate_lists(says, lists, identities, bootstrap=0):
        assert result.metrics == pytest.approx(result.oracles["gender"], abs=1e-12)


def truth_of(identities, rho, noise, seed) -> Truth:
    random = np.random.default_rng(seed)
    count, rho = len(identities), np.array(rho)
    z = random.normal(size=(count, len(rho)))
    female = np.array([person.gender == "f" for person in identities])
    return Truth(
        voice_ids=[person.voice_id for person in identities][::-1],
        face_ids=[person.face_id for person in identities][::-1],
        voice_latents=(np.sqrt(rho) * z + np.sqrt(1 - rho) * random.normal(size=z.shape))[::-1],
        face_latents=(np.sqrt(rho) * z + np.sqrt(1 - rho) * random.normal(size=z.shape))[::-1],
        voice_gender=(female ^ (random.random(count) < noise))[::-1],
        face_gender=(female ^ (random.random(count) < noise))[::-1],
        rho=rho,
        gender_noise=noise,
    )


def test_ceiling_and_fraction():
    """The truth's rows may be in another order; METHOD: AUC .857 (U), .736 (G)."""
    identities, lists, instances = small_case(seed=6, identities=400, voices=1, faces=1)
    truth = truth_of(identities, (0.6, 0.5, 0.4), 0.02, 0)
    embeddings = embeddings_of(instances, signal=0.5, seed=0)
    for result in evaluate_lists(embeddings, lists, identities, bootstrap=0, truth=truth):
        if result.kind == "verify":
            expected = {"U": 0.857, "G": 0.736}[result.stratum]
            assert result.ceiling["auc"] == pytest.approx(expected, abs=0.05)
        for key, value in result.fraction_of_bayes.items():
            best, least = result.ceiling[key], result.chance[key]
            assert value == pytest.approx((result.metrics[key] - least) / (best - least))
    other = replace(truth, voice_ids=[f"x{row}" for row in range(400)])
    with pytest.raises(QueryError, match="400 identities are not in the corpus's truth"):
        evaluate_lists(embeddings, lists, identities, bootstrap=0, truth=other)


def test_document():
    identities, lists, instances = small_case(seed=1)
    embeddings = embeddings_of(instances, signal=1, seed=0)
    results = evaluate_lists(embeddings, lists, identities, bootstrap=100, seed=3)
    document = json.loads(json.dumps(to_document(results), allow_nan=False))
    again = evaluate_lists(embeddings, lists, identities, bootstrap=100, seed=3)
    assert document == json.loads(json.dumps(to_document(again)))
    by_name = {entry["name"]: entry for entry in document["lists"]}
    verify = by_name["verify_v2f_test"]
    assert verify["n"] == 120
    assert set(verify["metrics"]) == {"auc", "eer"}
    assert set(verify["oracles"]) == {"gender", "gender_nationality"}
    assert set(by_name["match_v2f_4_test"]["metrics"]) == {"accuracy"}
    keys = {"map", "r@1", "r@5", "r@10", "median_rank"}
    for entry in document["lists"]:
        assert set(entry["interval"]) == set(entry["metrics"]) == set(entry["chance"])
        for metric, (low, high) in entry["interval"].items():
            assert low <= high, metric
            assert low <= entry["metrics"][metric] <= high
    assert set(by_name["reterival_f2v_test"]["metrics"]) == keys


def test_missing_embeddings_are_counted():
    identities, lists, instances = small_case(seed=1)
    whole = embeddings_of(instances, signal=1, seed=0)
    part = Embeddings(paths=whole.paths[7:], matrix=whole.matrix[7:], source="e.npz")
    with pytest.raises(QueryError, match=r"7 of 40 paths have no embedding in e.npz: id0/v/0.wav"):
        evaluate_lists(part, lists, identities, bootstrap=0)


def test_an_identity_that_the_csv_lacks_is_named():
    identities, lists, instances = small_case(seed=1)
    with pytest.raises(QueryError, match="not in the CSV: id9"):
        evaluate_lists(
            embeddings_of(instances, signal=1, seed=0), lists, identities[:-1], bootstrap=0
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_their_path(bad):
    matrix = np.ones((3, 4), np.float32)
    matrix[1, 2] = bad
    with pytest.raises(QueryError, match="embedding of b is not finite"):
        Embeddings(paths=["a", "b", "c"], matrix=matrix)


def test_embeddings_of_wrong_shape_or_twice():
    with pytest.raises(QueryError, match="3 paths and an array of shape"):
        Embeddings(paths=["a", "b", "c"], matrix=np.ones((2, 4), np.float32))
    with pytest.raises(QueryError, match="the path a is given twice"):
        Embeddings(paths=["a", "b", "a"], matrix=np.ones((3, 4), np.float32))


def test_npz(tmp_path):
    file = tmp_path / "e.npz"
    np.savez(file, path=np.array(["a", "b"]), embedding=np.eye(2))
    loaded = Embeddings.load(file)
    assert list(loaded.paths) == ["a", "b"]
    assert loaded.matrix.dtype == np.float32
    np.savez(file, path=np.array(["a", "b"], dtype=object), embedding=np.eye(2))
    with pytest.raises(QueryError, match="plain arrays"):
        Embeddings.load(file)
    np.savez(file, embedding=np.eye(2))
    with pytest.raises(QueryError, match="has no array path"):
        Embeddings.load(file)
    np.savez(file, path=np.array([1, 2]), embedding=np.eye(2))
    with pytest.raises(QueryError, match="'path' must be a unicode"):
        Embeddings.load(file)
    np.savez(file, path=np.array(["a", "b"]), embedding=np.eye(2, dtype=int))
    with pytest.raises(QueryError, match="must be float32"):
        Embeddings.load(file)
    file.write_bytes(b"nothing")
    with pytest.raises(QueryError, match=r"e\.npz"):
        Embeddings.load(file)
    with pytest.raises(QueryError, match=r"missing\.npz"):
        Embeddings.load(tmp_path / "missing.npz")
    np.save(tmp_path / "a.npy", np.eye(2))
    with pytest.raises(QueryError, match=r"a\.npy"):
        Embeddings.load(tmp_path / "a.npy")
