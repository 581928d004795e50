"""Ray on this machine, or the cluster that is there: connected for one block, then let go."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tenacity import Retrying, stop_after_attempt

from vfsearch.config import home
from vfsearch.errors import SweepError

_OBJECT_STORE = 200 << 20
"""Bytes of Ray's object store here; only orders and metrics travel through it."""


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


@contextmanager
def connected(address: str | None = None) -> Iterator[list[dict[str, float]]]:
    """Connect to ``address``, else to ``RAY_ADDRESS``, else start Ray here (loopback dashboard).

    A connection that exists already is used and left as it is.

    Yields:
        The total resources of every node that is alive.

    Raises:
        SweepError: the cluster cannot be reached or Ray does not start.
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
        yield _nodes()
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
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _protect_token() -> None:
    """Ray writes its token readable for everyone; make it the owner's alone."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)
