"""A message as a CloudEvent in binary mode: the payload is the body, everything else is in headers.

    ce-specversion: 1.0 · ce-id · ce-source · ce-type · ce-time · ce-partitionkey · ce-dataversion ...   content-type: application/json

For readers who want the payload as it is, such as FastStream's typed handlers. Our own brokers carry structured mode (`envelope`).

Source: CloudEvents 1.0.2, HTTP protocol binding 3.1 (headers, percent-encoding), NATS binding 3.1 (the same), Kafka binding 3.2
(`ce_`), AMQP binding 3.1 (`cloudEvents_`, `cloudEvents:`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from yaoki.errors import InputError
from yaoki.messages.envelope import Message, from_cloudevent, to_cloudevent

PREFIXES = ("ce-", "ce_", "cloudevents_", "cloudevents:")
STRUCTURED = "application/cloudevents"
_PLAIN = "!#$&'()*+,-./:;<=>?@[]^_`{|}~"  # every visible ASCII character but the quote and the percent sign


def to_binary(message: Message) -> tuple[dict[str, str], bytes]:
    """Headers and body."""
    event = msgspec.json.decode(to_cloudevent(message))
    del event["data"], event["datacontenttype"]
    headers = {f"ce-{name}": quote(str(value), safe=_PLAIN) for name, value in event.items()}
    return {**headers, "content-type": "application/json"}, message.data


def from_binary(headers: Mapping[str, Any], body: bytes) -> Message:
    """The message that headers and body say, in binary mode or structured, by any of the bindings' ways to name headers.

    Raises:
        InputError: it is no CloudEvent, or its data is not JSON.
    """
    named = {str(name).lower(): value.decode() if isinstance(value, bytes) else str(value) for name, value in headers.items()}
    if named.get("content-type", "").startswith(STRUCTURED):
        return from_cloudevent(body)
    event: dict[str, Any] = {name.removeprefix(prefix): unquote(value) for prefix in PREFIXES
                             for name, value in named.items() if name.startswith(prefix)}
    if not event.get("id"):
        raise InputError("no CloudEvent: there is neither a header ce-id nor a structured body",
                         do="publish with Yaoki, or send CloudEvents 1.0; or say how its identity is found (`identity=`)")
    version = event.pop("dataversion", "1")
    event["dataversion"] = int(version) if version.isdecimal() else 1
    return from_cloudevent(msgspec.json.encode({**event, "data": msgspec.Raw(body or b"null")}))
