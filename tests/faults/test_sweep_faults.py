"""Sweeps whose driver, workers or node are killed, and trials that misbehave."""

import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest
from support.engine_runs import drive, log_of, named, stub_sweep, trials

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(1500)]


@pytest.mark.usefixtures("on_ray_node")
def test_each_kind_of_failure_is_told_as_such_and_the_sweep_goes_on(home: Path) -> None:
    """Margins: see `support.engine_tasks.misbehave`."""
    margins = [50.0, 66.0, 67.0, 69.0, 70.0, 68.0, 71.0, 51.0]
    config = stub_sweep("odd", margins, workers={"report_timeout": 8, "max_retries": 1})
    with drive(config, home) as running:
        assert running.finish() == 0
        ends = {line["number"]: line for line in running.of("ended")}
    states = [ends[number]["state"] for number in range(8)]
    assert states == [
        "COMPLETE", "FAIL", "FAIL", "COMPLETE", "FAIL", "FAIL", "FAIL", "COMPLETE"
    ]  # fmt: skip
    assert ends[1]["reason"] == "ValueError: a deliberate mistake"
    assert ends[2]["reason"].startswith("out of memory: ")
    assert "allocate" in ends[2]["reason"]
    assert ends[4]["reason"].startswith("workers were lost 2 times")
    assert ends[5]["reason"] == "no report for 8 s (workers.report_timeout)"
    assert ends[6]["reason"] == "val/match_v2f_1to2 is nan at epoch 2"
    assert [trial.user_attrs["retries"] for trial in trials("odd")] == [0, 0, 0, 1, 2, 0, 0, 0]

    folder = home / "sweeps" / "odd" / "trials"
    assert "with a second line" in (folder / "t001" / "error-rank1.txt").read_text()
    epochs = [line["epoch"] for line in log_of(home, "odd", 3) if line["kind"] == "epoch"]
    assert epochs in ([1, 1, 2, 3, 4], [1, 2, 2, 3, 4]), "continued, not begun again"


def is_agent(process: psutil.Process) -> bool:
    try:
        return process.name().startswith(("ray::Dashboard", "ray::RuntimeE"))
    except psutil.NoSuchProcess:
        return False


def test_a_sweep_whose_node_is_killed_goes_on_where_it_was(home: Path) -> None:
    """Everything of Ray on this machine; see `test_any_moment` for drivers and workers."""
    config = stub_sweep("cut", [50, 60, 55], epochs=8, pause=0.3)
    with drive(config, home) as first:
        first.until(lambda line: named(line, "epoch", number=1, epoch=3))
        family = first.tree()
        for process in family[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert first.finish() != 0
        # Ray's own agents look for their raylet now and then, and take minutes to go.
        family = [process for process in family if not is_agent(process)]
        assert psutil.wait_procs(family, timeout=60)[1] == [], "everything dies with it"
    before = trials("cut")
    assert [trial.state.name for trial in before[:2]] == ["COMPLETE", "RUNNING"]

    with drive(config, home, "--resume") as second:
        assert second.finish() == 0
        started = [(line["number"], line["epoch"] > 0) for line in second.of("started")]
        assert started == [(1, True), (2, False)]
    after = trials("cut")
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 3
    assert after[0] == before[0]
    log = [line for line in log_of(home, "cut", 1) if line["rank"] == 0]
    (begin, again) = [line for line in log if line["kind"] == "start"]
    assert begin["after"] == 0
    assert again["after"] >= 3
    assert sorted(after[1].intermediate_values) == list(range(1, 9))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_in_order_and_the_trial_goes_on_later(
    home: Path, sent: signal.Signals, request: pytest.FixtureRequest
) -> None:
    if sent == signal.SIGTERM:  # once with a Ray of its own, once on one that stays
        request.getfixturevalue("on_ray_node")
    config = stub_sweep("polite", [50], epochs=6, pause=0.3)
    with drive(config, home) as first:
        first.until(lambda line: named(line, "epoch", number=0, epoch=2))
        family = first.tree()
        os.kill(first.process.pid, sent)
        assert first.finish() == 130
        assert first.lines[-1]["kind"] == "interrupted"
        assert psutil.wait_procs(family, timeout=30)[1] == []
    (trial,) = trials("polite")
    assert trial.state.name == "RUNNING"
    assert trial.user_attrs["seconds"] > 0
    with drive(config, home, "--resume") as second:
        assert second.finish() == 0
    (trial,) = trials("polite")
    assert trial.state.name == "COMPLETE"
    assert sorted(trial.intermediate_values) == list(range(1, 7))
