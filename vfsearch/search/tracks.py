"""How a sweep is tracked: one run for the sweep, one below it per trial.

Rank 0 of the workers logs the trials (`performer`); the driver logs the sweep, makes the trials'
runs in the background, so that the study knows their ids, and sends what dead workers left.
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from vfsearch.config import home
from vfsearch.errors import TrackingError
from vfsearch.search.definition import SweepConfig
from vfsearch.search.identity import definition
from vfsearch.search.leftovers import patiently, send_from_nodes
from vfsearch.search.records import Asked
from vfsearch.tracking.additions import add_to_run
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.provenance import code
from vfsearch.tracking.run_key import RunKey
from vfsearch.tracking.runs import Status, close_running, ensure_run, with_log10
from vfsearch.tracking.sync import sync
from vfsearch.tracking.trial_log import TrialLog, spool_root

_CONNECTION = TypeAdapter(Connection)
_PATIENCE = 10.0
"""Seconds that the end of a trial waits for the id of its run."""


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """Where and as what an order is logged; travels with it as plain JSON."""

    connection: Connection
    key: RunKey
    spool: Path
    """See `spool_root`."""
    params: Mapping[str, object] = field(default_factory=dict)
    """What is searched, and nothing else: constants would hide it in MLflow's comparison."""
    tags: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "connection": _CONNECTION.dump_python(self.connection, mode="json"),
            "key": self.key.to_json(),
            "spool": str(self.spool),
            "params": dict(self.params),
            "tags": dict(self.tags),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Tracked":
        """Inverse of `to_json`."""
        return cls(
            connection=_CONNECTION.validate_python(data["connection"]),
            key=RunKey.from_json(data["key"]),
            spool=Path(data["spool"]),
            params=data["params"],
            tags=data["tags"],
        )


class SweepTracks:
    """The runs of one sweep, as its driver sees them."""

    def __init__(
        self, connection: Connection, config: SweepConfig, running: Collection[int] = ()
    ) -> None:
        """Begin, or continue, the sweep's run; ``running``: trials that will go on."""
        self.connection = connection
        self._config = config
        self._spool = spool_root(home(), connection.experiment)
        self._key = RunKey(sweep=config.name)
        self._log = TrialLog.open(connection, self._key, self._spool, tags=code().tags())
        self._log.tags(code().tags())
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="make-runs")
        self._runs: dict[int, Future[str]] = {}
        self._marked: list[tuple[RunKey, dict[str, str]]] = []
        self._own = self._pool.submit(ensure_run, connection, self._key)
        # What an earlier driver left open and nobody goes on with.
        spare = [RunKey(sweep=config.name, trial=number).name for number in running]
        self._pool.submit(close_running, connection, config.name, spare=spare)
        self._log_scaled = {
            name for name, spec in config.parameters.items() if getattr(spec, "log", False)
        }

    def trial(self, asked: Asked) -> Tracked:
        """Make a trial's run in the background; returns what its workers need."""
        key = RunKey(sweep=self._config.name, trial=asked.number)
        self._runs[asked.number] = self._pool.submit(ensure_run, self.connection, key)
        return Tracked(
            connection=self.connection,
            key=key,
            spool=self._spool,
            params=with_log10(asked.params, self._log_scaled),
        )

    def facts(self, number: int) -> dict[str, Any]:
        """What the study notes of a trial that ends; nothing while the server is away."""
        future = self._runs.pop(number, None)
        if future is None:
            key = RunKey(sweep=self._config.name, trial=number)
            future = self._pool.submit(ensure_run, self.connection, key)
        run_id = _value(future)
        return {} if run_id is None else {"mlflow_run_id": run_id}

    @property
    def sweep_run_id(self) -> str | None:
        """The run of the sweep; None while the server is away."""
        return _value(self._own)

    def incomparable(self, number: int | None, why: str) -> None:
        """Mark the sweep's run, and the trial's, which others must not be compared with."""
        self._log.tags({"vfsearch.incomparable": why, "mlflow.note.content": f"**Note:** {why}"})
        if number is not None:
            key = RunKey(sweep=self._config.name, trial=number)
            tags = {"vfsearch.incomparable": why, "mlflow.note.content": f"**Note:** {why}"}
            self._marked.append((key, tags))

    def log_definition(self, folder: Path) -> None:
        """Log the sweep's definition, and keep it in the sweep's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "sweep.yaml"
        text = yaml.safe_dump(definition(self._config), sort_keys=False)
        path.write_text(text, encoding="utf-8")
        self._log.artifact(path, "sweep.yaml")

    def log_report(self, page: Path) -> None:
        """Log the sweep's report; replaces the one of an earlier driver."""
        self._log.artifact(page, "report.html")

    def send_from_nodes(self, ends: Mapping[str, Status]) -> tuple[str, ...]:
        """See `leftovers.send_from_nodes`; Ray is still there."""
        return send_from_nodes(self._spool, self.connection, self._config.name, ends)

    def close(self, status: Status, elsewhere: Sequence[str] = ()) -> tuple[str, ...]:
        """End the sweep's run and send what is left; returns the runs that could not be sent.

        Nobody works on a trial any more, though workers of a cluster that stays may take a moment
        to end: runs that are still open then are ended as killed. Those of an interrupted sweep run
        again when it is resumed.

        Args:
            status: of the sweep's run.
            elsewhere: runs that lie unsent on other nodes.
        """
        self._pool.shutdown(wait=True, cancel_futures=True)
        settings = self.connection.settings()
        for key, tags in self._marked:
            add_to_run(settings, key, tags=tags, connection=self.connection)
        own = () if self._log.close(status) else (self._key.name,)
        name = self._config.name
        report = patiently(partial(sync, self._spool, self.connection, sweep=name))
        failed = (*(run for run, _ in report.failed), *elsewhere)
        with suppress(TrackingError):  # the server is away: `sync` closes them with the rest
            busy = [run.partition("/")[2] for run in (*failed, *report.live)]
            close_running(self.connection, name, spare=busy)
        return own + failed


def log_report(config: SweepConfig, page: Path) -> str | None:
    """Log the report of a sweep that nobody drives now.

    Returns:
        None if it was sent (or the sweep is not tracked), else why not; ``vfsearch sync`` does it.

    Raises:
        TrackingError: the local spool cannot be written.
    """
    if not config.base.tracking.enabled:
        return None
    key = RunKey(sweep=config.name)
    return add_to_run(config.base.tracking, key, files={"report.html": page})


def _value(future: "Future[str]") -> str | None:
    try:
        return future.result(timeout=_PATIENCE)
    except (TrackingError, TimeoutError):
        return None
