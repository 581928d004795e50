"""The table and the report of a study that the engine's own facade has written."""

from pathlib import Path

import optuna
import pytest
from support import sweeps

from vfsearch.search.analysis import sweep_of, trials_table
from vfsearch.search.replay import replay_all
from vfsearch.search.report import ReportExtras, write_report
from vfsearch.search.study import open_study, read_sweep


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    storage = f"sqlite:///{tmp_path_factory.mktemp('sweep') / 'study.db'}"
    config = sweeps.sweep(
        storage=storage,
        description="A sweep <for> the tests & their report",
        parameters=sweeps.CONDITIONAL,
        pruner={"name": "asha", "grace": 1, "reduction_factor": 2},
        budget={"trials": 14, "dollars_per_gpu_hour": 3.0},
    )
    with open_study(config, create=True, resume=False) as engine:
        for number in range(14):
            asked = engine.ask()
            assert asked is not None
            engine.note(number, seconds=30.0, gpu_seconds=60.0, mlflow_run_id=f"run{number}")
            if number == 5:
                engine.report(number, 1, sweeps.metrics(asked, 1))
                engine.fail(number, "out of memory: 20 GB")
            else:
                sweeps.train(engine, asked)
    return read_sweep("small", storage)[1]


def test_rows_show_active_parameters_and_stored_notes(study: optuna.Study) -> None:
    rows = trials_table(study)
    assert [row.number for row in rows] == list(range(14))
    assert {row.state for row in rows} == {"COMPLETE", "PRUNED", "FAIL"}
    assert rows[5].reason == "out of memory: 20 GB"
    assert all(row.mlflow_run_id == f"run{row.number}" for row in rows)
    assert all(row.seconds == 30.0 and row.gpus == 2.0 for row in rows)
    for row in rows:
        soft = row.params["reweighting.schedule"] == "soft"
        wanted = soft and row.params["alignment"] in ("implicit", "both")
        assert ("reweighting.temperature" in row.params) == wanted
        assert row.epochs == len(row.curve) > 0
    stopped = [row for row in rows if row.state == "PRUNED"]
    assert stopped
    assert all(row.reason and row.reason.startswith("asha: ") for row in stopped)


def test_replaying_the_sweeps_own_policy_stops_the_same_trials(study: optuna.Study) -> None:
    config = sweep_of(study)
    # The trials ran one after another, so the replay meets the same decisions up to what was cut.
    own = next(
        one for one in replay_all(trials_table(study), config, "maximize") if one.policy == "asha"
    )
    pruned = {row.number for row in trials_table(study) if row.state == "PRUNED"}
    assert set(own.stopped) == pruned
    assert own.beyond == ()
    assert own.chosen == study.best_trial.number


def test_report_prices_the_gpus_that_were_noted(study: optuna.Study, tmp_path: Path) -> None:
    text = write_report(study, tmp_path / "report.html").read_text()
    assert "A sweep &lt;for&gt; the tests &amp; their report" in text
    assert "6 parameters, random proposes, asha stops" in text
    # 14 trials of 30 s on 2 GPUs at 3 dollars, and what stood empty: nothing on one place.
    assert "$0.70" in text
    cpu = write_report(study, tmp_path / "cpu.html", ReportExtras(gpus_per_trial=0)).read_text()
    assert "$" not in cpu.split("<main", 1)[1].split("<script", 1)[0]


def test_every_trial_has_the_interval_of_its_best_epoch(
    study: optuna.Study, tmp_path: Path
) -> None:
    rows = {row.number: row for row in trials_table(study)}
    for row in rows.values():
        reached = row.reached[0]
        assert reached is not None
        assert row.interval == pytest.approx((reached - 0.02, reached + 0.03))
        assert row.document()["interval"] == list(row.interval)
    complete = [row for row in rows.values() if row.state == "COMPLETE"]
    page = write_report(study, tmp_path / "report.html").read_text()
    assert page.count('class="whisker"') == min(len(complete), 12)
    raced = ReportExtras(intervals={complete[0].number: (0.111, 0.999)})
    assert "0.1110 to 0.9990" in write_report(study, tmp_path / "raced.html", raced).read_text()


def test_optuna_dashboard_opens_the_same_study(study: optuna.Study) -> None:
    from optuna_dashboard import wsgi
    from werkzeug.test import Client

    client = Client(wsgi(study._storage))
    (summary,) = client.get("/api/studies").get_json()["study_summaries"]
    assert summary["study_name"] == "small"
    detail = client.get(f"/api/studies/{summary['study_id']}?after=0").get_json()
    assert [trial["number"] for trial in detail["trials"]] == list(range(14))
    states = {trial["number"]: trial["state"].upper() for trial in detail["trials"]}
    assert states == {row.number: row.state for row in trials_table(study)}
