"""Let go of a request without breaking the connection pool it is in.

httpx's pool loses a connection for good when a task is cancelled inside it, or when its own pool timeout ends a wait
(measured in `docs/decisions/0002-never-cancel-inside-httpx.md`): a pool of four is dead after a second of timeouts. So a
request runs in a task of its own. Who stops waiting for it lets go; the request goes on until the client's own timeouts
end it, and its answer is closed unread, which frees its place in the pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from yaoki import runtime

LONGEST_S = 60.0  # a request that nobody waits for is cut off after this, if the client has no timeouts of its own


class Carrier:
    """Carries the requests of one transport. Not shared between event loops, as transports are not."""

    def __init__(self) -> None:
        self._let_go: set[asyncio.Task[Any]] = set()

    @property
    def let_go(self) -> int:
        """Requests that go on although nobody waits for them."""
        return len(self._let_go)

    async def send(self, handle: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
        """`await handle(request)`; cancelling it lets go of the request instead of cutting it off."""
        wanted = True

        async def carry() -> Any:
            response = await handle(request)
            if not wanted:
                await response.aclose()
            return response

        task = runtime.spawn(carry(), name=f"{request.method} {request.url.path}")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            wanted = False
            if not task.done():
                self._let_go.add(task)
                cut_off = asyncio.get_running_loop().call_later(LONGEST_S, task.cancel)
                task.add_done_callback(lambda ended: self._ended(ended, cut_off))
            elif not task.cancelled() and task.exception() is None:
                await task.result().aclose()  # it came in this very instant
            raise

    def _ended(self, task: asyncio.Task[Any], cut_off: asyncio.TimerHandle) -> None:
        cut_off.cancel()  # or it would hold the request and its answer until then
        self._let_go.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else will look at it

    async def aclose(self) -> None:
        """Cut off what is still going on."""
        tasks = list(self._let_go)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
