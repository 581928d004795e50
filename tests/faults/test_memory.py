"""A worker that fills its node: Ray's memory monitor ends it, the trial fails with the reason."""

from pathlib import Path

import pytest
from support.engine_runs import drive, stub_sweep, trials

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(1500)]


@pytest.mark.usefixtures("on_small_ray_node")
def test_a_worker_that_fills_its_node_is_ended_and_told_as_out_of_memory(home: Path) -> None:
    config = stub_sweep("full", [50.0, 72.0, 51.0], workers={"count": 1, "max_retries": 3})
    with drive(config, home) as running:
        assert running.finish() == 0
        ends = {line["number"]: line for line in running.of("ended")}
    assert [ends[number]["state"] for number in range(3)] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert ends[1]["reason"].startswith("out of memory: OutOfMemoryError: ")
    found = trials("full")
    assert found[1].user_attrs["reason"] == ends[1]["reason"]
    assert found[1].user_attrs["retries"] == 0, "it would be short of it again"
