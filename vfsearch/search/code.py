"""Whether every node of the cluster runs the same program."""

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from vfsearch.errors import SweepError
from vfsearch.search.nodes import on_every_node

_PATIENCE = 120.0
"""Seconds that the nodes get to answer: each starts a process."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a process runs."""

    vfsearch: str
    """Version, with the commit where a wheel was built of one."""
    code: str
    """Digest of the package's files."""
    torch: str
    python: str

    def __str__(self) -> str:
        return (
            f"vfsearch {self.vfsearch} (code {self.code}), torch {self.torch}, Python {self.python}"
        )


def running() -> Program:
    """What this process runs."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return Program(
        vfsearch=version("vfsearch"),
        code=digest.hexdigest()[:12],
        torch=version("torch"),
        python=platform.python_version(),
    )


def check_nodes() -> None:
    """Ask every node that is alive.

    Raises:
        SweepError: names each node that differs from this one, or does not answer.
    """
    import ray

    mine = running()
    problems = []
    for address, answer in on_every_node(running).items():
        try:
            theirs = ray.get(answer, timeout=_PATIENCE)
        except ray.exceptions.GetTimeoutError:
            problems.append(f"{address} does not answer for {_PATIENCE:g} s")
        except ray.exceptions.RayError as error:
            problems.append(f"{address} cannot run it: {_last_line(error)}")
        else:
            if theirs != mine:
                problems.append(f"{address} runs {theirs}")
    if problems:
        raise SweepError(
            f"every node must run the program of this one, {mine}, but "
            f"{'; '.join(problems)}. 'vfsearch cluster prepare' and 'ray up' install the same "
            "on all"
        )


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
