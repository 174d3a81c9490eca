"""A JetStream stream with one message for each version; what is at rest is read back from the stream itself.

A message's subject holds its key, its `version` header the number, and `Nats-Msg-Id` makes the stream refuse to take it
twice within its window (two minutes by default); beyond the window the subject is read first. Mind what the stream
promises: with the default `sync_interval` a power cut takes two minutes of what was acknowledged. The audit would name it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote

import nats
import nats.errors
import nats.js.errors

from yaoki.errors import AuditError, ContentConflictError
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.records import Batch, Naming, Record
from yaoki.ledger.sinks.port import Foreign

__all__ = ["JetStreamSink"]

PAGE = 500
VERSION = "version"


async def quiet(_error: Exception) -> None:
    """For the client's `error_cb`, which else logs a traceback: what matters is raised where it is awaited."""


class JetStreamSink:
    """Messages of `stream`, on subjects `prefix.KEY`; the stream is made with these subjects when missing.

    Args:
        url: `nats://HOST:PORT`.
    """

    def __init__(self, url: str, stream: str, prefix: str = "ledger") -> None:
        self._url = url
        self._stream = stream
        self._prefix = prefix
        self.name = f"nats:{stream}/{prefix}"
        self.knows_digests = True
        self.foreign = Foreign()
        self._nats: Any = None
        self._js: Any = None

    async def open(self) -> None:
        try:
            self._nats = await nats.connect(self._url, max_reconnect_attempts=2, reconnect_time_wait=0.5, connect_timeout=5, error_cb=quiet)
            self._js = self._nats.jetstream()
            try:
                await self._js.stream_info(self._stream)
            except nats.js.errors.NotFoundError:
                await self._js.add_stream(name=self._stream, subjects=[f"{self._prefix}.>"])
        except (OSError, nats.errors.Error) as error:
            await self.close()
            raise AuditError(f"the stream {self._stream} at {self._url} cannot be used: {error}",
                             do="check the address and the account's rights") from error

    async def close(self) -> None:
        if self._nats is not None:
            await self._nats.close()
        self._nats = None

    def _subject(self, key: str) -> str:
        # A token of a subject has no dots, blanks or wildcards: those are written as %XX, and so is "%".
        return f"{self._prefix}.{quote(key, safe='').replace('.', '%2E').replace('~', '%7E')}"

    async def put(self, key: str, version: int, content: bytes, digest: bytes) -> bool:
        there = await self._find(key, version)
        if there is None:
            ack = await self._js.publish(self._subject(key), content, stream=self._stream, headers={
                VERSION: str(version), "Nats-Msg-Id": f"{quote(key)}/{version}"})
            if not ack.duplicate:
                return True
            there = await self._find(key, version)
        if there is not None and there.digest != digest:
            raise ContentConflictError(f"{self.name} holds another content for {key} version {version}",
                                       name=f"{key}-{version}", do="compare it with the ledger's")
        return False

    async def _find(self, key: str, version: int) -> Record | None:
        """Walk the key's own messages, oldest first."""
        at = 1
        while True:
            try:
                message = await self._js.get_msg(self._stream, seq=at, subject=self._subject(key), next=True)
            except nats.js.errors.NotFoundError:
                return None
            record = self._record(message)
            if record is not None and record.version == version:
                return record
            at = message.seq + 1

    async def listing(self) -> AsyncIterator[Batch]:
        self.foreign = Foreign()
        state = (await self._js.stream_info(self._stream)).state
        page: list[Record] = []
        for number in range(state.first_seq, state.last_seq + 1):
            try:
                message = await self._js.get_msg(self._stream, seq=number)
            except nats.js.errors.NotFoundError:
                continue  # removed
            record = self._record(message)
            if record is not None:
                page.append(record)
            else:
                self.foreign.note(message.subject)
            if len(page) >= PAGE:
                yield Batch.of(page)
                page = []
        yield Batch.of(page)

    def _record(self, message: Any) -> Record | None:
        version = (message.headers or {}).get(VERSION, "")
        if not message.subject.startswith(self._prefix + ".") or not version.isdecimal():
            return None
        stored: Any = getattr(message, "time", None)
        at = stored.timestamp() if isinstance(stored, datetime) else 0.0
        key = unquote(message.subject.removeprefix(self._prefix + "."))
        return Record(key, int(version), content_digest(message.data or b""), at)

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        found = [await self._find(*name) for name in names]
        return [record for record in found if record is not None]

    async def forget(self, names: Sequence[Naming]) -> None:
        """The stream removes old messages by its own limits; only whole subjects of beats could be purged."""
