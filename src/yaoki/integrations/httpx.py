"""httpx through a `Service`: its policy around every request, and nothing else changes for the caller.

    flights_client = async_client(flights, base_url="http://flights")     # an httpx.AsyncClient
    reply = await flights_client.post("/bookings", json=...)

    client = httpx.Client(transport=Transport(flights))                   # or by hand, sync or async

Each request is one call of the service, and may be several attempts:

- `Idempotency-Key` of the saga step under way is added once, so that it is the same on every attempt; with it, or with a
  method that RFC 9110 calls idempotent, a request is repeated although it may have arrived.
- What remains of the deadline is sent in a header, and bounds httpx's own timeouts.
- Answers such as 429 and 503 are failures for the policy (Retry-After is honoured), but the caller gets the last answer,
  exactly as httpx would have given it; `response.extensions["yaoki_attempts"]` counts.
- A body that cannot be sent twice (a generator) is sent once.
- A request that a policy, or the caller, stops waiting for is let go, not cut off, because httpx's pool would lose its
  connection (`carry.py`). While a deadline or timeout bounds the call, httpx's own *pool* timeout is off for the same reason.
"""

from __future__ import annotations

from typing import Any

import httpx

from yaoki.integrations.carry import Carrier
from yaoki.integrations.http_calls import AnswerError, check, hand_on_deadline, may_have_happened, prepare
from yaoki.policies import scope
from yaoki.policies.classify import attempts_made, classify
from yaoki.policies.deadline import HEADER
from yaoki.service import Service


class _Call:
    """One request on its way: what is the same for all its attempts, and what became of the earlier ones."""

    __slots__ = ("_answer", "_deadline_header", "_in_doubt", "_spare", "idempotent", "once", "operation", "request")

    def __init__(self, request: Any, deadline_header: str | None) -> None:
        self.request = request
        self._deadline_header = deadline_header
        self._answer: Any = None
        self._in_doubt = False
        self._spare: list[Any] = []
        self.idempotent = prepare(request.method, request.headers)
        self.operation = f"{request.method} {request.url.path}"
        # A stream that is neither bytes nor a form can be read only once. By name, so that it serves httpx's twins, too.
        self.once = type(request.stream).__name__ not in ("ByteStream", "MultipartStream")

    def attempt(self) -> Any:
        """Get ready for an attempt; gives the answer to the one before, which nobody will read."""
        timeouts = hand_on_deadline(self.request.headers, self.request.extensions.get("timeout"), self._deadline_header)
        if timeouts:
            self.request.extensions = {**self.request.extensions, "timeout": timeouts}
        unread, self._answer = self._answer, None
        if unread is None:
            return None
        if unread.status_code < 400:
            # A good answer that is not enough: lost on its way to us, or the request was delivered twice.
            self._in_doubt = True
            self._spare.append(unread)
            return None
        self._in_doubt = self._in_doubt or may_have_happened(unread)
        return unread

    def broke(self, error: Exception) -> None:
        """The attempt ended without an answer."""
        self._in_doubt = self._in_doubt or classify(error).happened is not False

    def answered(self, response: Any) -> Any:
        self._answer = response
        if self._in_doubt:
            # Whatever this answer says, an earlier attempt may have done it: `classify` reads this.
            response.extensions["yaoki_in_doubt"] = True
        return response

    def unread(self, returned: Any) -> list[Any]:
        """The call ends with `returned`, or in an error (None): the answers that nobody will read."""
        return [answer for answer in (*self._spare, self._answer) if answer is not None and answer is not returned]


def _finished(error: AnswerError) -> Any:
    """The caller wants the answer, not our opinion of it."""
    error.response.extensions["yaoki_attempts"] = attempts_made(error)
    return error.response


class AsyncCalls:
    """What an async transport of httpx, or of a twin of it, does with a request."""

    def __init__(self, service: Service, transport: Any = None, *, deadline_header: str | None = HEADER) -> None:
        self._service = service
        self._transport = transport if transport is not None else self._default()
        self._deadline_header = deadline_header
        self._carrier = Carrier()

    def _default(self) -> Any:
        return httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: Any) -> Any:
        call = _Call(request, self._deadline_header)

        async def attempt() -> Any:
            unread = call.attempt()
            if unread is not None:
                await unread.aclose()
            try:
                return call.answered(await self._carrier.send(self._transport.handle_async_request, request))
            except Exception as error:
                call.broke(error)
                raise

        response = None
        try:
            with scope.repeated(call.once):
                response = await self._service.call(attempt, idempotent=call.idempotent, operation=call.operation, check=check)
        except AnswerError as error:
            response = _finished(error)
        finally:
            for unread in call.unread(response):
                await unread.aclose()
        return response

    async def aclose(self) -> None:
        await self._carrier.aclose()
        await self._transport.aclose()


class SyncCalls:
    """The same for a plain transport."""

    def __init__(self, service: Service, transport: Any = None, *, deadline_header: str | None = HEADER) -> None:
        self._service = service
        self._transport = transport if transport is not None else self._default()
        self._deadline_header = deadline_header

    def _default(self) -> Any:
        return httpx.HTTPTransport()

    def handle_request(self, request: Any) -> Any:
        call = _Call(request, self._deadline_header)

        def attempt() -> Any:
            unread = call.attempt()
            if unread is not None:
                unread.close()
            try:
                return call.answered(self._transport.handle_request(request))
            except Exception as error:
                call.broke(error)
                raise

        response = None
        try:
            with scope.repeated(call.once):
                response = self._service.call(attempt, idempotent=call.idempotent, operation=call.operation, check=check)
        except AnswerError as error:
            response = _finished(error)
        finally:
            for unread in call.unread(response):
                unread.close()
        return response

    def close(self) -> None:
        self._transport.close()


class AsyncTransport(AsyncCalls, httpx.AsyncBaseTransport):
    """An httpx transport whose every request goes through `service`.

    Args:
        transport: what really sends; `httpx.AsyncHTTPTransport()` if left out. Give it no retries of its own.
        deadline_header: carries the milliseconds that remain; None: is not sent.
    """


class Transport(SyncCalls, httpx.BaseTransport):
    """The same for `httpx.Client`."""


def async_client(service: Service, *, transport: httpx.AsyncBaseTransport | None = None, deadline_header: str | None = HEADER,
                 **settings: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` for this service; `settings` are httpx's own (`base_url`, `headers`, ...)."""
    return httpx.AsyncClient(transport=AsyncTransport(service, transport, deadline_header=deadline_header), **settings)


def client(service: Service, *, transport: httpx.BaseTransport | None = None, deadline_header: str | None = HEADER,
           **settings: Any) -> httpx.Client:
    """An `httpx.Client` for this service; `settings` are httpx's own."""
    return httpx.Client(transport=Transport(service, transport, deadline_header=deadline_header), **settings)
