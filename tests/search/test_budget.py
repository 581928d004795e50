"""Stop decisions are values: limits, their order and their reasons."""

import optuna
import pytest
from pydantic import ValidationError

from vfsearch.search.budget import Budget, Spent, decide, improvement_bound


def spent(**changes: float) -> Spent:
    return Spent(**{"trials": 3, "seconds": 100.0, "gpu_seconds": 7200.0, **changes})


@pytest.mark.parametrize(
    ("budget", "used", "reason"),
    [
        ({"trials": 4}, {}, None),
        ({"trials": 3}, {}, "3 of 3 trials"),
        ({"wall_time": "101s"}, {}, None),
        ({"wall_time": "1.5m"}, {}, "wall time 100 s of 90 s"),
        ({"gpu_hours": 2.5}, {}, None),
        ({"gpu_hours": 2}, {}, "2.00 of 2.00 GPU-hours"),
        ({"dollars": 7, "dollars_per_gpu_hour": 3}, {}, None),
        ({"dollars": 6, "dollars_per_gpu_hour": 3}, {}, "6.00 of 6.00 dollars"),
        ({"trials": 9, "target": {"metric": "val/x", "value": 0.9}}, {"target": 0.89}, None),
        ({"trials": 9, "target": {"metric": "val/x", "value": 0.9}}, {}, None),
        (
            {"trials": 9, "target": {"metric": "val/x", "value": 0.9}},
            {"target": 0.9},
            "target reached: val/x = 0.9 >= 0.9",
        ),
        (
            {"trials": 9, "target": {"metric": "l", "value": 0.2, "direction": "minimize"}},
            {"target": 0.1},
            "target reached: l = 0.1 <= 0.2",
        ),
        ({"trials": 9, "stop_when_improvement_below": 0.01}, {"improvement": 0.02}, None),
        ({"trials": 9, "stop_when_improvement_below": 0.01}, {}, None),
        (
            {"trials": 9, "stop_when_improvement_below": 0.01},
            {"improvement": 0.005},
            "at most 0.005 left to gain, below 0.01",
        ),
    ],
)
def test_limits_and_reasons(
    budget: dict[str, object], used: dict[str, float], reason: str | None
) -> None:
    decision = decide(Budget.model_validate(budget), spent(**used))
    assert decision.stop == (reason is not None)
    assert reason is None or decision.reason == reason


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("2h", 7200), ("1.5d", 129600), (5, 5)])
def test_durations(text: object, seconds: float) -> None:
    assert Budget.model_validate({"wall_time": text}).wall_time == seconds


@pytest.mark.parametrize("budget", [{}, {"dollars": 3}, {"wall_time": "2 weeks"}, {"trials": 0}])
def test_an_endless_or_meaningless_budget_is_refused(budget: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Budget.model_validate(budget)


def test_improvement_bound_falls_as_the_optimum_is_closed_in_on() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5)
    )
    assert improvement_bound(study, after=5, seed=0) is None
    study.optimize(lambda trial: -((trial.suggest_float("x", -3, 3) - 1) ** 2), n_trials=10)
    early = improvement_bound(study, after=5, seed=0)
    assert early is not None
    assert early == improvement_bound(study, after=5, seed=0)
    study.optimize(lambda trial: -((trial.suggest_float("x", -3, 3) - 1) ** 2), n_trials=40)
    late = improvement_bound(study, after=5, seed=0)
    assert late is not None
    assert 0 <= late < early
    assert improvement_bound(study, after=51, seed=0) is None
