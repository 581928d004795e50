"""Copies of a database in use: consistent, whole or not at all, never over somebody's data."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from vfsearch.errors import StackError, UsageError
from vfsearch.tracking.database import Postgres, Sqlite

WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30)
for number in range(10**9):
    with connection:
        connection.execute("INSERT INTO runs VALUES (?)", (2 * number,))
        connection.execute("INSERT INTO runs VALUES (?)", (2 * number + 1,))
    if number == 20:
        print("writing", flush=True)
"""

KILLED = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 2")  # a transaction of more pages is written before its end
connection.executemany("INSERT INTO runs VALUES (?)", [(number,) for number in range(20_000)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def _make(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE runs (number INTEGER)")
        connection.execute("CREATE TABLE registered_models (name TEXT)")


def _rows(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM runs")]


def test_sqlite_is_copied_between_transactions_of_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    assert Sqlite(path).is_empty()
    _make(path)
    assert Sqlite(path).is_empty()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        for number in range(8):
            copy = tmp_path / f"copy{number}"
            Sqlite(path).dump(copy)
            rows = _rows(copy)
            assert rows == list(range(len(rows)))
            assert len(rows) % 2 == 0, "half a transaction"
            assert len(rows) > 40
    finally:
        writer.kill()
        writer.communicate()
    assert not Sqlite(path).is_empty()
    other = Sqlite(tmp_path / "other.db")
    _make(other.path)
    other.load(copy)
    assert _rows(other.path) == rows
    assert not list(tmp_path.glob("*.restored"))


def test_what_a_killed_writer_left_half_done_is_rolled_back(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    _make(path)
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    journal = path.with_name("mlflow.db-journal")
    assert journal.stat().st_size > 0
    left = [path.read_bytes(), journal.read_bytes()]
    assert Sqlite(path).is_empty()
    path.write_bytes(left[0])
    journal.write_bytes(left[1])
    Sqlite(path).dump(tmp_path / "copy")
    assert _rows(tmp_path / "copy") == []


def test_sqlite_that_cannot_be_copied(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="there is no database"):
        Sqlite(tmp_path / "none").dump(tmp_path / "copy")
    (tmp_path / "bad").write_bytes(b"no database at all" * 100)
    with pytest.raises(StackError, match="cannot be copied"):
        Sqlite(tmp_path / "bad").dump(tmp_path / "copy")


def test_postgresql_there_and_back(postgres_url: str, tmp_path: Path) -> None:
    database = Postgres(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    assert database.is_empty()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE runs (number SERIAL PRIMARY KEY, name TEXT)")
        connection.execute("CREATE TABLE registered_models (name TEXT)")
        assert database.is_empty()
        connection.execute("INSERT INTO runs (name) VALUES ('a'), ('b')")
        assert not database.is_empty()
        database.dump(tmp_path / "dump")
        connection.execute("DELETE FROM runs")
        connection.execute("INSERT INTO registered_models VALUES ('x')")
        assert not database.is_empty()
        connection.execute("DELETE FROM registered_models")
        assert database.is_empty()
        database.load(tmp_path / "dump")
        assert connection.execute("SELECT name FROM runs ORDER BY 1").fetchall() == [("a",), ("b",)]
        (tmp_path / "dump").write_bytes((tmp_path / "dump").read_bytes()[:-60])
        with pytest.raises(StackError, match="pg_restore: error"):
            database.load(tmp_path / "dump")
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (2,)


def test_addresses_that_are_refused() -> None:
    with pytest.raises(UsageError, match=r"must hold no password.*PGPASSWORD"):
        Postgres("postgresql://anna:secret@127.0.0.1/mlflow")
    with pytest.raises(UsageError, match="not sqlite"):
        Postgres("sqlite:///x")
    with pytest.raises(StackError, match=r"127\.0\.0\.1:9"):
        Postgres("postgresql://anna@127.0.0.1:9/mlflow").is_empty()
