"""What the launching machine prepares before ``ray up``: token, wheel of the commit, lock."""

import os
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from vfsearch.cluster.nodes import DIST, TOKEN
from vfsearch.errors import ClusterError


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What the nodes will get."""

    wheel: Path
    commit: str
    uncommitted: tuple[str, ...]
    """Changed files that are *not* in the wheel."""
    token: Path
    new_token: bool


def prepare(repository: Path) -> Prepared:
    """Make sure that a token exists, build the commit's wheel, lay out ``cluster/dist``.

    Raises:
        ClusterError: this is no git checkout of vfsearch, or the wheel cannot be built.
    """
    if not (repository / "cluster" / "node-setup.sh").is_file():
        raise ClusterError(f"{repository}: is not a checkout of vfsearch; run this in one")
    commit = _git(repository, "rev-parse", "HEAD").strip()
    changed = _git(repository, "status", "--porcelain", "--untracked-files=no").splitlines()
    dist = repository / DIST
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir(parents=True)
    wheel = _wheel(repository, commit, dist)
    archive = _git_bytes(repository, "show", f"{commit}:requirements.lock")
    (dist / "requirements.lock").write_bytes(archive)
    shutil.copy(repository / "cluster" / "node-setup.sh", dist)
    token, new = ensure_token(Path(TOKEN).expanduser())
    return Prepared(
        wheel=wheel,
        commit=commit,
        uncommitted=tuple(line[3:] for line in changed),
        token=token,
        new_token=new,
    )


def ensure_token(path: Path) -> tuple[Path, bool]:
    """Ray's token: kept if it is there, else made; readable for its owner alone.

    Returns:
        Its file, and whether it is new.
    """
    if path.is_file() and path.stat().st_size:
        path.chmod(0o600)
        return path, False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    partial.replace(path)
    return path, True


def _wheel(repository: Path, commit: str, dist: Path) -> Path:
    """Build from the commit's files alone; the version names the commit (PEP 440 local part)."""
    with TemporaryDirectory(prefix="vfsearch-wheel-") as folder:
        source = Path(folder) / "source"
        with tarfile.open(fileobj=BytesIO(_git_bytes(repository, "archive", commit))) as tree:
            tree.extractall(source, filter="data")
        project = source / "pyproject.toml"
        text = project.read_text(encoding="utf-8")
        local = re.sub(
            r'(?m)^version = "([^"+]+)"', rf'version = "\1+g{commit[:12]}"', text, count=1
        )
        project.write_text(local, encoding="utf-8")
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        command += ["--no-build-isolation", "--wheel-dir", str(dist), str(source)]
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode:
            last = (built.stderr.strip().splitlines() or ["no message"])[-1]
            raise ClusterError(f"the wheel of {commit[:12]} cannot be built: {last}")
    return next(dist.glob("vfsearch-*.whl"))


def _git(repository: Path, *words: str) -> str:
    return _git_bytes(repository, *words).decode()


def _git_bytes(repository: Path, *words: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *words], capture_output=True, check=False
        )
    except FileNotFoundError:
        raise ClusterError("git is not installed; the nodes get the wheel of a commit") from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise ClusterError(f"{repository}: git {words[0]} fails: {reason[-1] if reason else ''}")
    return done.stdout
