"""What every sampler must do, whatever its method."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from support.sweeps import CONDITIONAL, METRIC, PLAIN, SECOND, metrics, sweep

from vfsearch.search.definition import SweepConfig
from vfsearch.search.study import open_study

SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {"name": "tpe", "startup_trials": 3},
    "gp": {"name": "gp", "startup_trials": 3},
    "cmaes": {"name": "cmaes", "population": 4},
    "nsga2": {"name": "nsga2", "population": 3},
    "random": {"name": "random"},
    "grid": {"name": "grid", "points": 3},
    "qmc": {"name": "qmc"},
}
SPACES = {"plain": PLAIN, "conditional": CONDITIONAL}
BOTH = [{"metric": METRIC, "direction": "maximize"}, {"metric": SECOND, "direction": "maximize"}]
TRIALS = 7


@pytest.fixture(params=sorted(SAMPLERS))
def sampler(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "cmaes" and importlib.util.find_spec("cmaes") is None:
        pytest.skip("the package cmaes is not installed")
    return SAMPLERS[request.param]


def run(config: SweepConfig, stops: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """Ask and tell; after the trials in ``stops`` the driver is replaced."""
    asked_all = []
    study = open_study(config, create=True, resume=False)
    for index in range(TRIALS):
        asked = study.ask()
        assert asked is not None
        assert study.space.feasible(asked.params)
        assert asked.params == study.space.active(asked.params)
        assert set(asked.params) >= {n for n, p in config.parameters.items() if not p.when}
        for name, value in asked.params.items():
            assert config.parameters[name].contains(value)
        asked_all.append(asked.params)
        study.report(asked.number, 1, metrics(asked, 1))
        if index % 3 == 2:
            study.prune(asked.number, 1, "every third")
        else:
            study.complete(asked.number)
        if index in stops:
            study.close()
            study = open_study(config, create=False, resume=True)
    study.close()
    return asked_all


@pytest.mark.slow
@pytest.mark.parametrize("space", sorted(SPACES))
def test_points_are_sound_and_survive_restarts(
    sampler: dict[str, Any], space: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    rules = ["classifier.norm_bound <= 8 * loss.margin"] if space == "plain" else []

    if sampler["name"] != "cmaes":  # the configuration refuses them there
        rules.append("time/evaluation <= 12")

    def config(name: str, seed: int = 3) -> SweepConfig:
        return sweep(
            name=name,
            storage=url,
            parameters=SPACES[space],
            sampler={**sampler, "seed": seed},
            constraints=rules,
        )

    whole = run(config("whole"))
    assert run(config("broken"), stops=(0, 3, 4)) == whole
    assert run(config("other", seed=4)) != whole
    if sampler["name"] in ("random", "grid", "qmc"):
        assert len({tuple(sorted(point.items(), key=str)) for point in whole}) == TRIALS


@pytest.mark.slow
def test_several_objectives_with_pruned_trials(sampler: dict[str, Any], tmp_path: Path) -> None:
    if sampler["name"] == "cmaes":
        pytest.skip("cmaes has one objective; the configuration refuses more")
    config = sweep(
        storage=f"sqlite:///{tmp_path}/study.db",
        objectives=BOTH,
        sampler={**sampler, "seed": 1},
    )
    assert len(run(config)) == TRIALS
