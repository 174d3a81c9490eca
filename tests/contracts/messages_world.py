"""What the contract tests of messages share: events, a service on each kind of store, and waiting for something."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from yaoki.messages import Messages, Pace, Retries
from yaoki.messages.store.opening import open_store
from yaoki.messages.store.port import Store

QUICK = Retries(attempts=3, first_s=0.01, cap_s=0.05)


class Placed(msgspec.Struct):
    n: int


class Reserved(msgspec.Struct):
    n: int


class Recorder:
    """What handlers saw, in order."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.by_key: dict[str, list[int]] = {}

    def note(self, key: str, n: int) -> None:
        self.seen.append(n)
        self.by_key.setdefault(key, []).append(n)


async def until(condition: Callable[[], object], what: str = "", timeout: float = 100.0) -> None:
    """Wait for `condition`; fail with `what` after `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            while not condition():  # noqa: ASYNC110 (conditions of many kinds)
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"did not come about in {timeout} s: {what or condition}") from None


async def until_so(condition: Callable[[], Awaitable[object]], what: str = "", timeout: float = 100.0) -> None:
    """`until` for a condition that asks a database."""
    try:
        async with asyncio.timeout(timeout):
            while not await condition():  # noqa: ASYNC110 (conditions of many kinds)
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"did not come about in {timeout} s: {what or condition}") from None


@contextlib.asynccontextmanager
async def stored(url: str) -> AsyncIterator[Store]:
    store = await open_store(url)
    try:
        yield store
    finally:
        await store.close()


def service(url: str | Store, name: str = "orders", *, lease_s: float = 15.0, **settings: object) -> Messages:
    return Messages(name, url, pace=Pace(lease_s=lease_s, drain_s=5.0), **settings)  # type: ignore[arg-type]
