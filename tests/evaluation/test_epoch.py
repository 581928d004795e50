import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.decoded_case import TinyModel, TinySplit

from vfsearch.config import EvaluationConfig
from vfsearch.errors import QueryError
from vfsearch.evaluation.embed import embed_split
from vfsearch.evaluation.epoch import REPLICATES, EpochEvaluator, first_instances, metric_keys
from vfsearch.evaluation.evaluate import evaluate_lists
from vfsearch.evaluation.names import INTERVAL, validation_keys

CONFIG = EvaluationConfig(galleries=(2, 5), batch=7, audio_seconds=0.25)
# One process imports everything and forks the workers: imports are most of a worker's start.
LAUNCHER = """
import json, os, sys
import numpy as np, torch, torch.distributed as dist
from support.decoded_case import TinyModel, TinySplit
from vfsearch.config import EvaluationConfig
from vfsearch.evaluation.embed import embed_split
from vfsearch.evaluation.epoch import EpochEvaluator

out = sys.argv[1]
torch.set_num_threads(1)
config = EvaluationConfig(galleries=(2,), strata=("U",), batch=7, audio_seconds=0.25)

def work(rank, world):
    if world > 1:
        meet = f"file://{out}/meet{world}"
        dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world)
    for identities in (10, 3):
        split, model = TinySplit(identities), TinyModel()
        found = embed_split(model, split, config, device="cpu", rank=rank, world=world)
        metrics = EpochEvaluator(split, config)(model, device="cpu", rank=rank, world=world)
        name = f"{out}/{identities}-{world}-{rank}"
        np.savez(f"{name}.npz", path=np.array(found.paths), embedding=found.matrix)
        with open(f"{name}.json", "w") as stream:
            json.dump(metrics, stream)
    if world > 1:
        dist.destroy_process_group()

for world in (1, 2, 3):
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            work(rank, world)
            os._exit(0)
        children.append(child)
    if any([os.waitpid(child, 0)[1] for child in children]):
        sys.exit(f"a worker of {world} failed")
"""


def test_the_names_that_can_be_known_without_a_corpus_are_those_of_an_epoch():
    config = EvaluationConfig(galleries=(2, 3), strata=("U", "G"), audio_seconds=0.25)
    evaluator = EpochEvaluator(TinySplit(12), config)
    assert evaluator.notes == ()
    metrics = evaluator(TinyModel(), device="cpu")
    assert sorted(metrics) == sorted([*validation_keys(config), *INTERVAL])
    assert metrics["val/r_at_10_v2f"] >= metrics["val/r_at_5_v2f"] >= metrics["val/r_at_1_v2f"]


@pytest.mark.parametrize("select", ["val/match_f2v_1to2_G", "val/auc_v2f", "val/map_f2v"])
def test_the_selecting_metric_comes_with_its_interval_over_identities(select):
    config = EvaluationConfig(galleries=(2,), strata=("U", "G"), audio_seconds=0.25, select=select)
    split, model = TinySplit(12), TinyModel()
    evaluator = EpochEvaluator(split, config)
    low, high = (evaluator(model, device="cpu")[name] for name in INTERVAL)
    queries = next(one for one in evaluator.lists if select in metric_keys(one, "val"))
    found = evaluate_lists(
        embed_split(model, split, config, device="cpu"),
        [queries],
        split.identities,
        bootstrap=REPLICATES,
        seed=config.seed,
    )[0]
    name = {"match": "accuracy", "verify": "auc", "retrieval": "map"}[queries.kind]
    assert (low, high) == pytest.approx(found.interval[name])
    assert low <= evaluator(model, device="cpu")[select] <= high
    unknown = EvaluationConfig(galleries=(2,), audio_seconds=0.25, select="val/none")
    assert not set(INTERVAL) & set(EpochEvaluator(split, unknown)(model, device="cpu"))


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bits(tmp_path):
    tests = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", LAUNCHER, str(tmp_path)], env=environment, check=True, timeout=280
    )
    # 3 identities make 2 chunks of voices and of faces: the third worker then has none.
    for identities in (10, 3):
        expected = np.load(tmp_path / f"{identities}-1-0.npz")
        metrics = (tmp_path / f"{identities}-1-0.json").read_text()
        split = TinySplit(identities)
        assert expected["path"].tolist() == [*split.voice_paths, *split.face_paths]
        for world, rank in ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2)):
            name = tmp_path / f"{identities}-{world}-{rank}"
            found = np.load(f"{name}.npz")
            assert (found["path"] == expected["path"]).all()
            assert found["embedding"].tobytes() == expected["embedding"].tobytes()
            assert Path(f"{name}.json").read_text() == metrics


