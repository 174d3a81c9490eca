"""Virtual time, seeded randomness and ids, and threads that are none: what `yaoki.runtime` is inside a universe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from yaoki.explore.clocks import Clocks
from yaoki.explore.loop import START_S, VirtualLoop

P = ParamSpec("P")
T = TypeVar("T")

# 2033-05-18T03:33:20Z: a wall clock that nobody can take for today's.
EPOCH_S = 2_000_000_000.0


class SimRuntime:
    """Fills the port of `yaoki.runtime` for one execution."""

    if TYPE_CHECKING:
        rng: Random
    else:

        @property
        def rng(self) -> Random:
            """Seeded when first used: seeding takes longer than a call, and most executions draw nothing."""
            if not self._seeded:
                self._rng.seed(self._seed)
                self._seeded = True
            return self._rng

    def __init__(self, loop: VirtualLoop, rng: Random, seed: int) -> None:
        self.loop = loop
        self._rng = rng
        self._seed = seed
        self._seeded = False
        self.wall_offset_s = EPOCH_S - START_S
        self.clocks: Clocks | None = None  # only where some are wrong
        self._ids = 0

    def monotonic(self) -> float:
        loop = self.loop
        return loop._now if loop.watched is None else loop.time()

    def unix_time(self) -> float:
        loop = self.loop
        right = (loop._now if loop.watched is None else loop.time()) + self.wall_offset_s
        return right if self.clocks is None else self.clocks.read(right)

    def new_id(self) -> str:
        """Shaped like a UUID of version 7: the virtual milliseconds, then a counter."""
        self._ids += 1
        return f"{int(self.unix_time() * 1000) << 80 | 7 << 76 | 2 << 62 | self._ids:032x}"

    def sleep(self, delay_s: float) -> Coroutine[Any, Any, None]:
        return asyncio.sleep(delay_s)

    def sleep_blocking(self, delay_s: float) -> None:
        self.loop.advance_blocking(delay_s)

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        return self.loop.create_task(work, name=name)

    async def run_blocking(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return fn(*args, **kwargs)

    def worker(self, name: str) -> InlineWorker:
        del name
        return InlineWorker()


class InlineWorker:
    """A thread of its own, without the thread: everything runs in place, in the order given."""

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return fn(*args, **kwargs)

    def close(self) -> None:
        """Nothing to end."""
