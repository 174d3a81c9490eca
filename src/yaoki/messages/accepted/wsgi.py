"""The endpoint as a WSGI application: each request waits in its thread for the loop in which the messages are open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from yaoki.messages.accepted.endpoint import Answering, Request, Response
from yaoki.messages.accepted.problem import problem


class WsgiApp:
    """PEP 3333 over an `Endpoint`."""

    def __init__(self, endpoint: Answering, loop: asyncio.AbstractEventLoop) -> None:
        self.endpoint = endpoint
        self.loop = loop

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        # One byte more than is taken is enough to be refused, and no more than that is read.
        body = environ["wsgi.input"].read(min(length, self.endpoint.max_body + 1)) if length else b""
        headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
        headers["content-type"] = environ.get("CONTENT_TYPE", "")
        request = Request(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), headers, body, environ.get("SCRIPT_NAME", ""),
                          environ.get("REMOTE_ADDR", ""))
        if len(body) < min(length, self.endpoint.max_body + 1):  # the client has left before it had said all
            start_response("400 Bad Request", [("content-type", "application/problem+json")])
            return [problem(400, "the body ended early")]
        response: Response = asyncio.run_coroutine_threadsafe(self.endpoint.answer(request), self.loop).result()
        start_response(f"{response.status} {HTTPStatus(response.status).phrase}", list(response.headers.items()))
        return [response.body] if response.stream is None else self._stream(response.stream)

    def _stream(self, stream: AsyncIterator[bytes]) -> Iterator[bytes]:
        while True:
            chunk = asyncio.run_coroutine_threadsafe(_next(stream), self.loop).result()
            if chunk is None:
                return
            yield chunk


async def _next(stream: AsyncIterator[bytes]) -> bytes | None:
    try:
        return await anext(stream)
    except StopAsyncIteration:
        return None
