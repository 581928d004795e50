"""Real training through the engine: warm, cold, killed and single runs give the same bytes."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from support.engine_runs import METRIC, drive, named, trials
from support.real_sweeps import REAL, real_sweep
from support.small_corpus import small_corpus

from vfsearch.errors import TrackingError
from vfsearch.search.definition import SweepConfig
from vfsearch.search.records import Curves
from vfsearch.search.study import open_study
from vfsearch.search.warm_start import from_mlflow
from vfsearch.tracking.connection import Connection

KILLED = ("--performer", "support.killed_training:KilledTraining")
"""Workers die in the middle of a checkpoint, after a report and in the middle of an epoch."""

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(1500)]


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


@pytest.mark.usefixtures("on_ray_node")
def test_a_killed_warm_sweep_and_a_single_run_equal_cold_trials_bit_for_bit(
    stack_home: Path, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The killed sweep is tracked, the others are not: that must not matter either."""
    home = stack_home
    monkeypatch.setenv("VFSEARCH_HOME", str(home))
    small_corpus(tmp_path / "corpus", identities=8)
    cold = real_sweep(f"cold-{connection.experiment}", tmp_path / "corpus")
    with drive(cold, home, *REAL, "--cold") as reference:
        assert reference.finish() == 0
    expected = results(home, cold["name"])
    assert [state for state, *_ in expected] == ["COMPLETE", "COMPLETE"]
    assert expected[0][4] != expected[1][4]

    warm = real_sweep(f"warm-{connection.experiment}", tmp_path / "corpus")
    warm["base"]["tracking"] = {"enabled": True, "experiment": connection.experiment}
    with drive(warm, home, *KILLED) as first:
        first.until(lambda line: named(line, "epoch", number=1, epoch=3))
        first.process.kill()
    assert [trial.state.name for trial in trials(warm["name"])] == ["COMPLETE", "RUNNING"]
    with drive(warm, home, *REAL, "--resume") as second:
        assert second.finish() == 0
        assert [line["number"] for line in second.of("started")] == [1]
    assert results(home, warm["name"]) == expected
    assert trials(warm["name"])[0].user_attrs["retries"] == 2
    every_trial_is_logged_once(connection, warm["name"])
    what_was_logged_can_be_learned_from(connection, warm)

    resolved = home / "sweeps" / cold["name"] / "trials" / "t001" / "config.yaml"
    with drive(resolved, home, "--single", str(tmp_path / "out")) as single:
        assert single.finish() == 0
        assert [line["epoch"] for line in single.of("epoch")] == [1, 2, 3, 4]
        assert single.lines[-1]["best_value"] == expected[1][2][0]
    assert digests(tmp_path / "out") == expected[1][4]


def every_trial_is_logged_once(connection: Connection, name: str) -> None:
    """Study, MLflow and S3 hold the same trials, and each epoch of each exactly once."""
    client = connection.client()
    found = client.search_runs(
        [connection.experiment_id], filter_string=f"tags.`vfsearch.sweep` = '{name}'"
    )
    runs = {run.info.run_name: run for run in found}
    assert sorted(runs) == sorted([name, "t000", "t001"])
    assert len(found) == 3
    assert {run.info.status for run in found} == {"FINISHED"}
    report = connection.store(runs[name].info.artifact_uri).get("report.html")
    assert report is not None
    assert name.encode() in report
    for trial in trials(name):
        run = runs[f"t{trial.number:03d}"]
        assert trial.user_attrs["mlflow_run_id"] == run.info.run_id
        assert run.data.tags["mlflow.parentRunId"] == runs[name].info.run_id
        history = client.get_metric_history(run.info.run_id, METRIC)
        assert sorted(point.step for point in history) == [1, 2, 3, 4]
        curve = {point.step: point.value for point in history}
        assert curve == pytest.approx(Curves.of(trial).curve(METRIC))
        stored = {entry.key for entry in connection.store(run.info.artifact_uri).entries()}
        assert {"checkpoints/best/model.safetensors", "checkpoints/last/state.json"} <= stored


def what_was_logged_can_be_learned_from(connection: Connection, past: dict[str, Any]) -> None:
    """A sweep of another range takes over from MLflow what overlaps, exactly."""
    wide = real_sweep(f"next-{connection.experiment}", Path(past["base"]["corpus"]["root"]))
    wide["parameters"]["loss.margin"]["high"] = 32
    del wide["parameters"]["optimizer.lr"]
    wide["parameters"]["optimizer.momentum"] = {"type": "float", "low": 0.5, "high": 0.99}
    config = SweepConfig.model_validate({**wide, "warm_start": [{"mlflow": past["name"]}]})
    with open_study(
        config, create=True, resume=False, mlflow=lambda name: from_mlflow(connection, name)
    ) as study:
        taken = study.study.get_trials()
    assert [trial.values for trial in taken] == [trial.values for trial in trials(past["name"])]
    assert [trial.params for trial in taken] == [
        {"loss.margin": trial.params["loss.margin"], "optimizer.momentum": 0.9}
        for trial in trials(past["name"])
    ]
    with pytest.raises(TrackingError, match="has no sweep nothing"):
        from_mlflow(connection, "nothing")
