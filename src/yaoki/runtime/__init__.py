"""The only door to clock, randomness, ids, threads and tasks.

Everything in Yaoki that needs one of these asks here, so that a test, the explorer or a simulator can answer instead of
the machine. Nothing else may import `time`, `random`, `secrets` or `uuid` (Ruff's banned-api enforces it).

    now = runtime.monotonic()          # seconds; for durations
    at = runtime.unix_time()           # seconds since 1970, UTC; only for people and other machines
    await runtime.sleep(0.2)

The runtime in force is scoped by a `ContextVar`: a test or a task that installs another one (`with runtime.use(other):`)
changes nothing for its neighbours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from random import Random
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from yaoki.runtime.port import Runtime, Worker
from yaoki.runtime.real import RealRuntime

if TYPE_CHECKING:
    from asyncio import Task

P = ParamSpec("P")
T = TypeVar("T")

REAL = RealRuntime()
_current: ContextVar[Runtime] = ContextVar("yaoki_runtime", default=REAL)

current: Callable[[], Runtime] = _current.get
"""The runtime in force here. A hot path asks once per call and keeps the answer."""


@contextlib.contextmanager
def use(runtime: Runtime) -> Iterator[Runtime]:
    """Make `runtime` the one in force inside the block, in this task or thread only."""
    token = _current.set(runtime)
    try:
        yield runtime
    finally:
        _current.reset(token)


def install(runtime: Runtime) -> None:
    """Make `runtime` the one in force in this context for good: for a loop or thread that belongs to it altogether."""
    _current.set(runtime)


def monotonic() -> float:
    """Seconds from an arbitrary start, never going back. For durations and deadlines."""
    return _current.get().monotonic()


def unix_time() -> float:
    """Seconds since 1970-01-01 UTC. It can jump: never subtract two of them to decide anything."""
    return _current.get().unix_time()


def rng() -> Random:
    """The source of randomness in force."""
    return _current.get().rng


def new_id() -> str:
    """A new id of 32 hexadecimal digits; ids made later sort later (UUID version 7, RFC 9562)."""
    return _current.get().new_id()


async def sleep(delay_s: float) -> None:
    """Wait `delay_s` seconds. Cancellation passes straight through."""
    await _current.get().sleep(delay_s)


def sleep_blocking(delay_s: float) -> None:
    """Block this thread for `delay_s` seconds."""
    _current.get().sleep_blocking(delay_s)


def spawn(work: Coroutine[Any, Any, T], *, name: str) -> Task[T]:
    """Start `work` as a task of the running loop. The caller keeps the task and awaits it: a dropped task may vanish."""
    return _current.get().spawn(work, name=name)


async def run_blocking(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a plain function that may block, in a bounded pool of threads, with this context's variables.

    Cancelling the wait does not stop the function: a thread cannot be interrupted.
    """
    return await _current.get().run_blocking(fn, *args, **kwargs)


def worker(name: str) -> Worker:
    """A thread of its own (inline in virtual time). The caller closes it."""
    return _current.get().worker(name)


__all__ = [
    "REAL", "Random", "RealRuntime", "Runtime", "Worker", "current", "monotonic", "new_id", "rng", "run_blocking", "sleep",
    "sleep_blocking", "spawn", "unix_time", "use", "worker",
]
