"""Files on S3 that are what they were: every upload is checked by SHA-256, every download too."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vfsearch.errors import TrackingError
from vfsearch.tracking.storage import AlreadyExists, Storage, s3_errors
from vfsearch.tracking.upload import BLOCK, base64_digest, measure, noted_sha256, upload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One object on S3; ``sha256`` is hexadecimal, empty if the uploader did not note it."""

    uri: str
    key: str
    """Relative to the root of the store."""
    size: int
    sha256: str


@dataclass(frozen=True)
class ArtifactStore:
    """Objects below one ``s3://bucket/prefix``. Keys are relative, with ``/``."""

    root: str
    storage: Storage = field(default_factory=Storage)

    def upload_file(self, path: Path, key: str, *, only_if_absent: bool = False) -> Stored:
        """Upload one file; it becomes visible as a whole, after its checksum was found right.

        The server compares the SHA-256 of what arrives (per part when large); afterwards size
        and checksum are read back. An object that is there already with the same content is left
        alone, so that repeating an upload costs one request. Unfinished parts of an earlier,
        killed upload of the same key are removed.

        Raises:
            AlreadyExists: with ``only_if_absent``, another object is there.
            TrackingError: the file cannot be read or changes meanwhile, the server cannot be
                reached or refuses, or it holds something else than was sent.
        """
        full = self._full(key)
        with s3_errors(self._uri(full)):
            size, sha256 = measure(path)
            there = self._head(full)
            if there is not None and (there.size, there.sha256) == (size, sha256):
                return there
            if there is not None and only_if_absent:
                raise AlreadyExists(f"{self._uri(full)}: is there already")
            upload(
                self._client,
                self._bucket,
                full,
                path,
                size=size,
                sha256=sha256,
                options=self.storage.put_options(),
                condition={"IfNoneMatch": "*"} if only_if_absent else {},
            )
            return Stored(uri=self._uri(full), key=key, size=size, sha256=sha256)

    def upload_folder(self, folder: Path, prefix: str) -> list[Stored]:
        """Upload every file below ``folder`` under ``prefix``, sorted by name."""
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return [
            self.upload_file(p, f"{prefix}/{p.relative_to(folder).as_posix()}".lstrip("/"))
            for p in files
        ]

    def put(self, data: bytes, key: str, *, only_if_absent: bool = False) -> None:
        """Write a small object, checked by the server.

        Raises:
            AlreadyExists: with ``only_if_absent``, an object is there.
            TrackingError: unreachable or refused.
        """
        full = self._full(key)
        options = self.storage.put_options()
        if only_if_absent:
            options["IfNoneMatch"] = "*"
        with s3_errors(self._uri(full)):
            self._client.put_object(
                Bucket=self._bucket,
                Key=full,
                Body=data,
                ChecksumSHA256=base64_digest(data),
                Metadata={"sha256": hashlib.sha256(data).hexdigest()},
                **options,
            )

    def get(self, key: str) -> bytes | None:
        """Read a small object; ``None`` if it is not there."""
        full = self._full(key)
        with s3_errors(self._uri(full)):
            try:
                return self._client.get_object(Bucket=self._bucket, Key=full)["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None

    def head(self, key: str) -> Stored | None:
        """Size and noted SHA-256 of an object; ``None`` if it is not there."""
        full = self._full(key)
        with s3_errors(self._uri(full)):
            return self._head(full)

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        return self.head(key) is not None

    def entries(self, prefix: str = "") -> list[Stored]:
        """Objects below ``prefix``, sorted by key; their SHA-256 is not asked for (empty)."""
        start = self._full(prefix)
        folder = f"{start}/" if start else ""
        base = len(self._prefix) + 1 if self._prefix else 0
        with s3_errors(self._uri(folder)):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=folder
            )
            return [
                Stored(
                    uri=f"s3://{self._bucket}/{o['Key']}",
                    key=o["Key"][base:],
                    size=o["Size"],
                    sha256="",
                )
                for page in pages
                for o in page.get("Contents", [])
                if not o["Key"].endswith("/")
            ]

    def download_file(self, key: str, path: Path, *, sha256: str | None = None) -> Stored:
        """Download to a temporary name, check, rename.

        Raises:
            TrackingError: not there, unreachable, or the content differs from ``sha256`` (from
                the noted one if not given).
        """
        full = self._full(key)
        partial = path.with_name(path.name + ".part")
        with s3_errors(self._uri(full)):
            path.parent.mkdir(parents=True, exist_ok=True)
            reply = self._client.get_object(Bucket=self._bucket, Key=full)
            digest = hashlib.sha256()
            try:
                with partial.open("wb") as file:
                    for block in reply["Body"].iter_chunks(BLOCK):
                        digest.update(block)
                        file.write(block)
                    file.flush()
                    os.fsync(file.fileno())
                wanted = sha256 or noted_sha256(reply)
                if wanted is not None and digest.hexdigest() != wanted:
                    raise TrackingError(
                        f"s3://{self._bucket}/{full}: has SHA-256 {digest.hexdigest()} where "
                        f"{wanted} was noted; the object is damaged or was replaced"
                    )
                partial.rename(path)
            finally:
                partial.unlink(missing_ok=True)
            return Stored(
                uri=self._uri(full),
                key=key,
                size=path.stat().st_size,
                sha256=digest.hexdigest(),
            )

    def download_folder(self, prefix: str, folder: Path) -> list[Stored]:
        """Download every object below ``prefix`` into ``folder``.

        Raises:
            TrackingError: nothing is there, or a key would lie outside the folder.
        """
        found = self.entries(prefix)
        if not found:
            raise TrackingError(f"{self.root}/{prefix}: holds no objects")
        strip = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        stored = []
        for entry in found:
            relative = PurePosixPath(entry.key.removeprefix(strip))
            if relative.is_absolute() or ".." in relative.parts:
                raise TrackingError(f"{entry.uri}: its name points out of the folder")
            stored.append(self.download_file(entry.key, folder / relative))
        return stored

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""
        names: list[ObjectIdentifierTypeDef] = [{"Key": self._full(key)} for key in keys]
        with s3_errors(self._uri(self._full(""))):
            for start in range(0, len(names), 1000):  # what one request may hold
                self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": names[start : start + 1000]}
                )

    @cached_property
    def _client(self) -> "S3Client":
        return self.storage.client()

    @cached_property
    def _bucket(self) -> str:
        scheme, _, rest = self.root.partition("://")
        if scheme != "s3" or not rest.partition("/")[0]:
            raise TrackingError(f"artifact root {self.root!r}: must be s3://bucket/prefix")
        return rest.partition("/")[0]

    @cached_property
    def _prefix(self) -> str:
        return self.root.partition("://")[2].partition("/")[2].strip("/")

    def _full(self, key: str) -> str:
        return "/".join(part for part in (self._prefix, key.strip("/")) if part)

    def _uri(self, full: str) -> str:
        return f"s3://{self._bucket}/{full}"

    def _head(self, full: str) -> Stored | None:
        from botocore.exceptions import ClientError

        try:
            reply = self._client.head_object(Bucket=self._bucket, Key=full)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey", "NotFound"):
                return None
            raise
        base = len(self._prefix) + 1 if self._prefix else 0
        return Stored(
            uri=self._uri(full),
            key=full[base:],
            size=reply["ContentLength"],
            sha256=noted_sha256(reply) or "",
        )
