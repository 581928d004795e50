from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from vfsearch.errors import TrackingError
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.runs import ensure_run, find_run, with_log10


def _active(connection: Connection) -> list[str]:
    return [r.info.run_id for r in connection.client().search_runs([connection.experiment_id])]


def test_sweep_trial_and_seed_are_one_tree(connection: Connection) -> None:
    seed = ensure_run(connection, RunKey(sweep="demo", trial=12, seed=3))
    trial = ensure_run(connection, RunKey(sweep="demo", trial=12))
    parent = ensure_run(connection, RunKey(sweep="demo"))
    client = connection.client()
    assert client.get_run(seed).data.tags["mlflow.parentRunId"] == trial
    assert client.get_run(trial).data.tags["mlflow.parentRunId"] == parent
    assert [client.get_run(r).info.run_name for r in (parent, trial, seed)] == [
        "demo",
        "t012",
        "t012-s3",
    ]
    assert len(_active(connection)) == 3
    assert ensure_run(connection, RunKey(sweep="demo", trial=12)) == trial
    assert ensure_run(connection, RunKey(sweep="demo", trial=13)) != trial
    assert ensure_run(connection, RunKey(sweep="other")) != parent
    keys = [RunKey(sweep="demo", trial=12, seed=3), RunKey(sweep="demo", trial=12)]
    keys.append(RunKey(sweep="demo"))
    found = [RunKey.from_tags(client.get_run(run).data.tags) for run in (seed, trial, parent)]
    assert found == keys
    assert RunKey.from_tags({"mlflow.runName": "of another program"}) is None


def test_processes_that_race_agree_on_one_run(connection: Connection) -> None:
    count = 6
    barrier = Barrier(count)

    def make(_: int) -> str:
        barrier.wait()
        return ensure_run(connection, RunKey(sweep="race", trial=1))

    with ThreadPoolExecutor(count) as pool:
        made = set(pool.map(make, range(count)))
    assert len(made) == 1
    parent = ensure_run(connection, RunKey(sweep="race"))
    assert set(_active(connection)) == {*made, parent}


def test_a_deleted_run_is_replaced(connection: Connection) -> None:
    key = RunKey(sweep="demo", trial=0)
    first = ensure_run(connection, key)
    connection.client().delete_run(first)
    second = ensure_run(connection, key)
    assert second != first
    assert ensure_run(connection, key) == second
    assert find_run(connection, key) == second


def test_log10_is_added_for_log_scaled_parameters_only() -> None:
    params = {"t": 0.01, "m": 5.0, "name": "x", "zero": 0.0}
    assert with_log10(params, ["t", "name", "zero", "absent"]) == {**params, "log10.t": -2.0}


@pytest.mark.parametrize("name", ["", "a b", "a'", "../x", ".hidden", "a/b", "x" * 101])
def test_sweep_names_that_would_break_filters_or_paths_are_refused(name: str) -> None:
    with pytest.raises(TrackingError, match="sweep name"):
        RunKey(sweep=name)
