"""Real servers for tests: one MLflow and one S3 server per test session, in a folder of its own."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from vfsearch.config import TrackingConfig
from vfsearch.tracking import stack
from vfsearch.tracking.connection import Connection, connect
from vfsearch.tracking.stack import StackInfo


@pytest.fixture(scope="session")
def stack_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose stack is up; stopped at the end of the session."""
    home = tmp_path_factory.mktemp("stack_home")
    stack.up(home)
    yield home
    stack.down(home)


@pytest.fixture
def running_stack(stack_home: Path) -> StackInfo:
    """The session's stack, started again if a test stopped a part of it."""
    return stack.up(stack_home)


@pytest.fixture
def connection(stack_home: Path, running_stack: StackInfo) -> Connection:
    """A connection with an experiment of this test's own."""
    return connect(TrackingConfig(experiment=f"test-{uuid4().hex[:8]}"), home=stack_home)
