"""An S3 server as a team runs it: one key per role, and names of its own (virtual-host style)."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from vfsearch.tracking.processes import free_block
from vfsearch.tracking.services import REGION, Credentials, Service, s3_service
from vfsearch.tracking.storage import Storage

DOMAIN = "s3.test"
ADMINISTRATOR = Credentials(access_key="ADMIN", secret_key="administrators-secret")
ROLES = {
    "writer": Credentials(access_key="WRITER", secret_key="writers-secret"),
    "reader": Credentials(access_key="READER", secret_key="readers-secret"),
    "stranger": Credentials(access_key="STRANGER", secret_key="strangers-secret"),
}


@dataclass(frozen=True)
class TeamS3:
    """A running server whose roles have no rights but those of a bucket policy."""

    folder: Path
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def keys_file(self, role: str) -> Path:
        """Shared credentials file of a role, or of the ``administrator``."""
        keys = ADMINISTRATOR if role == "administrator" else ROLES[role]
        path = self.folder / f"{role}.credentials"
        path.write_text(
            f"[default]\naws_access_key_id = {keys.access_key}\n"
            f"aws_secret_access_key = {keys.secret_key}\n"
        )
        return path

    def storage(self, role: str) -> Storage:
        return Storage(
            endpoint=self.endpoint,
            credentials_file=self.keys_file(role),
            region=REGION,
            addressing="path",
        )


def arn(role: str) -> str:
    return f"arn:aws:iam::000000000000:user/{role}"


def write_identities(path: Path) -> None:
    """The server's settings: an administrator, roles without rights of their own, a KMS."""
    keys = {"administrator": ADMINISTRATOR, **ROLES}
    identities = [
        {
            "name": role,
            "credentials": [{"accessKey": pair.access_key, "secretKey": pair.secret_key}],
            "actions": ["Admin", "Read", "Write", "List"] if role == "administrator" else [],
        }
        for role, pair in keys.items()
    ]
    # Keys of ``aws:kms`` are made by the server itself when they are first named.
    local = {"type": "local", "enableOnDemandCreate": True}
    kms = {"default_provider": "local", "providers": {"local": local}}
    path.write_text(json.dumps({"identities": identities, "kms": kms}))


def start(service: Service, extra: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """Start a service of the stack with more arguments and wait until it answers."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*service.command, *extra],
            env=service.full_environment(),
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def answering() -> bool:
        assert process.poll() is None, log.read_text()[-2000:]
        return service.answers()

    try:
        Retrying(
            retry=retry_if_result(lambda done: not done),
            stop=stop_after_delay(120),
            wait=wait_fixed(0.1),
        )(answering)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


@pytest.fixture(scope="session")
def team_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamS3]:
    """The server, with an empty bucket ``vfsearch`` that it makes by itself."""
    from vfsearch.tracking.launch import wait_for_bucket

    folder = tmp_path_factory.mktemp("team_s3")
    (folder / "s3").mkdir()
    server = TeamS3(folder, free_block(5))
    write_identities(folder / "identities.json")
    service = s3_service(folder, server.port, ADMINISTRATOR)
    extra = [
        f"-s3.config={folder / 'identities.json'}",
        f"-s3.domainName={DOMAIN}",
        "-s3.iam=false",
    ]
    process = start(service, extra, folder / "s3.log")
    try:
        wait_for_bucket(service, server.keys_file("administrator"))
        yield server
    finally:
        process.terminate()
        process.wait(30)
