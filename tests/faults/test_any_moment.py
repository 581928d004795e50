"""Drivers and workers killed at random moments: the sweep ends as if nothing had happened.

`VFSEARCH_TEST_KILLS` says how many; what the suite runs is a sample.
"""

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from random import Random

import pytest
from support.engine_runs import METRIC, Drive, drive, log_of, stub_sweep, trials

from vfsearch.search.definition import SweepConfig
from vfsearch.search.study import open_study, read_sweep

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(7200)]

KILLS = int(os.environ.get("VFSEARCH_TEST_KILLS", "3"))
EPOCHS = 5


def kill_the_worker(folder: Path) -> None:
    """End the process that wrote the last line of any trial's log, if it still lives."""
    logs = (folder / "sweeps" / "often" / "trials").glob("*/log.jsonl")
    lines = [json.loads(text) for log in logs for text in log.read_text().splitlines()]
    if lines:
        with contextlib.suppress(ProcessLookupError):
            os.kill(max(lines, key=lambda line: line["at"])["pid"], signal.SIGKILL)


def after_lines(running: Drive, count: int) -> None:
    """Wait until the driver has said so much."""
    left = [count]

    def enough(_line: object) -> bool:
        left[0] -= 1
        return left[0] <= 0

    running.until(enough)


def without_interruption(config: SweepConfig) -> None:
    """The same sweep through the study alone."""
    with open_study(config, create=True, resume=False) as study:
        while study.stop_reason(0.0, 0.0) is None:
            asked = study.ask()
            assert asked is not None
            for epoch in range(1, EPOCHS + 1):
                value = asked.params["loss.margin"] * epoch / 1000
                assert study.report(asked.number, epoch, {METRIC: value}) is None
                verdict = study.should_prune(asked.number, epoch)
                if verdict.prune:
                    study.prune(asked.number, epoch, verdict.reason)
                    break
            else:
                study.complete(asked.number)


@pytest.mark.usefixtures("on_ray_node")
def test_a_sweep_killed_at_any_moment_ends_as_one_that_was_not(
    home: Path, postgres_url: str
) -> None:
    random = Random(7)
    sampled = stub_sweep(
        "often",
        [],
        epochs=EPOCHS,
        pruner={"name": "median", "startup_trials": 2, "grace": 2},
        sampler={"name": "tpe", "seed": 3, "startup_trials": 3},
        budget={"trials": 4 + KILLS},
        workers={"count": 1, "max_retries": 100},
        concurrency=1,
        storage=postgres_url,
    )
    kills = [random.choice(["driver", "driver", "worker"]) for _ in range(KILLS)]
    for victim in kills:
        with drive(sampled, home, "--resume") as running:
            after_lines(running, random.randint(1, 7))
            time.sleep(random.random() * 0.1)  # so that it falls between two lines as well
            if victim == "worker":
                kill_the_worker(home)
                after_lines(running, 2)  # it goes on by itself, and then the driver dies too
            running.process.kill()
    with drive(sampled, home, "--resume") as last:
        assert last.finish() == 0
    without_interruption(SweepConfig.model_validate({**sampled, "name": "oracle"}))
    found, expected = (
        [
            (trial.number, trial.state.name, trial.params, trial.values, trial.intermediate_values)
            for trial in read_sweep(name, postgres_url)[1].get_trials()
        ]
        for name in ("often", "oracle")
    )
    assert found == expected
    for number, _, _, _, curve in found:
        log = [line for line in log_of(home, "often", number) if line["kind"] == "epoch"]
        assert [line["epoch"] for line in log if not line["again"]] == list(curve)
    assert {trial.user_attrs["retries"] for trial in trials("often")} <= {0, 1, 2}
