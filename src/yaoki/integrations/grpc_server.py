"""Interceptors for gRPC servers: what the caller has left becomes the ambient deadline of the handler.

    server = grpc.server(pool, interceptors=[Deadlines()])
    server = grpc.aio.server(interceptors=[AsyncDeadlines()])

gRPC carries the caller's deadline to the server by itself; these make everything called from the handler obey it: services,
retries, bulkheads, database calls. Work whose caller has given up is refused with DEADLINE_EXCEEDED instead of being begun.
All four kinds of method are covered; of a stream, the deadline bounds every message.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import copy_context
from datetime import timedelta
from math import inf
from typing import Any

import grpc
import grpc.aio

from yaoki import runtime
from yaoki.integrations.serving import USEFUL_S, too_late
from yaoki.policies import scope
from yaoki.policies.policy import seconds

Behaviour = Callable[[Any, Any], Any]

# gRPC tells a call without a deadline as None, or as some two hundred years.
ENDLESS_S = 3.2e7


class _Bounds:
    """What both interceptors know."""

    def __init__(self, *, default: float | timedelta | None = None, least: float = USEFUL_S) -> None:
        self._default_s = None if default is None else seconds("default", default)
        self._least_s = least

    def _left_s(self, context: Any) -> float:
        given = context.time_remaining()
        if given is not None and given < ENDLESS_S:
            return float(given)
        return inf if self._default_s is None else self._default_s

    def _refusal(self, left_s: float) -> str:
        """Why the call is not begun, or ""."""
        return str(too_late(left_s)) if left_s < self._least_s else ""

    @staticmethod
    def _until(left_s: float) -> contextlib.AbstractContextManager[None]:
        return scope.until(runtime.monotonic() + left_s)


class Deadlines(_Bounds, grpc.ServerInterceptor):  # type: ignore[misc]
    """For `grpc.server`.

    Args:
        default: seconds or timedelta for callers that do not say; None for no bound.
        least: seconds; with less left the call is refused instead of being begun.
    """

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        return _wrapped(continuation(details), self._answer, self._stream)

    def _answer(self, behaviour: Behaviour) -> Behaviour:
        def answer(request: Any, context: Any) -> Any:
            left_s = self._left_s(context)
            if late := self._refusal(left_s):
                context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, late)
            with self._until(left_s):
                return behaviour(request, context)

        return answer

    def _stream(self, behaviour: Behaviour) -> Behaviour:
        def stream(request: Any, context: Any) -> Iterator[Any]:
            left_s = self._left_s(context)
            if late := self._refusal(left_s):
                context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, late)
            with self._until(left_s):
                within = copy_context()  # between two messages the thread is gRPC's, and the deadline not its business
            answers = iter(within.run(behaviour, request, context))
            ended = object()
            while (message := within.run(next, answers, ended)) is not ended:
                yield message

        return stream


class AsyncDeadlines(_Bounds, grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """The same for `grpc.aio.server`."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        return _wrapped(await continuation(details), self._answer, self._stream)

    def _answer(self, behaviour: Behaviour) -> Behaviour:
        async def answer(request: Any, context: Any) -> Any:
            left_s = self._left_s(context)
            if late := self._refusal(left_s):
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, late)
            with self._until(left_s):
                return await behaviour(request, context)

        return answer

    def _stream(self, behaviour: Behaviour) -> Behaviour:
        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            left_s = self._left_s(context)
            if late := self._refusal(left_s):
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, late)
            # The task is this call's own, so the deadline may stay in its context until the stream has ended.
            with self._until(left_s):
                async for message in behaviour(request, context):
                    yield message

        return stream


def _wrapped(handler: Any, answer: Callable[[Behaviour], Behaviour], stream: Callable[[Behaviour], Behaviour]) -> Any:
    """The same handler, its behaviour wrapped: `answer` for one reply, `stream` for many. None (no such method) stays None."""
    if handler is None:
        return None
    kind = {(False, False): "unary_unary", (False, True): "unary_stream", (True, False): "stream_unary",
            (True, True): "stream_stream"}[bool(handler.request_streaming), bool(handler.response_streaming)]
    wrap = stream if handler.response_streaming else answer
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(wrap(getattr(handler, kind)), handler.request_deserializer, handler.response_serializer)
