"""Any broker of `yaoki.messages` as a sink: a message for each version, read back by a group of the audit's own.

A broker cannot be asked what it holds. So the audit subscribes as one more group, and what that group is given is at rest:
what every other group is given, too. Receipts are kept in the audit's own file. Ids follow from key and version, so that
delivering again is the same message, for brokers and inboxes alike.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from yaoki import runtime
from yaoki.errors import AuditError, BrokerError
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.records import Batch, Naming, Record, is_beat
from yaoki.ledger.sinks.port import Foreign
from yaoki.ledger.sinks.receipts import Receipts
from yaoki.ledger.subscribed import Subscribed
from yaoki.messages.brokers.port import Broker
from yaoki.messages.envelope import Message

GROUP = "yaoki-audit"

VERSION, DIGEST, ENCODED = "ledgerversion", "ledgerdigest", "ledgerencoded"
"""Headers: names of CloudEvents extensions."""


class BrokerSink(Subscribed):
    """Messages of type `kind`.

    Args:
        connect: opens the broker.
        name: for findings; without secrets.
        receipts: where the audit remembers what its group was given.
        source: the name under which the messages are published.
    """

    knows_digests = True

    def __init__(self, connect: Callable[[], Awaitable[Broker]], name: str, receipts: Receipts, *, kind: str = "LedgerChanged",
                 source: str = "ledger") -> None:
        super().__init__(connect, name, kind=kind, group=GROUP)
        self.foreign = Foreign()
        self._receipts = receipts
        self._source = source

    async def open(self) -> None:
        await super().open()
        await self._receipts.open()

    async def close(self) -> None:
        await super().close()
        await self._receipts.close()

    async def put(self, key: str, version: int, content: bytes, digest: bytes) -> bool:
        assert self._broker is not None, "open the sink first"
        data, encoded = as_json(content)
        await self._broker.publish([Message(
            id=f"{key}/{version}", source=self._source, type=self._kind, key=key, data=data, time=runtime.unix_time(),
            headers={VERSION: str(version), DIGEST: digest.hex(), **({ENCODED: encoded} if encoded else {})})])
        return True

    async def _drain(self) -> None:
        """Take what the group was given meanwhile: remembered first, acknowledged after."""
        assert self._subscription is not None, "open the sink first"
        try:
            async for deliveries in self.pages():
                found = [each for each in map(_record, (one.message for one in deliveries)) if each is not None]
                for one in deliveries:
                    if _record(one.message) is None:
                        self.foreign.note(f"{one.message.type} {one.message.id}")
                await self._receipts.note(found)
                await self._subscription.ack(deliveries)
        except BrokerError as error:
            raise AuditError(f"{self.name} cannot be read: {error}", do="check that the broker runs; then try again") from error

    async def listing(self) -> AsyncIterator[Batch]:
        await self._drain()
        async for batch in self._receipts.listing():
            yield batch

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        await self._drain()
        return await self._receipts.read(names)

    async def forget(self, names: Sequence[Naming]) -> None:
        await self._receipts.forget([name for name in names if is_beat(name[0])])  # the broker forgets by its own limits


def as_json(content: bytes) -> tuple[bytes, str]:
    """A content as a message's data, which is JSON, and how it was made so: "" for not at all."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        msgspec.json.decode(content)
        if content == content.strip():  # blanks around a value are lost on the way
            return content, ""
    return msgspec.json.encode(base64.b64encode(content).decode()), "base64"


def content_of(message: Message) -> bytes:
    """The content that a message of ours carries."""
    if message.headers.get(ENCODED) == "base64":
        return base64.b64decode(msgspec.json.decode(message.data, type=str))
    return message.data


def _record(message: Message) -> Record | None:
    version = message.headers.get(VERSION, "")
    if not version.isdecimal():
        return None
    return Record(message.key, int(version), content_digest(content_of(message)), runtime.unix_time())
