"""Earlier searches as a source: what overlaps is taken over, once, and marked."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from support.sweeps import METRIC, PLAIN, sweep, train

from vfsearch.errors import SweepError
from vfsearch.search.study import open_study
from vfsearch.search.warm_start import PastTrial


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def past(number: int, margin: float, value: float = 0.6, **params: Any) -> PastTrial:
    return PastTrial(
        source=f"old/{number}",
        params={"loss.margin": margin, "optimizer.lr": 0.05, **params},
        values={METRIC: value},
        settings={"classifier.norm_bound": 8.0},
    )


def test_an_earlier_sweep_with_another_range_gives_what_overlaps(url: str) -> None:
    wide = {**PLAIN, "loss.margin": {"type": "float", "low": 1.0, "high": 64.0, "log": True}}
    old = sweep(name="old", storage=url, parameters=wide, budget={"trials": 12})
    with open_study(old, create=True, resume=False) as study:
        for _ in range(12):
            asked = study.ask()
            assert asked is not None
            train(study, asked, epochs=2)
        inside = {
            f"old/{t.number}": (t.params, t.values)
            for t in study.study.trials
            if t.params["loss.margin"] <= 16
        }
    assert 0 < len(inside) < 12
    config = sweep(storage=url, warm_start=[{"study": "old", "url": url}], budget={"trials": 2})
    for resume in (False, True):  # a second opening adds nothing
        with open_study(config, create=True, resume=resume) as study:
            taken = study.study.trials
            assert {t.user_attrs["warm_start"]: (t.params, t.values) for t in taken} == inside
            assert study.stop_reason(0.0, 0.0) is None
            assert study.running() == []
    with open_study(config, create=False, resume=True) as study:
        numbers = []
        while study.stop_reason(0.0, 0.0) is None:
            asked = study.ask()
            assert asked is not None
            numbers.append(asked.number)
            train(study, asked, epochs=2)
        assert numbers == [len(inside), len(inside) + 1]
        assert study.stop_reason(0.0, 0.0) == "2 of 2 trials"


def test_mlflow_is_read_through_the_callers_function(url: str) -> None:
    asked_for = []

    def mlflow(name: str) -> list[PastTrial]:
        asked_for.append(name)
        return [
            past(0, 5.4),
            past(1, 100.0),
            past(2, 3.0, value=float("nan")),
            past(3, 2.0, **{"classifier.norm_bound": 60.0}),
            past(4, 2.0, **{"classifier.norm_bound": 600.0}),
        ]

    config = sweep(storage=url, warm_start=[{"mlflow": "old"}])
    with open_study(config, create=True, resume=False, mlflow=mlflow) as study:
        found = {t.user_attrs["warm_start"]: t.params for t in study.study.trials}
    assert asked_for == ["old"]
    assert set(found) == {"old/0", "old/3"}
    assert found["old/0"]["classifier.norm_bound"] == 8.0  # a setting of that run, not searched
    assert found["old/3"]["classifier.norm_bound"] == 60.0


def test_what_violates_the_constraints_is_left_out(url: str) -> None:
    config = sweep(storage=url, warm_start=[{"mlflow": "old"}], constraints=["loss.margin <= 4"])
    with open_study(
        config, create=True, resume=False, mlflow=lambda _: [past(0, 5.4), past(1, 3.0)]
    ) as study:
        assert [t.user_attrs["warm_start"] for t in study.study.trials] == ["old/1"]


def test_any_optuna_study_can_be_a_source(url: str) -> None:
    foreign = optuna.create_study(study_name="foreign", storage=url, direction="maximize")
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        foreign.set_metric_names([METRIC])
    distributions = {name: optuna.distributions.FloatDistribution(0.001, 50.0) for name in PLAIN}
    params = {"loss.margin": 2.0, "optimizer.lr": 0.02, "classifier.norm_bound": 3.0}
    foreign.add_trial(
        optuna.trial.create_trial(params=params, distributions=distributions, value=0.7)
    )
    config = sweep(storage=url, warm_start=[{"study": "foreign", "url": url}])
    with open_study(config, create=True, resume=False) as study:
        assert [(t.params, t.values) for t in study.study.trials] == [(params, [0.7])]


def test_a_missing_source_is_an_error_and_leaves_no_driver_behind(url: str) -> None:
    config = sweep(storage=url, warm_start=[{"study": "nothing", "url": url}])
    for _ in range(2):
        with pytest.raises(SweepError, match="no study nothing"):
            open_study(config, create=True, resume=True)
    with pytest.raises(SweepError, match="needs tracking"):
        open_study(
            sweep(name="b", storage=url, warm_start=[{"mlflow": "x"}]), create=True, resume=False
        )
    with pytest.raises(SweepError, match="no study at"):
        open_study(
            sweep(name="c", storage=url, warm_start=[{"sweep": "x"}]), create=True, resume=False
        )
