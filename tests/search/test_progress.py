"""How far a sweep is, and how its trials lie on a cluster."""

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest
from support.sweeps import METRIC, sweep

from vfsearch.cli.sweep import announcement
from vfsearch.config import WorkersConfig
from vfsearch.search.budget import Budget, price_of
from vfsearch.search.progress import PLACE, progress_of, seconds_left
from vfsearch.search.resources import packing, shape_of
from vfsearch.search.study import open_study

NODES = [{"CPU": 8.0, "GPU": 8.0}] * 2


@pytest.mark.parametrize(
    ("workers", "nodes", "said"),
    [
        (WorkersConfig(count=2), NODES, "16 GPUs: 8 trials × 2 workers"),
        (
            WorkersConfig(count=2, gpus=0.5, cpus=0.5),
            NODES,
            "16 GPUs: 16 trials × 2 workers (0.5 GPU each)",
        ),
        (WorkersConfig(count=16), NODES, "16 GPUs: 1 trial × 16 workers"),
        (WorkersConfig(count=1, use_gpu=False), NODES, "16 CPUs: 16 trials × 1 worker"),
        (WorkersConfig(count=2), [{"CPU": 1.0}, {"CPU": 1.0}], "2 CPUs: 1 trial × 2 workers"),
    ],
)
def test_the_packing_is_said_in_one_line(
    workers: WorkersConfig, nodes: list[dict[str, float]], said: str
) -> None:
    packed = packing(shape_of(workers, nodes), nodes, "auto")
    assert str(packed) == said
    assert packed.trials * packed.gpus_per_trial <= sum(node.get("GPU", 0) for node in nodes)


def test_progress_follows_the_study() -> None:
    config = sweep(budget={"trials": 10})
    with open_study(config, create=True, resume=False) as opened:
        packed = packing(shape_of(WorkersConfig(count=2), NODES), NODES, 4)
        opened.study.set_user_attr(PLACE, asdict(packed))
        asked = [opened.ask() for _ in range(4)]
        assert None not in asked
        start = opened.study.get_trials()[0].datetime_start
        assert start is not None
        before = progress_of(opened.study, config, now=start, price=None)
        assert before.seconds_left is None, "nothing to go by yet"
        assert before.best is None
        for number, value in ((0, 0.6), (1, 0.7), (2, 0.5)):
            opened.report(number, 1, {METRIC: value})
        for number, seconds in ((0, 100.0), (1, 300.0)):
            opened.note(number, seconds=seconds, gpu_seconds=2 * seconds)
            opened.complete(number)
        live = opened.study.get_trials()[2].datetime_start
        assert live is not None
        seen = progress_of(opened.study, config, now=live + timedelta(seconds=1800), price=2.0)
    assert seen.states == {"complete": 2, "running": 2}
    assert seen.best == (1, 0.7)
    assert (seen.gpus_busy, seen.gpus) == (4.0, 16.0)
    assert [(row.number, row.epoch, row.value) for row in seen.running] == [
        (2, 1, 0.5),
        (3, 0, None),
    ]
    assert seen.gpu_hours == pytest.approx((2 * 400 + 2 * 2 * 1800) / 3600, rel=0.01)
    assert seen.dollars == pytest.approx(2 * seen.gpu_hours)
    # 10 - 2 ended - half of the 2 running, 200 s each, 4 at once.
    assert seen.seconds_left == pytest.approx(7 * 200 / 4)


def test_without_a_trial_budget_nobody_knows_the_rest() -> None:
    hour = Budget(gpu_hours=1, trial_hours=1)
    assert seconds_left([], hour, 4) is None


def test_the_declared_time_of_a_trial_is_what_there_is_before_the_first_has_ended() -> None:
    assert seconds_left([], Budget(trials=64), 8) is None
    assert seconds_left([], Budget(trials=64, trial_hours=0.5), 8) == 4 * 3600


def test_packing_time_and_cost_in_one_line() -> None:
    cluster = [{"CPU": 8.0, "GPU": 4.0}] * 4
    packed = packing(shape_of(WorkersConfig(count=2), cluster), cluster, "auto")
    assert announcement(packed, 11_400, 0.8) == (
        "16 GPUs: 8 trials × 2 workers, est. 3 h 10 min, $41"
    )
    assert announcement(packed, None, 0.8) == "16 GPUs: 8 trials × 2 workers"
    elastic = packing(shape_of(WorkersConfig(min=1, max=4, gpus=0.5), cluster), cluster, 3)
    assert str(elastic) == "16 GPUs: 3 trials × 1 to 4 workers (0.5 GPU each)"


def test_the_price_is_the_budgets_else_the_clusters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert price_of(Budget(trials=1)) is None
    monkeypatch.setenv("VFSEARCH_DOLLARS_PER_GPU_HOUR", "0.8")
    assert price_of(Budget(trials=1)) == 0.8
    assert price_of(Budget(trials=1, dollars_per_gpu_hour=3.0)) == 3.0
