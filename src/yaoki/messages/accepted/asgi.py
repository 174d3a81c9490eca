"""The endpoint as an ASGI application, to be mounted or served; and by `wsgi()` as a WSGI one.

    app = Starlette(routes=[Mount("/", accepted(HandlerWork(messages, OrderPlaced, handler="reserve"), path="/orders"))])
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from yaoki import runtime
from yaoki.messages.accepted.endpoint import Answering, Endpoint, Request, Response
from yaoki.messages.accepted.problem import problem
from yaoki.messages.accepted.work import Work
from yaoki.messages.accepted.wsgi import WsgiApp

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Accepted:
    """An ASGI application over an `Endpoint`."""

    def __init__(self, endpoint: Answering) -> None:
        self.endpoint = endpoint

    def wsgi(self, loop: asyncio.AbstractEventLoop) -> WsgiApp:
        """The same for WSGI servers; `loop` is the running loop (of another thread) in which the messages are open."""
        return WsgiApp(self.endpoint, loop)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        try:
            body = await self._body(receive)
        except _GoneError:
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        root = scope.get("root_path", "")
        # Servers differ in whether `path` begins with the root path (ASGI says so since 3.0; Starlette mounts do).
        path = scope["path"].removeprefix(root) if root else scope["path"]
        if body is None:
            response = Response(413, {"content-type": "application/problem+json"}, problem(413, "the body is too large"))
        else:
            response = await self.endpoint.answer(Request(scope["method"], path, headers, body, root, (scope.get("client") or ("",))[0]))
        await _send(response, receive, send, head=scope["method"] == "HEAD")

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body; None as soon as it is larger than the endpoint takes. Raises `_GoneError`: half a body is no work."""
        found = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            found += message.get("body", b"")
            if len(found) > self.endpoint.max_body:
                return None
            if not message.get("more_body", False):
                return bytes(found)


class _GoneError(Exception):
    """The client has left before it had said all."""


async def _send(response: Response, receive: Receive, send: Send, *, head: bool) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if response.stream is None or head:
        await send({"type": "http.response.body", "body": b"" if head else response.body})
        return
    gone = runtime.spawn(_gone(receive), name="yaoki-accepted-gone")
    try:
        async for chunk in response.stream:
            if gone.done():
                return
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()


async def _gone(receive: Receive) -> None:
    """Ends when the client has left, so that a stream nobody reads ends too."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def accepted(work: Work, *, path: str, **settings: Any) -> Accepted:
    """One line from work to an endpoint. `settings` are those of `Endpoint`."""
    return Accepted(Endpoint(work, path=path, **settings))
