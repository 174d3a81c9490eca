"""The machine's own clock, randomness, ids, threads and tasks."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Steps written as plain functions mostly wait for the network, so the pool is larger than the machine's cores, and
# bounded, so that ten thousand runs do not start ten thousand threads.
POOL_THREADS = 64


class RealRuntime:
    """Fills the port with the operating system's clock and entropy."""

    def __init__(self) -> None:
        # `random.Random` seeded by the system: unpredictable enough for jitter, and cheap. Secrets never come from here.
        self.rng = random.Random()
        self.monotonic = time.monotonic
        self.unix_time = time.time
        self.sleep = asyncio.sleep
        self.sleep_blocking = time.sleep
        self._ids = _TimeOrderedIds(self.rng)
        self.new_id = self._ids.next
        self._pool: ThreadPoolExecutor | None = None
        # A forked child would draw its parent's ids and jitter, and wait for threads that did not come along.
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self.rng.seed()
        self._pool = None

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        return asyncio.get_running_loop().create_task(work, name=name)

    async def run_blocking(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="yaoki")
        work = partial(copy_context().run, partial(fn, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def worker(self, name: str) -> RealWorker:
        return RealWorker(name)


class RealWorker:
    """One thread of its own, for a connection that only one thread may use."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(fn, *args, **kwargs))

    def close(self) -> None:
        self._thread.shutdown(wait=True)


class _TimeOrderedIds:
    """UUID version 7: 48 bits of milliseconds, then a counter that starts at random, so that ids never go back.

    Time order matters more than it seems: random keys touch a random page for every row, and a journal of them writes
    six times the bytes (measured in `benchmarks/sagas.py`). Source: RFC 9562, section 6.2, method 2.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._lock = threading.Lock()
        self._millis = 0
        self._counter = 0

    def next(self) -> str:
        with self._lock:
            millis = time.time_ns() // 1_000_000
            if millis > self._millis:
                self._millis = millis
                self._counter = self._rng.getrandbits(73)
            else:
                # Same millisecond, or a clock that went back: go on counting from the last id instead.
                self._counter += 1 + self._rng.getrandbits(32)
            value = (self._millis << 80 | 0x7 << 76 | (self._counter >> 62 & 0xFFF) << 64 | 0x2 << 62
                     | self._counter & 0x3FFF_FFFF_FFFF_FFFF)
        return f"{value:032x}"
