"""A store that fails for a while, from the first statement on: nobody stops working for good, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from contracts.messages_world import QUICK, Placed, Recorder, Reserved, service, stored, until
from yaoki.errors import StoreError
from yaoki.messages import Message, open_broker


class FailingStore:
    """Another store whose operations fail by a draw, as long as `share` is above 0."""

    def __init__(self, inner: Any, share: float, seed: int) -> None:
        self._inner = inner
        self.share = share
        self._rng = Random(seed)
        self.failed: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in {"declare", "balance", "read", "settle", "due", "blocked_keys", "held_beyond", "release"}:
            return found
        return self._failing(name, found)

    def _failing(self, name: str, found: Callable[..., Any]) -> Callable[..., Any]:
        async def perhaps(*args: Any, **more: Any) -> Any:
            if self._rng.random() < self.share:
                self.failed.add(name)
                raise StoreError("drawn to fail")
            return await found(*args, **more)

        return perhaps


@pytest.mark.parametrize("seed", range(3))
async def test_relay_intake_and_handlers_outlive_a_store_that_fails(tmp_path, seed):
    saw = Recorder()
    async with stored(f"sqlite:///{tmp_path}/shop.db") as shops, stored(f"sqlite:///{tmp_path}/hotel.db") as hotels:
        broker = await open_broker(f"sqlite:///{tmp_path}/broker.db")
        failing = [FailingStore(shops, 1.0, seed), FailingStore(hotels, 1.0, seed + 100)]
        shop, hotel = service(failing[0], "shop", broker=broker), service(failing[1], "hotel", broker=broker)

        @hotel.on(Placed, retries=QUICK)
        async def take(placed: Placed, message: Message) -> Reserved:
            saw.note(message.key, placed.n)
            return Reserved(placed.n)

        async with shop, hotel:
            await until(lambda: {"declare"} <= failing[0].failed & failing[1].failed, "they failed before they began")
            for each in failing:
                each.share = 0.3
            sent = 0
            async with asyncio.timeout(100):
                while not {"balance", "read", "settle"} <= failing[0].failed & failing[1].failed:
                    await shop.publish(Placed(sent), key=f"k{sent % 4}")
                    sent += 1
                    await asyncio.sleep(0.005)
            for each in failing:
                each.share = 0.0
            await until(lambda: set(saw.seen) == set(range(sent)), "all arrive")
            assert all(not task.done() for app in (shop, hotel) for task in app._tasks), "a worker has stopped"
        await broker.close()
    for key in range(4):
        along = list(dict.fromkeys(saw.by_key[f"k{key}"]))  # handled again after a lost settlement, but in order
        assert along == sorted(along)
