"""The plan of the three stages, as published."""

import pytest

from vfsearch.config import OptimizerConfig, ReweightingConfig, StagesConfig
from vfsearch.loss.reweighting import admitted_at
from vfsearch.training.stages import Plan


def plan(**stages: object) -> Plan:
    return Plan(
        stages=StagesConfig.model_validate({"retrain": 10_000, **stages}),
        optimizer=OptimizerConfig(),
        reweighting=ReweightingConfig(schedule="rank"),
        epoch_steps=100,
    )


def test_stages_of_the_paper() -> None:
    paper = plan()
    assert paper.total == 12_400
    stages = [paper.stage(step) for step in (0, 499, 500, 2399, 2400, 12_399)]
    assert stages == ["warm_up"] * 2 + ["weight_learning"] * 2 + ["retrain"] * 2
    assert [s for s in range(12_500) if paper.restarts_before(s)] == [2400]
    assert not paper.observes(2400)
    assert paper.observes(2399)


@pytest.mark.parametrize(
    ("step", "lr"),
    [(0, 1e-2), (999, 1e-2), (1000, 1e-3), (2000, 1e-4), (2399, 1e-4),
     (2400, 1e-2), (4399, 1e-2), (4400, 1e-3), (5400, 1e-4), (12_399, 1e-4)],
)  # fmt: skip
def test_learning_rate_drops_within_each_stage(step: int, lr: float) -> None:
    assert plan().lr(step) == pytest.approx(lr)


def test_admissions_are_at_500_600_and_so_on() -> None:
    paper = plan()
    steps = [step for step in range(paper.total) if paper.admits_before(step)]
    assert steps == list(range(500, 2400, 100))
    assert admitted_at(paper.reweighting, 924, len(steps)) == 836


def test_nothing_is_admitted_before_anything_is_known() -> None:
    steps = [s for s in range(2000) if plan(warm_up=0).admits_before(s)]
    assert steps[0] == 100


def test_without_retraining_there_is_no_restart() -> None:
    short = plan(retrain=0)
    assert not any(short.restarts_before(step) for step in range(short.total + 1))
    only = plan(warm_up=0, weight_learning=0)
    assert not any(only.restarts_before(step) for step in range(only.total))


def test_epochs_end_with_the_run() -> None:
    short = plan(retrain=0, weight_learning=1850)
    assert [short.epoch_end(0), short.epoch_end(2300)] == [100, 2350]
