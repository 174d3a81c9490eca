"""gRPC clients through a `Service`: its policy around every call with one request, and nothing else changes for the caller.

    channel = grpc.intercept_channel(grpc.insecure_channel(target, options=OPTIONS), Interceptor(flights))
    channel = grpc.aio.insecure_channel(target, options=OPTIONS, interceptors=async_interceptors(flights))

`OPTIONS` switches off gRPC's own retries, which would multiply with the policy's. Per call:

- `idempotent` says which methods may be repeated although they may have happened: a set of full names
  (`"/hotel.Hotel/Find"`), or True for all. The `Service`'s own word counts where this says nothing.
- What remains of the deadline becomes the call's timeout, which gRPC sends on as `grpc-timeout`.
- The saga step under way adds `idempotency-key` and `traceparent` to the metadata, the same on every attempt; a repetition says
  how many there were before it (`grpc-previous-rpc-attempts`).
- The server's push-back (`grpc-retry-pushback-ms`) is honoured.
- An attempt that ran out of the time which the policy gave it is a timeout for the policy, which may repeat it; gRPC alone
  would never repeat a DEADLINE_EXCEEDED. The caller gets gRPC's own error all the same.

Of a stream of answers the policy covers the opening, until its first message (`grpc_streams.py`); the rest is the caller's. A
stream of requests gets the deadline and the metadata, and no policy: what was read from it cannot be sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import inf
from typing import Any, NamedTuple

import grpc
import grpc.aio

from yaoki import effect, runtime
from yaoki.errors import AttemptTimeoutError
from yaoki.integrations.grpc_streams import open_async_stream, open_stream
from yaoki.policies import scope
from yaoki.policies.classify import hand_on_history
from yaoki.policies.policy import Site
from yaoki.policies.timeout import Say
from yaoki.service import Service

OPTIONS: tuple[tuple[str, Any], ...] = (("grpc.enable_retries", 0),)
PREVIOUS_ATTEMPTS = "grpc-previous-rpc-attempts"  # gRFC A6, "Exposed Retry Metadata"

Methods = bool | Collection[str] | None
"""Full names of methods, or True for all; None: nobody said."""


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


def _says(methods: Methods, details: Any) -> bool | None:
    if methods is None or isinstance(methods, bool):
        return methods
    return True if _name(details) in methods else None


class _Call:
    """One call: what is the same for all its attempts."""

    __slots__ = ("_allowed_s", "_caller_s", "_details", "_extra", "_opens_stream", "_say", "operation")

    def __init__(self, service: Service, details: Any, *, opens_stream: bool = False) -> None:
        self._details = details
        self._extra = _extra()
        self._opens_stream = opens_stream
        self._caller_s = scope.current.get()[0]  # until when the caller waits, whatever the policy says
        self._allowed_s = inf
        self._say = Say(Site(service=service.name), inf, by="timeout")
        self.operation = _name(details)

    def sync_details(self) -> Any:
        """The details of an attempt, as `grpc` wants them."""
        given = self._details
        return _Details_(given.method, self._timeout(), self._metadata(), given.credentials, given.wait_for_ready, given.compression)

    def async_details(self) -> Any:
        """The same for `grpc.aio`."""
        given = self._details
        return grpc.aio.ClientCallDetails(given.method, self._timeout(), grpc.aio.Metadata(*self._metadata()), given.credentials,
                                          given.wait_for_ready)

    def _metadata(self) -> list[tuple[str, str]]:
        again = scope.attempt() - 1
        return [*(self._details.metadata or ()), *self._extra, *([(PREVIOUS_ATTEMPTS, str(again))] if again else [])]

    def _timeout(self) -> float | None:
        """Seconds: the caller's own, or what is left of the deadline; of a stream the caller's deadline, not the policy's."""
        self._allowed_s = scope.remaining()
        until = self._caller_s if self._opens_stream else scope.current.get()[0]
        if until == inf:
            return self._details.timeout  # type: ignore[no-any-return]
        left_s = max(0.0, until - runtime.monotonic())
        return left_s if self._details.timeout is None else min(self._details.timeout, left_s)

    def opens_within_s(self) -> float | None:
        """Seconds in which a stream must have begun; None if gRPC's own timeout bounds it as well as ours would."""
        return scope.remaining() if scope.current.get()[0] < self._caller_s else None

    def expired(self) -> AttemptTimeoutError:
        """The attempt under way is over because its time is."""
        return self._say.given_up(round(self._allowed_s, 3), "timeout" if scope.current.get()[0] < self._caller_s else "deadline")

    def judge(self, error: Any) -> None:
        """Raise what the policy shall take this failure for instead: a limit of time that is ours is not the service's word."""
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and scope.remaining() <= scope.USEFUL_S:
            raise self.expired() from error


