"""A sweep of real training, small enough for tests."""

from pathlib import Path
from typing import Any

from support.engine_runs import METRIC

from vfsearch.search.mailbox import TRAINING

REAL = ("--performer", TRAINING)
"""Flags of `engine_runs.drive` for it."""


def real_sweep(name: str, root: Path) -> dict[str, Any]:
    """Two trials of 4 epochs on noise, with everything on that has a state."""
    return {
        "name": name,
        "base": {
            "corpus": {"root": str(root), "face_size": 56, "store": str(root / "store")},
            "model": {
                "face": {"encoder": "small"},
                "voice": {"encoder": "small"},
                "embedding_dim": 16,
                "dropout": 0.2,
            },
            "classifier": {"norm_bound": 2.0},
            "reweighting": {"every": 2},
            "training": {
                "batch": 8,
                "epoch_steps": 2,
                "audio_seconds": [0.5, 0.75],
                "stages": {"warm_up": 2, "weight_learning": 6, "learning_milestones": [5]},
            },
            "evaluation": {"galleries": [2], "strata": ["U"], "audio_seconds": 1.0},
            "workers": {"count": 2, "report_timeout": 600},
            "tracking": {"enabled": False},
        },
        "parameters": {
            "loss.margin": {"type": "float", "low": 1, "high": 16, "log": True},
            "optimizer.lr": {"type": "float", "low": 0.005, "high": 0.1, "log": True},
        },
        "objectives": [{"metric": METRIC, "direction": "maximize"}],
        "sampler": {"name": "random", "seed": 5},
        "budget": {"trials": 2},
    }
