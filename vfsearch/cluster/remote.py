"""Asking the head node of a cluster from the launching machine, through Ray's own ssh."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vfsearch.errors import ClusterError

DASHBOARD = 8265


def on_head(cluster: Path, command: Sequence[str]) -> int:
    """Run ``vfsearch COMMAND`` on the head node; output goes to this terminal.

    Returns:
        The exit code; Ray turns all but 0 into 1.
    """
    return _ray("exec", str(cluster), shlex.join(["vfsearch", *command]))


def submit(cluster: Path, script: Path, arguments: Sequence[str]) -> int:
    """``ray submit`` with the arguments protected from Ray's own options."""
    return _ray("submit", str(cluster), str(script), "--", *map(shlex.quote, arguments))


def dashboard(cluster: Path, port: int) -> int:
    """Forward the head's dashboard to a port of this machine until interrupted."""
    return _ray("dashboard", f"--port={port}", f"--remote-port={DASHBOARD}", str(cluster))


def _ray(*words: str) -> int:
    program = Path(sys.executable).with_name("ray")
    try:
        return subprocess.run([str(program), *words], check=False).returncode
    except FileNotFoundError:
        raise ClusterError(f"{program}: is not there; install vfsearch completely") from None