def _own(error: AttemptTimeoutError) -> Any:
    """The error of gRPC behind ours, which is what the caller gets; None if there is none."""
    own = error.__cause__
    if not isinstance(own, grpc.RpcError):
        return None
    hand_on_history(error, own)
    return own


def _extra() -> list[tuple[str, str]]:
    """The metadata of the step under way, the same for all attempts."""
    under_way = effect.current.get()
    if under_way is None:
        return []
    trace = [("traceparent", under_way.traceparent)] if under_way.traceparent else []
    return [("idempotency-key", under_way.next_key()), *trace]


class Interceptor(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor, grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """Sends every call with one request of a channel through `service`.

    A call is made when it is begun, not when its result is asked for: `stub.Find.future(...)` blocks while it runs, and
    `stub.List(...)` until the first message.

    Args:
        idempotent: which methods may happen twice: full names, or True for all.
        streams: which methods with a stream of answers are opened by the policy: full names, True for all, False for none.
            Leave out those whose first message comes when something happens: the policy would time out waiting for it.
    """

    def __init__(self, service: Service, *, idempotent: Methods = None, streams: Methods = True) -> None:
        self._service = service
        self._idempotent = idempotent
        self._streams = streams

    def intercept_unary_unary(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        this = _Call(self._service, details)

        def attempt() -> Any:
            call = continuation(this.sync_details(), request)
            try:
                call.result()  # raises the RpcError, which is what the policy judges
            except grpc.RpcError as error:
                this.judge(error)
                raise
            return call

        return self._through(attempt, this, details)

    def intercept_unary_stream(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        if not _says(self._streams, details):
            return self._stream(continuation, details, request)
        this = _Call(self._service, details, opens_stream=True)

        def attempt() -> Any:
            try:
                return open_stream(lambda: continuation(this.sync_details(), request), this.opens_within_s(), this.expired)
            except grpc.RpcError as error:
                this.judge(error)
                raise

        return self._through(attempt, this, details)

    def _through(self, attempt: Callable[[], Any], this: _Call, details: Any) -> Any:
        try:
            return self._service.call(attempt, idempotent=_says(self._idempotent, details), operation=this.operation)
        except grpc.RpcError as error:
            return error  # it is the call itself; whoever asks for its result gets it raised
        except AttemptTimeoutError as error:
            own = _own(error)
            if own is None:
                raise
            return own

    def _stream(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        return continuation(_Call(self._service, details).sync_details(), request)

    intercept_stream_unary = intercept_stream_stream = _stream


class _Async:
    """What the interceptors for `grpc.aio` share: it takes one object for each kind of method."""

    def __init__(self, service: Service, *, idempotent: Methods = None, streams: Methods = True) -> None:
        self._service = service
        self._idempotent = idempotent
        self._streams = streams

    async def _through(self, attempt: Callable[[], Any], this: _Call, details: Any) -> Any:
        async def judged() -> Any:
            try:
                return await attempt()
            except grpc.RpcError as error:
                this.judge(error)
                raise

        try:
            return await self._service.call(judged, idempotent=_says(self._idempotent, details), operation=this.operation)
        except AttemptTimeoutError as error:
            own = _own(error)
            if own is None:
                raise
        try:
            raise own
        finally:
            del own  # the frame is in its traceback

    async def _stream(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        return await continuation(_Call(self._service, details).async_details(), request)


class AsyncInterceptor(_Async, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """The same for the unary calls of `grpc.aio`."""

    async def intercept_unary_unary(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        this = _Call(self._service, details)

        async def attempt() -> Any:
            call = await continuation(this.async_details(), request)
            try:
                return await call
            finally:
                if not call.done():
                    call.cancel()

        return await self._through(attempt, this, details)


class AsyncStreamInterceptor(_Async, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    """The same for its streams of answers. `streams` as for `Interceptor`."""

    async def intercept_unary_stream(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        if not _says(self._streams, details):
            return await self._stream(continuation, details, request)
        this = _Call(self._service, details, opens_stream=True)
        return await self._through(lambda: open_async_stream(lambda: continuation(this.async_details(), request)), this, details)


class _AsyncStreamUnary(_Async, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    intercept_stream_unary = _Async._stream  # noqa: SLF001 - its own base


class _AsyncStreamStream(_Async, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    intercept_stream_stream = _Async._stream  # noqa: SLF001


def async_interceptors(service: Service, *, idempotent: Methods = None, streams: Methods = True) -> list[grpc.aio.ClientInterceptor]:
    """What a channel of `grpc.aio` wants for all four kinds of method. `idempotent`, `streams`: as for `Interceptor`."""
    kinds = (AsyncInterceptor, AsyncStreamInterceptor, _AsyncStreamUnary, _AsyncStreamStream)
    return [kind(service, idempotent=idempotent, streams=streams) for kind in kinds]
