"""Small sweep definitions for tests, and a stand-in for training."""

import math
from typing import Any

from vfsearch.evaluation.names import INTERVAL
from vfsearch.search.definition import SweepConfig
from vfsearch.search.records import Asked
from vfsearch.search.sweep_study import SweepStudy

METRIC = "val/match_v2f_1to2"
SECOND = "val/auc_v2f"

PLAIN: dict[str, Any] = {
    "loss.margin": {"type": "float", "low": 1.0, "high": 16.0, "log": True},
    "optimizer.lr": {"type": "float", "low": 0.01, "high": 0.1, "log": True},
    "classifier.norm_bound": {"type": "float", "low": 1.0, "high": 64.0},
}
CONDITIONAL: dict[str, Any] = {
    "alignment": {
        "type": "categorical",
        "choices": {
            "implicit": {"loss.implicit": 1.0, "loss.explicit": 0.0},
            "explicit": {"loss.implicit": 0.0, "loss.explicit": 0.5},
            "both": {"loss.implicit": 1.0},
        },
    },
    "loss.explicit": {"type": "float", "low": 0.1, "high": 1.0, "when": {"alignment": "both"}},
    "loss.margin": {
        "type": "float",
        "low": 1.0,
        "high": 16.0,
        "log": True,
        "when": {"alignment": ["explicit", "both"]},
    },
    "reweighting.schedule": {"type": "categorical", "choices": ["none", "rank", "soft"]},
    "reweighting.temperature": {
        "type": "float",
        "low": 0.1,
        "high": 4.0,
        "log": True,
        "when": {"reweighting.schedule": "soft", "alignment": ["implicit", "both"]},
    },
    "training.stages.warm_up": {"type": "int", "low": 0, "high": 20, "step": 5},
}
DISCRETE: dict[str, Any] = {
    "model.face.encoder": {"type": "categorical", "choices": ["ir50", "small"]},
    "model.dropout": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.25},
    "reweighting.schedule": {"type": "categorical", "choices": ["rank", "soft"]},
    "reweighting.every": {
        "type": "int",
        "low": 50,
        "high": 100,
        "step": 25,
        "when": {"reweighting.schedule": "rank"},
    },
}


def sweep(**changes: Any) -> SweepConfig:
    """Return a sweep of three parameters, with changes at its top level."""
    data: dict[str, Any] = {
        "name": "small",
        "base": {"corpus": {"root": "corpus"}},
        "parameters": PLAIN,
        "objectives": [{"metric": METRIC, "direction": "maximize"}],
        "sampler": {"name": "random", "seed": 11},
        "budget": {"trials": 10},
    }
    return SweepConfig.model_validate({**data, **changes})


def metrics(asked: Asked, epoch: int) -> dict[str, float]:
    """Return smooth curves that depend on the parameters alone."""
    numbers = [v for v in asked.params.values() if isinstance(v, float)]
    quality = math.fsum(math.sin(3 * v) for v in numbers) / max(len(numbers), 1)
    value = 0.6 + 0.1 * quality - 0.1 * math.exp(-epoch / 3)
    interval = dict(zip(INTERVAL, (value - 0.02, value + 0.03), strict=True))
    return {METRIC: value, SECOND: 1 - value**2, "time/evaluation": 10 + 5 * quality, **interval}


def train(study: SweepStudy, asked: Asked, epochs: int = 6) -> None:
    """Run a trial to its end, the way the engine does."""
    if asked.epoch and study.should_prune(asked.number, asked.epoch).prune:
        study.prune(asked.number, asked.epoch, "decided before the restart")
        return
    for epoch in range(asked.epoch + 1, epochs + 1):
        assert study.report(asked.number, epoch, metrics(asked, epoch)) is None
        verdict = study.should_prune(asked.number, epoch)
        if verdict.prune:
            study.prune(asked.number, epoch, verdict.reason)
            return
    study.complete(asked.number)
