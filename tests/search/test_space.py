"""Spaces: what exists when, how many points there are, and that every point makes a run."""

import itertools
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.sweeps import CONDITIONAL, DISCRETE, PLAIN, sweep

from vfsearch.config import RunConfig, flat
from vfsearch.errors import SweepError
from vfsearch.search.definition import derived_seed
from vfsearch.search.loading import load_sweep
from vfsearch.search.parameters import nearest, run_keys
from vfsearch.search.space import SearchSpace, resolve

SHIPPED = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
SPACES = {"plain": PLAIN, "conditional": CONDITIONAL, "discrete": DISCRETE}


def expected_names(parameters: dict[str, Any], point: dict[str, Any]) -> set[str]:
    """The definition: a parameter exists if every condition is met by one that exists."""
    names: set[str] = set()
    for _ in parameters:
        for name, spec in parameters.items():
            met = all(
                other in names
                and point[other] in (wanted if isinstance(wanted, list) else [wanted])
                for other, wanted in spec.get("when", {}).items()
            )
            if met:
                names.add(name)
    return names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_spaces_are_sound_and_every_sample_makes_a_run(path: Path) -> None:
    config = load_sweep(path)
    space = SearchSpace(config)
    assert config.name == path.stem
    for point in space.samples(50, seed=1):
        run = resolve(config, point, seed=3)
        assert run.seed == 3
        assert space.feasible(point)


def test_the_shipped_spaces_are_those_of_the_documentation() -> None:
    names = [path.stem for path in SHIPPED]
    assert names == ["demo", "encoders", "losses", "multi_objective", "paper"]


def test_the_demo_fits_its_promise() -> None:
    config = load_sweep(next(path for path in SHIPPED if path.stem == "demo"))
    assert config.budget.trials is not None
    assert config.budget.trials >= 12
    assert config.base.workers.count == 2
    steps = config.base.training.stages.total
    assert 80 <= steps <= 150
    assert steps % (config.base.training.epoch_steps or 1) == 0


@given(seed=st.integers(0, 2**31 - 1), kind=st.sampled_from(sorted(SPACES)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_suggested_point_makes_a_run_with_exactly_the_active_parameters(
    seed: int, kind: str
) -> None:
    config = sweep(parameters=SPACES[kind])
    point = SearchSpace(config).samples(1, seed)[0]
    assert set(point) == expected_names(SPACES[kind], point)
    run = flat(resolve(config, point, seed))
    for name, value in point.items():
        parameter = config.parameters[name]
        assert parameter.contains(value)
        if name in run:
            assert run[name] == value
    assert RunConfig.model_validate(resolve(config, point, seed).model_dump())


def test_bundles_set_what_they_name_and_parameters_come_last() -> None:
    config = sweep(parameters=CONDITIONAL, fixed={"loss.explicit": 9.0})
    implicit = resolve(config, {"alignment": "implicit"}, 0)
    assert (implicit.loss.implicit, implicit.loss.explicit) == (1.0, 0.0)
    both = resolve(config, {"alignment": "both", "loss.explicit": 0.7, "loss.margin": 3.0}, 0)
    assert (both.loss.implicit, both.loss.explicit, both.loss.margin) == (1.0, 0.7, 3.0)
    assert resolve(config, {"alignment": "both"}, 0).loss.explicit == 9.0


def test_same_seed_same_samples() -> None:
    space = SearchSpace(sweep(parameters=CONDITIONAL))
    assert space.samples(10, 5) == space.samples(10, 5)
    assert space.samples(10, 5) != space.samples(10, 6)


@pytest.mark.parametrize(("kind", "points"), [("discrete", 3), ("conditional", 2), ("plain", 3)])
def test_grid_is_every_distinct_active_combination(kind: str, points: int) -> None:
    space = SearchSpace(sweep(parameters=SPACES[kind]))
    everything = [
        dict(zip(space.parameters, values, strict=True))
        for values in itertools.product(*(p.grid(points) for p in space.parameters.values()))
    ]
    distinct = {tuple(sorted(map(repr, space.active(p).items()))) for p in everything}
    grid = space.grid(points)
    assert {tuple(sorted(map(repr, p.items()))) for p in grid} == distinct
    assert len(grid) == len(distinct)
    if space.size() is not None:
        assert space.size() == len(distinct)


def test_size_of_a_continuum_is_none() -> None:
    assert SearchSpace(sweep()).size() is None
    assert SearchSpace(sweep(parameters=DISCRETE)).size() == 2 * 3 * (1 + 3)


def test_grid_holds_both_ends_exactly_on_a_log_scale() -> None:
    margin = sweep().parameters["loss.margin"]
    assert margin.grid(5) == pytest.approx((1, 2, 4, 8, 16))
    assert (margin.grid(5)[0], margin.grid(5)[-1]) == (1.0, 16.0)


def test_constraints_on_settings_hold_in_every_sample() -> None:
    config = sweep(constraints=["classifier.norm_bound <= 4 * loss.margin"])
    for point in SearchSpace(config).samples(200, 0):
        assert point["classifier.norm_bound"] <= 4 * point["loss.margin"]


def test_rules_between_settings_hold_in_every_sample() -> None:
    parameters = {
        "reweighting.admit_from": {"type": "float", "low": 0.1, "high": 1.0},
        "reweighting.admit_to": {"type": "float", "low": 0.1, "high": 1.0},
    }
    for point in SearchSpace(sweep(parameters=parameters)).samples(100, 0):
        assert point["reweighting.admit_from"] <= point["reweighting.admit_to"]


def test_unsatisfiable_constraints_are_an_error_that_names_them() -> None:
    config = sweep(constraints=["loss.margin >= 100"])
    with pytest.raises(SweepError, match=r"loss\.margin >= 100"):
        SearchSpace(config).samples(1, 0)


def test_distributions_are_optunas_own() -> None:
    found = SearchSpace(sweep(parameters=CONDITIONAL)).distributions()
    assert found["loss.margin"] == optuna.distributions.FloatDistribution(1.0, 16.0, log=True)
    assert found["training.stages.warm_up"] == optuna.distributions.IntDistribution(0, 20, step=5)
    assert found["alignment"] == optuna.distributions.CategoricalDistribution(
        ("implicit", "explicit", "both")
    )


def test_description_has_a_row_per_parameter_and_five_samples() -> None:
    description = SearchSpace(sweep(parameters=CONDITIONAL)).describe()
    assert next(iter(description.rows))["name"] == "alignment"
    assert {row["name"] for row in description.rows} == set(CONDITIONAL)
    assert len(description.samples) == 5
    whens = {row["name"]: row["when"] for row in description.rows}
    assert whens["loss.explicit"] == "alignment in {both}"


def test_run_keys_are_the_flat_keys_of_a_run() -> None:
    run = RunConfig.model_validate({"corpus": {"root": "x"}})
    assert set(run_keys()) == set(flat(run))
    assert nearest("loss.margn", run_keys()) == " (did you mean loss.margin?)"


def test_seeds_differ_by_trial_and_purpose_and_fit_31_bits() -> None:
    seeds = [derived_seed(0, n, p) for n in range(500) for p in ("trial", "sampler", "space")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derived_seed(7, 3, "trial") == derived_seed(7, 3, "trial")
