"""The wheel of a commit and the token of a cluster."""

import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from vfsearch.cluster.prepare import ensure_token, prepare
from vfsearch.errors import ClusterError

ROOT = Path(__file__).parents[2]


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a small package under the real project file."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "checkout"
    for name in ("vfsearch", "cluster"):
        (folder / name).mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.lock"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "cluster" / "node-setup.sh").write_text("echo set up\n")
    (folder / ".gitignore").write_text("/cluster/dist/\n")
    (folder / "vfsearch" / "__init__.py").write_text("committed = True\n")
    (folder / "vfsearch" / "cli.py").write_text("def main() -> None: ...\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_the_wheel_holds_the_commit_and_names_it(checkout: Path) -> None:
    (checkout / "vfsearch" / "__init__.py").write_text("committed = False\n")
    made = prepare(checkout)
    assert made.uncommitted == ("vfsearch/__init__.py",)
    assert made.wheel.name.startswith(f"vfsearch-0.1.0+g{made.commit[:12]}-")
    with zipfile.ZipFile(made.wheel) as wheel:
        assert wheel.read("vfsearch/__init__.py") == b"committed = True\n"
    files = {path.name for path in (checkout / "cluster" / "dist").iterdir()}
    assert files == {made.wheel.name, "requirements.lock", "node-setup.sh"}
    again = prepare(checkout)
    assert (again.wheel, again.new_token) == (made.wheel, False)


def test_the_token_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / ".ray" / "auth_token"
    assert ensure_token(path) == (path, True)
    token = path.read_text()
    assert len(token) == 64
    path.chmod(0o644)  # as Ray itself leaves it
    assert ensure_token(path) == (path, False)
    assert path.read_text() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["auth_token"]


def test_elsewhere_it_says_what_is_wrong(tmp_path: Path, checkout: Path) -> None:
    with pytest.raises(ClusterError, match="is not a checkout of vfsearch"):
        prepare(tmp_path)
    (checkout / "pyproject.toml").write_text("[project]\n")
    git(checkout, "commit", "-qam", "broken")
    with pytest.raises(ClusterError, match="cannot be built"):
        prepare(checkout)
