"""Ray on this machine, or the cluster that is there: connected for one block, then let go."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenacity import (
    RetryError,
    Retrying,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
)

from vfsearch.config import home
from vfsearch.errors import SweepError
from vfsearch.search.code import check_nodes
from vfsearch.search.nodes import alive_nodes

_OBJECT_STORE = 200 << 20
"""Bytes of Ray's object store here; only orders and metrics travel through it."""


_JOIN = 300.0
"""Seconds that the nodes of a cluster get to join it."""


def worker_environment() -> dict[str, str]:
    """Environment that every process of the job gets, whatever node it runs on.

    Ray Train: a look at the workers every 0.5 s, so that a lost one is noticed at once (reports
    do not go through Train); no watcher for preemption, no metrics, no change of directory.
    """
    ours = {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    chosen = {name: os.environ.get(name, value) for name, value in ours.items()}
    return chosen | {"VFSEARCH_HOME": str(home())}


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the cluster is to consist of, as its set-up told every node by two variables.

    Without it a sweep that is submitted right after ``ray up`` would be told that it never fits.
    """

    nodes: int = 1
    """Nodes that are there from the start, the head included (``VFSEARCH_NODES``)."""
    count: int = 0
    """Nodes that the autoscaler starts at most, on demand."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """Of each of those (``VFSEARCH_GROWS_BY``, like ``20 x CPU=4,GPU=1``)."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Expected":
        """Read the two variables; nothing is expected of a cluster that has none."""
        grows = re.fullmatch(r"(\d+) x (.+)", environment.get("VFSEARCH_GROWS_BY", ""))
        pairs = [part.partition("=") for part in grows[2].split(",")] if grows else []
        return cls(
            nodes=int(environment.get("VFSEARCH_NODES", "1")),
            count=int(grows[1]) if grows else 0,
            resources={name: float(value) for name, _, value in pairs},
        )

    def grown(self, alive: Sequence[dict[str, float]]) -> list[dict[str, float]]:
        """Add the nodes that can still be started to those that are alive."""
        started = max(len(alive) - self.nodes, 0)
        return [*alive, *(dict(self.resources) for _ in range(self.count - started))]


@contextmanager
def connected(address: str | None = None) -> Iterator[list[dict[str, float]]]:
    """Connect to ``address``, else to ``RAY_ADDRESS``, else start Ray here (loopback dashboard).

    A connection that exists already is used and left as it is.

    Yields:
        The total resources of every node that is there, or that the cluster would start.

    Raises:
        SweepError: the cluster cannot be reached, Ray does not start, or a node runs another
            version of the program.
    """
    # Ray prints these on the driver's standard output; ours is the reason of the trial. The
    # variable is read when ray is imported.
    os.environ.setdefault(
        "RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed|Raylet is terminated"
    )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield _nodes()
        return
    address = address or os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": worker_environment()},
    }
    if address is None or address == "local":
        # The dashboard serves Ray's State API, without which Train cannot free what a killed
        # process held.
        settings |= {
            "address": "local",
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "object_store_memory": _OBJECT_STORE,
        }
    else:
        settings["address"] = address
    try:
        attempts = 3 if settings["address"] == "local" else 1
        # A machine under load may need longer than the fixed times that Ray's start allows.
        for attempt in Retrying(stop=stop_after_attempt(attempts), reraise=True):
            with attempt:
                _initialise(settings)
    except Exception as error:  # bare ones too: Ray raises them when its node starts too slowly
        where = "Ray does not start on this machine" if address is None else f"Ray at {address}"
        raise SweepError(f"{where}: {str(error).strip().partition(chr(10))[0]}") from None
    _protect_token()
    try:
        if settings["address"] == "local":
            yield _nodes()
        else:
            expected = Expected.read(os.environ)
            _wait_for(expected.nodes)
            check_nodes()
            yield expected.grown(_nodes())
    finally:
        ray.shutdown()


def _initialise(settings: dict[str, Any]) -> None:
    import ray

    try:
        ray.init(**settings)
    except BaseException:
        ray.shutdown()
        raise


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in alive_nodes()]


def _wait_for(nodes: int) -> None:
    """Give the nodes that belong to the cluster a while to join; go on with those that have."""
    with contextlib.suppress(RetryError):
        Retrying(
            retry=retry_if_result(lambda there: there < nodes),
            wait=wait_fixed(1),
            stop=stop_after_delay(_JOIN),
        )(lambda: len(_nodes()))


def _protect_token() -> None:
    """Ray writes its token readable for everyone; make it the owner's alone."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)
