"""A made-up sweep with everything that a report must show: stops, faults, conditions, gaps."""

import math
import warnings
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

METRIC = "val/match_v2f_1to2"
SECOND = "val/auc_v2f_G"
EPOCHS = 9
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "loss.margin": FloatDistribution(1.0, 64.0, log=True),
    "reweighting.schedule": CategoricalDistribution(("none", "soft", "rank")),
    "reweighting.temperature": FloatDistribution(0.05, 10.0, log=True),
    "classifier.norm_bound": FloatDistribution(1.0, 50.0, log=True),
    "optimizer.lr": FloatDistribution(1e-3, 1e-1, log=True),
}


def make_sweep(trials: int = 60, *, objectives: int = 1, seed: int = 0) -> optuna.Study:
    """Make a study as the engine leaves it: two slots, median-like stops, faults and restarts."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(
        study_name="made-up", directions=["maximize"] * objectives, storage=None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental in Optuna
        study.set_metric_names([METRIC, SECOND][:objectives])
    free = [datetime(2026, 3, 1, 9, 0, 0)] * 2
    history: dict[int, list[float]] = {}
    for number in range(trials):
        slot = free.index(min(free))
        trial = _trial(number, rng, history, objectives, free[slot], last=number == trials - 1)
        study.add_trial(trial)
        if trial.datetime_complete is not None:
            free[slot] = trial.datetime_complete + timedelta(seconds=0.5)
    return study


def _trial(
    number: int,
    rng: np.random.Generator,
    history: dict[int, list[float]],
    objectives: int,
    start: datetime,
    *,
    last: bool,
) -> FrozenTrial:
    params: dict[str, object] = {
        "loss.margin": float(64 ** rng.uniform()),
        "reweighting.schedule": ("none", "soft", "rank")[rng.integers(3)],
        "classifier.norm_bound": float(50 ** rng.uniform()),
        "optimizer.lr": float(10 ** rng.uniform(-3, -1)),
    }
    if params["reweighting.schedule"] == "soft":
        params["reweighting.temperature"] = float(0.05 * 200 ** rng.uniform())
    top = 0.80 - 0.05 * abs(math.log(float(str(params["loss.margin"])) / 6)) ** 1.5
    top -= 0.06 * abs(math.log10(float(str(params["optimizer.lr"])) / 0.012)) ** 2
    top += 0.02 * (params["reweighting.schedule"] == "soft")
    top = max(top, 0.52) + rng.normal(0, 0.008)
    curve = [
        top - (top - 0.5) * math.exp(-epoch / 2.2) + rng.normal(0, 0.006)
        for epoch in range(1, EPOCHS + 1)
    ]
    state, epochs, reason = TrialState.COMPLETE, EPOCHS, None
    for epoch, value in enumerate(curve, start=1):
        peers = history.setdefault(epoch, [])
        if epoch in (1, 3) and len(peers) > 4 and value < float(np.quantile(peers, 0.6)):
            state, epochs = TrialState.PRUNED, epoch
            reason = f"asha: {METRIC} = {value:.6g} after epoch {epoch}"
            break
        peers.append(value)
    if number in (13, 37):
        state, epochs = TrialState.FAIL, 2
        reason = "out of memory: CUDA out of memory" if number == 13 else "train/loss is nan"
    if last:
        state, epochs = TrialState.RUNNING, 4
    pace = float(rng.uniform(7, 10))
    retries = int(number == 21)
    seconds = 14 + epochs * pace + 40 * retries
    values = curve[:epochs]
    best = int(np.argmax(values))
    # What helps one objective hurts the other, so that there is a front.
    lean = 1.6 - 0.35 * math.log(float(str(params["loss.margin"])))
    attributes: dict[str, Any] = {
        "asked": True,
        "epochs": epochs,
        "seconds": seconds,
        "retries": retries,
        "mlflow_run_id": f"{number:032x}",
        "curves": {
            "epochs": list(range(1, epochs + 1)),
            "metrics": {
                METRIC: values,
                SECOND: [0.5 + (v - 0.5) * 0.6 * lean + rng.normal(0, 0.01) for v in values],
                "time/step_seconds": [pace * 0.7] * epochs,
                "time/data_seconds": [pace * 0.1] * epochs,
                "time/evaluation_seconds": [pace * 0.18] * epochs,
                "time/checkpoint_seconds": [pace * 0.02] * epochs,
            },
        },
    }
    if reason is not None:
        attributes["reason"] = reason
    ended = state.is_finished()
    second = attributes["curves"]["metrics"][SECOND][best]
    told = [values[best], second][:objectives]
    trial = create_trial(
        state=state,
        params=params,
        distributions={name: DISTRIBUTIONS[name] for name in params},
        values=told if state == TrialState.COMPLETE else None,
        intermediate_values=dict(enumerate(values, start=1)) if objectives == 1 else {},
        user_attrs=attributes,
    )
    trial.datetime_start = start
    trial.datetime_complete = start + timedelta(seconds=seconds) if ended else None
    return trial
