"""Copies of MLflow's database: taken while it is in use, put back in one step."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

from vfsearch.errors import StackError, UsageError

Kind = Literal["sqlite", "postgresql"]

_USED = ("runs", "registered_models")
"""Tables with rows as soon as anybody has used MLflow."""


class Database(Protocol):
    """One database of MLflow."""

    @property
    def kind(self) -> Kind:
        """A dump of one kind cannot be loaded into the other."""

    def dump(self, target: Path) -> None:
        """Write a consistent copy; others may read and write meanwhile.

        Raises:
            StackError: it cannot be read.
        """

    def is_empty(self) -> bool:
        """Whether there is no run and no registered model (or no table at all)."""

    def load(self, source: Path) -> None:
        """Put a dump in place of an empty database, wholly or not at all.

        Raises:
            StackError: it cannot be written.
        """


@dataclass(frozen=True)
class Sqlite:
    """A file; to load it, MLflow must be stopped."""

    path: Path

    @property
    def kind(self) -> Kind:
        """See :class:`Database`."""
        return "sqlite"

    def dump(self, target: Path) -> None:
        """See :class:`Database`; sqlite's own backup, which waits for writers."""
        if not self.path.exists():
            raise StackError(f"{self.path}: there is no database to copy")
        try:
            with (
                closing(self._connect()) as source,
                closing(sqlite3.connect(target)) as copy,
            ):
                source.backup(copy)
                (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
        except sqlite3.Error as error:
            raise StackError(f"{self.path}: cannot be copied: {error}") from None
        if verdict != "ok":
            raise StackError(f"{self.path}: is damaged: {verdict}")

    def is_empty(self) -> bool:
        """See :class:`Database`."""
        if not self.path.exists():
            return True
        with closing(self._connect()) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in found}
            return not any(
                connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()
                for table in _USED
                if table in tables
            )

    def _connect(self) -> sqlite3.Connection:
        # Writable: what a killed writer left half done is rolled back by the first who reads.
        return sqlite3.connect(f"file:{self.path}?mode=rw", uri=True)

    def load(self, source: Path) -> None:
        """See :class:`Database`."""
        partial = self.path.with_name(self.path.name + ".restored")
        try:
            shutil.copyfile(source, partial)
            for rest in ("-journal", "-wal", "-shm"):
                self.path.with_name(self.path.name + rest).unlink(missing_ok=True)
            partial.rename(self.path)
        except OSError as error:
            raise StackError(f"{self.path}: cannot be written ({error.strerror})") from None


@dataclass(frozen=True)
class Postgres:
    """A server's database, reached by PostgreSQL's own programs."""

    url: str
    """``postgresql://user@host:port/name``. Without password: libpq takes it from ``PGPASSWORD``
    or ``~/.pgpass``, and nobody sees it among the processes."""

    def __post_init__(self) -> None:
        """Refuse what would show a password, or is no PostgreSQL."""
        parts = urlsplit(self.url)
        if parts.scheme.partition("+")[0] not in ("postgresql", "postgres"):
            raise UsageError(
                f"--database must be postgresql://user@host:port/name, not {parts.scheme or 'this'}"
            )
        if parts.password is not None:
            raise UsageError(
                "--database must hold no password, which every user of this machine could see; "
                "give it by PGPASSWORD or ~/.pgpass"
            )

    @property
    def kind(self) -> Kind:
        """See :class:`Database`."""
        return "postgresql"

    def dump(self, target: Path) -> None:
        """See :class:`Database`; pg_dump reads one snapshot of the database."""
        self._run("pg_dump", "--format=custom", f"--file={target}")

    def is_empty(self) -> bool:
        """See :class:`Database`."""
        for table in _USED:
            there = self._ask(f"SELECT to_regclass('{table}') IS NOT NULL")
            if there == "t" and self._ask(f"SELECT EXISTS (SELECT FROM {table})") == "t":
                return False
        return True

    def load(self, source: Path) -> None:
        """See :class:`Database`; empty tables of a server that was started are replaced."""
        options = ("--single-transaction", "--exit-on-error", "--clean", "--if-exists")
        self._run("pg_restore", *options, "--no-owner", "--no-acl", str(source))

    def _ask(self, question: str) -> str:
        return self._run("psql", "--no-psqlrc", "--tuples-only", "--no-align", "-c", question)

    def _run(self, program: str, *arguments: str) -> str:
        scheme, _, rest = self.url.partition("://")
        address = f"{scheme.partition('+')[0]}://{rest}"
        try:
            done = subprocess.run(
                [program, "--no-password", f"--dbname={address}", *arguments],
                check=False,
                capture_output=True,
                text=True,
                env={**os.environ, "PGCONNECT_TIMEOUT": "10", "LC_MESSAGES": "C"},
            )
        except FileNotFoundError:
            raise StackError(
                f"{program}: is not installed; it comes with PostgreSQL's client programs"
            ) from None
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[0]
            raise StackError(f"{address}: {last}")
        return done.stdout.strip()
