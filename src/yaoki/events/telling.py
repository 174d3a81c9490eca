"""Who is told of what happens: listeners, called at once, where it happens."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from yaoki import runtime

log = logging.getLogger("yaoki.events")
log.addHandler(logging.NullHandler())


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="event"):
    """Something that happened. `at`: seconds since 1970, UTC."""

    at: float = msgspec.field(default_factory=runtime.unix_time)


Listener = Callable[[Any], object]

_lock = threading.Lock()
_listeners: tuple[tuple[Listener, tuple[type[Event], ...]], ...] = ()


def wanted() -> bool:
    """Does anybody listen? Ask before building an event on a hot path."""
    return bool(_listeners)


def emit(event: Event) -> None:
    """Give `event` to every listener that wants its kind."""
    for listener, kinds in _listeners:
        if isinstance(event, kinds):
            try:
                listener(event)
            except Exception:
                log.exception("a listener of events failed on %s", type(event).__name__)


def subscribe(listener: Listener, *, kinds: tuple[type[Event], ...] = (Event,)) -> Callable[[], None]:
    """Call `listener` with each event of these kinds from now on. Returns a function that ends it."""
    global _listeners
    entry = (listener, kinds)
    with _lock:
        _listeners = (*_listeners, entry)

    def unsubscribe() -> None:
        global _listeners
        with _lock:
            _listeners = tuple(each for each in _listeners if each is not entry)

    return unsubscribe


@contextlib.contextmanager
def listen(listener: Listener, *, kinds: tuple[type[Event], ...] = (Event,)) -> Iterator[None]:
    """`subscribe` for the length of a block."""
    unsubscribe = subscribe(listener, kinds=kinds)
    try:
        yield
    finally:
        unsubscribe()


def to_json(event: Event) -> bytes:
    """One line of JSON, with the kind as `event`."""
    return msgspec.json.encode(event)
