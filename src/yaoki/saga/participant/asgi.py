"""`EffectEndpoint`: one effect over HTTP, for any ASGI program, with nothing but the standard library and msgspec.

    POST   /bookings   Idempotency-Key: trip-42/hotel          do it, or give the first answer again
    DELETE /bookings   Idempotency-Key: trip-42/hotel:undo     undo what trip-42/hotel did, or leave a tombstone
    DELETE /bookings?key=trip-42/hotel                         the same, the key said outright

    booking = EffectEndpoint(effects, transaction=hotel_db, do=book, undo=cancel, type=Order)
    app = Starlette(routes=[Route("/bookings", booking)])

The answer is sent after the commit, never before. Refusals are problem details (RFC 9457), whose `code` is Yaoki's:

    400  no key, or a malformed one          409  suspended: the key was undone before (YK-1106)
    413  the body is too large               409  in progress elsewhere (YK-1107)
    422  the body is not what is taken       422  the key was used for another request (YK-2004)
    402 or as the refusal says: declined     500  the work failed; nothing was kept, the same key may be sent again
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from yaoki import runtime
from yaoki.errors import DeclinedError, InProgressError, KeyReusedError, SuspendedError, UsageError, YaokiError
from yaoki.saga.participant.aio import AsyncParticipant
from yaoki.saga.participant.dbapi import Participant
from yaoki.saga.participant.decide import Answer, fingerprint

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logging.getLogger("yaoki.participant")

_STATUS: tuple[tuple[type[YaokiError], int], ...] = (
    (SuspendedError, 409), (InProgressError, 409), (KeyReusedError, 422), (DeclinedError, 409), (UsageError, 400), (YaokiError, 500))


class EffectEndpoint:
    """An ASGI application that does and undoes one kind of effect.

    Args:
        participant: a `Participant` or `AsyncParticipant`; its table must exist.
        transaction: called for each request, gives a context manager that yields the connection with a transaction open,
            commits at its end and rolls back on an error. An async one for an `AsyncParticipant`.
        do: `do(connection, body, key)` makes the effect and returns JSON-able data, or raises `DeclinedError`
            (its field `status`, 400 to 499, is the answer's status; 409 without).
        undo: `undo(connection, answer, key)` reverses it, given the do's answer. Coroutine functions for an `AsyncParticipant`.
        type: what `do` takes as `body`, decoded and checked by msgspec.
        threads: run plain functions in the pool of threads (True), or on the event loop (False: for a local SQLite file,
            whose commit takes less time than a thread's wake-up costs).
        limit_bytes: the longest body that is read.
    """

    def __init__(self, participant: Participant | AsyncParticipant, *, transaction: Callable[[], Any],
                 do: Callable[[Any, Any, str], Any], undo: Callable[[Any, Any, str], Any], type: Any = Any,  # noqa: A002
                 threads: bool = True, limit_bytes: int = 1 << 20) -> None:
        self._participant = participant
        self._transaction = transaction
        self._do = do
        self._undo = undo
        self._decoder = msgspec.json.Decoder(type)
        self._threads = threads
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise UsageError(f"an effect is asked for over HTTP, not {scope['type']}", do="mount it on an HTTP route")
        try:
            answer = await self._answer(scope, receive)
        except _Refusal as refusal:
            status, data = refusal.status, {"title": refusal.title, "status": refusal.status, "do": refusal.do}
        except YaokiError as error:
            status, data = problem(error)
        except Exception:
            # The caller may repeat it: the transaction was rolled back. What went wrong is the service's own business.
            log.exception("an effect failed and was rolled back")
            status, data = 500, {"title": "the effect failed and was rolled back", "status": 500}
        else:
            replayed = ((b"idempotency-replayed", b"true"),) if answer.replayed else ()
            await _reply(send, 200, b"application/json", answer.value, replayed)
            return
        await _reply(send, status, b"application/problem+json", data, _hints(data))

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        body = await _read(receive, self._limit_bytes)
        if scope["method"] == "POST":
            key = _header(scope, b"idempotency-key")
            if not key:
                raise _Refusal(400, "this request needs an Idempotency-Key", "send the header, with one key for each effect wanted")
            return await self._call("do", key, self._decode(body), fingerprint(scope["path"].encode() + b"\n" + body))
        if scope["method"] == "DELETE":
            return await self._call("undo", _key_to_undo(scope), None, "")
        raise _Refusal(405, f"{scope['method']} is not taken here", "POST does the effect, DELETE undoes it")

    def _decode(self, body: bytes) -> Any:
        try:
            return self._decoder.decode(body)
        except msgspec.DecodeError as error:
            raise _Refusal(422, f"the body is not what is taken here: {error}", "send JSON of the documented shape") from error

    async def _call(self, what: str, key: str, body: Any, asked: str) -> Answer:
        if isinstance(self._participant, AsyncParticipant):
            return await self._call_async(self._participant, what, key, body, asked)
        if self._threads:
            return await runtime.run_blocking(self._call_blocking, self._participant, what, key, body, asked)
        return self._call_blocking(self._participant, what, key, body, asked)

    def _call_blocking(self, participant: Participant, what: str, key: str, body: Any, asked: str) -> Answer:
        with self._transaction() as connection:
            if what == "undo":
                return participant.undo(connection, key, lambda answer: self._undo(connection, answer, key))
            try:
                return participant.do(connection, key, lambda: self._do(connection, body, key), request=asked)
            except DeclinedError as error:
                declined = error  # raised again outside, so that the refusal is committed
        raise declined

    async def _call_async(self, participant: AsyncParticipant, what: str, key: str, body: Any, asked: str) -> Answer:
        async with self._transaction() as connection:
            if what == "undo":
                return await participant.undo(connection, key, lambda answer: _awaitable(self._undo(connection, answer, key)))
            try:
                return await participant.do(connection, key, lambda: _awaitable(self._do(connection, body, key)), request=asked)
            except DeclinedError as error:
                declined = error
        raise declined


def problem(error: YaokiError) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the problem details (RFC 9457) that say `error`."""
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    if isinstance(error, DeclinedError):
        asked = error.fields.get("status", status)
        status = asked if isinstance(asked, int) and 400 <= asked < 500 else status
    fields = {name: value for name, value in error.fields.items() if name != "status"}
    return status, {"type": f"urn:yaoki:{error.code.lower()}", "title": error.message, "status": status,
                    "code": error.code, "do": error.do, **fields}


def _hints(data: dict[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    if data["status"] == 405:
        return ((b"allow", b"POST, DELETE"),)
    return ((b"retry-after", b"1"),) if data.get("code") == InProgressError.code else ()


class _Refusal(Exception):
    """A request that is refused before any key is looked at."""

    def __init__(self, status: int, title: str, do: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.do = do


async def _awaitable(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _header(scope: Scope, name: bytes) -> str:
    found: bytes = next((value for header, value in scope["headers"] if header == name), b"")
    # The draft makes it a structured-field string ("..."), and most clients send it bare: both are taken.
    return found.decode("latin-1").strip().strip('"')


def _key_to_undo(scope: Scope) -> str:
    named: list[str] = parse_qs(scope["query_string"].decode("latin-1")).get("key", [])
    if named:
        return named[0]
    own = _header(scope, b"idempotency-key")
    # An undo's own key is the effect's with ":undo" in it: `run/step:undo`, `run/step:undo#2` (see yaoki.effect).
    head, mark, tail = own.rpartition(":undo")
    if mark and (not tail or tail.startswith("#")):
        return head + tail
    raise _Refusal(400, "this request does not say which effect to undo", "send ?key=, or an Idempotency-Key that ends with :undo")


async def _read(receive: Receive, limit_bytes: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            # Sent or not, the caller is gone before it finished asking: nothing is done.
            raise _Refusal(400, "the request ended before its body did", "send it again")
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            raise _Refusal(413, f"the body is longer than {limit_bytes} bytes", "send less")
        if not message.get("more_body"):
            return bytes(body)


async def _reply(send: Send, status: int, content_type: bytes, data: Any, extra: tuple[tuple[bytes, bytes], ...]) -> None:
    body = msgspec.json.encode(data)
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
