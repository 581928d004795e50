"""Trials that were not measured alike are never in one comparison."""

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from support import sweeps
from support.tiny_run import tiny_config, tiny_store

from vfsearch.evaluation.epoch import EpochEvaluator
from vfsearch.evaluation.identity import difference, evaluation_key
from vfsearch.model.alignment import build_model
from vfsearch.search.comparable import IncomparableError, check, evaluation_of
from vfsearch.search.race import opened
from vfsearch.search.records import EVALUATION
from vfsearch.search.report import write_report
from vfsearch.search.results import best_run
from vfsearch.search.storage import study_url
from vfsearch.search.study import open_study, read_sweep

ONE, OTHER = "v1:aaaaaaaaaaaa:bbbbbbbbbbbb", "v1:aaaaaaaaaaaa:cccccccccccc"


def test_the_key_follows_split_lists_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    store = tiny_store("val", 8, seed=2, each=2)
    settings = tiny_config().evaluation
    evaluator = EpochEvaluator(store, settings)
    key = evaluator.key
    assert EpochEvaluator(store, settings).key == key
    other_lists = EpochEvaluator(store, settings.model_copy(update={"seed": 1})).key
    assert difference(key, other_lists).startswith("query lists (")
    other_split = evaluation_key("another", evaluator.lists)
    assert difference(key, other_split).startswith("split (identities and files) (")
    monkeypatch.setattr("vfsearch.evaluation.identity.VERSION", 2)
    other_version = evaluation_key(store.split_hash, evaluator.lists)
    assert difference(key, other_version) == "version of the evaluation (v1 and v2)"
    assert difference(key, key) == ""


def _ended(name: str, keys: list[str | None]) -> None:
    """A sweep whose trials were measured by these evaluations, one after the other."""
    config = sweeps.sweep(name=name, budget={"trials": len(keys)})
    with open_study(config, create=True, resume=False) as study:
        for key in keys:
            asked = study.ask()
            assert asked is not None
            if key is not None:
                study.measured_by(asked.number, key)
            sweeps.train(study, asked)


def test_a_trial_measured_otherwise_does_not_enter_the_study() -> None:
    config = sweeps.sweep(name="mixed")
    with open_study(config, create=True, resume=False) as study:
        first, second = study.ask(), study.ask()
        assert first is not None
        assert second is not None
        study.measured_by(first.number, ONE)
        study.measured_by(first.number, ONE)
        with pytest.raises(IncomparableError, match=r"trial 1 cannot .* query lists \(b+ and c+\)"):
            study.measured_by(second.number, OTHER)
        assert evaluation_of(study.study) == ONE
        assert EVALUATION not in study.study.trials[second.number].user_attrs


def test_report_race_and_promotion_refuse_a_study_that_is_mixed_all_the_same(
    tmp_path: Path,
) -> None:
    _ended("mixed", [ONE, None])
    _, study = read_sweep("mixed")
    check(study)
    # As an earlier version would have left it.
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, 1)
    with sa.create_engine(study_url("mixed", None)).begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (:t, :k, :v)"
            ),
            {"t": trial_id, "k": EVALUATION, "v": f'"{OTHER}"'},
        )
    for refused in (
        lambda: write_report(read_sweep("mixed")[1], tmp_path / "report.html"),
        lambda: best_run("mixed"),
        lambda: opened("mixed", None).__enter__(),
    ):
        with pytest.raises(IncomparableError, match="trial 1 cannot be compared"):
            refused()
    assert not (tmp_path / "report.html").exists()


def test_a_warm_start_binds_what_it_is_the_beginning_of() -> None:
    _ended("old", [ONE])
    config = sweeps.sweep(name="new", warm_start=[{"sweep": "old"}])
    with open_study(config, create=True, resume=False) as study:
        assert evaluation_of(study.study) == ONE
        asked = study.ask()
        assert asked is not None
        with pytest.raises(IncomparableError, match=f"trial {asked.number} cannot be compared"):
            study.measured_by(asked.number, OTHER)


def test_a_warm_start_from_another_evaluation_is_refused() -> None:
    _ended("old", [ONE])
    _ended("running", [OTHER])
    config = sweeps.sweep(name="running", budget={"trials": 1}, warm_start=[{"sweep": "old"}])
    with pytest.raises(IncomparableError, match="warm_start: old/0 cannot be compared with sweep"):
        open_study(config, create=True, resume=True)


def test_ranks_are_those_of_the_metrics() -> None:
    """The table's ranks give the accuracies and median ranks that the evaluation reports."""
    store = tiny_store("val", 8, seed=2, each=2)
    settings = tiny_config().evaluation.model_copy(update={"galleries": (2, 5)})
    evaluator = EpochEvaluator(store, settings)
    metrics = evaluator(build_model(tiny_config().model, 20), device="cpu")
    assert evaluator.embeddings is not None
    rows = evaluator.rank_table(evaluator.embeddings).to_pandas()
    for size in (2, 5):
        ranks = rows[rows.list == f"match_v2f_{size}_val"]["rank"]
        assert (ranks == 1).mean() == pytest.approx(metrics[f"val/match_v2f_1to{size}"])
        assert ranks.between(1, size).all()
    retrieved = rows[rows.list == "reterival_f2v_val"]["rank"]
    assert np.median(retrieved) == metrics["val/median_rank_f2v"]
    pairs = rows[rows.list == "verify_v2f_val"]
    assert pairs["rank"].isna().all()
    higher = pairs[pairs.positive == True]["score"].to_numpy()[:, None]  # noqa: E712
    lower = pairs[pairs.positive == False]["score"].to_numpy()  # noqa: E712
    auc = (higher > lower).mean() + (higher == lower).mean() / 2
    assert auc == pytest.approx(metrics["val/auc_v2f"])
