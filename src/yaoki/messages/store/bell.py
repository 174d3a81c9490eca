"""Wake whoever waits for something to change, without losing a ring between looking and waiting."""

from __future__ import annotations

import asyncio


class Bell:
    """Rings are counted: `wait` returns at once if there was one since `heard` was read. One loop only."""

    def __init__(self) -> None:
        self.rings = 0
        # A dict, for its order: who waited first is woken first, in every execution.
        self._waiting: dict[asyncio.Future[None], None] = {}

    @property
    def is_awaited(self) -> bool:
        return bool(self._waiting)

    def ring(self) -> None:
        """Wake everyone."""
        self.rings += 1
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def wait(self, heard: int, timeout_s: float) -> None:
        """Return once `rings` is above `heard`, or after `timeout_s`."""
        if self.rings > heard or timeout_s <= 0:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(timeout_s, _end, future)
        self._waiting[future] = None
        try:
            await future
        finally:
            timer.cancel()
            self._waiting.pop(future, None)


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
