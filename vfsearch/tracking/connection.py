"""From settings to a checked connection: MLflow server, experiment, artifact root."""

import os
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vfsearch.config import TrackingConfig
from vfsearch.config import home as default_home
from vfsearch.errors import TrackingError
from vfsearch.tracking import stack
from vfsearch.tracking.artifacts import ArtifactStore
from vfsearch.tracking.stack import StackInfo
from vfsearch.tracking.storage import Storage

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHECK_TIMEOUT = 4.0
"""Seconds within which the server must answer the first time."""

CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # The default of 7 retries blocks for four minutes; the sender has its own back-off.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

CERTIFICATES = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "AWS_CA_BUNDLE")
"""Files with the authorities that signed the servers' certificates, if they are no public ones."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A tracking server and where its experiment keeps artifacts; can be sent to workers."""

    uri: str
    experiment: str
    experiment_id: str
    artifacts: str
    """Artifact root of the experiment, ``s3://bucket/prefix``."""
    storage: Storage

    def client(self) -> "MlflowClient":
        """A client of the server."""
        return _client(self.uri)

    def store(self, root: str | None = None) -> ArtifactStore:
        """The artifact store at ``root`` (``s3://…``; default: the experiment's root)."""
        return ArtifactStore(root or self.artifacts, self.storage)

    def settings(self) -> TrackingConfig:
        """Settings with which `connect` finds the same servers again."""
        return TrackingConfig(
            uri=self.uri,
            experiment=self.experiment,
            addressing=self.storage.addressing,
            encryption=self.storage.encryption,
            kms_key=self.storage.kms_key,
        )

    def environment(self) -> dict[str, str]:
        """Variables with which other processes reach the same servers; no secrets."""
        variables = {"MLFLOW_TRACKING_URI": self.uri, **CLIENT_SETTINGS}
        if self.storage.endpoint is not None:
            variables["MLFLOW_S3_ENDPOINT_URL"] = self.storage.endpoint
            variables["AWS_ENDPOINT_URL"] = self.storage.endpoint
        if self.storage.credentials_file is not None:
            variables["AWS_SHARED_CREDENTIALS_FILE"] = str(self.storage.credentials_file)
            variables["AWS_EC2_METADATA_DISABLED"] = "true"
        variables |= {name: os.environ[name] for name in CERTIFICATES if name in os.environ}
        if self.storage.region is not None:
            variables["AWS_REGION"] = variables["AWS_DEFAULT_REGION"] = self.storage.region
        return variables

    def activate(self) -> None:
        """Set :meth:`environment` in this process, for libraries that read it (MLflow's models).

        With the local stack, keys of another account are taken out of this process's environment,
        since they would win over the credentials file.
        """
        os.environ.update(self.environment())
        if self.storage.credentials_file is not None:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
                os.environ.pop(name, None)


def connect(config: TrackingConfig, home: Path | None = None) -> Connection:
    """Find the server, see that it answers, and find or make the experiment.

    The server is ``config.uri``, else ``MLFLOW_TRACKING_URI``, else the local stack of ``home``.

    Raises:
        TrackingError: no server is named or none answers within seconds, or the experiment does
            not keep its artifacts on S3.
    """
    local = stack.status(home or default_home()).info
    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or (local and local.tracking_uri)
    if not uri:
        raise TrackingError(
            "no tracking server: the local stack is not running; start it with 'vfsearch stack "
            "up', or name a server by tracking.uri or MLFLOW_TRACKING_URI"
        )
    uri = uri.rstrip("/")
    if urlsplit(uri).password is not None:
        raise TrackingError(
            "MLFLOW_TRACKING_URI must hold no password: give it by MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or in ~/.mlflow/credentials"
        )
    _check(uri)
    storage = _storage(config, local if local and uri == local.tracking_uri else None)
    experiment_id, artifacts = _experiment(uri, config)
    return Connection(
        uri=uri,
        experiment=config.experiment,
        experiment_id=experiment_id,
        artifacts=artifacts,
        storage=storage,
    )


def storage_of(config: TrackingConfig, home: Path | None = None) -> Storage:
    """How S3 is reached where no tracking server is needed: as `connect` would reach it."""
    local = stack.status(home or default_home()).info
    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or (local and local.tracking_uri)
    return _storage(config, local if local and uri == local.tracking_uri else None)


def _storage(config: TrackingConfig, local: StackInfo | None) -> Storage:
    if local is not None:
        return replace(local.storage(), encryption=config.encryption, kms_key=config.kms_key)
    return Storage(
        addressing=config.addressing, encryption=config.encryption, kms_key=config.kms_key
    )


def _check(uri: str) -> None:
    if not uri.startswith(("http://", "https://")):
        raise TrackingError(
            f"tracking server {uri!r}: must be http:// or https://; vfsearch logs through an "
            "MLflow server, not into files or databases"
        )
    try:
        authority = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
        context = ssl.create_default_context(cafile=authority)
        with urllib.request.urlopen(f"{uri}/health", timeout=CHECK_TIMEOUT, context=context):
            return
    except urllib.error.HTTPError as error:
        reason = f"answers {error.code} {error.reason}"
        error.close()
    except (OSError, ValueError) as error:
        reason = f"cannot be reached ({getattr(error, 'reason', error)})"
    raise TrackingError(
        f"tracking server {uri}: {reason}; check tracking.uri and MLFLOW_TRACKING_URI, or start "
        "the local stack with 'vfsearch stack up'"
    )


def _client(uri: str) -> "MlflowClient":
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _experiment(uri: str, config: TrackingConfig) -> tuple[str, str]:
    client = _client(uri)
    from mlflow.exceptions import MlflowException

    name = config.experiment
    try:
        found = client.get_experiment_by_name(name)
        if found is None:
            root = f"{config.artifacts.rstrip('/')}/{name}" if config.artifacts else None
            try:
                client.create_experiment(name, artifact_location=root)
            except MlflowException as error:
                # Another process may have made it in between; any other refusal is shown.
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = client.get_experiment_by_name(name)
    except MlflowException as error:
        raise TrackingError(
            f"tracking server {uri}: experiment {name!r}: {error.message}"
        ) from None
    if found is None:
        raise TrackingError(f"tracking server {uri}: experiment {name!r} vanished while made")
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"tracking server {uri}: experiment {name!r} is deleted; restore it in MLflow or "
            "choose another by tracking.experiment"
        )
    location = str(found.artifact_location)
    if not location.startswith("s3://"):
        raise TrackingError(
            f"tracking server {uri}: experiment {name!r} keeps artifacts at {location}; vfsearch "
            "needs s3://bucket/prefix: choose a new tracking.experiment with tracking.artifacts"
        )
    return str(found.experiment_id), location
