"""Sweeps over real Ray workers: warm, pruned, extended, refused, and nothing left behind."""

from pathlib import Path

import psutil
import pytest
from support.engine_runs import drive, log_of, named, stub_sweep, trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MEDIAN = {"name": "median", "startup_trials": 1, "grace": 2}


def test_a_sweep_is_warm_prunes_exactly_refuses_a_second_driver_and_can_be_extended(
    home: Path, request: pytest.FixtureRequest
) -> None:
    """Begun with a Ray of its own, extended on one that stays."""
    config = stub_sweep("warm", [50, 40, 60, 30, 45], pruner=MEDIAN)
    with drive(config, home) as first:
        first.until(lambda line: named(line, "started", number=0))
        with drive(config, home, "--resume") as second:
            assert second.finish() == 6
            assert second.lines[0]["type"] == "SweepError"
            assert "already driven by process" in second.lines[0]["message"]
        family = first.tree()
        assert first.finish() == 0
        assert psutil.wait_procs(family, timeout=30)[1] == []

    states = ["COMPLETE", "PRUNED", "COMPLETE", "PRUNED", "PRUNED"]
    done = trials("warm")
    assert [trial.state.name for trial in done] == states
    logs = [log_of(home, "warm", number) for number in range(5)]
    for number, state in enumerate(states):
        epochs = [line["epoch"] for line in logs[number] if line["kind"] == "epoch"]
        assert epochs == list(range(1, 5 if state == "COMPLETE" else 3)), "no epoch too many"
        assert done[number].last_step == epochs[-1]
        assert done[number].user_attrs["seconds"] > 0
        starts = [line for line in logs[number] if line["kind"] == "start"]
        assert sorted(line["rank"] for line in starts) == [0, 1]
        assert {line["served"] for line in starts} == {number + 1}, "the same warm workers"
    assert len({line["pid"] for log in logs for line in log}) == 2
    assert {path.name for path in (home / "sweeps" / "warm").iterdir()} >= {"trials", "study.db"}
    assert not (home / "sweeps" / "warm" / "engine").exists()

    more = config | {"budget": {"trials": 7}}
    with drive(more, home) as plain:
        assert plain.finish() == 6
        assert "--resume" in plain.lines[0]["message"]
    request.getfixturevalue("on_ray_node")
    with drive(more, home, "--resume") as extended:
        assert extended.finish() == 0
        assert [line["number"] for line in extended.of("started")] == [5, 6]
    later = trials("warm")
    assert len(later) == 7
    assert later[:5] == done
    assert [log_of(home, "warm", number) for number in range(5)] == logs


@pytest.mark.usefixtures("on_ray_node")
def test_what_never_fits_is_refused_and_leaves_no_sweep_behind(home: Path) -> None:
    wide = stub_sweep("wide", [50], workers={"count": 2, "cpus": 4096})
    with drive(wide, home) as refused:
        assert refused.finish() == 6
        assert "never fits" in refused.lines[0]["message"]
    fitting = stub_sweep("wide", [50], epochs=1)
    with drive(fitting, home, "--cold") as accepted:
        assert accepted.finish() == 0
    assert [trial.state.name for trial in trials("wide")] == ["COMPLETE"]


@pytest.mark.usefixtures("on_ray_node")
def test_another_number_of_workers_gets_a_group_of_its_own(home: Path) -> None:
    margin = {"type": "float", "low": 1, "high": 100}
    count = {"type": "categorical", "choices": [1, 2]}
    points = [{"loss.margin": 50 - i, "workers.count": n} for i, n in enumerate((2, 1, 1))]
    config = stub_sweep(
        "shapes",
        [],
        epochs=1,
        parameters={"loss.margin": margin, "workers.count": count},
        start=points,
        budget={"trials": 3},
    )
    with drive(config, home) as running:
        assert running.finish() == 0
    assert [trial.state.name for trial in trials("shapes")] == ["COMPLETE"] * 3
    starts = [
        [line for line in log_of(home, "shapes", number) if line["kind"] == "start"]
        for number in range(3)
    ]
    assert [sorted(line["rank"] for line in each) for each in starts] == [[0, 1], [0], [0]]
    pids = [{line["pid"] for line in each} for each in starts]
    assert not pids[0] & pids[1], "other workers"
    assert pids[1] == pids[2], "and these stay warm"
    assert [line["served"] for line in starts[2]] == [2]
