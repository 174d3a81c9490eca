"""A handler: a function, what it takes, and what may become of it.

    @app.on(OrderPlaced)
    async def reserve(order: OrderPlaced) -> RoomReserved: ...

    @app.on(OrderPlaced | OrderChanged, retries=Retries(attempts=3), emits=RoomReserved, within=30)
    async def reserve(order, message: Message, tx) -> RoomReserved: ...

The first parameter is the payload. One called `message` gets the envelope; one called `tx` makes the handler
transactional: it gets the database connection, and what it writes, what it returns and the mark that the message was
handled commit together. A returned event (or a list of them) is published; of a request it is the answer.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

import msgspec

from yaoki.errors import DefinitionError
from yaoki.messages.lanes import LIMIT_BYTES
from yaoki.messages.schema import hints_of, schema_of
from yaoki.messages.verdict import Retries

Fn = Callable[..., Any]


class Handler(msgspec.Struct, frozen=True, kw_only=True):
    """One handler.

    Attributes:
        fn, name: the function, and the name under which its progress is kept: do not rename it lightly.
        takes: payload classes by type name.
        wants_message, transactional: has it a parameter `message`, or `tx`?
        retries: see `Retries`. timeout_s: for one attempt.
        in_flight: messages under way at most (of a transactional one: in a transaction).
        in_flight_bytes: of the data of messages in memory, waiting or under way, about.
        since: where a new handler begins: the `beginning` of what is kept, or `now`.
        emits, within_s, undo: what may follow, by when, and what takes it back; see `obligations`. What the function is
            annotated to return, unless it is said. Nothing else may be returned then.
    """

    fn: Fn
    name: str
    takes: dict[str, type]
    wants_message: bool = False
    transactional: bool = False
    is_async: bool = True
    retries: Retries = Retries()
    timeout_s: float = 30.0
    in_flight: int = 64
    in_flight_bytes: int = LIMIT_BYTES
    since: str = "beginning"
    emits: tuple[type, ...] = ()
    within_s: float = 0.0
    undo: type | None = None


def handler_of(fn: Fn, events: tuple[Any, ...], *, name: str, settings: dict[str, Any]) -> Handler:
    """Read a handler off its function. Raises `DefinitionError` naming what does not fit."""
    classes = flatten(events)
    takes = {schema_of(each).name: each for each in classes}
    if not takes:
        raise DefinitionError(f"{_where(fn)} handles nothing", do="name the events: @app.on(OrderPlaced)")
    parameters = list(inspect.signature(fn).parameters.values())
    extra = [each.name for each in parameters[1:] if each.default is each.empty and each.kind is not each.VAR_KEYWORD]
    unknown = [each for each in extra if each not in {"message", "tx"}]
    if not parameters or parameters[0].name in {"message", "tx"} or unknown:
        raise DefinitionError(
            f"{_where(fn)} takes ({', '.join(each.name for each in parameters)})",
            do="take the payload first, then any of `message` and `tx`: def handler(order, message, tx)")
    names = {each.name for each in parameters}
    settings = {**settings, "emits": settings.get("emits") or _returned(fn)}
    return Handler(fn=fn, name=name or fn.__name__, takes=takes, wants_message="message" in names,
                   transactional="tx" in names, is_async=inspect.iscoroutinefunction(fn), **settings)


def _returned(fn: Fn) -> tuple[type, ...]:
    """The events that the function is annotated to return: `-> A`, `-> A | B | None`, `-> list[A | B]`. JSON types are no events."""
    wanted, found = [hints_of(fn).get("return")], []
    while wanted:
        hint = wanted.pop(0)
        if get_origin(hint) in {Union, types.UnionType, list, tuple}:
            wanted += [each for each in get_args(hint) if each is not Ellipsis]
        elif isinstance(hint, type) and hint.__module__ not in {"builtins", "types"}:
            found.append(hint)
    return tuple(found)


def flatten(events: tuple[Any, ...] | Any) -> tuple[type, ...]:
    """`(A, B | C)` as `(A, B, C)`."""
    found: list[type] = []
    for each in events if isinstance(events, tuple) else (events,):
        if get_origin(each) in {Union, types.UnionType}:
            found += flatten(get_args(each))
        elif each is not None and each is not type(None):
            found.append(each)
    for each in found:
        if not isinstance(each, type):
            raise DefinitionError(f"{each!r} is not a payload class", do="name classes: @app.on(OrderPlaced, emits=A | B)")
    return tuple(found)


def _where(fn: Fn) -> str:
    code = getattr(fn, "__code__", None)
    place = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"the handler {getattr(fn, '__qualname__', fn)!s}{place}"
