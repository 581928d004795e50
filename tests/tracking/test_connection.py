import os
import socket
import time
from pathlib import Path

import pytest

from vfsearch.config import TrackingConfig
from vfsearch.errors import TrackingError
from vfsearch.tracking.connection import Connection, connect
from vfsearch.tracking.services import Credentials
from vfsearch.tracking.stack import StackInfo


def test_without_any_server_the_message_says_what_to_do(home: Path) -> None:
    with pytest.raises(TrackingError, match="vfsearch stack up"):
        connect(TrackingConfig(), home=home)


def test_a_key_needs_its_kind_of_encryption() -> None:
    assert TrackingConfig(encryption="aws:kms", kms_key="alias/team").kms_key == "alias/team"
    for other in (None, "AES256"):
        with pytest.raises(ValueError, match="kms_key needs encryption=aws:kms"):
            TrackingConfig.model_validate({"encryption": other, "kms_key": "alias/team"})


def test_an_unreachable_server_is_known_within_seconds(home: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(TrackingError, match=f"{uri}: cannot be reached"):
            connect(TrackingConfig(uri=uri), home=home)
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("uri", ["sqlite:///x.db", "file:///tmp/mlruns", "databricks"])
def test_only_servers_are_accepted(uri: str, home: Path) -> None:
    with pytest.raises(TrackingError, match="must be http"):
        connect(TrackingConfig(uri=uri), home=home)


def test_the_local_stack_is_found_also_by_its_address(
    stack_home: Path, running_stack: StackInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrackingConfig(experiment="found")
    plain = connect(config, home=stack_home)
    assert plain.artifacts.startswith("s3://vfsearch/mlflow/")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running_stack.tracking_uri)
    assert connect(config, home=stack_home) == plain
    named = TrackingConfig(experiment="found", uri=running_stack.tracking_uri + "/")
    assert connect(named, home=stack_home) == plain


def test_artifacts_root_is_used_for_new_experiments(
    stack_home: Path, running_stack: StackInfo
) -> None:
    config = TrackingConfig(experiment="rooted", artifacts="s3://vfsearch/elsewhere/")
    assert connect(config, home=stack_home).artifacts == "s3://vfsearch/elsewhere/rooted"


def test_experiments_that_cannot_be_used_are_refused(
    stack_home: Path, connection: Connection
) -> None:
    client = connection.client()
    client.create_experiment("on-disk", artifact_location="file:///tmp/nowhere")
    with pytest.raises(TrackingError, match="needs s3://bucket/prefix"):
        connect(TrackingConfig(experiment="on-disk"), home=stack_home)
    client.delete_experiment(connection.experiment_id)
    with pytest.raises(TrackingError, match="is deleted; restore it"):
        connect(TrackingConfig(experiment=connection.experiment), home=stack_home)


def test_environment_reaches_the_servers_and_holds_no_secrets(
    connection: Connection, running_stack: StackInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    keys = Credentials.ensure(running_stack.credentials_file)
    variables = connection.environment()
    assert not any(keys.secret_key in value for value in variables.values())
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "else")
    connection.activate()
    assert "AWS_ACCESS_KEY_ID" not in os.environ
    boto3.client("s3").head_bucket(Bucket="vfsearch")
