"""From a payload to a message: who says it, what it follows from, and an id that a repetition would have again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yaoki import effect, runtime
from yaoki.messages.current import handling
from yaoki.messages.envelope import Message, check_headers
from yaoki.messages.schema import encode, schema_of

Key = str | Callable[[Any], str]
"""The key of what is published, or a function from the payload to it, for several at once."""


def compose(payload: object, *, source: str, key: Key = "", id: str = "", due: float = 0.0,  # noqa: A002
            correlation: str = "", reply_to: str = "", headers: dict[str, str] | None = None) -> Message:
    """The message that says `payload`.

    Inside a handler it belongs to the same conversation as the message handled, and names it as its cause.

    Raises:
        InputError: the payload cannot be written as JSON, or a header cannot travel.
    """
    schema = schema_of(type(payload))
    cause = handling.get()
    under_way = effect.current.get()
    own_id = id or runtime.new_id()
    if headers:
        check_headers(headers)
    return Message(
        id=own_id, source=source, type=schema.name, version=schema.version, data=encode(payload), key=key if isinstance(key, str) else key(payload),
        time=runtime.unix_time(), due=due, cause=cause.id if cause else "",
        correlation=correlation or (cause.correlation or cause.id if cause else own_id), reply_to=reply_to,
        traceparent=under_way.traceparent if under_way else "", headers=headers or {})


def follow_ups(returned: Any, *, cause: Message, source: str, group: str) -> list[Message]:
    """What a handler returned, as messages. Handled again, it gives the same ids, so the store keeps one of each."""
    payloads = returned if isinstance(returned, list | tuple) else [] if returned is None else [returned]
    return [_follow_up(payload, number, cause, source, group) for number, payload in enumerate(payloads)]


def _follow_up(payload: object, number: int, cause: Message, source: str, group: str) -> Message:
    message = compose(payload, source=source, key=cause.key, id=f"{cause.id}.{group}.{number}",
                      correlation=cause.correlation or cause.id)
    if not number and cause.reply_to:
        return _changed(message, type=cause.reply_to, version=1, headers={"replyof": message.type})
    return message


def _changed(message: Message, **fields: Any) -> Message:
    return Message(**{name: getattr(message, name) for name in message.__struct_fields__} | fields)
