"""Setting up a bucket: on a server that enforces policies, and on one that knows every setting."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.team_fixtures import TeamS3, arn

from vfsearch.errors import ConfigError, TrackingError
from vfsearch.tracking import upload
from vfsearch.tracking.artifacts import ArtifactStore
from vfsearch.tracking.bucket import Step, Wanted, set_up
from vfsearch.tracking.bucket_settings import load_lifecycle, load_policy, merged, same
from vfsearch.tracking.storage import AlreadyExists, Storage

SETTINGS = Path(__file__).parents[2] / "tracking"
EVERYTHING = ["bucket", "public access", "default encryption", "versions of objects", "lifecycle"]

names = st.sampled_from("abcdef")
rules = st.lists(st.fixed_dictionaries({"ID": names, "Days": st.integers(0, 3)}), max_size=4)


@given(rules, rules)
def test_merging_replaces_ours_keeps_others_and_is_idempotent(
    present: list[dict[str, Any]], wanted: list[dict[str, Any]]
) -> None:
    once = merged(present, wanted, "ID")
    assert merged(once, wanted, "ID") == once
    ours = {rule["ID"] for rule in wanted}
    assert [r for r in once if r["ID"] not in ours] == [r for r in present if r["ID"] not in ours]
    assert [rule for rule in once if rule["ID"] in ours] == wanted


def test_what_servers_change_in_writing_is_the_same() -> None:
    ours = {"Action": ["b", "a"], "Principal": {"AWS": ["x"]}, "Days": 3}
    assert same(ours, {"Days": 3, "Principal": {"AWS": "x"}, "Action": ["a", "b"]})
    assert not same(ours, {**ours, "Action": ["a"]})
    assert not same(ours, {**ours, "Days": "3"})


def test_policy_is_filled_in_and_grants_no_deletion() -> None:
    whole = load_policy(SETTINGS, "models", writers=["w2", "w1"], readers=["r"], tls=True)
    text = json.dumps(whole)
    assert "${" not in text
    assert "Delete" not in text
    assert {s["Sid"]: s["Principal"] for s in whole} == {
        "VfsearchWritersBucket": {"AWS": ["w1", "w2"]},
        "VfsearchWritersObjects": {"AWS": ["w1", "w2"]},
        "VfsearchReadersBucket": {"AWS": ["r"]},
        "VfsearchReadersObjects": {"AWS": ["r"]},
        "VfsearchTlsOnly": "*",
    }
    assert "arn:aws:s3:::models/*" in text
    assert load_policy(SETTINGS, "models", writers=[], readers=[], tls=False) == []


def test_settings_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lifecycle\.json: cannot be read.*--settings"):
        load_lifecycle(tmp_path)
    for text in ("{", "[]", '{"Rules": {}}', '{"Rules": [1]}'):
        (tmp_path / "lifecycle.json").write_text(text)
        with pytest.raises(ConfigError, match="list of objects under 'Rules'"):
            load_lifecycle(tmp_path)


def states(steps: list[Step]) -> dict[str, str]:
    return {step.setting: step.state for step in steps}


def wanted(bucket: str, **who: list[str]) -> Wanted:
    writers, readers = who.get("writers", []), who.get("readers", [])
    return Wanted(
        lifecycle=load_lifecycle(SETTINGS),
        policy=load_policy(SETTINGS, bucket, writers=writers, readers=readers, tls=False),
    )


@pytest.fixture
def bucket() -> str:
    return f"team-{uuid4().hex[:8]}"


def test_first_shown_then_done_then_nothing_to_do(team_s3: TeamS3, bucket: str) -> None:
    storage = team_s3.storage("administrator")
    asked = wanted(bucket, writers=[arn("writer")], readers=[arn("reader")])
    assert states(set_up(storage, bucket, asked, apply=False)) == {"bucket": "would change"}
    client = storage.client()
    assert bucket not in [entry["Name"] for entry in client.list_buckets()["Buckets"]]
    done = states(set_up(storage, bucket, asked, apply=True))
    unknown = {"public access": "not supported"}
    assert done == dict.fromkeys([*EVERYTHING, "policy"], "changed") | unknown
    again = states(set_up(storage, bucket, asked, apply=True))
    assert again == dict.fromkeys(again, "as wanted") | unknown

    # What others set is kept, what is ours is brought back.
    present = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    others = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}}
    client.put_bucket_lifecycle_configuration(
        Bucket=bucket,
        LifecycleConfiguration={"Rules": [present[0], {**others, "Expiration": {"Days": 1}}]},  # type: ignore[list-item, typeddict-item]
    )
    shown = states(set_up(storage, bucket, asked, apply=False))
    assert shown["lifecycle"] == "would change"
    assert states(set_up(storage, bucket, asked, apply=True))["lifecycle"] == "changed"
    kept = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert {rule["ID"] for rule in kept} == {"theirs", *(r["ID"] for r in asked.lifecycle)}


def test_each_role_can_do_its_work_and_nothing_else(
    team_s3: TeamS3, bucket: str, tmp_path: Path
) -> None:
    from botocore.exceptions import ClientError

    asked = wanted(bucket, writers=[arn("writer")], readers=[arn("reader")])
    set_up(team_s3.storage("administrator"), bucket, asked, apply=True)
    writer, reader, stranger = (
        ArtifactStore(f"s3://{bucket}/mlflow", team_s3.storage(role))
        for role in ("writer", "reader", "stranger")
    )
    for name, size in (("small", 100), ("large", upload.MULTIPART_FROM + 1)):
        (tmp_path / name).write_bytes(os.urandom(size))
        writer.upload_file(tmp_path / name, name)
        (tmp_path / name).write_bytes(os.urandom(size))
        stored = writer.upload_file(tmp_path / name, name)  # a new version of it
        assert reader.download_file(name, tmp_path / "back").sha256 == stored.sha256
    writer.put(b"1", "claim", only_if_absent=True)
    with pytest.raises(AlreadyExists):
        writer.put(b"2", "claim", only_if_absent=True)
    assert [entry.key for entry in reader.entries()] == ["claim", "large", "small"]
    client = team_s3.storage("writer").client()
    begun = client.create_multipart_upload(Bucket=bucket, Key="mlflow/large")["UploadId"]
    assert upload.abort_unfinished(client, bucket, "mlflow/large") == 1
    assert begun

    for store in (reader, stranger):
        with pytest.raises(TrackingError, match="AccessDenied"):
            store.put(b"3", "claim")
    for action in (stranger.entries, lambda: stranger.get("claim")):
        with pytest.raises(TrackingError, match="AccessDenied"):
            action()
    for role in ("writer", "reader"):
        with pytest.raises(ClientError, match="AccessDenied"):
            team_s3.storage(role).client().delete_object(Bucket=bucket, Key="mlflow/claim")
        with pytest.raises(TrackingError, match="needs the keys of an administrator"):
            set_up(team_s3.storage(role), bucket, asked, apply=True)
    assert reader.get("claim") == b"1"


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "moto")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "moto")
    host, port = server.get_host_and_port()
    yield Storage(endpoint=f"http://{host}:{port}", region="eu-west-1", addressing="path")
    server.stop()


def test_a_server_that_knows_every_setting(moto: Storage, bucket: str) -> None:
    asked = Wanted(
        lifecycle=load_lifecycle(SETTINGS),
        policy=load_policy(SETTINGS, bucket, writers=[arn("writer")], readers=[], tls=True),
        encryption="aws:kms",
        kms_key="arn:aws:kms:eu-west-1:000000000000:key/1",
    )
    done = states(set_up(moto, bucket, asked, apply=True))
    assert done == dict.fromkeys([*EVERYTHING, "policy"], "changed")
    again = set_up(moto, bucket, asked, apply=True)
    assert states(again) == dict.fromkeys(done, "as wanted")
    place = moto.client().get_bucket_location(Bucket=bucket)["LocationConstraint"]
    assert place == "eu-west-1"


def test_server_that_is_away(bucket: str) -> None:
    storage = Storage(endpoint="http://127.0.0.1:9", region="us-east-1", addressing="path")
    with pytest.raises(TrackingError, match=f"s3://{bucket}: cannot be reached"):
        set_up(storage, bucket, wanted(bucket), apply=False)
