"""From what a user calls a model to a checkpoint folder on this machine.

A model is a checkpoint folder; an MLflow run, by its id or as ``runs:/ID``; or a version in the
registry: ``champion`` (or another alias), ``models:/vfsearch@champion``, ``models:/vfsearch/3``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vfsearch.errors import CheckpointError, TrackingError, UsageError
from vfsearch.registry.keeping import keep
from vfsearch.registry.versions import CHECKPOINT, MODEL, WEIGHTS, open_registry
from vfsearch.tracking.artifacts import Stored
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.runs import mlflow_errors
from vfsearch.tracking.upload import measure

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

WEIGHTS_FILE = "model.safetensors"
STATE_FILE = "state.json"
NEEDED = (WEIGHTS_FILE, STATE_FILE)
"""The files of a checkpoint that using it needs."""

_RUN = re.compile(r"(?:runs:/)?([0-9a-f]{32})/?")
_VERSION = re.compile(r"models:/([^/@]+)(?:/(\d+)|@([^/]+))")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_OWN = "promotion/"
"""Where promotions write below a run's artifacts; no checkpoint of the run's own is there."""


@dataclass(frozen=True, kw_only=True)
class ResolvedModel:
    """A checkpoint on this machine, and what it was called."""

    folder: Path
    text: str
    weights_sha256: str
    uri: str | None = None
    """Folder on S3 that it came from."""
    run_id: str | None = None
    version: str | None = None


def resolve_model(text: str, connect: Callable[[], Connection]) -> ResolvedModel:
    """Find the checkpoint that ``text`` means and bring it to this machine.

    Args:
        text: folder, run or registry name, see above.
        connect: gives the tracking connection; not called for a folder.

    Raises:
        UsageError: the text is none of these, or there is no such run, version or alias.
        CheckpointError: the folder is no checkpoint, or the run has none.
        TrackingError: a server cannot be reached, or an artifact is not what was noted.
    """
    folder = Path(text)
    if folder.is_dir():
        return _local(folder, text)
    if match := _RUN.fullmatch(text):
        return resolve_run(match[1], connect())
    if match := _VERSION.fullmatch(text):
        name, number, alias = match.groups()
        return _registered(connect(), name, number, alias, text)
    if _ALIAS.fullmatch(text) and not folder.exists():
        return _registered(connect(), MODEL, None, text, text)
    raise UsageError(
        f"{text!r} is no model: it should be a checkpoint folder, an MLflow run id or runs:/ID, "
        "models:/NAME/VERSION, models:/NAME@ALIAS or an alias like champion"
    )


def resolve_run(run_id: str, connection: Connection) -> ResolvedModel:
    """The best checkpoint of a run, downloaded and checked; errors as above."""
    run = get_run(connection, run_id)
    uri = checkpoint_uri(run, connection)
    return _fetch(connection, uri, text=f"runs:/{run_id}", run_id=run_id)


def resolve_version(version: "ModelVersion", connection: Connection) -> ResolvedModel:
    """The checkpoint of a registered version, downloaded and checked; errors as above."""
    text = f"models:/{version.name}/{version.version}"
    uri, weights = version.tags.get(CHECKPOINT), version.tags.get(WEIGHTS)
    if not uri or not weights:
        raise CheckpointError(
            f"{text}: was not registered by vfsearch promote: its tags do not name a checkpoint"
        )
    return _fetch(
        connection,
        uri,
        text=text,
        run_id=version.run_id,
        version=str(version.version),
        weights=weights,
    )


def get_run(connection: Connection, run_id: str) -> "Run":
    """The MLflow run.

    Raises:
        UsageError: there is none with this id, or it is deleted.
    """
    from mlflow.exceptions import MlflowException

    with mlflow_errors(connection, f"run {run_id}"):
        try:
            run = connection.client().get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise UsageError(f"{connection.uri}: there is no run {run_id}") from None
    if run.info.lifecycle_stage != "active":
        raise UsageError(f"{connection.uri}: run {run_id} is deleted; restore it in MLflow first")
    return run


def checkpoint_uri(run: "Run", connection: Connection) -> str:
    """S3 folder of a run's best checkpoint (the last one if no best one was kept).

    Raises:
        CheckpointError: the run has no checkpoint on S3.
    """
    root = str(run.info.artifact_uri)
    if not root.startswith("s3://"):
        raise CheckpointError(
            f"run {run.info.run_id}: its artifacts are at {root}; "
            "vfsearch reads checkpoints from s3:// only"
        )
    found = [
        entry.uri.rpartition("/")[0]
        for entry in connection.store(root).entries()
        if entry.key.endswith("/" + WEIGHTS_FILE) and not entry.key.startswith(_OWN)
    ]
    if not found:
        raise CheckpointError(
            f"run {run.info.run_id}: has no checkpoint below {root}; if its training went on "
            "while a server was away, send what was kept: vfsearch sync"
        )
    return max(found, key=lambda uri: ("best" in uri.removeprefix(root), uri))


def _registered(
    connection: Connection, name: str, number: str | None, alias: str | None, text: str
) -> ResolvedModel:
    registry = open_registry(connection, name, create=False)
    version = registry.version(number) if number else registry.by_alias(alias or "")
    if version is None:
        what = f"version {number}" if number else f"alias {alias!r}"
        raise UsageError(
            f"{text}: registered model {name} at {connection.uri} has no {what}; "
            "see: vfsearch history"
        )
    return resolve_version(version, connection)


def _local(folder: Path, text: str) -> ResolvedModel:
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: is no checkpoint folder: {' and '.join(missing)} should be in it"
        )
    return ResolvedModel(folder=folder, text=text, weights_sha256=measure(folder / WEIGHTS_FILE)[1])


def _fetch(
    connection: Connection,
    uri: str,
    *,
    text: str,
    run_id: str | None,
    version: str | None = None,
    weights: str | None = None,
) -> ResolvedModel:
    store = connection.store(uri)
    noted: dict[str, Stored] = {}
    for name in NEEDED:
        entry = store.head(name)
        if entry is None:
            raise CheckpointError(f"{text}: {uri}/{name} is missing; the checkpoint is incomplete")
        if not entry.sha256:
            raise TrackingError(
                f"{text}: {uri}/{name} has no SHA-256 noted, so it cannot be checked; "
                "it was not uploaded by vfsearch"
            )
        noted[name] = entry
    if weights is not None and noted[WEIGHTS_FILE].sha256 != weights:
        raise TrackingError(
            f"{text}: {uri}/{WEIGHTS_FILE} has SHA-256 {noted[WEIGHTS_FILE].sha256} where the "
            f"version was registered with {weights}; the object was replaced"
        )

    def download(target: Path) -> None:
        for name, entry in noted.items():
            store.download_file(name, target / name, sha256=entry.sha256)

    folder = keep({name: (entry.size, entry.sha256) for name, entry in noted.items()}, download)
    return ResolvedModel(
        folder=folder,
        text=text,
        weights_sha256=noted[WEIGHTS_FILE].sha256,
        uri=uri,
        run_id=run_id,
        version=version,
    )
