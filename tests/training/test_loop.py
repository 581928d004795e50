"""The loop learns, stops, diverges with a message, and continues exactly where it was killed."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_run import Recorder, tiny_config, tiny_stores

from vfsearch.errors import CheckpointError, ConfigError, TrainingDiverged
from vfsearch.training.figure import draw_run
from vfsearch.training.loop import Outcome, train

CPU = torch.device("cpu")
WORKER = Path(__file__).parent.parent / "support" / "tiny_run.py"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def run(out: Path, recorder: Recorder | None = None, **changes: object) -> Outcome:
    return train(
        tiny_config(**changes), out, recorder or Recorder(), device=CPU, stores=tiny_stores()
    )


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in history]


def plain(steps: int, **training: object) -> dict[str, object]:
    return {
        "training": {
            "batch": 10,
            "epoch_steps": 15,
            "audio_seconds": [0.5, 0.5],
            "augment": False,
            "stages": {"warm_up": steps, "weight_learning": 0},
            **training,
        }
    }


@pytest.mark.slow
def test_the_loop_learns(tmp_path: Path) -> None:
    outcome = run(tmp_path, optimizer={"lr": 0.003}, **plain(60))
    first, last = outcome.history[0], outcome.history[-1]
    assert last["train/loss"] < 0.8 * first["train/loss"]
    assert outcome.best_value > 0.6
    draw_run(outcome.history, tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_every_epoch_is_reported_with_all_that_was_promised(tmp_path: Path) -> None:
    recorder = Recorder(stop_at=2)
    outcome = run(tmp_path, recorder)
    assert [r.epoch for r in recorder.reports] == [1, 2]
    assert outcome.stopped
    assert outcome.epoch == 2
    metrics = recorder.reports[-1].metrics
    for key in (
        "train/loss", "train/implicit", "train/explicit", "train/explicit_deviation",
        "train/positive_mass", "train/negative_mass", "train/lr", "bound/implicit_lower",
        "bound/gap", "bound/max_weight_norm", "bound/mean_weight_norm", "reweighting/admitted",
        "time/data_seconds", "time/step_seconds", "time/evaluation_seconds",
        "time/checkpoint_seconds", "val/match_v2f_1to2", "val/auc_f2v",
    ):  # fmt: skip
        assert math.isfinite(metrics[key]), key
    assert metrics["bound/gap"] >= 0
    assert metrics["bound/max_weight_norm"] <= 2.0 + 1e-5
    assert recorder.reports[-1].checkpoint.name == "epoch-00002"


def test_norm_bound_holds(tmp_path: Path) -> None:
    outcome = run(tmp_path, Recorder(stop_at=1), classifier={"norm_bound": 0.25})
    assert outcome.history[0]["bound/max_weight_norm"] == pytest.approx(0.25, rel=1e-5)


def test_retraining_starts_from_the_initial_encoders(tmp_path: Path) -> None:
    # Three steps of retraining see other batches but the first epoch's learning rate and start.
    outcome = run(tmp_path)
    admitted = [row["reweighting/admitted"] for row in outcome.history]
    assert admitted[0] == 0
    assert admitted[3] == admitted[2] > 0
    assert outcome.history[2]["train/lr"] == pytest.approx(1e-3)
    momentum = load_file(tmp_path / "checkpoints/last/training.safetensors")
    assert any(name.startswith("momentum.") for name in momentum)


def test_divergence_names_step_and_losses(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"must be finite, but .* at step \d+|after step"):
        run(tmp_path, optimizer={"lr": 1e6}, classifier={}, **plain(60))


@pytest.mark.parametrize("term", ["implicit", "explicit"])
def test_one_term_alone(tmp_path: Path, term: str) -> None:
    loss = {"implicit": 0.0, "explicit": 0.0} | {term: 1.0}
    outcome = run(tmp_path, Recorder(stop_at=1), loss=loss, reweighting={"schedule": "none"})
    row = outcome.history[0]
    assert row["train/loss"] == pytest.approx(row[f"train/{term}"], rel=1e-6)


def test_a_metric_that_does_not_exist_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.select: 'val/nothing' is no metric"):
        run(tmp_path, evaluation={"select": "val/nothing", "galleries": [2], "strata": ["U"]})


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    run(tmp_path, Recorder(stop_at=1))
    with pytest.raises(CheckpointError, match="another run: its loss"):
        run(tmp_path, loss={"margin": 2.0})


def test_a_finished_run_reports_its_last_epoch_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    recorder = Recorder()
    again = run(tmp_path, recorder)
    assert [r.epoch for r in recorder.reports] == [4]
    assert timeless([recorder.reports[0].metrics]) == timeless([first.history[-1]])
    assert timeless(list(again.history)) == timeless(list(first.history))


def workers(out: Path, world: int, kill_at: int, attempt: int) -> list[int]:
    out.mkdir(exist_ok=True)
    rendezvous = f"file://{out}/rendezvous-{attempt}"
    group = []
    for rank in range(world):
        with (out / f"log-{attempt}-{rank}").open("wb") as log:
            arguments = map(str, (out, rank, world, rendezvous, kill_at))
            group.append(
                subprocess.Popen([sys.executable, str(WORKER), *arguments], stdout=log, stderr=log)
            )
    try:
        # Rank 0 is the one that is killed; the others fail on the broken connection.
        return [worker.wait(timeout=280) for worker in group]
    finally:
        for worker in group:
            worker.kill()
            worker.wait()


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize("world", [1, 2])
def test_a_killed_run_continues_bit_for_bit(tmp_path: Path, world: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert workers(whole, world, 0, 0) == [0] * world
    codes = workers(broken, world, 2, 0)
    assert codes[0] == -9
    assert all(code != 0 for code in codes)
    assert workers(broken, world, 0, 1) == [0] * world, (broken / "log-1-0").read_text()
    for name in ("model", "training"):
        path = f"checkpoints/last/{name}.safetensors"
        one, two = load_file(whole / path), load_file(broken / path)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    for rank in range(world):
        histories = [
            timeless(json.loads((folder / f"outcome-{rank}.json").read_text()))
            for folder in (whole, broken)
        ]
        assert histories[0] == histories[1]
        assert len(histories[0]) == 4
