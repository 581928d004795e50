"""What the local stack remembers between commands, and the lock around changing it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from vfsearch.errors import StackError
from vfsearch.tracking import processes

S3_PORTS = 5
LOCK_PATIENCE = 150.0
"""Seconds to wait for another process that starts or stops the stack."""

Progress = Callable[[str], None]


class State(BaseModel):
    """What ``stack.json`` remembers; no secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mlflow_port: int
    s3_port: int
    mlflow_pid: int | None = None
    s3_pid: int | None = None


def stack_folder(home: Path) -> Path:
    """Where the stack keeps everything."""
    return home.absolute() / "stack"


@contextmanager
def locked(home: Path, tell: Progress) -> Iterator[Path]:
    """Make the folder (0700) and hold its lock; yields the folder.

    Raises:
        StackError: not writable, or another process holds the lock for minutes.
    """
    folder = stack_folder(home)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        (folder / "s3").mkdir(exist_ok=True)
        lock = FileLock(folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            tell("another process is starting or stopping the stack; waiting for it")
            lock.acquire(timeout=LOCK_PATIENCE)
    except Timeout:
        raise StackError(f"{folder}: another process has held the lock for minutes") from None
    except OSError as error:
        raise StackError(f"{folder}: cannot be written ({error.strerror})") from None
    try:
        yield folder
    finally:
        lock.release()


def read_state(folder: Path) -> State | None:
    """The remembered state; ``None`` if no stack was ever started here.

    Raises:
        StackError: the file is damaged.
    """
    path = folder / "stack.json"
    try:
        return State.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError):
        raise StackError(
            f"{path}: is damaged or unreadable; remove it, the data beside it is kept"
        ) from None


def write_state(folder: Path, state: State) -> None:
    """Replace the remembered state in one step."""
    partial = folder / "stack.json.new"
    partial.write_text(state.model_dump_json(indent=2), encoding="utf-8")
    partial.rename(folder / "stack.json")


def settle(state: State | None, s3_running: bool, mlflow_running: bool) -> State:
    """Ports for the servers: the remembered ones as long as they are ours or free.

    Raises:
        StackError: no free ports.
    """
    s3 = state.s3_port if state else None
    mlflow = state.mlflow_port if state else None
    try:
        if s3 is None or not (s3_running or processes.is_free(_s3_block(s3))):
            s3 = processes.free_block(S3_PORTS)
        if mlflow is None or not (mlflow_running or processes.is_free([mlflow])):
            mlflow = processes.free_block(1, taken=_s3_block(s3))
    except OSError as error:
        raise StackError(f"cannot choose ports for the local stack: {error}") from None
    return (state or State(s3_port=s3, mlflow_port=mlflow)).model_copy(
        update={"s3_port": s3, "mlflow_port": mlflow}
    )


def _s3_block(first: int) -> list[int]:
    ports = range(first, first + S3_PORTS)
    return [*ports, *(port + processes.GRPC_OFFSET for port in ports)]
