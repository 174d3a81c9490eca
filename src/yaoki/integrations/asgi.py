"""Middleware for ASGI servers (Starlette, FastAPI, Litestar, ...): deadlines come in, overload is shed.

    app = Deadlines(LoadShedding(app, limit=100))                  # outermost first

- `Deadlines` makes what the caller has left (`x-yaoki-timeout-ms`, `grpc-timeout` or Envoy's header) the ambient deadline,
  so that everything called from here on is bounded by it, and refuses work whose caller has given up.
- `LoadShedding` takes up as many requests at once as the server bears, lets a few wait, newest first while overloaded, by
  priority (RFC 9218), and refuses the others at once with 503, Retry-After and problem details (RFC 9457): nothing was done.

One object serves one event loop. Only HTTP requests are looked at; the rest passes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from datetime import timedelta
from typing import Any

from yaoki import runtime
from yaoki.errors import RefusedError
from yaoki.integrations.serving import HEADER, USEFUL_S, Gate, left_s, problem, too_late, urgency
from yaoki.policies import scope as calls
from yaoki.policies.adaptation import Algorithm
from yaoki.policies.policy import seconds
from yaoki.policies.shedding import Verdicts, Waiter

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Deadlines:
    """Bounds each request by what its caller has left.

    Args:
        app: what is guarded.
        header: the name of our own header, lower case.
        default: seconds or timedelta for requests that do not say; None for no bound.
        least: seconds; with less left the request is refused with 504 instead of being begun.
    """

    def __init__(self, app: App, *, header: str = HEADER, default: float | timedelta | None = None, least: float = USEFUL_S) -> None:
        self.app = app
        self.header = header.lower()
        self.default_s = None if default is None else seconds("default", default)
        self.least_s = least

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        left = left_s(header_of(scope), self.header)
        left = self.default_s if left is None else left
        if left is None:
            await self.app(scope, receive, send)
        elif left < self.least_s:
            await refuse(send, too_late(left))
        else:
            with calls.until(runtime.monotonic() + left):
                await self.app(scope, receive, send)


class LoadShedding:
    """Takes up what the server bears, and refuses the rest while there is still time to go elsewhere.

    Args:
        app: what is guarded.
        limit: requests at once, or an algorithm that finds it (`Gradient2()`, `Vegas()`).
        queue: most requests waiting for their turn.
        max_wait, target: seconds or timedelta; the longest wait, and the longest while overloaded.
        priority: of the ASGI scope, 0 (most important) to 7; the `Priority` header when not given. Whoever is reachable by
            strangers takes it from who they are instead: a header can be written by anyone.
        name: the server's, for events.
        exempt: paths that are let through always.
    """

    def __init__(self, app: App, *, limit: int | Algorithm = 100, queue: int = 1000, max_wait: float | timedelta = 0.5,
                 target: float | timedelta = 0.05, priority: Callable[[Scope], int] | None = None, name: str = "server",
                 exempt: Iterable[str] = ()) -> None:
        self.app = app
        self.priority = priority
        self.gate: Gate[asyncio.Future[RefusedError | None]] = Gate(limit, queue=queue, max_wait=max_wait, target=target, name=name,
                                                                    exempt=exempt)
        self._ticking = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.gate.exempt:
            await self.app(scope, receive, send)
            return
        refused = await self._turn(scope)
        if refused is not None:
            await refuse(send, refused)
            return
        began = runtime.monotonic()
        permit, answered = self.gate.begin(began), False
        try:
            await self.app(scope, receive, send)
            answered = True
        finally:
            now = runtime.monotonic()
            self._tell(self.gate.ended(began, now, permit, answered=answered), now)

    async def _turn(self, scope: Scope) -> RefusedError | None:
        """Wait for the request's turn. None when it has come, else why it will not."""
        loop, now = asyncio.get_running_loop(), runtime.monotonic()
        priority = self.priority(scope) if self.priority is not None else urgency(header_of(scope))
        future: asyncio.Future[RefusedError | None] = loop.create_future()
        waiter, verdicts = self.gate.arrive(future, now, deadline=calls.ambient()[0], priority=priority)
        self._tell(verdicts, now)
        try:
            return await future
        except asyncio.CancelledError:
            self._left(waiter)
            raise

    def _left(self, waiter: Waiter[asyncio.Future[RefusedError | None]]) -> None:
        """The request was cancelled while it waited, or just as its turn came."""
        if not self.gate.shedder.leave(waiter) and waiter.state == "running":
            now = runtime.monotonic()
            self._tell(self.gate.ended(now, now, None, answered=False), now)

    def _tell(self, verdicts: Verdicts[asyncio.Future[RefusedError | None]], now: float) -> None:
        """Wake those whose turn has come, and those for whom it will not."""
        for waiter in verdicts.run:
            if not waiter.ticket.done():
                waiter.ticket.set_result(None)
        for waiter, reason in verdicts.refuse:
            if not waiter.ticket.done():
                waiter.ticket.set_result(self.gate.refusal(waiter, reason, now))
        due = self.gate.shedder.next_tick()
        if due is not None and not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(max(0.0, due - now), self._tick)

    def _tick(self) -> None:
        self._ticking = False
        now = runtime.monotonic()
        self._tell(self.gate.shedder.tick(now, limit=self.gate.limit), now)


def header_of(scope: Scope) -> Callable[[str], str | None]:
    """A function that finds a header of this request."""
    def header(name: str) -> str | None:
        wanted = name.encode("latin-1")
        return next((value.decode("latin-1") for found, value in scope["headers"] if found == wanted), None)

    return header


async def refuse(send: Send, error: RefusedError) -> None:
    """Answer with the problem that `error` is."""
    status, headers, body = problem(error)
    await send({"type": "http.response.start", "status": status,
                "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]})
    await send({"type": "http.response.body", "body": body})
