"""A prepared comparison of a sweep's trials in MLflow's own pages, opened by one link.

MLflow keeps a shared view as an experiment tag. Its format is not documented: it was read off
MLflow 3.17 and is held by a browser test. If a later MLflow ignores it, the link still opens
the experiment's runs.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from typing import Any

from vfsearch.tracking.connection import Connection
from vfsearch.tracking.runs import mlflow_errors

LONGEST_TAG = 19_000
"""Characters of an experiment tag (MLflow allows 20,000); longer views are compressed."""
MOST_TRIALS = 100
"""Runs that MLflow draws at once."""

Json = dict[str, Any]


def share_view(
    connection: Connection,
    sweep: str,
    *,
    parameters: Sequence[str],
    objective: str,
    log_scaled: Sequence[str] = (),
    curves: Sequence[str] = (),
    summary: str | None = None,
) -> str:
    """Write the comparison of a sweep into its experiment; returns the link that opens it.

    Args:
        connection: to the experiment.
        sweep: name of the sweep.
        parameters: swept parameters, the most important first.
        objective: metric that the sweep optimises, logged per epoch.
        log_scaled: those of ``parameters`` whose axis is ``log10.<name>``.
        curves: further metrics drawn over the epochs.
        summary: metric with one value per trial to compare by, such as ``best/…``; MLflow keeps
            the last value of a metric, not the best. Default: the objective.

    Raises:
        TrackingError: the server is away.
    """
    axes = [f"log10.{name}" if name in log_scaled else name for name in parameters]
    state = _state(sweep, list(parameters), axes, objective, list(curves), summary or objective)
    text = json.dumps(state, separators=(",", ":"))
    if len(text) > LONGEST_TAG:
        packed = base64.b64encode(zlib.compress(text.encode("utf-8"), 9))
        text = "deflate;" + packed.decode("ascii")
    key = hashlib.sha256(f"{connection.experiment_id}/{sweep}".encode()).hexdigest()[:16]
    with mlflow_errors(connection, f"experiment {connection.experiment}"):
        connection.client().set_experiment_tag(
            connection.experiment_id, f"mlflow.sharedViewState.{key}", text
        )
    return (
        f"{connection.uri}/#/experiments/{connection.experiment_id}/runs?viewStateShareKey={key}"
        "&compareRunsMode=CHART&workflowType=machine_learning"
    )


def _state(
    sweep: str,
    parameters: list[str],
    axes: list[str],
    objective: str,
    curves: list[str],
    summary: str,
) -> Json:
    return {
        "searchFilter": f"tags.`vfsearch.sweep` = '{sweep}' and tags.`vfsearch.kind` = 'trial'",
        "orderByKey": f"metrics.`{summary}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [
            f"metrics.`{summary}`",
            *(f"params.`{name}`" for name in parameters),
            "tags.`vfsearch.state`",
            "attributes.`Dataset`",
        ],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": _charts(axes, objective, curves, summary),
        "compareRunSections": [
            _section("sweep", "Sweep"),
            _section("pairs", "Parameter by parameter"),
            _section("curves", "Learning curves"),
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
    }


def _charts(axes: list[str], objective: str, curves: list[str], summary: str) -> list[Json]:
    charts = [
        _chart("PARALLEL", "sweep", selectedParams=axes, selectedMetrics=[summary],
               showAllRuns=False),
        _chart("BAR", "sweep", metricKey=summary),
    ]  # fmt: skip
    result = {"key": summary, "type": "METRIC"}
    if len(axes) >= 2:
        x, y = ({"key": name, "type": "PARAM"} for name in axes[:2])
        charts.append(_chart("CONTOUR", "sweep", xaxis=x, yaxis=y, zaxis=result))
    for name in axes:
        x = {"key": name, "type": "PARAM"}
        charts.append(_chart("SCATTER", "pairs", xaxis=x, yaxis=result))
    for metric in (objective, *curves):
        charts.append(
            _chart(
                "LINE",
                "curves",
                metricKey=metric,
                selectedMetricKeys=[metric],
                xAxisKey="step",
                yAxisKey="metric",
                lineSmoothness=0,
                scaleType="linear",
                xAxisScaleType="linear",
                ignoreOutliers=False,
                displayPoints=None,
                selectedXAxisMetricKey="",
                range={},
            )
        )
    return [{**chart, "uuid": f"vf{index}"} for index, chart in enumerate(charts)]


def _chart(kind: str, section: str, **settings: Any) -> Json:
    return {
        "type": kind,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": MOST_TRIALS,
        **settings,
    }


def _section(key: str, name: str) -> Json:
    return {
        "uuid": key,
        "name": name,
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
    }
