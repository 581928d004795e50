"""What every pruner must do, whatever its rule."""

from pathlib import Path
from typing import Any

import pytest
from support.sweeps import METRIC, sweep

from vfsearch.search.study import open_study

GRACE = 2
PRUNERS: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "asha": {"name": "asha", "reduction_factor": 2},
    "hyperband": {"name": "hyperband", "max_resource": 6},
    "median": {"name": "median", "startup_trials": 1},
    "wilcoxon": {"name": "wilcoxon", "p_threshold": 0.3},
    "patient": {"name": "patient", "patience": 0},
}


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("kind", sorted(PRUNERS))
def test_a_first_and_a_best_trial_run_on_and_grace_is_kept(
    kind: str, direction: str, tmp_path: Path
) -> None:
    sign = 1 if direction == "maximize" else -1
    config = sweep(
        storage=f"sqlite:///{tmp_path}/study.db",
        pruner={**PRUNERS[kind], "grace": GRACE},
        objectives=[{"metric": METRIC, "direction": direction}],
    )
    ends = {}
    with open_study(config, create=True, resume=False) as study:
        # Rising levels: each trial is the best so far; then one that is worse and gets worse.
        for number, level in enumerate([0.5, 0.6, 0.7, 0.2]):
            assert study.ask() is not None
            slope = -0.01 if number == 3 else 0.01
            for epoch in range(1, 7):
                value = sign * (level + slope * epoch)
                assert study.report(number, epoch, {METRIC: value}) is None
                verdict = study.should_prune(number, epoch)
                assert study.should_prune(number, epoch) == verdict
                assert (verdict.reason != "") == verdict.prune
                ends[number] = epoch
                if verdict.prune:
                    assert study.prune(number, epoch, verdict.reason).reason == verdict.reason
                    break
            else:
                study.complete(number)
        states = [trial.state.name for trial in study.study.trials]
    assert states[:3] == ["COMPLETE"] * 3
    assert min(ends.values()) >= GRACE
    if kind in ("asha", "median", "patient", "wilcoxon"):
        assert states[3] == "PRUNED"
    if kind == "none":
        assert states[3] == "COMPLETE"
