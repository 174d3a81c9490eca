"""An S3 bucket with one object for each version; any endpoint that speaks S3.

`If-None-Match: *` lets S3 itself refuse a name that is taken, and `Content-MD5` a content that arrived damaged. A listing
tells each object's ETag, which is the MD5 of its content, unless it was uploaded in parts or encrypted with a KMS key:
then contents are compared by name only, and the audit says so.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from yaoki import runtime
from yaoki.errors import AuditError, ContentConflictError
from yaoki.ledger.fingerprint import md5_of
from yaoki.ledger.records import Batch, Naming, Record
from yaoki.ledger.sinks.port import Foreign
from yaoki.ledger.sinks.template import Template

READS_AT_ONCE = 16
DELETES_A_CALL = 1000
GONE = {"404", "NoSuchKey", "NotFound"}


class S3Sink:
    """Objects in `bucket`, named by `template`.

    Args:
        client: a boto3 S3 client; its endpoint, region and rights are its owner's business.
        digests: compare contents by ETag.
    """

    def __init__(self, client: Any, bucket: str, template: str, *, digests: bool = True, key: str = "key",
                 version: str = "version") -> None:
        self._s3 = client
        self.bucket = bucket
        self.template = Template(template, key=key, version=version)
        self.name = f"s3://{bucket}/{template}"
        self.knows_digests = digests
        self.foreign = Foreign()
        self._places = asyncio.Semaphore(READS_AT_ONCE)

    async def open(self) -> None:
        try:
            await runtime.run_blocking(self._s3.head_bucket, Bucket=self.bucket)
        except (ClientError, BotoCoreError) as error:
            raise _refused(error, f"bucket {self.bucket}", "s3:ListBucket") from error

    async def close(self) -> None:
        """The client is its owner's."""

    async def put(self, key: str, version: int, content: bytes, digest: bytes) -> bool:
        name = self.template.name(key, version)
        try:
            await runtime.run_blocking(
                self._s3.put_object, Bucket=self.bucket, Key=name, Body=content, IfNoneMatch="*",
                ContentMD5=base64.b64encode(digest).decode())
        except ClientError as error:
            if _code(error) not in {"PreconditionFailed", "412"}:
                raise
        else:
            return True
        there = await self.read([(key, version)])
        if there and there[0].digest in {digest, b""}:
            return False
        raise ContentConflictError(f"s3://{self.bucket}/{name} holds another content", name=name,
                                   do="compare it with the ledger's; S3 keeps both if the bucket has versions")

    async def listing(self) -> AsyncIterator[Batch]:
        self.foreign = Foreign()
        token: dict[str, str] = {}
        while True:
            try:
                page = await runtime.run_blocking(
                    self._s3.list_objects_v2, Bucket=self.bucket, Prefix=self.template.prefix, **token)
            except (ClientError, BotoCoreError) as error:
                raise _refused(error, f"bucket {self.bucket}", "s3:ListBucket") from error
            yield self._batch(page.get("Contents", []))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _batch(self, objects: list[Any]) -> Batch:
        batch = Batch([], [])
        for each in objects:
            found = self.template.parse(each["Key"])
            if found is None:
                self.foreign.note(each["Key"])
                continue
            batch.keys.append(found[0])
            batch.versions.append(found[1])
            batch.digests.append(self._digest(each.get("ETag", "")))
            batch.times.append(each["LastModified"].timestamp())
        return batch

    def _digest(self, etag: str) -> bytes:
        return md5_of(etag) if self.knows_digests else b""

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        found = await asyncio.gather(*(self._read(key, version) for key, version in names))
        return [record for record in found if record is not None]

    async def _read(self, key: str, version: int) -> Record | None:
        async with self._places:
            try:
                head = await runtime.run_blocking(
                    self._s3.head_object, Bucket=self.bucket, Key=self.template.name(key, version))
            except (ClientError, BotoCoreError) as error:
                if _code(error) in GONE:
                    return None
                raise _refused(error, f"bucket {self.bucket}", "s3:GetObject") from error
        return Record(key, version, self._digest(head.get("ETag", "")), head["LastModified"].timestamp())

    async def forget(self, names: Sequence[Naming]) -> None:
        for start in range(0, len(names), DELETES_A_CALL):
            objects = [{"Key": self.template.name(*name)} for name in names[start:start + DELETES_A_CALL]]
            with contextlib.suppress(ClientError):  # the auditor need not be allowed to: then heartbeats pile up
                await runtime.run_blocking(self._s3.delete_objects, Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})


def _code(error: ClientError | BotoCoreError) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _refused(error: ClientError | BotoCoreError, what: str, permission: str) -> AuditError:
    code = _code(error)
    if code in {"404", "NoSuchBucket"}:
        return AuditError(f"there is no {what}", do="check the name, the region and the account", what=what)
    if code in {"403", "AccessDenied"}:
        return AuditError(f"reading {what} is not allowed", do=f"grant {permission} to the auditor's role", what=what)
    return AuditError(f"{what} cannot be read: {error}", do="check the endpoint, the network and the credentials; then try again", what=what)
