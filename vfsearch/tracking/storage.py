"""How the S3 endpoint is reached: endpoint, credentials file, addressing, encryption."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vfsearch.errors import TrackingError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef


CONFLICT = ("PreconditionFailed", "ConditionalRequestConflict", "412")
"""What servers answer when a conditional write loses."""


class AlreadyExists(TrackingError):  # noqa: N818 - an outcome of a conditional write
    """The object was to be made only if absent, and it is there."""


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Settings of an S3 client; what is ``None`` comes from the usual AWS configuration."""

    endpoint: str | None = None
    """URL of an S3-compatible server; ``None``: AWS, or ``AWS_ENDPOINT_URL``."""
    credentials_file: Path | None = None
    """Shared credentials file whose ``[default]`` keys go before those of the environment."""
    region: str | None = None
    """AWS region."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """``endpoint/bucket/key`` or ``bucket.endpoint/key``."""
    encryption: Literal["AES256", "aws:kms"] | None = None
    """Server-side encryption asked for with each object."""
    kms_key: str | None = None
    """Key of ``aws:kms``; ``None``: the account's default key."""

    def client(self) -> "S3Client":
        """The S3 client, for all threads; making one takes 0.3 s of a core.

        Short time limits; throttling and lost connections are retried.
        """
        return self._client

    def __getstate__(self) -> dict[str, Any]:
        """The settings travel to other processes, the client does not."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def _client(self) -> "S3Client":
        import boto3
        import botocore.session
        from botocore.config import Config

        session = botocore.session.Session()
        if self.credentials_file is not None:
            # A profile that is named explicitly makes botocore ignore keys of the environment,
            # which may belong to quite another account.
            session.set_config_variable("profile", "default")
            session.set_config_variable("credentials_file", str(self.credentials_file))
            session.set_config_variable("config_file", "/dev/null")
        return boto3.Session(botocore_session=session).client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            config=Config(
                connect_timeout=5,
                read_timeout=60,
                retries={"mode": "standard", "total_max_attempts": 4},
                max_pool_connections=16,
                # Checksums are given explicitly; the automatic trailers confuse older servers.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": self.addressing},
            ),
        )

    def put_options(self) -> dict[str, Any]:
        """Extra arguments of every request that makes an object."""
        options: dict[str, Any] = {}
        if self.encryption is not None:
            options["ServerSideEncryption"] = self.encryption
        if self.kms_key is not None:
            options["SSEKMSKeyId"] = self.kms_key
        return options


def list_objects(client: "S3Client", bucket: str) -> "dict[str, ObjectTypeDef]":
    """Every object of a bucket by its key; markers of folders are left out."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {
        entry["Key"]: entry
        for page in pages
        for entry in page.get("Contents", [])
        if not entry["Key"].endswith("/")
    }


@contextmanager
def s3_errors(where: str, hint: str = "") -> Iterator[None]:
    """Turn what boto3 and the disk raise into one error that says where and what.

    Raises:
        AlreadyExists: a conditional write has lost.
        TrackingError: the server refuses or cannot be reached, or a file cannot be used.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        detail = error.response.get("Error", {})
        if detail.get("Code") in CONFLICT:
            raise AlreadyExists(f"{where}: was made by another process first") from None
        raise TrackingError(
            f"{where}: the server refuses {error.operation_name}: "
            f"{detail.get('Code')} {detail.get('Message')}{hint}"
        ) from None
    except BotoCoreError as error:
        raise TrackingError(f"{where}: cannot be reached: {error}") from None
    except OSError as error:
        raise TrackingError(f"{error.filename or where}: {error.strerror}") from None
