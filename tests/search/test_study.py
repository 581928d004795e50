"""The durable study, on SQLite and on a real PostgreSQL server."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from support.sweeps import CONDITIONAL, DISCRETE, METRIC, SECOND, metrics, sweep, train

from vfsearch.errors import SweepError
from vfsearch.search.definition import SweepConfig
from vfsearch.search.records import CURVES, Curves
from vfsearch.search.study import SweepStudy, open_study, read_sweep

BOTH = [{"metric": METRIC, "direction": "maximize"}, {"metric": SECOND, "direction": "maximize"}]
ASHA = {"name": "asha", "grace": 2, "reduction_factor": 2}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    address: str = request.getfixturevalue("postgres_url")
    return address


@pytest.fixture
def study(url: str) -> Iterator[SweepStudy]:
    with open_study(sweep(storage=url), create=True, resume=False) as opened:
        yield opened


def told(config: SweepConfig) -> list[dict[str, Any]]:
    """Everything of a study that must not depend on interruptions."""
    _, study = read_sweep(config.name, config.storage)
    return [
        {
            "number": trial.number,
            "state": trial.state.name,
            "params": trial.params,
            "values": trial.values,
            "curves": trial.user_attrs.get(CURVES),
            "pruning": trial.user_attrs.get("pruning"),
            "intermediate": trial.intermediate_values,
        }
        for trial in study.get_trials()
    ]


def run(config: SweepConfig, *, trials: int, resume: bool = False) -> None:
    with open_study(config, create=True, resume=resume) as study:
        for asked in study.running():
            train(study, asked)
        while study.stop_reason(0.0, 0.0) is None and len(study.study.trials) < trials:
            asked = study.ask()
            assert asked is not None
            train(study, asked)


def test_a_trial_from_ask_to_complete(study: SweepStudy) -> None:
    asked = study.ask()
    assert asked is not None
    assert (asked.number, asked.epoch) == (0, 0)
    assert asked.seeds == (asked.config.seed,)
    assert asked.config.loss.margin == asked.params["loss.margin"]
    assert study.running() == [asked]
    for epoch, value in ((1, 0.5), (2, 0.7), (3, 0.6)):
        assert study.report(0, epoch, {METRIC: value, "train/loss": 3.0, "other": 1.0}) is None
    assert study.running()[0].epoch == 3
    study.note(0, mlflow_run_id="abc", seconds=12.5, retries=1)
    ended = study.complete(0)
    assert (ended.state, ended.values, ended.reason) == ("COMPLETE", (0.7,), None)
    trial = study.study.trials[0]
    assert trial.user_attrs["mlflow_run_id"] == "abc"
    assert trial.user_attrs["epochs"] == 3
    assert trial.user_attrs["best_epoch"] == 2
    assert trial.intermediate_values == {1: 0.5, 2: 0.7, 3: 0.6}
    curves = Curves.of(trial)
    assert curves.curve(METRIC) == {1: 0.5, 2: 0.7, 3: 0.6}
    assert curves.curve("train/loss") == dict.fromkeys((1, 2, 3), 3.0)
    assert curves.curve("other") == {}
    assert study.running() == []


def test_every_call_may_be_repeated(study: SweepStudy) -> None:
    for ending in ("complete", "prune", "fail"):
        asked = study.ask()
        assert asked is not None
        for _ in range(2):
            assert study.report(asked.number, 1, {METRIC: 0.5}) is None
            assert study.report(asked.number, 2, {METRIC: 0.4}) is None
            assert study.should_prune(asked.number, 2).prune is False
        calls = {
            "complete": lambda n: study.complete(n),
            "prune": lambda n: study.prune(n, 2, "too slow"),
            "fail": lambda n: study.fail(n, "out of memory"),
        }
        first = calls[ending](asked.number)
        assert first.state == {"complete": "COMPLETE", "prune": "PRUNED", "fail": "FAIL"}[ending]
        # Whatever is told later, the first end stays.
        for call in calls.values():
            assert call(asked.number) == first
        assert study.report(asked.number, 3, {METRIC: 0.9}) is None
        study.note(asked.number, seconds=1.0)
        assert study.study.trials[asked.number].user_attrs["epochs"] == 2
    assert [t.state.name for t in study.study.trials] == ["COMPLETE", "PRUNED", "FAIL"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_ends_the_trial_as_failed(
    study: SweepStudy, value: float
) -> None:
    asked = study.ask()
    assert asked is not None
    assert study.report(0, 1, {METRIC: 0.5}) is None
    reason = study.report(0, 2, {METRIC: value})
    assert reason == f"{METRIC} is {value} at epoch 2"
    ended = study.fail(0, reason)
    assert (ended.state, ended.reason) == ("FAIL", reason)
    assert study.study.trials[0].intermediate_values == {1: 0.5}
    assert study.study.trials[0].user_attrs["epochs"] == 2


def test_what_is_kept_of_a_running_trial_is_what_is_stored(url: str) -> None:
    """Reports and decisions read the trial once; the database must never know something else."""
    config = sweep(storage=url, pruner=ASHA)
    with open_study(config, create=True, resume=False) as first:
        numbers = [asked.number for asked in (first.ask(), first.ask()) if asked is not None]
    with open_study(config, create=False, resume=True) as study:
        for epoch in range(1, 5):
            for asked in study.running():
                study.report(asked.number, epoch, metrics(asked, epoch))
                study.should_prune(asked.number, epoch)
                study.note(asked.number, seconds=epoch / 3, retries=epoch)
                stored = study._storage.get_trial(study._trial_id(asked.number))
                assert study._live[asked.number].user_attrs == stored.user_attrs
        assert list(study._live) == numbers
        for number in numbers:
            study.fail(number, "enough")
        assert study._live == {}


def test_a_trial_without_its_objective_is_told_as_failed(study: SweepStudy) -> None:
    assert study.ask() is not None
    assert study.report(0, 1, {"val/other": 1.0}) == f"{METRIC} is not among the metrics at epoch 1"
    assert study.complete(0).state == "FAIL"
    assert study.ask() is not None
    ended = study.complete(1, {METRIC: math.nan})
    assert (ended.state, ended.reason) == ("FAIL", f"{METRIC} is nan")


def test_an_unknown_trial_is_an_error_that_names_it(study: SweepStudy) -> None:
    with pytest.raises(SweepError, match="small has no trial 7"):
        study.complete(7)


def test_a_resumed_sweep_is_bit_identical_to_an_uninterrupted_one(url: str) -> None:
    def config(name: str) -> SweepConfig:
        return sweep(
            name=name,
            storage=url,
            parameters=CONDITIONAL,
            sampler={"name": "tpe", "seed": 5, "startup_trials": 4},
            pruner=ASHA,
        )

    run(config("whole"), trials=8)
    broken = config("broken")
    run(broken, trials=3)
    with open_study(broken, create=False, resume=True) as study:
        asked = study.ask()  # dies before its first report
        assert asked is not None
    with open_study(broken, create=False, resume=True) as study:
        asked = study.running()[0]
        for epoch in (1, 2):
            study.report(asked.number, epoch, metrics(asked, epoch))
            if epoch == 1:
                study.should_prune(asked.number, epoch)  # dies between a report and its decision
    run(broken, trials=8, resume=True)
    assert told(broken) == told(config("whole"))


def test_epochs_after_the_last_checkpoint_may_be_reported_again(study: SweepStudy) -> None:
    asked = study.ask()
    assert asked is not None
    for epoch in (1, 2, 3, 2, 3, 4):
        study.report(0, epoch, metrics(asked, epoch))
    assert sorted(study.study.trials[0].intermediate_values) == [1, 2, 3, 4]
    assert Curves.of(study.study.trials[0]).last == 4


def test_a_trial_half_asked_is_finished_by_the_next_driver(url: str) -> None:
    config = sweep(storage=url, parameters=CONDITIONAL)
    with open_study(config, create=True, resume=False) as study:
        expected = study.ask()
    other = sweep(storage=url, parameters=CONDITIONAL, name="other")
    with open_study(other, create=True, resume=False) as study:
        trial = study.study.ask()  # a driver that dies after the first of the parameters
        assert expected is not None
        trial.suggest_categorical("alignment", ("implicit", "explicit", "both"))
        first = trial.params["alignment"]
    with open_study(other, create=False, resume=True) as study:
        assert study.running() == []
        asked = study.ask()
        assert asked is not None
        assert asked.number == 0
        assert asked.params["alignment"] == first
        assert study.space.feasible(asked.params)
        assert len(study.study.trials) == 1
        assert study.running() == [asked]


def test_points_to_try_first_come_first_and_only_once(url: str) -> None:
    start = [{"loss.margin": 5.4, "optimizer.lr": 0.02}, {"loss.margin": 2.0}]
    config = sweep(storage=url, start=start)
    with open_study(config, create=True, resume=False) as study:
        asked = study.ask()
        assert asked is not None
        assert (asked.params["loss.margin"], asked.params["optimizer.lr"]) == (5.4, 0.02)
        assert "classifier.norm_bound" in asked.params
    more = sweep(storage=url, start=[*start, {"loss.margin": 3.0}])
    with open_study(more, create=False, resume=True) as study:
        margins = [study.ask().params["loss.margin"] for _ in range(3)]  # type: ignore[union-attr]
    assert margins[:2] == [2.0, 3.0]
    assert margins[2] not in (5.4, 2.0, 3.0)


def test_given_conditional_points_draw_only_what_exists_beside_them(url: str) -> None:
    config = sweep(storage=url, parameters=CONDITIONAL, start=[{"alignment": "both"}] * 1)
    with open_study(config, create=True, resume=False) as study:
        asked = study.ask()
    assert asked is not None
    assert {"loss.explicit", "loss.margin"} <= set(asked.params)


def test_a_grid_ends_after_each_point_once(url: str) -> None:
    config = sweep(storage=url, parameters=DISCRETE, sampler={"name": "grid", "seed": 1})
    seen = []
    for _ in range(4):
        with open_study(config, create=True, resume=bool(seen)) as study:
            for _ in range(7):
                asked = study.ask()
                if asked is None:
                    break
                seen.append(tuple(sorted(asked.params.items(), key=str)))
                train(study, asked, epochs=1)
    assert len(seen) == len(set(seen)) == 24


def test_existing_missing_and_changed_sweeps_are_refused_with_the_way_out(url: str) -> None:
    config = sweep(storage=url)
    with pytest.raises(SweepError, match=r"no (sweep|study)"):
        open_study(config, create=False, resume=True)
    open_study(config, create=True, resume=False).close()
    with pytest.raises(SweepError, match="--resume or choose another --name"):
        open_study(config, create=True, resume=False)
    wider = {**config.model_dump()["parameters"]}
    wider["loss.margin"] = {**wider["loss.margin"], "high": 32.0}
    with pytest.raises(SweepError, match=r"parameters\.loss\.margin.*32\.0"):
        open_study(sweep(storage=url, parameters=wider), create=False, resume=True)
    changed = [{"metric": METRIC, "direction": "minimize"}]
    with pytest.raises(SweepError, match="objectives"):
        open_study(sweep(storage=url, objectives=changed), create=False, resume=True)


def test_budget_concurrency_workers_and_paths_may_change(url: str) -> None:
    run(sweep(storage=url, budget={"trials": 2}), trials=99)
    bigger = sweep(
        storage=url,
        budget={"trials": 4, "wall_time": "1h"},
        concurrency=3,
        base={"corpus": {"root": "elsewhere"}, "workers": {"count": 4}},
    )
    run(bigger, trials=99, resume=True)
    config, study = read_sweep("small", url)
    assert len(study.trials) == 4
    assert config.budget.trials == 4
    assert config.storage is None  # a URL may hold a password


def test_a_study_of_another_program_is_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    foreign = optuna.create_study(study_name="small", storage=url)
    foreign.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(SweepError, match="another program"):
        open_study(sweep(storage=url), create=True, resume=True)
    assert len(optuna.load_study(study_name="small", storage=url).trials) == 1


def test_an_unreachable_or_broken_database_is_one_clear_message(tmp_path: Path) -> None:
    closed = "postgresql://me:secret@127.0.0.1:1/x"
    with pytest.raises(SweepError, match=r"\*\*\*@127.0.0.1:1/x cannot be opened") as caught:
        open_study(sweep(storage=closed), create=True, resume=False)
    assert "secret" not in str(caught.value)
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(SweepError, match="file is not a database"):
        open_study(sweep(storage=f"sqlite:///{tmp_path}/study.db"), create=True, resume=False)
    with pytest.raises(SweepError, match="no study at"):
        read_sweep("nothing")


def test_constraints_on_metrics_reach_the_study(url: str) -> None:
    config = sweep(storage=url, constraints=["time/evaluation <= 10 * loss.margin"])
    with open_study(config, create=True, resume=False) as study:
        asked = study.ask()
        assert asked is not None
        study.report(0, 1, {METRIC: 0.5, "time/evaluation": 200.0})
        study.complete(0)
        (violation,) = study.study.trials[0].constraints.values()
        assert violation == pytest.approx(200 - 10 * asked.params["loss.margin"])
        assert study.ask() is not None
        assert (
            study.report(1, 1, {METRIC: 0.5})
            == "time/evaluation is not among the metrics at epoch 1"
        )


def test_several_objectives_are_told_at_the_best_epoch_of_the_first(url: str) -> None:
    with open_study(sweep(storage=url, objectives=BOTH), create=True, resume=False) as study:
        assert study.ask() is not None
        for epoch, (first, second) in enumerate([(0.5, 0.9), (0.7, 0.6), (0.6, 0.8)], start=1):
            assert study.report(0, epoch, {METRIC: first, SECOND: second}) is None
        assert study.complete(0).values == (0.7, 0.6)
        assert study.ask() is not None
        study.report(1, 1, {METRIC: 0.1, SECOND: 0.1})
        assert study.prune(1, 1, "slow").state == "PRUNED"
        assert [t.values for t in study.study.best_trials] == [[0.7, 0.6]]


def test_the_target_of_the_budget_is_read_from_the_curves(url: str) -> None:
    target = {"metric": "val/match_f2v_1to2", "value": 0.8}
    with open_study(
        sweep(storage=url, budget={"trials": 9, "target": target}), create=True, resume=False
    ) as study:
        assert study.ask() is not None
        study.report(0, 1, {METRIC: 0.9, "val/match_f2v_1to2": 0.7})
        assert study.stop_reason(0.0, 0.0) is None
        study.report(0, 2, {METRIC: 0.9, "val/match_f2v_1to2": 0.85})
        assert "target reached" in str(study.stop_reason(0.0, 0.0))


@pytest.mark.slow
def test_the_terminator_stops_a_sweep_that_has_little_to_gain(tmp_path: Path) -> None:
    budget = {"trials": 99, "stop_when_improvement_below": 10.0, "improvement_after": 5}
    config = sweep(storage=f"sqlite:///{tmp_path}/study.db", budget=budget)
    with open_study(config, create=True, resume=False) as study:
        reasons = []
        for _ in range(6):
            reasons.append(study.stop_reason(0.0, 0.0))
            asked = study.ask()
            assert asked is not None
            train(study, asked, epochs=2)
    assert reasons[:5] == [None] * 5
    assert "left to gain, below 10" in str(reasons[5])


def test_seeds_of_trials_can_be_their_own_or_one_for_all(tmp_path: Path) -> None:
    for mode, count in (("per_trial", 3), ("same", 1)):
        config = sweep(name=mode, storage=f"sqlite:///{tmp_path}/s.db", trial_seeds=mode)
        with open_study(config, create=True, resume=False) as study:
            seeds = {study.ask().seeds for _ in range(3)}  # type: ignore[union-attr]
        assert len(seeds) == count


def test_states_are_optunas_own(study: SweepStudy) -> None:
    assert study.ask() is not None
    assert study.study.trials[0].state is TrialState.RUNNING


def test_the_name_of_a_sweep_is_enough_once_it_was_begun_with_a_url(url: str, home: Path) -> None:
    config = sweep(storage=url)
    with open_study(config, create=True, resume=False) as study:
        asked = study.ask()
        assert asked is not None
        train(study, asked, epochs=1)
    found, study_read = read_sweep("small")
    assert (found.name, len(study_read.get_trials())) == ("small", 1)
    note = home / "sweeps" / "small" / "storage.url"
    assert note.stat().st_mode & 0o777 == 0o600
    unused = sweep(name="unused", storage=url)
    with open_study(unused, create=True, resume=False) as study:
        study.discard_unused()
    assert not (home / "sweeps" / "unused" / "storage.url").exists()
    with pytest.raises(SweepError, match="there is no"):
        read_sweep("unused")
