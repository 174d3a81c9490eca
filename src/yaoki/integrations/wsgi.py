"""Middleware for WSGI servers (Flask, Django, ...): deadlines come in, overload is shed. As `asgi.py`, for threads.

    app.wsgi_app = Deadlines(LoadShedding(app.wsgi_app, limit=16))

A request that waits holds one of the server's threads, so the queue is never longer than what those leave; give the
server more threads than `limit`, or there is nothing to shed.

The deadline is ambient while the application is called. A response that is produced later, while it is iterated over, is
no longer bounded by it; the place that the request takes is held until the response is closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from yaoki import runtime
from yaoki.errors import RefusedError
from yaoki.integrations.serving import HEADER, USEFUL_S, Gate, left_s, problem, too_late, urgency
from yaoki.policies import scope as calls
from yaoki.policies.adaptation import Algorithm, Permit
from yaoki.policies.policy import seconds
from yaoki.policies.shedding import Verdicts, Waiter

Environ = dict[str, Any]
Start = Callable[..., Any]
App = Callable[[Environ, Start], Iterable[bytes]]


class Deadlines:
    """Bounds each request by what its caller has left. Arguments as in `asgi.Deadlines`."""

    def __init__(self, app: App, *, header: str = HEADER, default: float | timedelta | None = None, least: float = USEFUL_S) -> None:
        self.app = app
        self.header = header.lower()
        self.default_s = None if default is None else seconds("default", default)
        self.least_s = least

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        left = left_s(header_of(environ), self.header)
        left = self.default_s if left is None else left
        if left is None:
            return self.app(environ, start_response)
        if left < self.least_s:
            return refuse(start_response, too_late(left))
        with calls.until(runtime.monotonic() + left):
            return self.app(environ, start_response)


class _Ticket:
    """One request's turn: set once, with None or why it will not come."""

    __slots__ = ("come", "refused")

    def __init__(self) -> None:
        self.come = threading.Event()
        self.refused: RefusedError | None = None


class LoadShedding:
    """Takes up what the server bears, and refuses the rest. Arguments as in `asgi.LoadShedding`; `priority` gets the environ."""

    def __init__(self, app: App, *, limit: int | Algorithm = 16, queue: int = 1000, max_wait: float | timedelta = 0.5,
                 target: float | timedelta = 0.05, priority: Callable[[Environ], int] | None = None, name: str = "server",
                 exempt: Iterable[str] = ()) -> None:
        self.app = app
        self.priority = priority
        self.gate: Gate[_Ticket] = Gate(limit, queue=queue, max_wait=max_wait, target=target, name=name, exempt=exempt)
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        if environ.get("PATH_INFO", "") in self.gate.exempt:
            return self.app(environ, start_response)
        refused = self._turn(environ)
        if refused is not None:
            return refuse(start_response, refused)
        began = runtime.monotonic()
        with self._lock:
            permit = self.gate.begin(began)
        try:
            body = self.app(environ, start_response)
        except BaseException:
            self.ended(began, permit, answered=False)
            raise
        return _Held(body, lambda *, answered: self.ended(began, permit, answered=answered))

    def ended(self, began: float, permit: Permit | None, *, answered: bool) -> None:
        """A request's response was closed."""
        now = runtime.monotonic()
        with self._lock:
            self._tell(self.gate.ended(began, now, permit, answered=answered), now)

    def _turn(self, environ: Environ) -> RefusedError | None:
        """Wait for the request's turn. None when it has come, else why it will not."""
        priority = self.priority(environ) if self.priority is not None else urgency(header_of(environ))
        ticket, now = _Ticket(), runtime.monotonic()
        with self._lock:
            waiter, verdicts = self.gate.arrive(ticket, now, deadline=calls.ambient()[0], priority=priority)
            self._tell(verdicts, now)
        try:
            while not ticket.come.wait(self._until_tick()):
                now = runtime.monotonic()
                with self._lock:
                    self._tell(self.gate.shedder.tick(now, limit=self.gate.limit), now)
        except BaseException:
            self._left(waiter)
            raise
        return ticket.refused

    def _left(self, waiter: Waiter[_Ticket]) -> None:
        """The thread was interrupted while it waited (a server's own timeout, say), or just as its turn came."""
        now = runtime.monotonic()
        with self._lock:
            if not self.gate.shedder.leave(waiter) and waiter.state == "running":
                self._tell(self.gate.ended(now, now, None, answered=False), now)

    def _until_tick(self) -> float:
        """Seconds until somebody is due to be refused; whoever wakes first does it for all."""
        with self._lock:
            due = self.gate.shedder.next_tick()
        return self.gate.shedder.max_wait_s if due is None else max(0.001, due - runtime.monotonic())

    def _tell(self, verdicts: Verdicts[_Ticket], now: float) -> None:
        for waiter in verdicts.run:
            waiter.ticket.come.set()
        for waiter, reason in verdicts.refuse:
            waiter.ticket.refused = self.gate.refusal(waiter, reason, now)
            waiter.ticket.come.set()


class _Held:
    """A response body that gives the request's place back when it is closed, as WSGI servers do (PEP 3333)."""

    def __init__(self, body: Iterable[bytes], ended: Callable[..., None]) -> None:
        self._body = body
        self._ended: Callable[..., None] | None = ended
        self._whole = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._body
        self._whole = True

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            ended, self._ended = self._ended, None
            if ended is not None:
                ended(answered=self._whole)


def header_of(environ: Environ) -> Callable[[str], str | None]:
    """A function that finds a header of this request."""
    return lambda name: environ.get(f"HTTP_{name.upper().replace('-', '_')}")


def refuse(start_response: Start, error: RefusedError) -> list[bytes]:
    """Answer with the problem that `error` is."""
    status, headers, body = problem(error)
    start_response(f"{status} {HTTPStatus(status).phrase}", headers)
    return [body]
