"""Races with real training: killed and continued, extended, reported, promoted from."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from support.engine_runs import METRIC, PYTHONPATH, TESTS
from support.registry_models import LENIENT
from support.small_corpus import small_corpus

from vfsearch.errors import SweepError
from vfsearch.registry.promotion import promote
from vfsearch.search.definition import SweepConfig, derived_seed, race_seed
from vfsearch.search.race import race
from vfsearch.search.race_record import RaceResult, SeedRun, read_seed, report_extras, write_seed
from vfsearch.search.race_runs import plan
from vfsearch.search.results import best_run
from vfsearch.search.study import open_study, read_sweep
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.runs import find_run
from vfsearch.training.checkpoint import read_state

if TYPE_CHECKING:
    from mlflow.entities import Run


def swept(
    root: Path, values: list[float | None], *, name: str = "swept", **base: Any
) -> SweepConfig:
    """A sweep whose trials ended with these values; None: still running."""
    config = SweepConfig.model_validate(
        {
            "name": name,
            "base": {
                "corpus": {"root": str(root), "face_size": 56, "store": str(root / "store")},
                "model": {
                    "face": {"encoder": "small"},
                    "voice": {"encoder": "small"},
                    "embedding_dim": 16,
                },
                "training": {
                    "batch": 8,
                    "epoch_steps": 1,
                    "audio_seconds": [0.5, 0.75],
                    "stages": {"warm_up": 2, "weight_learning": 3, "learning_milestones": [2]},
                },
                "evaluation": {"galleries": [2], "strata": ["U"], "audio_seconds": 1.0},
                "workers": {"count": 1, "report_timeout": 300},
                "tracking": {"enabled": False},
                **base,
            },
            "parameters": {"loss.margin": {"type": "float", "low": 1, "high": 16}},
            "objectives": [{"metric": METRIC, "direction": "maximize"}],
            "sampler": {"name": "random", "seed": 5},
            "budget": {"trials": len(values)},
        }
    )
    with open_study(config, create=True, resume=True) as study:
        for value in values:
            asked = study.ask()
            assert asked is not None
            if value is not None:
                study.report(asked.number, 1, {METRIC: value})
                study.complete(asked.number)
    return config


def swept_study(values: list[float | None]) -> tuple[SweepConfig, optuna.Study]:
    swept(Path("/nowhere"), values)
    return read_sweep("swept")


def test_seeds_are_fresh_and_the_same_each_time(home: Path) -> None:
    config, study = swept_study([0.5, 0.9, 0.7])
    legs = plan(study, config, [1, 2], 4)
    assert legs[:4] == plan(study, config, [1], 4)
    assert [leg.config.seed for leg in legs[:2]] == [
        leg.config.seed for leg in plan(study, config, [1], 2)
    ]
    used = {derived_seed(5, number, "trial") for number in range(3)}
    assert len({leg.config.seed for leg in legs} | used) == 8 + 3
    first = race_seed(5, 1, 0, ())
    assert race_seed(5, 1, 0, {first}) not in (first, None)
    trial = next(t for t in study.get_trials() if t.number == 1)
    assert {leg.config.loss.margin for leg in legs[:4]} == {trial.params["loss.margin"]}
    assert legs[1].out == home / "sweeps" / "swept" / "trials" / "t001" / "seeds" / "s1"


def test_what_cannot_be_raced_is_refused() -> None:
    def run(**changes: int) -> None:
        race("swept", **{"top": 2, "seeds": 2, "bootstrap": 99} | changes, progress=print)

    swept(Path("/nowhere"), [0.5])
    with pytest.raises(SweepError, match="2 seeds or more"):
        run(seeds=1)
    with pytest.raises(SweepError, match="1 completed trials; a race needs two"):
        run()
    config = swept(Path("/nowhere"), [0.6, None])
    with pytest.raises(SweepError, match="trial 2 is running"):
        run()
    with (
        open_study(config, create=False, resume=True),
        pytest.raises(SweepError, match="already driven by process"),
    ):
        run()


def driven(name: str, seeds: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(TESTS / "support" / "race_drive.py"), name, str(seeds)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
    )


def seed_runs(connection: Connection, name: str) -> dict[str, "Run"]:
    """Runs of a race's seeds by name; each must be there once."""
    found = connection.client().search_runs(
        [connection.experiment_id],
        filter_string=f"tags.`vfsearch.kind` = 'seed' and tags.`vfsearch.sweep` = '{name}'",
    )
    runs = {run.info.run_name: run for run in found}
    assert len(runs) == len(found), "no seed has two runs"
    return runs


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("on_ray_node")
def test_a_killed_race_goes_on_is_tracked_below_its_trials_and_promoted_from(
    stack_home: Path, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VFSEARCH_HOME", str(stack_home))
    corpus = small_corpus(tmp_path, identities=10, each=2, store=tmp_path / "store")
    name = f"raced-{connection.experiment}"
    tracking = {"enabled": True, "experiment": connection.experiment}
    config = swept(tmp_path, [0.5, 0.9, 0.7], name=name, tracking=tracking)
    interrupted = driven(name, seeds=2)
    assert interrupted.stdout is not None
    assert any(line.strip() == "t001-s1: epoch 1" for line in interrupted.stdout)
    interrupted.kill()
    interrupted.stdout.close()
    interrupted.wait()
    study = read_sweep(name)[1]
    kept = read_seed(study, 1, 0)
    assert kept is not None
    assert read_seed(study, 1, 1) is None
    assert RaceResult.read(study) is None
    trials = stack_home / "sweeps" / name / "trials"
    done = trials / "t001" / "seeds" / "s0" / "checkpoints"
    written = {path: path.stat().st_mtime_ns for path in done.rglob("*")}

    # Continued with one seed more: what had ended stays, what was running goes on.
    longer = driven(name, seeds=3)
    said = longer.communicate()[0].splitlines()
    assert longer.returncode == 0
    started = [line.removesuffix(": starting") for line in said if line.endswith(": starting")]
    assert started == ["t001-s1", "t001-s2", "t002-s0", "t002-s1", "t002-s2"]
    assert [line for line in said if line.startswith("t001-s1: epoch")][-1].endswith("5")
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*")} == written
    study = read_sweep(name)[1]
    result = RaceResult.read(study)
    assert result is not None
    assert (result.entered, result.seeds) == ((1, 2), 3)
    for finalist in result.finalists:
        for index, value in enumerate(finalist.values):
            out = trials / f"t{finalist.number:03d}" / "seeds" / f"s{index}"
            state = read_state(out / "checkpoints" / "best")
            assert state.history[-1][METRIC] == pytest.approx(value), "as in training"
    assert set(report_extras(study).intervals) == {1, 2}

    runs = seed_runs(connection, name)
    assert sorted(runs) == ["t001-s0", *started]
    for run_name, run in runs.items():
        number, index = int(run_name[1:4]), int(run_name[-1])
        parent = find_run(connection, RunKey(sweep=name, trial=number))
        assert run.data.tags["mlflow.parentRunId"] == parent
        assert run.info.status == "FINISHED"
        ended = read_seed(study, number, index)
        assert ended is not None
        assert ended.run_id == run.info.run_id
        assert run.data.tags["vfsearch.training_seed"] == str(ended.seed)
        history = connection.client().get_metric_history(run.info.run_id, METRIC)
        assert sorted(point.step for point in history) == [1, 2, 3, 4, 5]

    best = best_run(name)
    assert best.row.number == result.decision.leader
    promoted = promote(
        connection, best.run_id, corpus, LENIENT, model_name=connection.experiment, by="anna"
    )
    leader, index = result.candidate
    assert promoted.outcome == "promoted"
    assert promoted.run_id == runs[f"t{leader:03d}-s{index}"].info.run_id
    assert config.name == best.config.name


def race_result(study: optuna.Study, leader: int, values: dict[int, list[float]]) -> None:
    """Store a race and its seed runs as `race` does."""
    for number, row in values.items():
        for index in range(len(row)):
            write_seed(
                study, SeedRun(number=number, index=index, seed=1, run_id=f"run-{number}-{index}")
            )
    RaceResult.model_validate(
        {
            "metric": METRIC,
            "direction": "maximize",
            "top": 2,
            "seeds": 2,
            "bootstrap": 200,
            "entered": list(values),
            "finalists": [{"number": n, "values": row} for n, row in values.items()],
            "standings": [
                {"number": n, "mean": sum(row) / 2, "interval": [0.1, 0.9]}
                for n, row in values.items()
            ],
            "duels": [],
            "decision": {
                "winner": None,
                "leader": leader,
                "tied": list(values),
                "reasons": [],
                "text": "not distinguishable: trials 2, 1",
            },
        }
    ).write(study)


def test_promotion_takes_the_leaders_best_seed_while_the_race_is_of_the_best_trials() -> None:
    _, study = swept_study([0.5, 0.9, 0.7])
    with pytest.raises(SweepError, match="trial 1 of sweep swept has no run in MLflow"):
        best_run("swept")
    race_result(study, 2, {1: [0.6, 0.7], 2: [0.7, 0.8]})
    best = best_run("swept")
    assert (best.row.number, best.run_id) == (2, "run-2-1")
    extras = report_extras(study, dollars=2.5)
    assert extras.intervals == {1: (0.1, 0.9), 2: (0.1, 0.9)}
    assert "not distinguishable: trials 2, 1" in extras.verdict
    assert "race again" not in extras.verdict
    assert extras.dollars_per_gpu_hour == 2.5

    swept(Path("/nowhere"), [0.95])
    with pytest.raises(SweepError, match="trial 3 of sweep swept has no run"):
        best_run("swept")
    assert "race again" in report_extras(read_sweep("swept")[1]).verdict
