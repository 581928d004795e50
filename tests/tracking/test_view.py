import importlib.util
import json
import math
import zlib
from base64 import b64decode
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from support.tracked_runs import trial_run

from vfsearch.tracking.connection import Connection
from vfsearch.tracking.runs import with_log10
from vfsearch.tracking.view import share_view

SCRIPT = Path(__file__).parents[2] / "scripts" / "screenshot_mlflow.py"
OBJECTIVE = "val/match_v2f_1to2"


def _sweep(connection: Connection, trials: int) -> None:
    from mlflow.entities import Metric

    for number in range(trials):
        params = with_log10(
            {"loss.margin": 1.0 + number, "reweighting.temperature": 10.0 ** (number - 3)},
            ["reweighting.temperature"],
        )
        run_id = trial_run(connection, "demo", number, params)
        final = 0.6 + 0.3 * math.sin(number)
        curve = [Metric(OBJECTIVE, final * (1 - 0.5**e), 1000 + e, e) for e in range(1, 6)]
        connection.client().log_batch(run_id, metrics=curve)


@pytest.mark.browser
@pytest.mark.slow
def test_every_trial_is_in_the_table_and_the_objective_is_drawn(
    connection: Connection, browser: Browser
) -> None:
    _sweep(connection, 6)
    link = share_view(
        connection,
        "demo",
        parameters=["loss.margin", "reweighting.temperature"],
        objective=OBJECTIVE,
        log_scaled=["reweighting.temperature"],
    )
    # The same opening as that of the pictures in the documentation.
    spec = importlib.util.spec_from_file_location("screenshot_mlflow", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.open_page(browser, link)
    try:
        table = page.get_by_role("treegrid").or_(page.get_by_role("grid")).first
        for number in range(6):
            assert table.get_by_text(f"t{number:03d}", exact=True).count() == 1
        text = page.inner_text("body")
        assert "6 matching runs" in text
        for title in ("Parallel Coordinates", "Parameter by parameter", OBJECTIVE):
            assert title in text
        # The bars of the objective: one for each trial, in the chart of that title.
        bars = page.locator(".js-plotly-plot .bars .point")
        assert bars.count() == 6
        assert page.locator(".js-plotly-plot .contourlayer .contour").count() == 1
    finally:
        page.context.close()


def test_a_view_of_many_parameters_is_compressed(connection: Connection) -> None:
    parameters = [f"section_of_some_length.parameter_{k}" for k in range(60)]
    link = share_view(connection, "wide", parameters=parameters, objective=OBJECTIVE)
    key = link.partition("viewStateShareKey=")[2].partition("&")[0]
    tags = connection.client().get_experiment(connection.experiment_id).tags
    value = tags[f"mlflow.sharedViewState.{key}"]
    assert value.startswith("deflate;")
    state = json.loads(zlib.decompress(b64decode(value.removeprefix("deflate;"))))
    assert state["compareRunCharts"][0]["selectedParams"] == parameters
    assert link == share_view(connection, "wide", parameters=parameters, objective=OBJECTIVE)
