"""A service that takes each version with `PUT` and tells with `HEAD` what it holds.

`If-None-Match: *` makes the service refuse a name that is taken (412, RFC 9110); its `ETag` is taken for the MD5 of the
content when it has 32 hexadecimal digits. There is no listing, so an audit asks for each version by name and cannot see
extras.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import httpx

from yaoki.errors import AuditError, ContentConflictError
from yaoki.ledger.fingerprint import md5_of
from yaoki.ledger.records import Batch, Naming, Record
from yaoki.ledger.sinks.port import Foreign
from yaoki.ledger.sinks.template import Template


class HttpSink:
    """Resources named by `template`, such as `https://store.example/logs/{key}/{version}`.

    Args:
        client: an `httpx.AsyncClient` with its owner's authentication, time limits and policies.
    """

    def __init__(self, client: httpx.AsyncClient, template: str) -> None:
        self._http = client
        self._template = Template(template, quoted=True)
        self.name = template
        self.knows_digests = True
        self.foreign = Foreign()

    async def open(self) -> None:
        """Nothing to prepare."""

    async def close(self) -> None:
        """The client is its owner's."""

    async def put(self, key: str, version: int, content: bytes, digest: bytes) -> bool:
        name = self._template.name(key, version)
        reply = await self._http.put(name, content=content, headers={
            "If-None-Match": "*", "Content-MD5": base64.b64encode(digest).decode(), "Idempotency-Key": f'"{quote(key)}/{version}"'})
        if reply.status_code == httpx.codes.PRECONDITION_FAILED:
            there = await self.read([(key, version)])
            if there and there[0].digest in {digest, b""}:
                return False
            raise ContentConflictError(f"{name} holds another content", name=name, do="compare it with the ledger's")
        reply.raise_for_status()
        return True

    async def listing(self) -> AsyncIterator[Batch]:
        raise AuditError(f"{self.name} has no listing", do="audit it by name: each version is asked for")
        yield  # an async generator, as the port wants

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        found = []
        for key, version in names:
            reply = await self._http.head(self._template.name(key, version))
            if reply.status_code in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
                continue
            reply.raise_for_status()
            modified = reply.headers.get("Last-Modified")
            found.append(Record(key, version, md5_of(reply.headers.get("ETag", "")),
                                parsedate_to_datetime(modified).timestamp() if modified else 0.0))
        return found

    async def forget(self, names: Sequence[Naming]) -> None:
        """The service decides how long it keeps heartbeats."""
