"""Calls a handler's function with what it asks for, for one message after the other.

What a message costs here is what a message costs, so two things are done only when they are needed: JSON is read by a
decoder made once for each class, and the timeout is set only for a function that really waits: its first step is taken
at once, and most handlers of a busy reader end there.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from yaoki import effect, runtime
from yaoki.messages.compose import follow_ups
from yaoki.messages.current import handling
from yaoki.messages.envelope import Message
from yaoki.messages.handlers import Handler
from yaoki.messages.schema import decoder_of
from yaoki.messages.store.port import Entry, Tx


class Caller:
    """The function of one handler.

    Args:
        handler: see `Handler`. service: the name under which what it returns is published.
    """

    def __init__(self, handler: Handler, *, service: str, group: str) -> None:
        self.handler = handler
        self.service = service
        self.group = group
        self._decoders: dict[str, Callable[[Message], Any]] = {name: decoder_of(cls) for name, cls in handler.takes.items()}

    async def call(self, entry: Entry, tx: Tx | None = None) -> list[Message]:
        """Call the function; what it returns becomes messages. Raises what it raises, `TimeoutError`, `InputError`."""
        message, handler = entry.message, self.handler
        as_message = handling.set(message)
        as_effect = effect.current.set(effect.Effect(
            message.identity, self.group, self.group, attempt=entry.attempts + 1, traceparent=message.traceparent))
        try:
            payload = self._decoders[message.type](message)
            more: dict[str, Any] = {"message": message} if handler.wants_message else {}
            if tx is not None:
                more["tx"] = tx.connection
            if handler.is_async:
                returned = await _within(handler.fn(payload, **more), handler.timeout_s)
            else:
                async with asyncio.timeout(handler.timeout_s):
                    returned = await runtime.run_blocking(handler.fn, payload, **more)
            return [] if returned is None else follow_ups(
                returned, cause=message, source=self.service, group=self.group, emits=handler.emits)
        finally:
            effect.current.reset(as_effect)
            handling.reset(as_message)


async def _within(work: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
    """The result of `work`; `TimeoutError` when it waits for longer. What does not wait at all needs no timer."""
    try:
        awaited = work.send(None)
    except StopIteration as ended:
        return ended.value
    async with asyncio.timeout(timeout_s):
        return await _go_on(work, awaited)


@types.coroutine
def _go_on(work: Coroutine[Any, Any, Any], awaited: Any) -> Generator[Any, Any, Any]:
    """`await work`, from the point where it has asked for `awaited`. See PEP 380, "Formal semantics"."""
    while True:
        try:
            sent = yield awaited
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # a cancellation, mostly: it is for the function to see
            awaited, ended = _step(work.throw, error)
        else:
            awaited, ended = _step(work.send, sent)
        if ended is not None:
            return ended.value


def _step(go: Callable[[Any], Any], value: Any) -> tuple[Any, StopIteration | None]:
    """What the function asks for next, or how it ended."""
    try:
        return go(value), None
    except StopIteration as ended:
        return None, ended
