"""single_flight: calls with the same key that overlap become one, and all get its answer.

    first caller ──starts──▶ flight (a task of its own) ──▶ result or error, for everyone
    later callers ──wait─────┘
    the last one that waits is cancelled ──▶ the flight is cancelled with it

The flight belongs to nobody: whoever started it may be cancelled, and it goes on while anybody waits. It does not inherit
the deadline of the caller that happened to come first; every caller waits no longer than its own.

In plain threads the first caller flies itself, as there is nobody else to do it; the others wait for it.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Hashable
from math import inf
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

from yaoki import runtime
from yaoki.errors import AttemptTimeoutError, DeadlineError, InDoubtError, UsageError
from yaoki.policies import scope
from yaoki.policies.policy import Policy, Site

V = TypeVar("V")

GRACE_S = 1.0  # how long the last waiter waits for a flight that it cancelled to clean up


class Landed(NamedTuple, Generic[V]):
    """How a flight ended. The traceback is kept apart, so that a hundred raises of one error do not grow it."""

    value: V | None
    error: BaseException | None = None
    trace: TracebackType | None = None

    def get(self) -> V:
        """The value, or raise the error."""
        if self.error is not None:
            raise self.error.with_traceback(self.trace)
        return self.value  # type: ignore[return-value]


class _Flight(Generic[V]):
    __slots__ = ("kept", "task", "waiters")

    def __init__(self, task: asyncio.Task[Landed[V]], *, kept: bool) -> None:
        self.task = task
        self.kept = kept
        """Goes on although nobody waits (an early refresh)."""
        self.waiters = 0


class Flights(Generic[V]):
    """The flights under way on event loops."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _Flight[V]]] = weakref.WeakKeyDictionary()

    def under_way(self) -> int:
        """How many flights the running loop has."""
        return len(self._of.get(asyncio.get_running_loop(), ()))

    def start(self, key: Hashable, work: Callable[[], Awaitable[V]], *, kept: bool = False) -> _Flight[V]:
        """The flight of `key`: the one under way, or a new one."""
        flights = self._of.setdefault(asyncio.get_running_loop(), {})
        flight = flights.get(key)
        if flight is not None:
            return flight
        task = runtime.spawn(_fly(work), name="yaoki-flight")
        flight = flights[key] = _Flight(task, kept=kept)
        task.add_done_callback(lambda _: flights.pop(key, None) if flights.get(key) is flight else None)
        return flight

    async def join(self, key: Hashable, work: Callable[[], Awaitable[V]]) -> V:
        """The answer for `key`, waiting no longer than this caller's deadline.

        Raises:
            AttemptTimeoutError: the ambient deadline passed; the flight goes on for the others.
        """
        flight = self.start(key, work)
        if flight.task is asyncio.current_task():
            raise UsageError("a call waits for itself: it was made again, with the same key, while answering it.",
                             do="Give the inner call another key=, or call the undecorated function.")
        flight.waiters += 1
        try:
            limit_s = scope.remaining()
            done, _ = await asyncio.wait((flight.task,), timeout=None if limit_s == inf else limit_s)
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.kept and not flight.task.done():
                await self._abandon(key, flight)
        if not done:
            raise AttemptTimeoutError("the deadline passed while waiting for a call that another one had begun.",
                                      do="Give more time, or shorten the timeout of the call itself.", timeout=limit_s)
        if flight.task.cancelled():
            # Somebody else cancelled it (a loop that shuts down). That is no cancellation of this caller.
            raise InDoubtError("the call that another one had begun was cancelled before it was answered.", do="Call again.")
        return flight.task.result().get()

    async def _abandon(self, key: Hashable, flight: _Flight[V]) -> None:
        """Nobody waits any more: cancel the flight, and make sure that the next caller starts another."""
        flights = self._of[asyncio.get_running_loop()]
        if flights.get(key) is flight:
            del flights[key]
        flight.task.cancel()
        await asyncio.wait((flight.task,), timeout=GRACE_S)


