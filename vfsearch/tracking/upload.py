"""One checked upload to S3: what arrived is what was read, or nothing becomes visible."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vfsearch.errors import TrackingError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

MULTIPART_FROM = 16 * 2**20
PART = 8 * 2**20
"""Bytes from which an upload goes in parts, and of one part (S3 wants 5 MiB or more)."""
MOST_PARTS = 10_000
BLOCK = 2**20


def measure(path: Path) -> tuple[int, str]:
    """Bytes and hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()


def noted_sha256(reply: Mapping[str, Any]) -> str | None:
    """The SHA-256 that the uploader noted, from the reply to HEAD or GET.

    Names of headers have no case, and proxies do change it: ``x-amz-meta-Sha256`` arrives.
    """
    noted = {name.lower(): value for name, value in reply.get("Metadata", {}).items()}
    return noted.get("sha256")


def base64_digest(data: bytes) -> str:
    """SHA-256 as S3 wants it in ``x-amz-checksum-sha256``."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")


def upload(
    client: "S3Client",
    bucket: str,
    key: str,
    path: Path,
    *,
    size: int,
    sha256: str,
    options: dict[str, Any],
    condition: dict[str, Any],
) -> None:
    """Send a file of known size and SHA-256 and check what the server then holds.

    The server refuses a body, or a part, whose SHA-256 differs. Afterwards the size and the
    stored checksum are read back; a server that stores none is read back in full.

    Raises:
        TrackingError: the file changed meanwhile, or the server holds something else.
        botocore's ClientError and BotoCoreError.
    """
    options = options | {"Metadata": {"sha256": sha256}}
    if size < MULTIPART_FROM:
        expected = base64.b64encode(bytes.fromhex(sha256)).decode("ascii")
        with path.open("rb") as file:
            client.put_object(
                Bucket=bucket,
                Key=key,
                Body=file,
                ChecksumSHA256=expected,
                **options,
                **condition,
            )
    else:
        abort_unfinished(client, bucket, key)
        expected = _in_parts(client, bucket, key, path, size, sha256, options, condition)
        # When the reply to the first request is lost, botocore begins a second upload unseen.
        abort_unfinished(client, bucket, key)
    _verify(client, bucket, key, size, sha256, expected)


def abort_unfinished(client: "S3Client", bucket: str, key: str) -> int:
    """Remove the parts that killed uploads of exactly this key left; returns how many uploads.

    They are invisible but cost storage. Only one process writes a key at a time.
    """
    found = client.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads", [])
    stale = [entry["UploadId"] for entry in found if entry["Key"] == key]
    for upload_id in stale:
        client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    return len(stale)


def _in_parts(
    client: "S3Client",
    bucket: str,
    key: str,
    path: Path,
    size: int,
    sha256: str,
    options: dict[str, Any],
    condition: dict[str, Any],
) -> str:
    """Upload in parts; returns the checksum of the part checksums that the server must report."""
    started = client.create_multipart_upload(
        Bucket=bucket, Key=key, ChecksumAlgorithm="SHA256", **options
    )
    upload_id = started["UploadId"]
    try:
        whole, of_parts = hashlib.sha256(), hashlib.sha256()
        parts: list[CompletedPartTypeDef] = []
        for number, data in enumerate(_blocks(path, max(PART, -(-size // MOST_PARTS))), start=1):
            whole.update(data)
            of_parts.update(hashlib.sha256(data).digest())
            checksum = base64_digest(data)
            reply = client.upload_part(
                Bucket=bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=data,
                ChecksumSHA256=checksum,
            )
            parts.append({"PartNumber": number, "ETag": reply["ETag"], "ChecksumSHA256": checksum})
        if whole.hexdigest() != sha256:
            raise TrackingError(f"{path}: changed while it was uploaded to s3://{bucket}/{key}")
        client.complete_multipart_upload(
            Bucket=bucket,
            Key=key,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
            **condition,
        )
    except BaseException:
        # Also on Ctrl-C. If the server is away this fails too; the next upload cleans up then.
        _try_abort(client, bucket, key, upload_id)
        raise
    composite = base64.b64encode(of_parts.digest()).decode("ascii")
    return f"{composite}-{len(parts)}"


def _try_abort(client: "S3Client", bucket: str, key: str, upload_id: str) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    except (BotoCoreError, ClientError):
        return


def _blocks(path: Path, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(length):
            yield data


def _verify(
    client: "S3Client", bucket: str, key: str, size: int, sha256: str, expected: str
) -> None:
    reply = client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    held: str | None = reply.get("ChecksumSHA256")
    right = reply["ContentLength"] == size and noted_sha256(reply) == sha256
    if right and held is None:
        digest = hashlib.sha256()
        for block in client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(BLOCK):
            digest.update(block)
        right = digest.hexdigest() == sha256
    elif right:
        right = held == expected
    if not right:
        raise TrackingError(
            f"s3://{bucket}/{key}: the server does not hold what was sent ({size} bytes, SHA-256 "
            f"{sha256}) but {reply['ContentLength']} bytes with checksum {held}"
        )
