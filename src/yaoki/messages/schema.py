"""Payloads with a name, a version, and a way up from older versions.

    @event(name="order.placed", version=2, upcasts={1: add_currency})
    class OrderPlaced(msgspec.Struct):
        order: str
        total: int
        currency: str

A class that is not marked is an event too: its name is the class's name and its version 1. A payload is anything
msgspec can write and read (Struct, dataclass, TypedDict, attrs) or a pydantic model. An up-cast takes the JSON data of
its version and returns that of the next; they are applied one after the other, so each is written once and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

import msgspec

from yaoki.errors import DefinitionError, InputError, NewerVersionError
from yaoki.messages.envelope import Message

C = TypeVar("C", bound=type)
Upcast = Callable[[Any], Any]
_MARK = "__yaoki_event__"


class Schema(msgspec.Struct, frozen=True):
    """How a class travels: `name` and `version` on the wire, and the up-casts from older versions."""

    name: str
    version: int = 1
    upcasts: dict[int, Upcast] = {}


def event(*, name: str = "", version: int = 1, upcasts: Mapping[int, Upcast] | None = None) -> Callable[[C], C]:
    """Give a payload class its name and version on the wire.

    Args:
        name: default: the class's name.
        version: of the payload's shape now, from 1.
        upcasts: for each older version, a function from its JSON data to that of the next version.

    Raises:
        DefinitionError: a version without a way up.
    """
    ways = dict(upcasts or {})
    missing = [each for each in range(min(ways, default=version), version) if each not in ways]
    if version < 1 or missing or any(each >= version for each in ways):
        raise DefinitionError(
            f"@event(version={version}): the up-casts {sorted(ways)} do not lead to it one step at a time",
            do=f"give one function for each of the versions {min([*ways, 1])} to {version - 1} that you still read")

    def mark(cls: C) -> C:
        setattr(cls, _MARK, Schema(name or cls.__name__, version, ways))
        return cls

    return mark


def schema_of(cls: type) -> Schema:
    """The schema of a payload class; of an unmarked one, its name and version 1."""
    found = cls.__dict__.get(_MARK)
    return found if isinstance(found, Schema) else Schema(cls.__name__)


def encode(payload: object) -> bytes:
    """A payload as JSON. Raises `InputError` naming what cannot be written."""
    try:
        dump = getattr(payload, "model_dump_json", None)  # pydantic, without importing it
        return dump().encode() if dump is not None else msgspec.json.encode(payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{type(payload).__name__} cannot be published: {error}",
                         do="use fields of JSON types, dates, decimals, UUIDs, enums, dataclasses or Structs") from error


def decoder_of(cls: type) -> Callable[[Message], Any]:
    """`decode` for many messages of one class: what can be prepared is prepared once."""
    version, parse = schema_of(cls).version, _parser(cls)

    def decoded(message: Message) -> Any:
        if message.version != version:
            return decode(cls, message)
        try:
            return parse(message.data)
        except _UNFIT as error:
            raise _unfit(cls, message, error) from error

    return decoded


def decode(cls: type, message: Message) -> Any:
    """The payload of `message` as a `cls`, up-cast where it is older.

    Raises:
        NewerVersionError: the message is newer than `cls`.
        InputError: the data does not fit.
    """
    schema = schema_of(cls)
    if message.version > schema.version:
        raise NewerVersionError(
            f"{message.type} {message.id} has version {message.version}, and this program knows {schema.version}",
            do="deploy the program that knows the newer version; the message waits", version=message.version)
    parse = _parser(cls)
    try:
        if message.version == schema.version:
            return parse(message.data)
        data = msgspec.json.decode(message.data)
        for version in range(message.version, schema.version):
            data = _up(schema, version, message)(data)
        return parse(msgspec.json.encode(data))
    except InputError:
        raise
    except _UNFIT as error:
        raise _unfit(cls, message, error) from error


_UNFIT = (msgspec.DecodeError, ValueError, TypeError, KeyError, RecursionError)


def _unfit(cls: type, message: Message, error: Exception) -> InputError:
    return InputError(f"the data of {message.type} {message.id} is not a {cls.__name__}: {error}",
                      do="correct it with `yk msgs edit`, or teach the class the older shape with an up-cast")


def _up(schema: Schema, version: int, message: Message) -> Upcast:
    way = schema.upcasts.get(version)
    if way is None:
        raise InputError(f"{message.type} {message.id} has version {message.version}, and nothing leads from {version} "
                         f"to {schema.version}", do=f"add upcasts={{{version}: ...}} to @event of {schema.name}")
    return way


def _parser(cls: type) -> Callable[[bytes], Any]:
    validate: Callable[[bytes], Any] | None = getattr(cls, "model_validate_json", None)
    if validate is not None:
        return validate
    try:
        return msgspec.json.Decoder(cls).decode
    except TypeError:  # a class that cannot be read is reported with the message that is not read
        return lambda data: msgspec.json.decode(data, type=cls)


def hints_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a handler, resolved; {} where a name in them cannot be."""
    try:
        return get_type_hints(fn)
    except NameError:
        return {}
