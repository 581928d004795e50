"""The local tracking stack: an MLflow server and an S3 server, on loopback, for one user.

Everything lies in ``home()/stack``: the database, the objects, the logs, the keys (0600) and
``stack.json`` with the ports. Stopping and starting again, or a reboot, loses nothing.
"""

from dataclasses import dataclass
from pathlib import Path

from vfsearch.tracking import launch, processes
from vfsearch.tracking.launch import ServiceStatus
from vfsearch.tracking.services import (
    BUCKET,
    DATABASE,
    REGION,
    Credentials,
    Service,
    mlflow_service,
    s3_service,
)
from vfsearch.tracking.stack_state import (
    Progress,
    State,
    locked,
    read_state,
    settle,
    stack_folder,
    write_state,
)
from vfsearch.tracking.storage import Storage


@dataclass(frozen=True, kw_only=True)
class StackInfo:
    """Where the running stack is."""

    tracking_uri: str
    s3_endpoint: str
    bucket: str
    credentials_file: Path

    def environment(self) -> dict[str, str]:
        """Variables for any MLflow, boto3 or pyarrow client; the keys stay in their file."""
        return {"MLFLOW_TRACKING_URI": self.tracking_uri} | _s3_client(
            self.s3_endpoint, self.credentials_file
        )

    def storage(self) -> Storage:
        """How the S3 server is reached."""
        return Storage(
            endpoint=self.s3_endpoint,
            credentials_file=self.credentials_file,
            region=REGION,
            addressing="path",
        )


@dataclass(frozen=True, kw_only=True)
class StackStatus:
    """Both servers; ``info`` only when both answer."""

    services: tuple[ServiceStatus, ...]
    info: StackInfo | None

    @property
    def up(self) -> bool:
        """Whether both servers run and answer."""
        return self.info is not None


def status(home: Path) -> StackStatus:
    """Look at both servers without changing anything; no services if none was ever started.

    Raises:
        StackError: ``stack.json`` is damaged.
    """
    folder = stack_folder(home)
    state = read_state(folder)
    if state is None or not (folder / "credentials").exists():
        return StackStatus(services=(), info=None)
    seen = tuple(
        launch.look(service, pid)
        for service, pid in zip(
            _services(folder, state), (state.s3_pid, state.mlflow_pid), strict=True
        )
    )
    up = all(service.running and service.answering for service in seen)
    return StackStatus(services=seen, info=_info(folder, state) if up else None)


def up(home: Path, progress: Progress | None = None, *, storage_only: bool = False) -> StackInfo:
    """Start what is not running, wait until it answers; returns at once if all is up.

    ``storage_only`` starts the S3 server alone, for putting data back. Safe to call from several
    processes at the same time. A server that hangs is replaced.

    Raises:
        StackError: the folder cannot be written, a program is missing, or a server does not
            start (with the end of its log).
    """
    tell = progress or (lambda _: None)
    if info := status(home).info:
        return info
    with locked(home, tell) as folder:
        state = _settled(folder)
        services = _services(folder, state)[: 1 if storage_only else 2]
        pids = {"s3": state.s3_pid, "mlflow": state.mlflow_pid}
        for service in services:
            seen = launch.look(service, pids[service.name])
            if seen.running and not seen.answering:
                tell(f"{service.name} does not answer, it is started again")
                launch.stop(service)
            if not (seen.running and seen.answering):
                tell(f"starting {service.name} at {service.url}")
                pids[service.name] = launch.start(service, folder)
                # Written at once: a process killed from here on leaves servers that are known.
                state = state.model_copy(update={f"{service.name}_pid": pids[service.name]})
                write_state(folder, state)
        for service in services:
            launch.wait(service, pids[service.name])
            tell(f"{service.name} answers at {service.url}")
        launch.wait_for_bucket(services[0], folder / "credentials")
        return _info(folder, state)


def down(home: Path, *, mlflow_only: bool = False) -> StackStatus:
    """Stop both servers and wait for their end; returns what was seen before. Loses nothing."""
    before = status(home)
    if not stack_folder(home).exists():
        return before
    with locked(home, lambda _: None) as folder:
        state = read_state(folder) or State(s3_port=0, mlflow_port=0)
        # MLflow first: it reads from S3 until its last request.
        storage, mlflow = _services(folder, state)
        launch.stop(mlflow)
        stopped = {"mlflow_pid": None}
        if not mlflow_only:
            launch.stop(storage)
            stopped["s3_pid"] = None
        if state.s3_port:
            write_state(folder, state.model_copy(update=stopped))
    return before


def database_path(home: Path) -> Path:
    """MLflow's database."""
    return stack_folder(home) / DATABASE


def _services(folder: Path, state: State) -> tuple[Service, Service]:
    keys = Credentials.ensure(folder / "credentials")
    storage = s3_service(folder, state.s3_port, keys)
    client = _s3_client(storage.url, folder / "credentials")
    return storage, mlflow_service(folder, state.mlflow_port, client)


def _s3_client(endpoint: str, credentials: Path) -> dict[str, str]:
    return {
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _info(folder: Path, state: State) -> StackInfo:
    return StackInfo(
        tracking_uri=f"http://127.0.0.1:{state.mlflow_port}",
        s3_endpoint=f"http://127.0.0.1:{state.s3_port}",
        bucket=BUCKET,
        credentials_file=folder / "credentials",
    )


def _settled(folder: Path) -> State:
    old = read_state(folder)
    # Found by their data folders: the ports play no part here.
    storage, mlflow = _services(folder, old or State(s3_port=0, mlflow_port=0))
    s3_process = processes.find(storage.marker, old.s3_pid if old else None)
    mlflow_process = processes.find(mlflow.marker, old.mlflow_pid if old else None)
    if old is None:
        # stack.json was removed under running servers: their ports are unknown now.
        for service in (mlflow, storage):
            launch.stop(service)
        s3_process = mlflow_process = None
    state = settle(old, s3_process is not None, mlflow_process is not None)
    if old is not None and state.s3_port != old.s3_port:
        launch.stop(mlflow)  # it holds the old endpoint
    write_state(folder, state)
    return state
