"""Starting, watching and stopping one server of the local stack."""

import sys
from dataclasses import dataclass
from pathlib import Path

from tenacity import (
    RetryError,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
)

from vfsearch.errors import StackError
from vfsearch.tracking import processes
from vfsearch.tracking.services import BUCKET, REGION, Credentials, Service

START_PATIENCE = 120.0
"""Seconds until a server must answer; MLflow alone imports for ten on a busy machine."""
STOP_PATIENCE = 20.0
"""Seconds between the request to end and the end by force."""


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """One server, as seen now."""

    name: str
    url: str
    running: bool
    answering: bool
    pid: int | None
    memory: int | None
    """Resident memory in bytes."""
    log: Path


def look(service: Service, pid: int | None) -> ServiceStatus:
    """See whether the server's process lives and answers."""
    process = processes.find(service.marker, pid)
    return ServiceStatus(
        name=service.name,
        url=service.url,
        running=process is not None,
        answering=process is not None and service.answers(),
        pid=process.pid if process else None,
        memory=processes.resident(process) if process else None,
        log=service.log,
    )


def start(service: Service, folder: Path) -> int:
    """Start the server; return its pid.

    Raises:
        StackError: the program is missing or not executable.
    """
    try:
        return processes.start(service.command, service.full_environment(), folder, service.log)
    except OSError as error:
        raise StackError(
            f"{service.command[0]}: cannot be started ({error.strerror}); "
            f"is vfsearch installed completely in {sys.prefix}?"
        ) from None


def stop(service: Service) -> None:
    """End the server's process, if there is one, and wait for its end."""
    process = processes.find(service.marker, None)
    if process is not None:
        processes.stop(process, STOP_PATIENCE)


def wait(service: Service, pid: int | None) -> None:
    """Poll until the server answers.

    Raises:
        StackError: it ended (known at once) or is silent after two minutes; the message holds
            the end of its log.
    """

    def ready() -> bool:
        if processes.find(service.marker, pid) is None:
            raise StackError(
                f"{service.name} ended while starting; the end of {service.log}:\n"
                + processes.tail(service.log)
            )
        return service.answers()

    try:
        Retrying(
            retry=retry_if_result(lambda answered: not answered),
            wait=wait_fixed(0.1),
            stop=stop_after_delay(START_PATIENCE),
        )(ready)
    except RetryError:
        raise StackError(
            f"{service.name} does not answer at {service.url} after {START_PATIENCE:.0f} s; "
            f"the end of {service.log}:\n{processes.tail(service.log)}"
        ) from None


def wait_for_bucket(service: Service, credentials: Path) -> None:
    """Wait until a signed request finds the bucket, which appears a moment after the port.

    Raises:
        StackError: it does not.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    keys = Credentials.ensure(credentials)
    client = boto3.client(
        "s3",
        endpoint_url=service.url,
        region_name=REGION,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )
    try:
        Retrying(
            retry=retry_if_exception_type((BotoCoreError, ClientError)),
            wait=wait_fixed(0.1),
            stop=stop_after_delay(START_PATIENCE),
        )(client.head_bucket, Bucket=BUCKET)
    except RetryError:
        raise StackError(
            f"the bucket {BUCKET} does not appear at {service.url}; "
            f"the end of {service.log}:\n{processes.tail(service.log)}"
        ) from None
