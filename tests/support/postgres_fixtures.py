"""A real PostgreSQL server on loopback for tests, with a fresh database for each test."""

import getpass
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


def _account() -> str | None:
    """PostgreSQL refuses to run as root: root borrows the account of the system's server."""
    if os.geteuid() != 0:
        return getpass.getuser()
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


@retry(
    retry=retry_if_exception_type(psycopg.OperationalError),
    stop=stop_after_delay(60),
    wait=wait_fixed(0.1),
    reraise=True,
)
def _wait(address: str) -> None:
    psycopg.connect(address, connect_timeout=5).close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Address of a server: ``host=... port=... user=...``, without a database."""
    binaries, account = _binaries(), _account()
    if binaries is None or account is None:
        pytest.skip("no PostgreSQL binaries on this machine")
    folder = Path(tempfile.mkdtemp(prefix="vfsearch-postgres-"))
    data = folder / "data"
    user = None if account == getpass.getuser() else account
    if user is not None:
        shutil.chown(folder, user)
    initialise = [binaries / "initdb", "-D", data, "-U", "vfsearch", "-A", "trust", "--no-sync"]
    subprocess.run(initialise, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", "", "-F"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [binaries / "postgres", "-D", data, *options],
            user=user,
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        address = f"host=127.0.0.1 port={port} user=vfsearch"
        _wait(f"{address} dbname=postgres")
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of an empty database, dropped after the test."""
    name = f"test_{secrets.token_hex(6)}"
    admin = f"{postgres_server} dbname=postgres"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    port = dict(part.split("=") for part in postgres_server.split())["port"]
    yield f"postgresql://vfsearch@127.0.0.1:{port}/{name}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
