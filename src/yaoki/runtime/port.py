"""What a runtime must offer. The real one fills it in `real.py`, virtual time in `yaoki.explore` and `yaoki.testing`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from asyncio import Task

P = ParamSpec("P")
T = TypeVar("T")


class Worker(Protocol):
    """One thread of its own: what it is given runs in the order given, one at a time."""

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` there and wait for it. Cancelling the wait does not stop it."""
        ...

    def close(self) -> None:
        """Finish what was given, and end the thread."""
        ...


class Runtime(Protocol):
    """Clock, randomness, ids, threads and tasks. Every method means what its namesake in `yaoki.runtime` says."""

    rng: Random

    def monotonic(self) -> float: ...

    def unix_time(self) -> float: ...

    def new_id(self) -> str: ...

    async def sleep(self, delay_s: float) -> None: ...

    def sleep_blocking(self, delay_s: float) -> None: ...

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> Task[T]: ...

    async def run_blocking(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    def worker(self, name: str) -> Worker: ...
