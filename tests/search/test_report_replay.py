"""Replaying early stopping from logged curves: against the rules written out by hand."""

import statistics

import optuna
import pytest
from support.sweep_study import make_sweep

from vfsearch.search.analysis import trials_table
from vfsearch.search.pruners import Asha, Hyperband, Median, NoPruner
from vfsearch.search.replay import Logged, logged, replay, replay_all

NONE = NoPruner(name="none")


def sweep(curves: list[list[float]], whole: bool = True) -> list[Logged]:
    """Trials that ran one after another, ten seconds per epoch."""
    trials, clock = [], 0.0
    for number, curve in enumerate(curves):
        trials.append(
            Logged(
                number=number,
                curve=dict(enumerate(curve, start=1)),
                whole=whole,
                failed=False,
                times={epoch: clock + 10 * epoch for epoch in range(1, len(curve) + 1)},
                pace=10.0,
            )
        )
        clock += 10 * len(curve)
    return trials


def test_no_pruner_runs_everything() -> None:
    found = replay(sweep([[0.1, 0.2], [0.3, 0.1], [0.2, 0.2]]), NONE, direction="maximize", full=2)
    assert (found.epochs, found.stopped, found.beyond) == (6, (), ())
    assert found.hours * 3600 == pytest.approx(60)
    assert (found.chosen, found.value) == (1, 0.3)
    down = replay(sweep([[0.1, 0.2], [0.3, 0.05]]), NONE, direction="minimize", full=2)
    assert (down.chosen, down.value) == (1, 0.05)


def test_median_by_hand() -> None:
    curves = [
        [0.5, 0.6, 0.7],
        [0.4, 0.5, 0.6],
        [0.6, 0.7, 0.8],
        [0.45, 0.4, 0.9],
        [0.55, 0.65, 0.65],
    ]
    policy = Median(name="median", startup_trials=3, grace=1)
    found = replay(sweep(curves), policy, direction="maximize", full=3)
    # By hand: a trial stops after an epoch at which its best so far is below the median of the
    # completed trials at that epoch; three trials complete first.
    complete = [curves[0], curves[1], curves[2]]
    expected = []
    for number in (3, 4):
        for epoch in (0, 1):
            middle = statistics.median(done[epoch] for done in complete)
            if max(curves[number][: epoch + 1]) < middle:
                expected.append(number)
                break
        else:
            complete.append(curves[number])
    assert expected == [3]
    assert list(found.stopped) == expected
    assert found.epochs == 3 * 4 + 1
    # Stopping cost the best trial: the replay says so.
    assert (found.chosen, found.value) == (2, 0.8)


def test_asha_by_hand() -> None:
    curves = [[0.5, 0.5, 0.5, 0.5], [0.4] * 4, [0.6] * 4, [0.3] * 4, [0.7] * 4]
    policy = Asha(name="asha", grace=1, min_resource=1, reduction_factor=2)
    found = replay(sweep(curves), policy, direction="maximize", full=4)
    # At each rung (epochs 1, 2) a trial must be in the better half of those that reached it.
    reached: list[float] = []
    stopped = []
    for number, curve in enumerate(curves):
        reached.append(curve[0])
        top = sorted(reached, reverse=True)[: max(len(reached) // 2, 1)]
        if curve[0] < top[-1]:
            stopped.append(number)
    assert list(found.stopped) == stopped == [1, 3]
    assert found.epochs == 3 * 4 + 2 * 1
    assert found.chosen == 4


def test_grace_is_kept() -> None:
    curves = [[0.5] * 4, [0.4] * 4, [0.3] * 4]
    policy = Asha(name="asha", grace=3, min_resource=1, reduction_factor=2)
    found = replay(sweep(curves), policy, direction="maximize", full=4)
    assert found.epochs == 4 + 3 + 3


def test_what_was_cut_off_is_paid_but_never_chosen() -> None:
    cut = sweep([[0.9], [0.8]], whole=False)
    whole = sweep([[0.1, 0.2, 0.3]])[0]
    trials = [*cut, Logged(**{**vars(whole), "number": 2})]
    found = replay(trials, NONE, direction="maximize", full=3)
    assert found.epochs == 9
    assert found.beyond == (0, 1)
    assert (found.chosen, found.value) == (2, 0.3)


def test_failed_trials_cost_what_they_ran_and_are_not_chosen() -> None:
    failed = Logged(**{**vars(sweep([[0.9, 0.9]])[0]), "failed": True})
    found = replay([failed], NONE, direction="maximize", full=9)
    assert (found.epochs, found.chosen, found.beyond) == (2, None, ())


def test_replaying_leaves_the_study_alone_and_is_repeatable() -> None:
    study = make_sweep()
    rows = trials_table(study)
    before = [trial.system_attrs for trial in study.trials]
    once, again = (replay_all(rows, None, "maximize") for _ in range(2))
    assert once == again
    assert [trial.system_attrs for trial in study.trials] == before
    assert [one.policy for one in once] == ["none", "asha", "median"]
    none, asha, median = once
    assert none.epochs > median.epochs > asha.epochs
    assert set(none.beyond) == {row.number for row in rows if row.state == "PRUNED"}


def test_every_pruner_can_be_replayed() -> None:
    rows = trials_table(make_sweep())
    found = replay(
        logged(rows), Hyperband(name="hyperband", max_resource=9), direction="maximize", full=9
    )
    assert 0 < found.epochs < 9 * len(rows)


def test_asha_replay_agrees_with_optunas_own_loop() -> None:
    """Sequential trials: Optuna's optimize with the same pruner stops the same trials."""
    curves = [[((7 * i) % 11) / 11 + 0.01 * e for e in range(6)] for i in range(20)]
    policy = Asha(name="asha", grace=1, min_resource=1, reduction_factor=3)

    def objective(trial: optuna.Trial) -> float:
        for epoch, value in enumerate(curves[trial.number], start=1):
            trial.report(value, epoch)
            if epoch < 6 and trial.should_prune():
                raise optuna.TrialPruned
        return max(curves[trial.number])

    study = optuna.create_study(
        direction="maximize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )
    study.optimize(objective, n_trials=20)
    found = replay(sweep(curves), policy, direction="maximize", full=6)
    assert list(found.stopped) == [t.number for t in study.trials if t.state.name == "PRUNED"]
    assert found.chosen == study.best_trial.number
