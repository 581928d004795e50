"""What a user may call a model, and every way in which that can be wrong."""

from pathlib import Path

import pytest
from support.registry_models import LENIENT, Models, upload_run

from vfsearch.config import CorpusConfig, home
from vfsearch.errors import CheckpointError, TrackingError, UsageError
from vfsearch.registry.promotion import promote
from vfsearch.registry.resolve import NEEDED, resolve_model
from vfsearch.tracking.connection import Connection


def offline() -> Connection:
    raise AssertionError("a folder needs no server")


def same(folder: Path, checkpoint: Path) -> bool:
    return all((folder / name).read_bytes() == (checkpoint / name).read_bytes() for name in NEEDED)


def test_a_folder_is_taken_as_it_is(models: Models, tmp_path: Path) -> None:
    checkpoint = models.checkpoint(1)
    assert resolve_model(str(checkpoint), offline).folder == checkpoint
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"model\.safetensors should be in it"):
        resolve_model(str(tmp_path), offline)


@pytest.mark.parametrize("text", ["no/such/folder", "runs:/12", "models:/x", "", "models:/x/y"])
def test_what_is_no_model_at_all(text: str) -> None:
    with pytest.raises(
        (UsageError, CheckpointError), match=r"is no model: it should be|checkpoint"
    ):
        resolve_model(text, offline)


def test_a_run_is_downloaded_once_and_checked_each_time(
    connection: Connection, models: Models
) -> None:
    run = models.run(connection, 1)
    found = resolve_model(f"runs:/{run}", lambda: connection)
    assert same(found.folder, models.checkpoint(1))
    assert found.folder.parent == home() / "models"
    stamp = (found.folder / NEEDED[0]).stat().st_mtime_ns
    assert resolve_model(run, lambda: connection).folder == found.folder
    assert (found.folder / NEEDED[0]).stat().st_mtime_ns == stamp
    (found.folder / NEEDED[0]).write_bytes(b"damaged on this disk")
    assert same(resolve_model(run, lambda: connection).folder, models.checkpoint(1))
    assert [path.name for path in (home() / "models").iterdir()] == [found.folder.name]


def test_registry_names(
    connection: Connection, models: Models, tiny_corpus: CorpusConfig, name: str
) -> None:
    run = models.run(connection, 1)
    made = promote(connection, run, tiny_corpus, LENIENT, model_name=name)
    for text in (f"models:/{name}@champion", f"models:/{name}/{made.version}"):
        found = resolve_model(text, lambda: connection)
        assert (found.run_id, found.version) == (run, made.version)
        assert same(found.folder, models.checkpoint(1))
    with pytest.raises(UsageError, match="has no alias 'challenger'"):
        resolve_model(f"models:/{name}@challenger", lambda: connection)
    with pytest.raises(UsageError, match="has no version 77"):
        resolve_model(f"models:/{name}/77", lambda: connection)
    with pytest.raises(TrackingError, match="there is no registered model 'other'"):
        resolve_model("models:/other@champion", lambda: connection)


def test_runs_without_a_usable_checkpoint(connection: Connection, models: Models) -> None:
    with pytest.raises(UsageError, match="there is no run 0000"):
        resolve_model("0" * 32, lambda: connection)
    client = connection.client()
    bare = client.create_run(connection.experiment_id).info.run_id
    with pytest.raises(CheckpointError, match="has no checkpoint below s3://"):
        resolve_model(bare, lambda: connection)
    client.delete_run(bare)
    with pytest.raises(UsageError, match="is deleted"):
        resolve_model(bare, lambda: connection)


def test_the_best_checkpoint_goes_before_the_last(connection: Connection, models: Models) -> None:
    run = models.run(connection, 1)
    root = connection.client().get_run(run).info.artifact_uri
    connection.store(root).upload_folder(models.checkpoint(2), "checkpoints/last")
    assert same(resolve_model(run, lambda: connection).folder, models.checkpoint(1))


def test_replaced_and_half_uploaded_objects_are_refused(
    connection: Connection, models: Models, tmp_path: Path
) -> None:
    run = upload_run(connection, models.checkpoint(1))
    store = connection.store(connection.client().get_run(run).info.artifact_uri)
    noted = store.head("checkpoints/best/model.safetensors")
    assert noted is not None
    bucket, _, key = noted.uri.removeprefix("s3://").partition("/")
    s3 = connection.storage.client()
    s3.put_object(Bucket=bucket, Key=key, Body=b"poison", Metadata={"sha256": noted.sha256})
    with pytest.raises(TrackingError, match="the object is damaged or was replaced"):
        resolve_model(run, lambda: connection)
    s3.delete_object(Bucket=bucket, Key=key.replace("model.safetensors", "state.json"))
    with pytest.raises(CheckpointError, match=r"state\.json is missing"):
        resolve_model(run, lambda: connection)
    s3.put_object(Bucket=bucket, Key=key, Body=b"poison")
    with pytest.raises(TrackingError, match="has no SHA-256 noted"):
        resolve_model(run, lambda: connection)
    assert not list((home() / "models").iterdir()), "nothing half-written stays"
