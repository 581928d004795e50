"""What MLflow and S3 keep of a sweep that ended, read back: its definition and its trials."""

from dataclasses import dataclass
from typing import Any

import yaml

from vfsearch.errors import TrackingError
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.runs import find_run, mlflow_errors

PAGE = 1000
"""Runs per request."""


@dataclass(frozen=True, kw_only=True)
class LoggedTrial:
    """A completed trial as it was logged."""

    number: int
    params: dict[str, str]
    """As text, as MLflow keeps them."""
    best: dict[str, float]
    """Metrics of its best epoch."""
    evaluation: str | None
    """Identity of the evaluation that measured them (``vfsearch.evaluation``)."""


def logged_definition(connection: Connection, sweep: str) -> dict[str, Any]:
    """The definition that a sweep logged (``sweep.yaml``).

    Raises:
        TrackingError: there is no such sweep or no definition, or a server is away.
    """
    run_id = find_run(connection, RunKey(sweep=sweep))
    if run_id is None:
        raise TrackingError(
            f"{connection.uri}: experiment {connection.experiment} has no sweep {sweep}"
        )
    with mlflow_errors(connection, f"sweep {sweep}"):
        artifacts = connection.client().get_run(run_id).info.artifact_uri
    text = connection.store(artifacts).get("sweep.yaml")
    if text is None:
        raise TrackingError(f"{artifacts}: sweep {sweep} has no sweep.yaml; was it ever sent?")
    definition: dict[str, Any] = yaml.safe_load(text)
    return definition


def logged_trials(connection: Connection, sweep: str) -> list[LoggedTrial]:
    """The completed trials of a sweep, by number.

    Raises:
        TrackingError: the server is away.
    """
    conditions = {**RunKey(sweep=sweep).tags(), "vfsearch.kind": "trial"}
    conditions["vfsearch.state"] = "COMPLETE"
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in conditions.items())
    found: list[LoggedTrial] = []
    page: str | None = None
    client = connection.client()
    while True:
        with mlflow_errors(connection, f"sweep {sweep}"):
            runs = client.search_runs(
                [connection.experiment_id], filter_string=wanted, max_results=PAGE, page_token=page
            )
        for run in runs:
            best = {
                name.removeprefix("best/"): value
                for name, value in run.data.metrics.items()
                if name.startswith("best/")
            }
            number = int(run.data.tags["vfsearch.trial"])
            found.append(
                LoggedTrial(
                    number=number,
                    params=dict(run.data.params),
                    best=best,
                    evaluation=run.data.tags.get("vfsearch.evaluation"),
                )
            )
        page = runs.token
        if not page:
            return sorted(found, key=lambda trial: trial.number)
