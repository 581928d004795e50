"""Real training through the engine: warm, cold, killed and single runs give the same bytes."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from support.engine_runs import drive, named, trials
from support.real_sweeps import REAL, real_sweep
from support.small_corpus import small_corpus

from vfsearch.search.records import Curves

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(1500)]


def digests(folder: Path) -> dict[str, str]:
    """Contents of a trial's checkpoints."""
    return {
        f"{which}/{file}": hashlib.sha256(
            (folder / "checkpoints" / which / file).read_bytes()
        ).hexdigest()
        for which in ("last", "best")
        for file in ("model.safetensors", "training.safetensors")
    }


def results(home: Path, name: str) -> list[Any]:
    """Everything of a sweep that must not depend on how it was executed."""
    found = []
    for trial in trials(name):
        curves = {
            epoch: {key: value for key, value in row.items() if not key.startswith("time/")}
            for epoch, row in Curves.of(trial).epochs.items()
        }
        folder = home / "sweeps" / name / "trials" / f"t{trial.number:03d}"
        found.append((trial.state.name, trial.params, trial.values, curves, digests(folder)))
    return found


def test_a_killed_warm_sweep_and_a_single_run_equal_cold_trials_bit_for_bit(
    home: Path, tmp_path: Path
) -> None:
    small_corpus(tmp_path / "corpus", identities=8)
    cold = real_sweep("cold", tmp_path / "corpus")
    with drive(cold, home, *REAL, "--cold") as reference:
        assert reference.finish() == 0
    expected = results(home, "cold")
    assert [state for state, *_ in expected] == ["COMPLETE", "COMPLETE"]
    assert expected[0][4] != expected[1][4]

    warm = real_sweep("warm", tmp_path / "corpus")
    with drive(warm, home, *REAL) as first:
        first.until(lambda line: named(line, "epoch", number=1, epoch=2))
        first.process.kill()
    assert [trial.state.name for trial in trials("warm")] == ["COMPLETE", "RUNNING"]
    with drive(warm, home, *REAL, "--resume") as second:
        assert second.finish() == 0
        assert [line["number"] for line in second.of("started")] == [1]
    assert results(home, "warm") == expected

    resolved = home / "sweeps" / "cold" / "trials" / "t001" / "config.yaml"
    with drive(resolved, home, "--single", str(tmp_path / "out")) as single:
        assert single.finish() == 0
        assert [line["epoch"] for line in single.of("epoch")] == [1, 2, 3, 4]
        assert single.lines[-1]["best_value"] == expected[1][2][0]
    assert digests(tmp_path / "out") == expected[1][4]
