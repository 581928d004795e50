"""The numbers of a report: table of trials, hours, savings, importance, contours."""

import json
import math
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from support.sweep_study import DISTRIBUTIONS, EPOCHS, METRIC, make_sweep

from vfsearch.search.analysis import (
    TrialRow,
    objectives_of,
    pareto_front,
    ranked,
    to_document,
    trials_table,
)
from vfsearch.search.costs import full_length, hours_of, lanes, pace, saving_of
from vfsearch.search.definition import Objective
from vfsearch.search.importance import importances
from vfsearch.search.report_tables import Price, duration, number, result
from vfsearch.search.surface import LEVELS, contours, levels, unit

UP = Objective(metric=METRIC, direction="maximize")
START = datetime(2026, 3, 1, 9)


def row(number: int, **changes: object) -> TrialRow:
    fields: dict[str, object] = {
        "number": number,
        "state": "COMPLETE",
        "params": {},
        "values": (0.5,),
        "reached": (0.5,),
        "epochs": 4,
        "curve": {},
        "seconds": 100.0,
        "gpus": 0.0,
        "training": 60.0,
        "data": 5.0,
        "evaluation": 15.0,
        "started": START,
        "ended": START + timedelta(seconds=100),
        "retries": 0,
        "resumed": 0,
        "reason": None,
        "mlflow_run_id": None,
    }
    return TrialRow(**{**fields, **changes})  # type: ignore[arg-type]


def test_table_of_trials_is_the_study() -> None:
    study = make_sweep()
    document = json.loads(json.dumps(to_document(trials_table(study))))["trials"]
    assert [one["number"] for one in document] == list(range(60))
    for one, trial in zip(document, study.trials, strict=True):
        assert one["state"] == trial.state.name
        assert one["params"] == trial.params
        assert one["values"] == (trial.values if trial.state.name == "COMPLETE" else None)
        assert one["mlflow_run_id"] == trial.user_attrs["mlflow_run_id"]
        assert one["epochs"] == len(trial.intermediate_values)
        assert one["retries"] == trial.user_attrs["retries"]
        assert one["reason"] == trial.user_attrs.get("reason")
        assert one["seconds"] == pytest.approx(trial.user_attrs["seconds"], abs=1e-3)
    assert document[13]["state"] == "FAIL"
    assert document[13]["reason"] == "out of memory: CUDA out of memory"


