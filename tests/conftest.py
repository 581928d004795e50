"""What every test shares: a home of its own, checked shapes, no process group left behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")

# Shared machines are noisy: an example that takes long is not wrong.
settings.register_profile("vfsearch", deadline=None)
settings.load_profile("vfsearch")

pytest_plugins = [
    "support.browser_fixtures",
    "support.postgres_fixtures",
    "support.ray_fixtures",
    "support.stack_fixtures",
    "support.team_fixtures",
]

# Shapes in signatures are checked at run time here, and only here.
_HOOK = install_import_hook(["vfsearch.loss", "vfsearch.model"], "beartype.beartype")


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a vfsearch home, so that no test meets another's stack or store."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("VFSEARCH_HOME", str(home))
    for name in ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_process_group_left() -> Iterator[None]:
    """Tear a process group down that a failed test left initialised."""
    yield
    import sys

    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.fixture
def home() -> Path:
    """The vfsearch home of this test."""
    return Path(os.environ["VFSEARCH_HOME"])
