"""Pruning from the stored study decides what Optuna decides live, and survives restarts."""

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from pydantic import TypeAdapter
from support.sweeps import METRIC, SECOND, sweep

from vfsearch.search.pruners import AnyPruner, Pruning, build_pruner
from vfsearch.search.study import open_study

BOTH = [{"metric": METRIC, "direction": "maximize"}, {"metric": SECOND, "direction": "minimize"}]
PRUNERS: dict[str, dict[str, Any]] = {
    "asha": {"name": "asha", "grace": 1, "reduction_factor": 2},
    "asha-late": {"name": "asha", "grace": 3, "min_resource": 2, "bootstrap": 2},
    "hyperband": {"name": "hyperband", "grace": 1, "max_resource": 6, "reduction_factor": 3},
    "median": {"name": "median", "grace": 2, "startup_trials": 2},
    "wilcoxon": {"name": "wilcoxon", "grace": 3, "p_threshold": 0.3},
    "patient": {"name": "patient", "grace": 1, "patience": 1, "inner": {"name": "asha"}},
    "patient-alone": {"name": "patient", "grace": 1, "patience": 2},
}
EPOCHS, TRIALS = 7, 8


def curves(seed: int) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.4, 0.9, (TRIALS, 1))
    rise = 1 - np.exp(-np.arange(1, EPOCHS + 1) / rng.uniform(1, 6, (TRIALS, 1)))
    noisy = level * rise + rng.normal(0, 0.05, (TRIALS, EPOCHS))
    noisy[1::2, 3:] -= 0.3  # every other trial falls apart
    return [[float(value) for value in row] for row in noisy]


def options(spec: dict[str, Any]) -> Pruning:
    parsed: Pruning = TypeAdapter(AnyPruner).validate_python(spec)
    return parsed


def live(spec: dict[str, Any], values: list[list[float]], name: str) -> list[int]:
    """The oracle: Optuna's own loop in one process; the epoch after which each trial ended."""
    study = optuna.create_study(
        study_name=name, direction="maximize", pruner=build_pruner(options(spec))
    )
    ends = []
    for row in values:
        trial = study.ask()
        for epoch, value in enumerate(row, start=1):
            trial.report(value, epoch)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, max(row))
        ends.append(epoch)
    return ends


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("kind", sorted(PRUNERS))
def test_decisions_are_optunas_through_restarts_and_repeated_calls(
    kind: str, objectives: int, tmp_path: Path
) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spec, values = PRUNERS[kind], curves(seed=len(kind))
    config = sweep(
        storage=f"sqlite:///{tmp_path}/study.db",
        pruner=spec,
        objectives=BOTH[:objectives],
        budget={"trials": TRIALS},
    )
    ends = []
    study = open_study(config, create=True, resume=False)
    for number, row in enumerate(values):
        assert study.ask() is not None
        for epoch, value in enumerate(row, start=1):
            study.report(number, epoch, {METRIC: value, SECOND: 1.0})
            verdict = study.should_prune(number, epoch)
            if (number, epoch) in ((2, 1), (4, 3), (7, 1)):
                study.close()
                study = open_study(config, create=False, resume=True)
            assert study.should_prune(number, epoch) == verdict
            if epoch > 1:
                assert study.should_prune(number, epoch - 1).prune is False
            if verdict.prune:
                study.prune(number, epoch, verdict.reason)
                break
        else:
            study.complete(number)
        ends.append(epoch)
    study.close()
    assert ends == live(spec, values, "small")
    assert min(ends) >= spec["grace"]
    assert min(ends) < EPOCHS, "the curves never made this pruner stop anything"


def test_a_killed_decision_is_made_again_the_same_way(tmp_path: Path) -> None:
    """Optuna's ASHA, asked twice about one epoch, says stop and then go on."""
    config = sweep(storage=f"sqlite:///{tmp_path}/s.db", pruner=PRUNERS["asha"])
    with open_study(config, create=True, resume=False) as study:
        for value in (0.9, 0.8):
            asked = study.ask()
            assert asked is not None
            study.report(asked.number, 1, {METRIC: value})
            assert study.should_prune(asked.number, 1).prune == (value == 0.8)
        for _ in range(3):
            assert study.should_prune(1, 1).prune is True
    with open_study(config, create=False, resume=True) as study:
        verdict = study.should_prune(1, 1)
        assert verdict.prune is True
        assert verdict.reason == f"asha: {METRIC} = 0.8 after epoch 1"
        assert "completed_rung_0" not in study.study.trials[1].system_attrs


def test_trials_taken_over_from_elsewhere_do_not_prune(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    with open_study(sweep(name="old", storage=url), create=True, resume=False) as old:
        for _ in range(6):
            asked = old.ask()
            assert asked is not None
            old.report(asked.number, 1, {METRIC: 0.99})
            old.complete(asked.number)
    config = sweep(
        storage=url,
        pruner={"name": "median", "startup_trials": 1, "grace": 1},
        warm_start=[{"study": "old", "url": url}],
    )
    with open_study(config, create=True, resume=False) as study:
        asked = study.ask()
        assert asked is not None
        assert asked.number == 6
        study.report(6, 1, {METRIC: 0.1})
        assert study.should_prune(6, 1).prune is False
