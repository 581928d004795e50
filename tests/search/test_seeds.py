"""Trials of several seeds: means over runs, stopped and continued like one run."""

import math
from pathlib import Path

import pytest
import torch
from support.sweeps import METRIC, sweep
from support.tiny_run import Recorder, tiny_config, tiny_stores

from vfsearch.search.definition import Objective, seeds_of_trial
from vfsearch.search.records import AVERAGED, Curves
from vfsearch.search.seeds import mean_row, train_seeds
from vfsearch.search.study import open_study
from vfsearch.training.loop import EpochReport, Outcome, train

CPU = torch.device("cpu")
SEEDS = (3, 11)
SHORT = {"training": tiny_config().training.model_dump() | {"epoch_steps": 6}}
"""2 epochs of 6 steps."""


class _Killed(Exception):  # noqa: N818 - stands for a kill
    pass


class Dying(Recorder):
    def report(self, report: EpochReport) -> bool:
        if report.epoch == 3:
            raise _Killed
        return super().report(report)


def run(out: Path, recorder: Recorder, seeds: tuple[int, ...] = SEEDS) -> Outcome:
    torch.set_num_threads(1)
    config = tiny_config(**SHORT)
    return train_seeds(config, seeds, out, recorder, device=CPU, stores=tiny_stores())


def timeless(row: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if not key.startswith("time/")}


@pytest.mark.slow
def test_a_trial_of_two_seeds_is_the_mean_of_two_runs_also_after_a_kill(tmp_path: Path) -> None:
    alone = [
        train(
            tiny_config(**SHORT, seed=seed),
            tmp_path / str(seed),
            Recorder(),
            device=CPU,
            stores=tiny_stores(),
        )
        for seed in SEEDS
    ]
    first, second = ([timeless(row) for row in run.history] for run in alone)
    expected = [
        *first,
        *(
            {key: (a[key] + b[key]) / 2 for key in b} | {AVERAGED: 2.0}
            for a, b in zip(first, second, strict=True)
        ),
    ]
    told = Recorder()
    whole = run(tmp_path / "whole", told)
    assert [timeless(report.metrics) for report in told.reports] == [
        pytest.approx(row) for row in expected
    ]
    assert [report.epoch for report in told.reports] == [1, 2, 3, 4]

    with pytest.raises(_Killed):
        run(tmp_path / "cut", Dying())
    again = Recorder()
    resumed = run(tmp_path / "cut", again)
    assert [report.epoch for report in again.reports] == [2, 3, 4], "ended epochs are told again"
    for outcome in (whole, resumed):
        assert [timeless(row) for row in outcome.history] == [
            timeless(report.metrics) for report in told.reports
        ]
        means = [row[METRIC] for row in outcome.history[2:]]
        assert outcome.best_epoch == 3 + means.index(max(means))
        assert outcome.best_value == max(means)
        best = max(alone, key=lambda one: one.best_value)
        name = "cut" if outcome is resumed else "whole"
        folder = tmp_path / name / ("" if best is alone[0] else "seed-1")
        assert outcome.best.resolve() == (folder / "checkpoints" / "best").resolve()


def test_it_can_be_stopped_in_the_second_run_and_one_seed_is_a_plain_run(tmp_path: Path) -> None:
    stopped = run(tmp_path / "two", Recorder(stop_at=3))
    assert (stopped.stopped, stopped.epoch, stopped.best_epoch) == (True, 3, 3)
    plain = run(tmp_path / "one", Recorder(), seeds=SEEDS[:1])
    assert (plain.epoch, plain.history[0].get(AVERAGED)) == (2, None)
    assert timeless(plain.history[0]) == timeless(stopped.history[0])


def test_means_leave_times_alone_and_missing_values_out() -> None:
    rows = [{"a": 1.0, "time/x": 5.0}, {"a": 3.0, "b": 7.0, "time/x": 6.0}]
    assert mean_row(rows) == {"a": 2.0, "b": 7.0, "time/x": 6.0, AVERAGED: 2.0}
    assert math.isnan(mean_row([{"a": math.nan}, {"a": 1.0}])["a"])


def test_the_value_of_a_trial_is_that_of_its_means_not_of_its_luckiest_seed(home: Path) -> None:
    config = sweep(seeds_per_trial=2)
    curve = [(1, 0.9, None), (2, 0.5, None), (3, 0.6, 2.0), (4, 0.55, 2.0)]
    with open_study(config, create=True, resume=False) as study:
        asked = study.ask()
        assert asked is not None
        assert asked.seeds == seeds_of_trial(config, 0)
        assert len(set(asked.seeds)) == 2
        for epoch, value, averaged in curve:
            row = {METRIC: value} | ({} if averaged is None else {AVERAGED: averaged})
            assert study.report(0, epoch, row) is None
        assert study.complete(0).values == (0.6,)
        assert study.study.trials[0].user_attrs["best_epoch"] == 3


def test_seeds_of_trials_differ_and_the_first_does_not_depend_on_their_number() -> None:
    one, many = sweep(), sweep(seeds_per_trial=5)
    seeds = [seed for number in range(20) for seed in seeds_of_trial(many, number)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert [seeds_of_trial(one, n)[0] for n in range(20)] == seeds[::5]
    same = sweep(seeds_per_trial=3, trial_seeds="same")
    assert seeds_of_trial(same, 0) == seeds_of_trial(same, 7)


def test_the_best_epoch_of_a_plain_trial_is_over_all_of_them() -> None:
    objective = Objective(metric=METRIC, direction="maximize")
    curves = Curves(epochs={1: {METRIC: 0.9}, 2: {METRIC: 0.5}})
    assert curves.best_epoch(objective) == 1
