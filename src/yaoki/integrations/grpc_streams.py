"""Opening a gRPC stream of answers: until its first message has come, another attempt can take its place.

    begun ──first message, or a good end──▶ opened: what is left of it is the caller's, without the policy
      └──failed, or cut off────────────────▶ an attempt that failed, as of a unary call

The first message is kept for the caller. A stream lives longer than its opening, so the policy's limits of time are not given to
gRPC, as they are for a unary call: gRPC would end the stream with them. They bound the wait for the first message.

Source: gRFC A6, "When retries are valid". It ends the repetition at the response headers already, because gRPC hands them to the
application as they come; here nothing is handed on before the first message, so nothing that the caller has seen is taken back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import TimeoutError as WaitTimeoutError
from typing import Any, Self

import grpc
import grpc.aio

from yaoki.policies import sync

_NONE: Any = object()


def _forward(name: str) -> Callable[..., Any]:
    def forward(self: Any, *args: Any) -> Any:
        return getattr(self._call, name)(*args)

    return forward


class Stream(grpc.Call):  # type: ignore[misc]
    """A stream of `grpc` whose first message has come: the call itself, but for that message."""

    def __init__(self, call: Any, first: Any) -> None:
        self._call = call
        self._first = first

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        first, self._first = self._first, _NONE
        return next(self._call) if first is _NONE else first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)  # what gRPC's streams have beyond grpc.Call: they are futures, too

    is_active, time_remaining, cancel = _forward("is_active"), _forward("time_remaining"), _forward("cancel")
    code, details, add_callback = _forward("code"), _forward("details"), _forward("add_callback")
    initial_metadata, trailing_metadata = _forward("initial_metadata"), _forward("trailing_metadata")


def open_stream(begin: Callable[[], Any], limit_s: float | None, expired: Callable[[], Exception]) -> Stream:
    """Begin a stream and wait for its first message.

    Args:
        limit_s: seconds that this may take, if gRPC does not see to it by itself.
        expired: makes the error of a stream that did not begin in time.
    """
    call = begin()
    try:
        return Stream(call, next(call, _NONE) if limit_s is None else _first(call, limit_s, expired))
    except BaseException:  # Ctrl-C included: nobody will read it
        call.cancel()
        raise


def _first(call: Any, limit_s: float, expired: Callable[[], Exception]) -> Any:
    """Wait in another thread, because a stream's `next` takes no timeout. Cancelling the call is what ends it there."""
    waiting = sync.submit(next, call, _NONE)
    try:
        return waiting.result(limit_s)
    except WaitTimeoutError:
        if waiting.done():
            return waiting.result()  # it came in this very instant
        waiting.cancel()
    raise expired()


class AsyncStream(grpc.aio.UnaryStreamCall):  # type: ignore[misc]
    """The same for `grpc.aio`. Its messages may be read either way: `async for`, or `read()`."""

    def __init__(self, call: Any, messages: AsyncIterator[Any], first: Any) -> None:
        self._call = call
        self._messages = messages
        self._first = first

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        first, self._first = self._first, _NONE
        return await anext(self._messages) if first is _NONE else first

    async def read(self) -> Any:
        return await anext(self, grpc.aio.EOF)

    cancel, cancelled, done = _forward("cancel"), _forward("cancelled"), _forward("done")
    time_remaining, add_done_callback = _forward("time_remaining"), _forward("add_done_callback")
    # These give awaitables, which are handed on as they are.
    code, details, wait_for_connection = _forward("code"), _forward("details"), _forward("wait_for_connection")
    initial_metadata, trailing_metadata = _forward("initial_metadata"), _forward("trailing_metadata")


async def open_async_stream(begin: Callable[[], Awaitable[Any]]) -> AsyncStream:
    """Begin a stream and wait for its first message. Cancelled, or without one, it is ended at once."""
    call = await begin()
    messages = aiter(call)
    try:
        return AsyncStream(call, messages, await anext(messages, _NONE))
    except BaseException:
        call.cancel()
        raise
