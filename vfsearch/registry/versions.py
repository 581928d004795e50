"""The registered model in MLflow: versions, aliases, and the promotion history beside them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vfsearch.errors import TrackingError
from vfsearch.registry.history import Chain, Record
from vfsearch.tracking.artifacts import ArtifactStore
from vfsearch.tracking.connection import Connection
from vfsearch.tracking.runs import mlflow_errors
from vfsearch.tracking.storage import AlreadyExists

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MODEL = "vfsearch"
CHAMPION = "champion"
CHALLENGER = "challenger"
WEIGHTS = "vfsearch.weights_sha256"
CHECKPOINT = "vfsearch.checkpoint"
HISTORY = "vfsearch.history"
HELD = "vfsearch.champion_held"
OUTCOME = "vfsearch.outcome"
_DESCRIPTION_LIMIT = 5000
"""Characters that MLflow's PostgreSQL column holds."""


@dataclass(frozen=True)
class BucketRecords:
    """The bucket as :class:`~vfsearch.registry.history.Records`."""

    store: ArtifactStore

    def create(self, key: str, body: bytes) -> bool:
        """Write an object that does not exist yet; ``False`` if it does."""
        try:
            self.store.put(body, key, only_if_absent=True)
        except AlreadyExists:
            return False
        return True

    def read(self, key: str) -> bytes:
        """The object's bytes."""
        body = self.store.get(key)
        if body is None:
            raise TrackingError(f"{self.store.root}/{key}: was removed")
        return body

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin so, sorted."""
        return [entry.key for entry in self.store.entries(prefix)]


@dataclass(frozen=True, kw_only=True)
class Registry:
    """One registered model of one tracking server."""

    connection: Connection
    client: "MlflowClient"
    name: str
    store: ArtifactStore
    """Where the history and the decisions lie."""

    @property
    def chain(self) -> Chain:
        """The promotion history."""
        return Chain(BucketRecords(self.store), self.name)

    def records(self) -> tuple[Record, ...]:
        """The history, checked against the versions it speaks of.

        Raises:
            TrackingError: it is damaged, or belongs to another server's model of the same name.
        """
        records = self.chain.load()
        if records:
            newest = records[-1]
            version = self.version(newest.version)
            if version is None or version.run_id != newest.run_id:
                raise TrackingError(
                    f"{self.store.root}: its history says that {self.name} version "
                    f"{newest.version} is of run {newest.run_id}, which is not so at "
                    f"{self.connection.uri}; restore bucket and database from the same backup"
                )
        return records

    def version(self, number: str) -> "ModelVersion | None":
        """A version, or ``None``."""
        from mlflow.exceptions import MlflowException

        with mlflow_errors(self.connection, f"{self.name} version {number}"):
            try:
                return self.client.get_model_version(self.name, number)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise

    def by_alias(self, alias: str) -> "ModelVersion | None":
        """The version that an alias names in MLflow, or ``None``."""
        from mlflow.exceptions import MlflowException

        with mlflow_errors(self.connection, f"{self.name}@{alias}"):
            try:
                return self.client.get_model_version_by_alias(self.name, alias)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def by_weights(self, sha256: str) -> "ModelVersion | None":
        """The newest version with these weights, or ``None``."""
        with mlflow_errors(self.connection, f"versions of {self.name}"):
            found = self.client.search_model_versions(
                f"name = '{self.name}' and tags.`{WEIGHTS}` = '{sha256}'"
            )
        return max(found, key=lambda version: int(version.version), default=None)

    def register(
        self, *, source: str, run_id: str, description: str, tags: Mapping[str, str]
    ) -> str:
        """Make a version of a model folder on S3; returns its number."""
        with mlflow_errors(self.connection, f"registering {self.name}"):
            made = self.client.create_model_version(
                self.name,
                source=source,
                run_id=run_id,
                tags=dict(tags),
                description=_shortened(description),
                await_creation_for=0,  # the server has made it when it answers
            )
        return str(made.version)

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with mlflow_errors(self.connection, f"{self.name} version {version}"):
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, version, key, value)

    def describe(self, version: str, card: str) -> None:
        """Set the description of a version."""
        with mlflow_errors(self.connection, f"{self.name} version {version}"):
            self.client.update_model_version(self.name, version, description=_shortened(card))

    def challenge(self, version: str) -> None:
        """Give a version the challenger's alias."""
        with mlflow_errors(self.connection, f"{self.name}@{CHALLENGER}"):
            self.client.set_registered_model_alias(self.name, CHALLENGER, version)

    def settle(self) -> tuple[Record, ...]:
        """Make aliases and tags in MLflow say what the history says; returns the history.

        Whoever comes last reads the history again after having set the alias, so that a slow
        process cannot leave an old champion behind.
        """
        records = self.records()
        while records:
            newest = records[-1]
            with mlflow_errors(self.connection, f"{self.name}@{CHAMPION}"):
                self.client.set_registered_model_alias(self.name, CHAMPION, newest.version)
                rival = self.by_alias(CHALLENGER)
                if rival is not None and rival.version == newest.version:
                    self.client.delete_registered_model_alias(self.name, CHALLENGER)
            for number in {newest.version, newest.previous} - {None}:
                self.tag(str(number), {HELD: held(records, str(number))})
            seen = records
            records = self.records()
            if records == seen:
                break
        return records


def open_registry(connection: Connection, name: str = MODEL, *, create: bool) -> Registry:
    """The registered model; with ``create`` it is made if it does not exist.

    Raises:
        TrackingError: the server cannot be reached or refuses, or there is no such model.
    """
    from mlflow.exceptions import MlflowException

    if create:
        with mlflow_errors(connection, f"registered model {name}"):
            try:
                tags = {HISTORY: _place(connection)}
                connection.client().create_registered_model(name, tags=tags)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
    found = find_registry(connection, name)
    if found is None:
        raise TrackingError(
            f"{connection.uri}: there is no registered model {name!r} yet; "
            "promote a run first: vfsearch promote SWEEP"
        )
    return found


def find_registry(connection: Connection, name: str = MODEL) -> Registry | None:
    """The registered model, or ``None``; errors as above.

    The place of its history is noted at the model, so that every experiment finds the same one.
    """
    from mlflow.exceptions import MlflowException

    client = connection.client()
    with mlflow_errors(connection, f"registered model {name}"):
        try:
            model = client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
    store = connection.store(model.tags.get(HISTORY) or _place(connection))
    return Registry(connection=connection, client=client, name=name, store=store)


def _place(connection: Connection) -> str:
    return connection.artifacts.rstrip("/").rpartition("/")[0]


def held(records: Sequence[Record], version: str) -> str:
    """When a version was champion, as JSON: ``[{"from": …, "to": …, "by": …}]``."""
    spans = []
    for record, following in zip(records, [*records[1:], None], strict=True):
        if record.version == version:
            spans.append(
                {"from": record.at, "to": following.at if following else None, "by": record.by}
            )
    return json.dumps(spans)


def _shortened(card: str) -> str:
    if len(card) <= _DESCRIPTION_LIMIT:
        return card
    note = "\n\n(shortened; the whole card is README.md in the model's folder)"
    kept = card[: _DESCRIPTION_LIMIT - len(note)]
    return kept[: kept.rfind("\n")] + note
