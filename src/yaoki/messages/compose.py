"""From a payload to a message: who says it, what it follows from, and an id that a repetition would have again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from yaoki import effect, runtime
from yaoki.errors import DefinitionError
from yaoki.messages.current import handling
from yaoki.messages.envelope import Message, check_headers, check_names
from yaoki.messages.schema import encode, schema_of

Key = str | Callable[[Any], str]
"""The key of what is published, or a function from the payload to it, for several at once."""
SHORT = 255
"""Characters of which nobody has to be asked."""


def compose(payload: object, *, source: str, key: Key = "", id: str = "", due: float = 0.0,  # noqa: A002
            correlation: str = "", reply_to: str = "", headers: dict[str, str] | None = None) -> Message:
    """The message that says `payload`. See `compose_all`."""
    (message,) = compose_all((payload,), source=source, key=key, id=id, due=due, correlation=correlation,
                             reply_to=reply_to, headers=headers)
    return message


def compose_all(payloads: Iterable[object], *, source: str, key: Key = "", id: str = "", due: float = 0.0,  # noqa: A002
                correlation: str = "", reply_to: str = "", headers: dict[str, str] | None = None) -> list[Message]:
    """The messages that say these payloads.

    Inside a handler they belong to the same conversation as the message handled, and name it as their cause.

    Raises:
        InputError: a payload cannot be written as JSON, or a header or key cannot travel.
    """
    if headers:
        check_headers(headers)
    cause, under_way, now = handling.get(), effect.current.get(), runtime.unix_time()
    traceparent = under_way.traceparent if under_way else ""
    caused_by = cause.id if cause else ""
    correlation = correlation or (cause.correlation or cause.id if cause else "")
    new_id = runtime.current().new_id
    messages, kind, name, version = [], None, "", 1
    for payload in payloads:
        if type(payload) is not kind:
            kind = type(payload)
            schema = schema_of(kind)
            name, version = schema.name, schema.version
        own_id, own_key = id or new_id(), key if isinstance(key, str) else key(payload)
        if len(own_key) + len(id) > SHORT or "\0" in own_key:
            check_names(own_id, source, name, own_key)
        messages.append(Message(
            id=own_id, source=source, type=name, version=version, data=encode(payload), time=now, due=due,
            key=own_key, cause=caused_by, correlation=correlation or own_id,
            reply_to=reply_to, traceparent=traceparent, headers=headers or {}))
    return messages


def follow_ups(returned: Any, *, cause: Message, source: str, group: str, emits: tuple[type, ...] = ()) -> list[Message]:
    """What a handler returned, as messages. Handled again, it gives the same ids, so the store keeps one of each.

    Raises:
        DefinitionError: it is none of `emits`, which others have been told of.
    """
    payloads = returned if isinstance(returned, list | tuple) else [returned]
    if emits:
        for payload in payloads:
            if not isinstance(payload, emits):
                raise DefinitionError(
                    f"{group} returned a {type(payload).__name__}, and says that {' or '.join(each.__name__ for each in emits)} follows",
                    do="return what is declared, or declare it: `emits=`, or the function's return annotation")
    return [_follow_up(payload, number, cause, source, group) for number, payload in enumerate(payloads)]


def _follow_up(payload: object, number: int, cause: Message, source: str, group: str) -> Message:
    message = compose(payload, source=source, key=cause.key, id=f"{cause.id}.{group}.{number}",
                      correlation=cause.correlation or cause.id)
    if not number and cause.reply_to:
        return _changed(message, type=cause.reply_to, version=1, headers={"replyof": message.type})
    return message


def _changed(message: Message, **fields: Any) -> Message:
    return Message(**{name: getattr(message, name) for name in message.__struct_fields__} | fields)
