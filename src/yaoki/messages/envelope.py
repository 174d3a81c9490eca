"""A message: a payload, who sent it, what it is about, and what it followed from.

On the wire it is a CloudEvent 1.0 in structured JSON, so that anything else can read it and write it:

    {"specversion": "1.0", "id": "018f...", "source": "orders", "type": "OrderPlaced", "partitionkey": "order-42",
     "dataversion": 1, "data": {...}}

Our own attributes are CloudEvents extensions: `partitionkey` and `traceparent` as documented there, and
`dataversion, correlationid, causationid, replyto, notbefore` beside them. Unknown extensions are kept as `headers`.

Source: CloudEvents 1.0.2, sections 3 (context attributes) and JSON format 3 (data, data_base64).
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import re
import zlib
from typing import Any

import msgspec

from yaoki.errors import InputError

PARTS = 16
"""Partitions of every store and stream. A constant, because changing it would move keys between readers in flight;
sixteen is how many worker processes of one handler can share its work."""

SAGA_TYPES = "saga."
ECHO = "~"
"""A service's own word on a choreographed run, as it came back from the broker, has this after its source."""
UNREADABLE = "yaoki.unreadable"

MOST_NAME_BYTES = 2_000
"""Of a key, and of id and source together: PostgreSQL takes no more than 2 704 bytes into an index."""
MOST_VERSION = 2**31 - 1
_EXTENSION = re.compile(r"[a-z0-9]{1,20}\Z")  # what CloudEvents allows as a name
_OWN = frozenset({
    "specversion", "id", "source", "type", "time", "datacontenttype", "dataschema", "subject", "data", "data_base64",
    "partitionkey", "traceparent", "dataversion", "correlationid", "causationid", "replyto", "notbefore",
})  # fmt: skip


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message. Two with the same `source` and `id` are the same message, whatever road they took.

    Attributes:
        id, source: its identity; `source` is the name of the service that published it.
        type: what happened, as a name: handlers subscribe to it. `version`: of the payload's shape.
        data: the payload as JSON.
        key: messages of one key are handled in the order they were published; "" has no order.
        time: seconds since 1970 when it was published. `due`: not to be handled before; 0.0 is at once.
        correlation: the conversation it belongs to. `cause`: the id of the message it follows from.
        reply_to: the type under which the answer is awaited, or "".
        traceparent: W3C trace context where it was published. A consumer links to it; it is not a parent.
        headers: further CloudEvents extensions, names of lower-case letters and digits, values text.
    """

    id: str
    source: str
    type: str
    data: bytes = b"null"
    key: str = ""
    version: int = 1
    time: float = 0.0
    due: float = 0.0
    correlation: str = ""
    cause: str = ""
    reply_to: str = ""
    traceparent: str = ""
    headers: dict[str, str] = {}

    @property
    def part(self) -> int:
        """The partition: the same for all messages of a key, on every machine and in every version of Python."""
        return zlib.crc32((self.key or self.id).encode()) % PARTS

    @property
    def identity(self) -> str:
        """`source/id`: the key under which an effect of this message is made idempotent."""
        return f"{self.source}/{self.id}"


class Meta(msgspec.Struct, omit_defaults=True, frozen=True):
    """The rarely used attributes, which the stores keep as one JSON column."""

    correlation: str = ""
    cause: str = ""
    reply_to: str = ""
    traceparent: str = ""
    headers: dict[str, str] = {}


_NONE = b"{}"
_FIRST = b'{"first":true}'
"""Of a message that begins a conversation of its own name, as nearly all do that follow from nothing: a constant is cheap."""
_meta = msgspec.json.Decoder(Meta)


def meta_of(message: Message) -> bytes:
    """The `Meta` column of a message."""
    if not (message.cause or message.reply_to or message.traceparent or message.headers):
        if not message.correlation:
            return _NONE
        if message.correlation == message.id:
            return _FIRST
    return msgspec.json.encode(
        Meta(message.correlation, message.cause, message.reply_to, message.traceparent, message.headers))


def message_of(id: str, source: str, type: str, key: str, version: int, time: float, due: float, data: bytes,  # noqa: A002, PLR0917 (the columns as they come)
               meta: bytes) -> Message:
    """A message out of its columns."""
    if meta in {_FIRST, _NONE}:
        return Message(id=id, source=source, type=type, key=key, version=version, time=time, due=due, data=data,
                       correlation=id if meta == _FIRST else "")
    more = _meta.decode(meta)
    return Message(id=id, source=source, type=type, key=key, version=version, time=time, due=due, data=data,
                   correlation=more.correlation, cause=more.cause, reply_to=more.reply_to,
                   traceparent=more.traceparent, headers=more.headers)


def check_headers(headers: dict[str, str]) -> None:
    """Raise `InputError` for a header that is not a CloudEvents extension."""
    for name, value in headers.items():
        if name in _OWN or not _EXTENSION.match(name) or not isinstance(value, str):
            raise InputError(
                f"the header {name!r} cannot travel with a message",
                do="name headers with 1 to 20 lower-case letters and digits, none of the names that CloudEvents or "
                   "Yaoki use itself, and give them text", header=name)


def check_names(id: str, source: str, type: str, key: str) -> None:  # noqa: A002
    """Raise `InputError` for what some store could not take: a reader would try it again without end."""
    if "\0" in id + source + type + key:
        raise InputError("id, source, type and key of a message have no U+0000: PostgreSQL does not take it as text",
                         do="leave it out")
    if max(len((id + source).encode()), len(type.encode()), len(key.encode())) > MOST_NAME_BYTES:
        raise InputError(f"id and source together, the type and the key of a message have at most {MOST_NAME_BYTES} bytes",
                         do="use a short key, such as a hash of the long one")


def to_cloudevent(message: Message) -> bytes:
    """The message as a CloudEvent in structured JSON (`application/cloudevents+json`)."""
    event: dict[str, Any] = {
        "specversion": "1.0", "id": message.id, "source": message.source, "type": message.type,
        "time": _rfc3339(message.time), "datacontenttype": "application/json", "dataversion": message.version,
    }
    optional = {
        "partitionkey": message.key, "correlationid": message.correlation, "causationid": message.cause,
        "replyto": message.reply_to, "traceparent": message.traceparent,
        "notbefore": _rfc3339(message.due) if message.due else "",
    }
    event.update({name: value for name, value in optional.items() if value})
    event.update(message.headers)
    event["data"] = msgspec.Raw(message.data)
    return msgspec.json.encode(event)


class _Wire(msgspec.Struct):
    id: str
    source: str
    type: str
    specversion: str = "1.0"
    time: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    data_base64: str = ""
    partitionkey: str = ""
    dataversion: int = 1
    correlationid: str = ""
    causationid: str = ""
    replyto: str = ""
    traceparent: str = ""
    notbefore: str = ""


_wire = msgspec.json.Decoder(_Wire)


def from_cloudevent(body: bytes) -> Message:
    """The message that a CloudEvent says. Raises `InputError` for anything else."""
    try:
        wire = _wire.decode(body)
        rest = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not a CloudEvent in structured JSON: {error}",
                         do="publish with Yaoki, or send CloudEvents 1.0 with id, source and type as JSON") from error
    check_names(wire.id, wire.source, wire.type, wire.partitionkey)
    if not 0 <= wire.dataversion <= MOST_VERSION:
        raise InputError(f"{wire.dataversion} cannot be the version of a payload", do="count versions from 1")
    headers = {name: str(value) for name, value in rest.items() if name not in _OWN and _EXTENSION.match(name)}
    data = _from_base64(wire.data_base64) if wire.data_base64 else bytes(wire.data)
    return Message(
        id=wire.id, source=wire.source, type=wire.type, data=data, key=wire.partitionkey, version=wire.dataversion,
        time=_unix(wire.time), due=_unix(wire.notbefore), correlation=wire.correlationid, cause=wire.causationid,
        reply_to=wire.replyto, traceparent=wire.traceparent, headers=headers)


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputError(f"the data_base64 of a CloudEvent is not base64: {error}", do="encode it as RFC 4648 says, section 4") from error


def received(body: bytes, broker: str) -> Message:
    """What a broker delivered, as a message. What is no CloudEvent is kept as it came, as a `yaoki.unreadable`."""
    try:
        return from_cloudevent(body)
    except InputError as error:
        data = msgspec.json.encode({"error": str(error), "body": base64.b64encode(body).decode()})
        return Message(id=hashlib.sha256(body).hexdigest()[:32], source=broker, type=UNREADABLE, data=data)


def _rfc3339(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _unix(text: str) -> float:
    if not text:
        return 0.0
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise InputError(f"the time {text!r} of a CloudEvent is not RFC 3339",
                         do="write times as 2026-11-21T19:00:00Z") from error
