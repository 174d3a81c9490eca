"""Who waits for which run to end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from yaoki.saga.records import Header


class Waiters:
    """Futures by run. Each gets the header of its run once that has ended or is blocked, or the reason why nobody will know."""

    def __init__(self) -> None:
        self._of: dict[str, list[asyncio.Future[Header]]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def add(self, run_id: str) -> asyncio.Future[Header]:
        """Be told of the run's end, until `remove`."""
        future: asyncio.Future[Header] = asyncio.get_running_loop().create_future()
        self._of.setdefault(run_id, []).append(future)
        return future

    def remove(self, run_id: str, future: asyncio.Future[Header]) -> None:
        others = self._of.get(run_id)
        if others is not None and future in others:
            others.remove(future)
            if not others:
                del self._of[run_id]

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
