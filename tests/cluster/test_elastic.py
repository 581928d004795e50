"""Elastic workers on real Ray: nodes that leave with notice, join, and are lost, in one training.

Three nodes on this machine, one CPU each. Every step waits for what it has caused: nothing depends
on the speed of the machine.
"""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.cluster_hosts import tiny_space
from support.engine_runs import PYTHONPATH
from support.ray_fixtures import end_node, head_node, join
from support.small_corpus import small_corpus
from support.watched_trial import worlds

from vfsearch.training.checkpoint import read_state
from vfsearch.training.steps import StepFile

pytestmark = [pytest.mark.matrix, pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(900)]

EPOCHS = 12
DRIVE = Path(__file__).parents[1] / "support" / "elastic_drive.py"


def test_workers_leave_join_and_are_lost(tmp_path: Path) -> None:
    small_corpus(tmp_path / "corpus", identities=16, each=2)
    config = tiny_space("elastic", epochs=EPOCHS)["base"]
    config["corpus"]["root"] = str(tmp_path / "corpus")
    # One retry: the loss. A notice and a change of size must not cost any.
    config["workers"] = {"min": 1, "max": 2, "resize_seconds": 1, "max_retries": 1}
    config["tracking"] = {"enabled": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with head_node(cpus=1) as (found, folder), ExitStack() as nodes:
        nodes.callback(end_node, join(found, folder, "second"))
        driven = subprocess.run(
            [sys.executable, str(DRIVE), str(tmp_path), str(folder)],
            env=os.environ | found | {"PYTHONPATH": PYTHONPATH},
            capture_output=True, text=True,
        )  # fmt: skip
    assert driven.returncode == 0, driven.stderr
    assert json.loads((tmp_path / "done.json").read_text()) == ["notice", "grown", "lost"]
    out = tmp_path / "run"
    assert worlds(out) == [2, 1, 2, 1]
    state = read_state(out / "checkpoints" / "last")
    assert (state.epoch, len(state.history)) == (EPOCHS, EPOCHS)
    steps = StepFile(out).rows(0, 1000)
    assert [row.step for row in steps] == list(range(2 * EPOCHS)), "each step once"
