"""Which code and which packages made a run; never a value of the environment."""

import hashlib
import json
import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from vfsearch import __version__

PACKAGE = Path(__file__).parents[1]
STAMP = "commit.json"
"""Written into built distributions by ``setup.py``."""


@dataclass(frozen=True, kw_only=True)
class Code:
    """The code that runs."""

    version: str
    commit: str | None
    """Of the checkout, or the one that the installed distribution was built from."""
    dirty: bool | None
    """Whether the package differs from that commit."""
    digest: str
    """SHA-256 over the package's Python files: the same code has the same one anywhere."""

    def tags(self) -> dict[str, str]:
        """As MLflow's table of runs shows it, under Version."""
        tags = {
            "mlflow.source.name": "vfsearch",
            "mlflow.source.type": "LOCAL",
            "vfsearch.version": self.version,
            "vfsearch.code": self.digest[:12],
        }
        if self.commit is not None:
            tags["mlflow.source.git.commit"] = self.commit
            tags["vfsearch.dirty"] = str(self.dirty).lower()
        return tags


@cache
def code() -> Code:
    """The code of this process, looked at once."""
    commit, dirty = commit_of(PACKAGE)
    return Code(version=__version__, commit=commit, dirty=dirty, digest=digest_of(PACKAGE))


def commit_of(package: Path) -> tuple[str | None, bool | None]:
    """Commit of a package and whether it differs from it: of its checkout, or as stamped."""
    if (package.parent / ".git").exists():
        try:
            status = _git(package.parent, "status", "--porcelain", "--", package.name)
            return _git(package.parent, "rev-parse", "HEAD").strip(), bool(status.strip())
        except (OSError, subprocess.SubprocessError):
            return None, None
    try:
        stamp = json.loads((package / STAMP).read_text(encoding="utf-8"))
        return str(stamp["commit"]), bool(stamp["dirty"])
    except (OSError, ValueError, KeyError):
        return None, None


def digest_of(package: Path) -> str:
    """SHA-256 over names and contents of a package's Python files."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@cache
def environment() -> dict[str, Any]:
    """Interpreter, machine, GPUs and installed packages with their versions."""
    import torch

    packages = {found.metadata["Name"]: found.version for found in distributions()}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    mine = code()
    return {
        "vfsearch": {
            "version": mine.version,
            "commit": mine.commit,
            "dirty": mine.dirty,
            "code_sha256": mine.digest,
        },
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "cuda": torch.version.cuda,
        "gpus": gpus,
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def _git(folder: Path, *arguments: str) -> str:
    # The checkout may belong to another user, and a hook may have set GIT_DIR to another one.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["git", "-c", f"safe.directory={folder}", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
        env=clean,
    ).stdout