async def _fly(work: Callable[[], Awaitable[V]]) -> Landed[V]:
    with scope.detached():
        try:
            return Landed(await work())
        except Exception as error:
            return Landed(None, error, error.__traceback__)


class _Turn(Generic[V]):
    __slots__ = ("deadline", "landed", "ready", "thread")

    def __init__(self) -> None:
        self.deadline = scope.ambient()[0]
        self.thread = threading.get_ident()
        self.ready = threading.Event()
        self.landed: Landed[V] | None = None


class ThreadFlights(Generic[V]):
    """The flights under way in plain threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[Hashable, _Turn[V]] = {}

    def join(self, key: Hashable, work: Callable[[], V]) -> V:
        """As `Flights.join`, but the one who flies does so within its own deadline.

        When it is interrupted, or runs out of time that others still have, one of those who wait takes over.
        """
        while True:
            with self._lock:
                turn = self._turns.get(key)
                mine = turn is None
                if turn is None:
                    turn = self._turns[key] = _Turn()
            if mine:
                return self._fly(key, turn, work)
            if turn.thread == threading.get_ident():
                raise UsageError("a call waits for itself: it was made again, with the same key, while answering it.",
                                 do="Give the inner call another key=, or call the undecorated function.")
            limit_s = scope.remaining()
            if not turn.ready.wait(None if limit_s == inf else limit_s):
                raise AttemptTimeoutError("the deadline passed while waiting for a call that another one had begun.",
                                          do="Give more time, or shorten the timeout of the call itself.", timeout=limit_s)
            landed = turn.landed
            short_of_time = landed is not None and isinstance(landed.error, AttemptTimeoutError | DeadlineError)
            if landed is not None and not (short_of_time and turn.deadline < scope.ambient()[0]):
                return landed.get()

    def _fly(self, key: Hashable, turn: _Turn[V], work: Callable[[], V]) -> V:
        try:
            turn.landed = Landed(work())
        except Exception as error:
            turn.landed = Landed(None, error, error.__traceback__)
        finally:
            with self._lock:
                del self._turns[key]
            turn.ready.set()
        return turn.landed.get()


Key = Callable[..., Hashable]


def key_maker(key: Key | None, site: Site) -> Callable[[tuple[Any, ...], dict[str, Any]], Hashable]:
    """A function of `(args, kwargs)` that names the call. Without `key`, all arguments do, and must be hashable."""
    if key is None:
        def by_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
            return (args, tuple(sorted(kwargs.items()))) if kwargs else args

        return by_arguments
    if site.shape == "call":
        # The callee comes first, and is part of the name: two functions are two calls.
        return lambda args, kwargs: (args[0], key(*args[1:], **kwargs))
    return lambda args, kwargs: key(*args, **kwargs)


class SingleFlight(Policy):
    """Makes one of calls that overlap. Thread-safe; each decorated function has its own flights."""

    kind = "single_flight"
    once = False

    def __init__(self, *, key: Key | None = None) -> None:
        self.key = key

    @property
    def order(self) -> int:
        return 22  # beside the cache

    def wrap(self, inner: Callable[..., Any], site: Site) -> Callable[..., Any]:
        name = key_maker(self.key, site)
        if site.is_async:
            flights: Flights[Any] = Flights()

            async def joined(*args: Any, **kwargs: Any) -> Any:
                return await flights.join(name(args, kwargs), lambda: inner(*args, **kwargs))

            return joined
        threads: ThreadFlights[Any] = ThreadFlights()

        def joined_threads(*args: Any, **kwargs: Any) -> Any:
            return threads.join(name(args, kwargs), lambda: inner(*args, **kwargs))

        return joined_threads

    def describe(self) -> str:
        return "single_flight()" if self.key is None else "single_flight(key=...)"


def single_flight(*, key: Key | None = None) -> SingleFlight:
    """Make one call of those that overlap and have the same key.

    Args:
        key: of a call's arguments, what names it; all of them when not given. Keep it small: it is held while it flies.
    """
    return SingleFlight(key=key)
