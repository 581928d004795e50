"""Stamps a built distribution with the commit that it was built from; all else: pyproject.toml."""

import json
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent
STAMP = "vfsearch/commit.json"


def commit() -> str | None:
    """The stamp: of this checkout, or of the source distribution that this is."""
    if not (HERE / ".git").exists():
        stamp = HERE / STAMP
        return stamp.read_text(encoding="utf-8") if stamp.exists() else None
    git = ["git", "-c", f"safe.directory={HERE}", "-C", str(HERE)]
    try:
        head, status = (
            subprocess.run([*git, *arguments], check=True, capture_output=True, text=True).stdout
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "vfsearch"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return json.dumps({"commit": head.strip(), "dirty": bool(status.strip())}) + "\n"


class StampedBuild(build_py):
    """Into wheels; an editable installation asks the checkout itself."""

    def run(self) -> None:
        """Build, then stamp."""
        super().run()
        stamp = commit()
        if stamp is not None and not self.editable_mode:
            (Path(self.build_lib) / STAMP).write_text(stamp, encoding="utf-8")


class StampedSource(sdist):
    """Into source distributions."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Lay the release out, then stamp."""
        super().make_release_tree(base_dir, files)
        stamp = commit()
        if stamp is not None:
            (Path(base_dir) / STAMP).write_text(stamp, encoding="utf-8")


setup(cmdclass={"build_py": StampedBuild, "sdist": StampedSource})
