"""The two servers of the local stack: what each is started with, and whether it answers."""

import configparser
import http.client
import os
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vfsearch.errors import StackError

BUCKET = "vfsearch"
DATABASE = "mlflow.db"
REGION = "us-east-1"
ANSWER_TIMEOUT = 5.0
"""Seconds within which a healthy server answers its health check, on a loaded machine."""

_FOREIGN = ("AWS_", "MLFLOW_", "_MLFLOW_")


@dataclass(frozen=True, kw_only=True)
class Service:
    """One server process of the stack."""

    name: str
    url: str
    command: tuple[str, ...]
    marker: str
    """The argument by which its process is recognised."""
    environment: Mapping[str, str]
    """What is added to the environment; may hold secrets."""
    log: Path
    health: str
    """Address that an answering server replies to without signature."""

    def answers(self) -> bool:
        """Whether something replies over HTTP; 403 counts, for S3 wants signed requests."""
        request = urllib.request.Request(self.health, method="GET")
        # No proxy of the environment may stand between this machine and its own loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=ANSWER_TIMEOUT) as reply:
                return bool(reply.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code == 403
        except (OSError, http.client.HTTPException):
            return False

    def full_environment(self) -> dict[str, str]:
        """The environment of the process: this one's without foreign MLflow and AWS settings."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        return {**inherited, **self.environment}


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Keys of the local S3 server, kept in an AWS shared credentials file."""

    access_key: str
    secret_key: str

    @classmethod
    def ensure(cls, path: Path) -> "Credentials":
        """Read the file, or make it with fresh keys; only its owner may read it (0600).

        Raises:
            StackError: the file is there but holds no keys.
        """
        if path.exists():
            parser = configparser.ConfigParser(interpolation=None)
            try:
                parser.read(path, encoding="ascii")
                section = parser["default"]
                access, secret = section["aws_access_key_id"], section["aws_secret_access_key"]
            except (configparser.Error, KeyError, UnicodeDecodeError):
                raise StackError(
                    f"{path}: must hold aws_access_key_id and aws_secret_access_key under "
                    "[default]; remove it and the next start makes new keys"
                ) from None
            return cls(access_key=access, secret_key=secret)
        keys = cls(access_key="VF" + secrets.token_hex(9).upper(), secret_key=secrets.token_hex(24))
        partial = path.with_suffix(".new")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write("[default]\n")
            file.write(f"aws_access_key_id = {keys.access_key}\n")
            file.write(f"aws_secret_access_key = {keys.secret_key}\n")
        partial.rename(path)
        return keys


def s3_service(folder: Path, port: int, keys: Credentials) -> Service:
    """SeaweedFS with all its parts in one process, loopback only, never anonymous.

    ``port`` is the first of five in a row; gRPC sits 10,000 higher. Without the keys in its
    environment the server would be open to everybody on the machine.
    """
    data = folder / "s3"
    program = Path(sys.executable).parent / "weed"
    marker = f"-dir={data}"
    return Service(
        name="s3",
        url=f"http://127.0.0.1:{port}",
        command=(
            str(program if program.exists() else "weed"),
            "mini",
            marker,
            f"-bucket={BUCKET}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-disableHttp",
            "-admin.ui=false",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
            f"-s3.port={port}",
            f"-master.port={port + 1}",
            f"-filer.port={port + 2}",
            f"-volume.port={port + 3}",
            f"-admin.port={port + 4}",
        ),
        marker=marker,
        environment={
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "GOMEMLIMIT": "300MiB",
        },
        log=folder / "s3.log",
        health=f"http://127.0.0.1:{port}/",
    )


def mlflow_service(folder: Path, port: int, client: Mapping[str, str]) -> Service:
    """MLflow over SQLite; clients write artifacts to S3 themselves, the server only reads them.

    ``client`` is the environment of an S3 client (endpoint and credentials *file*).
    """
    marker = f"--database={folder / DATABASE}"
    return Service(
        name="mlflow",
        url=f"http://127.0.0.1:{port}",
        command=(
            sys.executable,
            "-m",
            "vfsearch.tracking.mlflow_server",
            marker,
            "--port",
            str(port),
            "--artifacts",
            f"s3://{BUCKET}/mlflow",
        ),
        marker=marker,
        environment={
            **client,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "DO_NOT_TRACK": "true",
        },
        log=folder / "mlflow.log",
        health=f"http://127.0.0.1:{port}/health",
    )