def test_every_instance_is_embedded_from_its_own_window():
    split, model = TinySplit(5), TinyModel()
    found = embed_split(model, split, CONFIG, device="cpu")
    row = 7
    window = np.resize(split.voice(row)[:4000], 4000)
    model.eval()
    with torch.no_grad():
        alone = model.embed_voices(torch.from_numpy(window[None]))[0]
    np.testing.assert_allclose(found.matrix[row], alone.numpy(), rtol=1e-4, atol=1e-5)
    short = next(k for k in range(len(split.voice_paths)) if len(split.voice(k)) < 4000)
    tiled = np.resize(split.voice(short), 4000)
    with torch.no_grad():
        alone = model.embed_voices(torch.from_numpy(tiled[None]))[0]
    np.testing.assert_allclose(found.matrix[short], alone.numpy(), rtol=1e-4, atol=1e-5)


def test_the_model_is_evaluated_without_dropout_and_left_as_it_was():
    split, model = TinySplit(5), TinyModel()
    model.train()
    model.voice.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = embed_split(model, split, CONFIG, device="cpu")
    two = embed_split(model, split, CONFIG, device="cpu")
    assert (one.matrix == two.matrix).all()
    assert model.training
    assert model.head.training
    assert not model.voice.training
    assert all((before[name] == value).all() for name, value in model.state_dict().items())


def test_epoch_metrics_are_those_of_the_lists():
    split, model = TinySplit(12), TinyModel()
    evaluator = EpochEvaluator(split, CONFIG)
    found = evaluator(model, device="cpu")
    assert evaluator.notes == ()
    embeddings = embed_split(model, split, CONFIG, device="cpu")
    results = evaluate_lists(embeddings, evaluator.lists, split.identities, bootstrap=0)
    names = {
        "match_v2f_5_val": ("accuracy", "val/match_v2f_1to5"),
        "match_g_f2v_2_val": ("accuracy", "val/match_f2v_1to2_G"),
        "verify_g_v2f_val": ("eer", "val/eer_v2f_G"),
        "reterival_f2v_val": ("r@5", "val/r_at_5_f2v"),
    }
    by_name = {result.name: result for result in results}
    for name, (metric, key) in names.items():
        assert found[key] == by_name[name].metrics[metric]
    assert set(found) == {*evaluator.keys, *INTERVAL}
    assert not any("@" in key for key in found)


def test_lists_that_cannot_be_formed_are_dropped_with_a_note():
    evaluator = EpochEvaluator(
        TinySplit(6), EvaluationConfig(galleries=(2, 5), strata=("U", "G"), audio_seconds=0.1)
    )
    assert "val/match_v2f_1to5" in evaluator.keys
    assert "val/match_v2f_1to5_G" not in evaluator.keys
    assert any("1:5 stratum G" in note for note in evaluator.notes)


def test_first_instances_of_each_identity():
    identity = np.array([0, 0, 1, 0, 1, 2])
    assert first_instances(identity, 1).tolist() == [0, 2, 5]
    assert first_instances(identity, 2).tolist() == [0, 1, 2, 4, 5]
    assert first_instances(identity, None).tolist() == [0, 1, 2, 3, 4, 5]
    limited = EpochEvaluator(TinySplit(5), CONFIG.model_copy(update={"instances": 2}))
    assert {len(queries.probe_paths) for queries in limited.lists} == {10}


def test_a_diverged_model_is_an_error_that_names_the_path():
    model = TinyModel()
    with torch.no_grad():
        model.head.weight[0, 0] = torch.nan
    with pytest.raises(QueryError, match=r"embedding of id0/v/0.wav is not finite"):
        EpochEvaluator(TinySplit(5), CONFIG)(model, device="cpu")
