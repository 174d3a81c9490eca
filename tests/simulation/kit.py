"""What several programs of the zoo share: a plain retry, as people write it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from yaoki.errors import InDoubtError, RefusedError

T = TypeVar("T")


async def retried(call: Callable[[], Awaitable[T]], *, attempts: int = 20, wait_s: float = 0.1) -> T:
    """Call until it answers; every transient error is tried again, the last one is raised."""
    for attempt in range(1, attempts + 1):
        try:
            return await call()
        except (RefusedError, InDoubtError):
            if attempt == attempts:
                raise
            await asyncio.sleep(wait_s)
    raise AssertionError
