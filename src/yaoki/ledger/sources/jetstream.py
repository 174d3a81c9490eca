"""A JetStream stream as a feed: each message is a version, its subject the key, a header or field its version.

Messages are read by their sequence number without a consumer of their own, so nothing in the pipeline is changed. Numbers
that the stream has lost (a power cut takes all since the last sync, two minutes by default) show as a jump of its first
sequence beyond the place read so far.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import nats.errors
import nats.js.errors

from yaoki.errors import AuditError, ConfigError
from yaoki.ledger.lint import Danger
from yaoki.ledger.records import check_version
from yaoki.ledger.sinks.jetstream import quiet
from yaoki.ledger.sources.feeds import seen
from yaoki.ledger.sources.shadow import Seen

PAGE = 500


class StreamFeed:
    """`nats://HOST:PORT/STREAM`. `version`: the header, or the field of a JSON body, that counts a subject's messages."""

    heads = False
    vouches = False

    def __init__(self, url: str, version: str) -> None:
        address, _, stream = url.rpartition("/")
        if not stream or "://" not in address:
            raise ConfigError(f"{url!r} names no stream", do="nats://HOST:4222/STREAM")
        self._address = address
        self._stream = stream
        self._version = version
        self.name = f"nats:{stream}"
        self._nats: Any = None
        self._js: Any = None
        self._place = 0
        self.lost = 0
        self.unreadable = 0

    async def open(self) -> None:
        try:
            self._nats = await nats.connect(self._address, max_reconnect_attempts=2, reconnect_time_wait=0.5, connect_timeout=5, error_cb=quiet)
            self._js = self._nats.jetstream()
            await self._js.stream_info(self._stream)
        except (OSError, nats.errors.Error) as error:
            await self.close()
            raise AuditError(f"the stream {self._stream} at {self._address} cannot be read: {error}",
                             do="check the address, the stream's name and the account's rights") from error

    async def close(self) -> None:
        if self._nats is not None:
            await self._nats.close()
        self._nats = None

    async def read(self, place: str) -> AsyncIterator[tuple[list[Seen], str]]:
        state = (await self._js.stream_info(self._stream)).state
        at = int(place or 0) + 1
        if place and state.first_seq > at:
            self.lost = state.first_seq - at
        at = max(at, state.first_seq)
        while at <= state.last_seq:
            page: list[Seen] = []
            until = min(at + PAGE - 1, state.last_seq)
            for number in range(at, until + 1):
                try:
                    page += self._seen(await self._js.get_msg(self._stream, seq=number))
                except nats.js.errors.NotFoundError:
                    continue  # deleted, or superseded under the stream's limits
            yield page, str(until)
            at = until + 1

    def _seen(self, message: Any) -> list[Seen]:
        body = message.data or b""
        version: Any = (message.headers or {}).get(self._version)
        try:
            version = int(version) if version is not None else json.loads(body)[self._version]
            number = check_version(version, f"{self._version} of message {message.seq} in {self._stream}")
        except (ValueError, KeyError, TypeError):
            self.unreadable += 1
            return []
        return [seen(message.subject, number, _seconds(message), body)]

    async def settle(self, place: str) -> None:
        """A stream keeps its messages by its own limits."""

    async def dangers(self) -> list[Danger]:
        config = (await self._js.stream_info(self._stream)).config
        found: list[Danger] = []
        if self.lost:
            found.append(("stream_lost", f"{self.lost} message(s) of {self._stream} were gone before they were read"))
        if config.max_age:
            found.append(("max_age", f"{self._stream} forgets after {config.max_age:.0f} s, read or not"))
        if self.unreadable:
            found.append(("unreadable", f"{self.unreadable} message(s) had no {self._version}"))
        return found


def _seconds(message: Any) -> float:
    """When the stream stored it: seconds since 1970, 0 if it does not say."""
    stored: Any = getattr(message, "time", None)
    return float(stored.timestamp()) if hasattr(stored, "timestamp") else 0.0