def test_table_of_a_foreign_study() -> None:
    study = optuna.create_study(direction="minimize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    study.enqueue_trial({"x": 0.5})
    study.add_trial(
        optuna.trial.create_trial(value=0.0, user_attrs={"warm_start": "sweep other, trial 3"})
    )
    rows = trials_table(study)
    assert [one.state for one in rows] == ["COMPLETE"] * 3 + ["WAITING"]
    assert objectives_of(study)[0].direction == "minimize"
    best = ranked(rows, objectives_of(study)[0])[0]
    assert best.number == study.best_trials[0].number or best.values == (
        min(t.value for t in study.trials[:3]),
    )


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12),
    st.tuples(*[st.sampled_from(["maximize", "minimize"])] * 2),
)
def test_front_against_the_definition(points: list[tuple[int, int]], ways: tuple[str, str]) -> None:
    rows = [row(i, values=(float(a), float(b))) for i, (a, b) in enumerate(points)]
    objectives = [
        Objective(metric=str(i), direction=way)  # type: ignore[arg-type]
        for i, way in enumerate(ways)
    ]
    signs = [1 if way == "maximize" else -1 for way in ways]

    def dominates(one: tuple[int, int], other: tuple[int, int]) -> bool:
        gains = [s * (a - b) for s, a, b in zip(signs, one, other, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    naive = [i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)]
    assert pareto_front(rows, objectives) == naive


@pytest.mark.parametrize("restarted", ["retries", "resumed"])
def test_hours_add_up_and_are_told_apart(restarted: str) -> None:
    later = START + timedelta(seconds=100)
    rows = [
        row(0),
        row(1),
        # Failed: all of it is lost.
        row(2, state="FAIL", started=later, ended=later + timedelta(seconds=50), seconds=50.0),
        # Restarted: 70 s of overhead where 20 s are usual.
        row(
            3,
            **{restarted: 1},
            started=later,
            ended=later + timedelta(seconds=150),
            seconds=150.0,
        ),
        row(4, state="RUNNING", ended=None),
    ]
    hours = hours_of(rows)
    assert hours.training * 3600 == pytest.approx(180)
    assert hours.data * 3600 == pytest.approx(15)
    assert hours.evaluation * 3600 == pytest.approx(45)
    assert hours.start_up * 3600 == pytest.approx(60)
    assert hours.lost * 3600 == pytest.approx(50 + 50)
    # Two places; one stands empty for 100 s after the failure.
    assert hours.waiting * 3600 == pytest.approx(100)
    assert hours.total * 3600 == pytest.approx(2 * 250)
    assert hours.split


def test_time_between_two_drivers_is_nobodys() -> None:
    tomorrow = START + timedelta(days=1)
    rows = [row(0), row(1, started=tomorrow, ended=tomorrow + timedelta(seconds=100))]
    assert hours_of(rows).waiting == 0


def test_hours_without_times_of_the_loop() -> None:
    hours = hours_of([row(0, training=None, data=None, evaluation=None)])
    assert not hours.split
    assert hours.total * 3600 == pytest.approx(100)
    assert hours.training * 3600 == pytest.approx(100)


def test_saving_is_counted_at_each_trials_own_pace() -> None:
    rows = [row(0, epochs=9), row(1, state="PRUNED", epochs=3, training=10.0), row(2, epochs=2)]
    saving = saving_of(rows)
    assert (saving.trials, saving.epochs_run, saving.epochs_full) == (1, 14, 20)
    assert saving.hours * 3600 == pytest.approx(6 * (10 + 5 + 15) / 3)
    assert full_length([]) == 0
    assert pace(row(0, epochs=0)) == 0


def test_lanes_never_overlap() -> None:
    rows = trials_table(make_sweep())
    places = lanes(rows)
    assert set(places.values()) == {0, 1}
    for place in (0, 1):
        spans = sorted(
            (one.started, one.ended)
            for one in rows
            if places[one.number] == place and one.started and one.ended
        )
        assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_importance_finds_what_decides_and_gives_noise_its_level() -> None:
    rows = trials_table(make_sweep(120, seed=4))
    found = importances(rows, DISTRIBUTIONS, UP)
    assert {one.name for one in found} == set(DISTRIBUTIONS)
    decides = {one.name: one.value > one.chance for one in found}
    assert decides["loss.margin"]
    assert decides["optimizer.lr"]
    assert not decides["classifier.norm_bound"]
    conditional = next(one for one in found if one.name == "reweighting.temperature")
    assert conditional.trials == sum("reweighting.temperature" in r.params for r in rows) - sum(
        r.state in ("FAIL", "RUNNING") and "reweighting.temperature" in r.params for r in rows
    )
    assert importances(rows, DISTRIBUTIONS, UP) == found
    assert importances(rows[:8], DISTRIBUTIONS, UP) == []


def test_importance_uses_trials_that_were_stopped() -> None:
    rows = [one for one in trials_table(make_sweep(120, seed=4)) if one.state != "PRUNED"]
    few = importances(rows, DISTRIBUTIONS, UP)
    all_of_them = importances(trials_table(make_sweep(120, seed=4)), DISTRIBUTIONS, UP)
    assert all(a.trials < b.trials for a in few for b in all_of_them if a.name == b.name)


def test_positions_follow_the_scale() -> None:
    assert unit(FloatDistribution(1, 100, log=True), 10) == pytest.approx(0.5)
    assert unit(IntDistribution(0, 10), 5) == pytest.approx(0.5)
    assert unit(CategoricalDistribution(("a", "b")), "a") is None
    assert unit(FloatDistribution(1, 1), 1) is None


def test_contours_cover_where_trials_are_and_leave_the_rest_blank() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 0.3, (40, 2))
    values = points.sum(axis=1)
    edges = levels(values)
    assert len(edges) == LEVELS - 1
    assert edges == sorted(edges)
    paths = contours(points, values, edges)
    assert len(paths) == LEVELS
    corners = [
        [float(v) for v in pair.split()]
        for path in paths
        for ring in path.split("M")[1:]
        for pair in _pairs(ring.rstrip("Z"))
    ]
    # Nothing is drawn in the upper right corner (y points down in SVG).
    assert not [c for c in corners if c[0] > 700 and c[1] < 300]
    assert [c for c in corners if c[0] < 300 and c[1] > 700]


def _pairs(ring: str) -> list[str]:
    numbers = ring.split()
    return [f"{a} {b}" for a, b in zip(numbers[::2], numbers[1::2], strict=True)]


def test_one_value_has_no_levels() -> None:
    assert levels(np.full(5, 0.5)) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0012345, "0.001234"), (-2.5, "−2.5"), (1e-4, "1.00e−4"), (True, "True"), ("a", "a"),
     (None, "–"), (3, "3"), (math.inf, "inf"), (250000.0, "2.50e5")],
)  # fmt: skip
def test_numbers_for_people(value: object, text: str) -> None:
    assert number(value) == text


def test_results_keep_their_digits() -> None:
    assert result(0.82) == "0.8200"
    assert result(None) == "–"
    assert [duration(s) for s in (None, 12, 95, 7300)] == ["–", "12 s", "1 min 35 s", "2 h 01 min"]


def test_prices() -> None:
    gpus = Price(gpus=2, dollars=2.5)
    assert (gpus.unit, gpus.hours(1.5), gpus.cost(1.5)) == ("GPU-hours", "3.00 GPU-h", "$7.50")
    cpu = Price(gpus=0, dollars=2.5)
    assert (cpu.unit, cpu.hours(0.01), cpu.cost(1.5)) == ("trial-hours", "0.6 trial-min", None)


def test_made_up_sweep_has_every_state() -> None:
    states = {trial.state.name for trial in make_sweep().trials}
    assert states == {"COMPLETE", "PRUNED", "FAIL", "RUNNING"}
    assert full_length(trials_table(make_sweep())) == EPOCHS
