"""Fifty short trials on a cluster that goes on: all that they held is free again."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.engine_runs import drive, named, stub_sweep, trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.usefixtures("on_ray_node")]

MEGABYTES = 50


ASK = """
from ray.util.state import list_actors, list_placement_groups
actors = list_actors(filters=[("state", "!=", "DEAD")], limit=1000)
groups = list_placement_groups(filters=[("state", "!=", "REMOVED")], limit=1000)
print(*(f"actor {each.class_name} {each.state}" for each in actors), sep="\\n")
print(*(f"placement group {each.name} {each.state}" for each in groups), sep="\\n")
"""
RAYS_OWN = "_AutoscalingCoordinatorActor"
"""One per cluster, kept by Ray for whoever asks for resources next."""


def left_on_the_cluster() -> list[str]:
    """Actors and placement groups that are not gone, by Ray's own state.

    In a process of its own: Ray reads the cluster's token once per process, and an earlier test of
    this one may have joined a cluster that had none.
    """
    asked = subprocess.run(
        [sys.executable, "-c", ASK], check=True, capture_output=True, text=True, timeout=120
    )
    return [line for line in asked.stdout.splitlines() if line and RAYS_OWN not in line]


def test_fifty_short_trials_leave_nothing_and_the_driver_does_not_grow(home: Path) -> None:
    margins = [20.0 + 4 * (number % 10) for number in range(50)]
    config = stub_sweep(
        "many",
        margins,
        pruner={"name": "median", "startup_trials": 1, "grace": 2},
        epochs=3,
        pause=0.001,
    )
    with drive(config, home) as running:
        running.until(lambda line: named(line, "ended", number=9))
        main = psutil.Process(running.process.pid)
        before = main.memory_info().rss
        running.until(lambda line: named(line, "ended", number=49))
        grown = (main.memory_info().rss - before) / 2**20
        family = running.tree()
        assert running.finish() == 0
        assert psutil.wait_procs(family, timeout=60)[1] == []
    assert grown < MEGABYTES, f"grew by {grown:.0f} MB in 40 trials"
    ended = trials("many")
    assert len(ended) == 50
    assert {trial.state.name for trial in ended} == {"COMPLETE", "PRUNED"}
    assert left_on_the_cluster() == []
