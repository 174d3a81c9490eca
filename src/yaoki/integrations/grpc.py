"""gRPC clients through a `Service`: its policy around every unary call, and nothing else changes for the caller.

    channel = grpc.intercept_channel(grpc.insecure_channel(target, options=OPTIONS), Interceptor(flights))
    channel = grpc.aio.insecure_channel(target, options=OPTIONS, interceptors=async_interceptors(flights))

`OPTIONS` switches off gRPC's own retries, which would multiply with the policy's. Per call:

- `idempotent` says which methods may be repeated although they may have happened: a set of full names
  (`"/hotel.Hotel/Find"`), or True for all. The `Service`'s own word counts where this says nothing.
- What remains of the deadline becomes the call's timeout, which gRPC sends on as `grpc-timeout`.
- The saga step under way adds `idempotency-key` and `traceparent` to the metadata, the same on every attempt.
- The server's push-back (`grpc-retry-pushback-ms`) is honoured.

Streams get the deadline and the metadata, and no policy: after its first message a call can be neither repeated nor replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import inf
from typing import Any, NamedTuple

import grpc
import grpc.aio

from yaoki import effect
from yaoki.policies.scope import remaining
from yaoki.service import Service

OPTIONS: tuple[tuple[str, Any], ...] = (("grpc.enable_retries", 0),)

Idempotent = bool | Collection[str] | None


class _Details(NamedTuple):
    """What a call is made with; gRPC wants an object with these attributes."""

    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any = None


class _Details_(_Details, grpc.ClientCallDetails):  # type: ignore[misc]  # noqa: N801
    """The same, of gRPC's own kind."""


def _name(details: Any) -> str:
    return details.method.decode() if isinstance(details.method, bytes) else str(details.method)


def _is_idempotent(idempotent: Idempotent, details: Any) -> bool | None:
    if idempotent is None or isinstance(idempotent, bool):
        return idempotent
    return True if _name(details) in idempotent else None


def _extra() -> list[tuple[str, str]]:
    """The metadata of the step under way, the same for all attempts."""
    under_way = effect.current.get()
    if under_way is None:
        return []
    trace = [("traceparent", under_way.traceparent)] if under_way.traceparent else []
    return [("idempotency-key", under_way.next_key()), *trace]


def _timeout(given: float | None) -> float | None:
    left_s = remaining()
    if left_s == inf:
        return given
    return left_s if given is None else min(given, left_s)


class Interceptor(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor, grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """Sends every unary call of a channel through `service`.

    A call is made when it is begun, not when its result is asked for: `stub.Find.future(...)` blocks while it runs.

    Args:
        idempotent: which methods may happen twice: full names, or True for all.
    """

    def __init__(self, service: Service, *, idempotent: Idempotent = None) -> None:
        self._service = service
        self._idempotent = idempotent

    def intercept_unary_unary(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        extra = _extra()

        def attempt() -> Any:
            call = continuation(_sync_details(details, extra), request)
            call.result()  # raises the RpcError, which is what the policy judges
            return call

        try:
            return self._service.call(attempt, idempotent=_is_idempotent(self._idempotent, details), operation=_name(details))
        except grpc.RpcError as error:
            return error  # it is the call itself; whoever asks for its result gets it raised

    def _stream(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        return continuation(_sync_details(details, _extra()), request)

    intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = _stream


class AsyncInterceptor(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """The same for the unary calls of `grpc.aio`."""

    def __init__(self, service: Service, *, idempotent: Idempotent = None) -> None:
        self._service = service
        self._idempotent = idempotent

    async def intercept_unary_unary(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        extra = _extra()

        async def attempt() -> Any:
            call = await continuation(_async_details(details, extra), request)
            try:
                return await call
            finally:
                if not call.done():
                    call.cancel()

        return await self._service.call(attempt, idempotent=_is_idempotent(self._idempotent, details), operation=_name(details))


def async_interceptors(service: Service, *, idempotent: Idempotent = None) -> list[grpc.aio.ClientInterceptor]:
    """What a channel of `grpc.aio` wants for all four kinds of method: it takes one object for each kind."""
    return [AsyncInterceptor(service, idempotent=idempotent), _AsyncUnaryStream(), _AsyncStreamUnary(), _AsyncStreamStream()]


async def _stream(_self: object, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
    return await continuation(_async_details(details, _extra()), request)


class _AsyncUnaryStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    intercept_unary_stream = _stream


class _AsyncStreamUnary(grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    intercept_stream_unary = _stream


class _AsyncStreamStream(grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    intercept_stream_stream = _stream


def _sync_details(details: Any, extra: list[tuple[str, str]]) -> Any:
    return _Details_(details.method, _timeout(details.timeout), [*(details.metadata or ()), *extra], details.credentials,
                     details.wait_for_ready, details.compression)


def _async_details(details: Any, extra: list[tuple[str, str]]) -> Any:
    return grpc.aio.ClientCallDetails(details.method, _timeout(details.timeout), grpc.aio.Metadata(*(details.metadata or ()), *extra),
                                      details.credentials, details.wait_for_ready)
