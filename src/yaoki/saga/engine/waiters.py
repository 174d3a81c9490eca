"""Who waits for which run to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from yaoki.saga.records import Header


class Waiters:
    """Futures by run. Each gets the header of its run once that has ended or is blocked, or the reason why nobody will know."""

    def __init__(self) -> None:
        self._of: dict[str, list[asyncio.Future[Header]]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    @contextlib.contextmanager
    def waiting(self, run_id: str) -> Iterator[asyncio.Future[Header]]:
        """Be told of the run's end, as long as the block lasts."""
        future: asyncio.Future[Header] = asyncio.get_running_loop().create_future()
        self._of.setdefault(run_id, []).append(future)
        try:
            yield future
        finally:
            others = self._of.get(run_id, [])
            if future in others:
                others.remove(future)
            if not others:
                self._of.pop(run_id, None)

    def answer(self, header: Header) -> None:
        for future in self._of.pop(header.id, ()):
            if not future.done():
                future.set_result(header)

    def fail(self, run_id: str, error: Exception) -> None:
        for future in self._of.pop(run_id, ()):
            _fail(future, error)

    def fail_all(self, error: Exception) -> None:
        for futures in self._of.values():
            for future in futures:
                _fail(future, error)


def _fail(future: asyncio.Future[Header], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
