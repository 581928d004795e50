"""Setting a bucket up: look, show what would change, change it, look again."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vfsearch.errors import TrackingError
from vfsearch.tracking.bucket_settings import JSON, merged, same
from vfsearch.tracking.storage import Storage, s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

State = Literal["as wanted", "would change", "changed", "not supported"]

BLOCKED = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
_UNKNOWN = ("NotImplemented", "MethodNotAllowed", "XNotImplemented", "501", "405")
_UNSET = ("NoSuch", "NotFound")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One setting of the bucket, and what became of it."""

    setting: str
    state: State
    text: str
    """What it is now and what it should be."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How a bucket should be set."""

    lifecycle: Sequence[JSON]
    policy: Sequence[JSON]
    """Statements; none: the policy is left alone."""
    encryption: Literal["AES256", "aws:kms"] = "AES256"
    """Default encryption of new objects."""
    kms_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Setting:
    name: str
    read: Callable[[], JSON]
    """The present value; raises ClientError if it was never set."""
    write: Callable[[JSON], object]
    wanted: Callable[[JSON], JSON]
    """From the present value (``None``: unset)."""


def set_up(storage: Storage, bucket: str, wanted: Wanted, *, apply: bool) -> list[Step]:
    """Bring a bucket to the wanted settings; without ``apply`` only say what would change.

    Doing it again changes nothing. The policy comes last, for it may take rights away.

    Raises:
        TrackingError: unreachable, refused, or a setting is not kept by the server.
    """
    client = storage.client()
    hint = "; setting up needs the keys of an administrator"
    with s3_errors(f"s3://{bucket}", hint):
        steps = [_bucket(client, bucket, storage.region, apply)]
    if steps[0].state != "would change":
        for setting in _settings(client, bucket, wanted):
            with s3_errors(f"s3://{bucket}: {setting.name}", hint):
                steps.append(_step(setting, apply))
    return steps


def _bucket(client: "S3Client", bucket: str, region: str | None, apply: bool) -> Step:
    from botocore.exceptions import ClientError

    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in ("404", "NoSuchBucket"):
            raise
    else:
        return Step(setting="bucket", state="as wanted", text="exists")
    if not apply:
        text = "absent -> made; all settings below follow"
        return Step(setting="bucket", state="would change", text=text)
    place: dict[str, Any] = {}
    if region not in (None, "us-east-1"):
        place["CreateBucketConfiguration"] = {"LocationConstraint": region}
    client.create_bucket(Bucket=bucket, **place)
    return Step(setting="bucket", state="changed", text="made")


def _step(setting: _Setting, apply: bool) -> Step:
    from botocore.exceptions import ClientError

    try:
        present = _read(setting)
        wanted = setting.wanted(present)
        if same(present, wanted):
            return Step(setting=setting.name, state="as wanted", text=_short(wanted))
        before, after = _short(present), _short(wanted)
        text = f"{before} -> {after}" if before != after else f"{after} (other contents)"
        if not apply:
            return Step(setting=setting.name, state="would change", text=text)
        setting.write(wanted)
    except ClientError as error:
        if not _is(error, _UNKNOWN):
            raise
        return Step(
            setting=setting.name, state="not supported", text="the server does not know this"
        )
    kept = _read(setting)
    if not same(kept, wanted):
        raise TrackingError(
            f"{setting.name}: the server keeps {_short(kept)} instead of {_short(wanted)}"
        )
    return Step(setting=setting.name, state="changed", text=text)


def _read(setting: _Setting) -> JSON:
    from botocore.exceptions import ClientError

    try:
        return setting.read()
    except ClientError as error:
        if any(word in error.response.get("Error", {}).get("Code", "") for word in _UNSET):
            return None
        raise


def _is(error: Any, codes: Sequence[str]) -> bool:
    status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    return error.response.get("Error", {}).get("Code") in codes or status in codes


def _settings(client: "S3Client", bucket: str, wanted: Wanted) -> list[_Setting]:
    cipher: dict[str, Any] = {"SSEAlgorithm": wanted.encryption}
    if wanted.kms_key is not None:
        cipher["KMSMasterKeyID"] = wanted.kms_key
    settings = [
        _Setting(
            name="public access",
            read=lambda: client.get_public_access_block(Bucket=bucket)[
                "PublicAccessBlockConfiguration"
            ],
            write=lambda value: client.put_public_access_block(
                Bucket=bucket, PublicAccessBlockConfiguration=value
            ),
            wanted=lambda _: BLOCKED,
        ),
        _Setting(
            name="default encryption",
            read=lambda: _cipher(client.get_bucket_encryption(Bucket=bucket)),
            write=lambda value: client.put_bucket_encryption(
                Bucket=bucket,
                ServerSideEncryptionConfiguration={
                    "Rules": [{"ApplyServerSideEncryptionByDefault": value}]
                },
            ),
            wanted=lambda _: cipher,
        ),
        _Setting(
            name="versions of objects",
            read=lambda: client.get_bucket_versioning(Bucket=bucket).get("Status"),
            write=lambda value: client.put_bucket_versioning(
                Bucket=bucket, VersioningConfiguration={"Status": value}
            ),
            wanted=lambda _: "Enabled",
        ),
        _Setting(
            name="lifecycle",
            read=lambda: client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"],
            write=lambda value: client.put_bucket_lifecycle_configuration(
                Bucket=bucket, LifecycleConfiguration={"Rules": value}
            ),
            wanted=lambda present: merged(present or [], wanted.lifecycle, "ID"),
        ),
    ]
    if wanted.policy:
        settings.append(
            _Setting(
                name="policy",
                read=lambda: json.loads(client.get_bucket_policy(Bucket=bucket)["Policy"]),
                write=lambda value: client.put_bucket_policy(
                    Bucket=bucket, Policy=json.dumps(value)
                ),
                wanted=lambda present: {
                    "Version": "2012-10-17",
                    "Statement": merged((present or {}).get("Statement", []), wanted.policy, "Sid"),
                },
            )
        )
    return settings


def _cipher(reply: JSON) -> JSON:
    """Without the bucket-key switch that servers add."""
    rules = reply["ServerSideEncryptionConfiguration"]["Rules"]
    return rules[0]["ApplyServerSideEncryptionByDefault"]


def _short(value: JSON) -> str:
    if value is None:
        return "unset"
    if isinstance(value, str):
        return value
    rules = value.get("Statement", value.get("Rules")) if isinstance(value, dict) else value
    if isinstance(rules, list):
        names = [str(rule.get("Sid") or rule.get("ID") or "") for rule in rules]
        if any(names):
            return ", ".join(name or "(unnamed)" for name in names)
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return json.dumps(value)
