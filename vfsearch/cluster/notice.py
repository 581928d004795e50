"""Notices that this node will be taken away, told to Ray: its trials bring their epochs to safety.

Ray's autoscaler does not read the spot notices of EC2 (two minutes ahead), so a worker node watches
for its own. On Kubernetes the end of a pod is announced by its preStop hook, which calls `drain`.
"""

import json
import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import psutil

from vfsearch.errors import ClusterError

_METADATA = "http://169.254.169.254"
_ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
"""Another address of the instance's metadata; the variable is that of AWS' own clients."""
_TIMEOUT = 2.0
_LEEWAY = 10.0
"""Seconds before the end by which a node should be empty."""


def spot_notice(now: datetime) -> float | None:
    """Seconds until this EC2 instance is taken away; None: no notice, or no such instance."""
    try:
        token = _ask("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        header = {"X-aws-ec2-metadata-token": token}
        told = json.loads(_ask("GET", "/latest/meta-data/spot/instance-action", header))
    except OSError:  # 404: no notice; the service is away: the next look tells
        return None
    when = datetime.strptime(told["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return max((when - now).total_seconds(), 0.0)


def drain_on_notice(every: float = 5.0) -> float:
    """Wait for a spot notice, and drain this node then; returns the seconds that were left.

    Raises:
        ClusterError: see `drain`.
    """
    while (left := spot_notice(datetime.now(UTC))) is None:
        time.sleep(every)
    drain(left - _LEEWAY, "spot notice")
    return left


def drain(seconds: float, why: str) -> None:
    """Tell Ray that this node will be gone in so many seconds; nothing new is placed on it.

    Raises:
        ClusterError: no Ray runs on this node, or it refuses.
    """
    node = _this_node()
    program = Path(sys.executable).with_name("ray")
    command = [str(program), "drain-node", f"--address={node[1]}", f"--node-id={node[0]}"]
    command += ["--reason=DRAIN_NODE_REASON_PREEMPTION", f"--reason-message={why}"]
    command += [f"--deadline-remaining-seconds={max(int(seconds), 1)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ClusterError(f"ray drain-node: {last}")


def wait_until_left(seconds: float) -> bool:
    """Wait until Ray's node has left this machine; False: time is up."""
    end = time.monotonic() + seconds
    while any(process.info["name"] == "raylet" for process in psutil.process_iter(["name"])):
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def _this_node() -> tuple[str, str]:
    """Id of this node, and address of its cluster."""
    import ray

    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        context = ray.get_runtime_context()
        return context.get_node_id(), context.gcs_address
    except ConnectionError:
        raise ClusterError("no Ray runs on this machine") from None
    finally:
        ray.shutdown()


def _ask(method: str, path: str, headers: dict[str, str]) -> str:
    address = os.environ.get(_ENDPOINT, _METADATA).rstrip("/") + path
    request = urllib.request.Request(address, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        text: str = answer.read().decode()
        return text
