"""Databases of studies: SQLite by default, PostgreSQL by URL."""

import os
import sqlite3
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from vfsearch.config import home
from vfsearch.errors import SweepError

BUSY_SECONDS = 60
_NOTE = "storage.url"


def study_url(name: str, url: str | None) -> str:
    """Return the database of a sweep: the given one, else the one it was begun with here.

    That is a file of the sweep's own, if it named no other (see `remember_url`).
    """
    folder = home() / "sweeps" / name
    if url is None and (folder / _NOTE).is_file():
        return (folder / _NOTE).read_text(encoding="utf-8").strip()
    if url is None:
        return f"sqlite:///{folder / 'study.db'}"
    prefix, separator, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if separator and prefix == "postgresql" else url


def remember_url(name: str, url: str) -> None:
    """Note the database of a sweep, so that its name is enough afterwards.

    The URL may hold a password: the note can be read by its owner alone, and appears whole.
    """
    place = sa.make_url(url)
    if place.get_backend_name() == "sqlite" and place.database:
        place = place.set(database=str(Path(place.database).absolute()))
    text = place.render_as_string(hide_password=False)
    folder = home() / "sweeps" / name
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{_NOTE}.{os.getpid()}"
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as note:
        note.write(f"{text}\n")
    new.replace(folder / _NOTE)


def forget_url(name: str) -> None:
    """Take the note back, when the study is removed."""
    (home() / "sweeps" / name / _NOTE).unlink(missing_ok=True)


def open_storage(url: str, *, create: bool, pooled: bool = True) -> RDBStorage:
    """Open a database of studies.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://...``.
        create: Make a missing SQLite file.
        pooled: Keep connections open between calls; the engine must then be disposed of.

    Raises:
        SweepError: there is none, or it cannot be reached or read.
    """
    shown = sa.make_url(url).render_as_string(hide_password=True)
    try:
        if sa.make_url(url).get_backend_name() == "sqlite":
            return _sqlite(url, create=create, pooled=pooled)
        return _server(url, pooled=pooled)
    except (sa.exc.SQLAlchemyError, sqlite3.Error, StorageInternalError, OSError) as error:
        detail = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise SweepError(f"the study's database {shown} cannot be opened: {detail}") from None


def _sqlite(url: str, *, create: bool, pooled: bool) -> RDBStorage:
    file = Path(sa.make_url(url).database or "")
    if not file.is_file():
        if not create:
            raise SweepError(f"there is no study at {file}")
        file.parent.mkdir(parents=True, exist_ok=True)
    # Processes that make the tables of a fresh file at once break it for good.
    with FileLock(f"{file}.lock", timeout=BUSY_SECONDS):
        connection = sqlite3.connect(file, timeout=BUSY_SECONDS)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()
        return _storage(url, {"timeout": BUSY_SECONDS}, pooled=pooled)


@retry(
    # Two drivers that make the tables at once: the loser finds them on its second try.
    retry=retry_if_exception_type((sa.exc.ProgrammingError, sa.exc.IntegrityError)),
    stop=stop_after_attempt(4),
    wait=wait_random(0.2, 1.0),
    reraise=True,
)
def _server(url: str, *, pooled: bool) -> RDBStorage:
    return _storage(url, {"connect_timeout": 10}, pooled=pooled)


def _storage(url: str, connect: dict[str, int], *, pooled: bool) -> RDBStorage:
    pool = {"pool_pre_ping": True} if pooled else {"poolclass": sa.NullPool}
    return RDBStorage(url, engine_kwargs={"connect_args": connect, **pool})
