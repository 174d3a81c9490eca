"""The relay beside brokers that are down, or that will never take a message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from contracts.messages_world import Placed, stored, until, until_so
from yaoki.errors import BrokerError, InputError
from yaoki.messages import Message, Messages
from yaoki.messages.boxes import edit, find, redrive
from yaoki.messages.relay import FIRST_PAUSE_S, LONGEST_PAUSE_S
from yaoki.messages.store.port import Durability


class Broker:
    """Takes messages up to a size, or none at all."""

    name = "picky"
    durability = Durability(survives="power", kill="nothing", power_cut="nothing")
    delivers = False

    def __init__(self, *, most_bytes: int = 100, is_up: bool = True) -> None:
        self.most_bytes = most_bytes
        self.is_up = is_up
        self.calls = 0
        self.taken: list[bytes] = []

    async def publish(self, messages: Sequence[Message]) -> None:
        self.calls += 1
        if not self.is_up:
            raise BrokerError("down")
        for each in messages:
            if len(each.data) > self.most_bytes:
                raise InputError("too large")
            if each.data not in self.taken:
                self.taken.append(each.data)

    async def subscribe(self, *_: Any) -> Any:
        raise AssertionError("it only sends")

    async def close(self) -> None: ...


async def test_a_message_that_a_broker_will_never_take_is_a_dead_letter_that_can_be_corrected(tmp_path):
    broker = Broker()
    async with stored(f"sqlite:///{tmp_path}/shop.db") as store:
        async with Messages("shop", store, broker=broker) as app:
            async with asyncio.timeout(100):
                await app.publish(*("x" * size for size in (1, 200, 2, 3)), key="k")
            await until(lambda: broker.taken == [b'"x"', b'"xx"', b'"xxx"'])
            await until_so(lambda: find(store, group="shop.relay"))
        (letter,) = await find(store, group="shop.relay")
        assert (letter.state, letter.error) == ("dead", "InputError: too large")
        letter = await edit(store, letter, b'"short"')
        async with Messages("shop", store, broker=broker) as app:
            assert len((await redrive(store, group="shop.relay")).chosen) == 1
            app._workers[0]._balance_at = 0.0  # it looks with its leases
            await app.publish(Placed(4), key="k")
            await until(lambda: b'"short"' in broker.taken)
            await until_so(lambda: nothing_held(store))
        assert broker.taken == [b'"x"', b'"xx"', b'"xxx"', *sorted(broker.taken[3:], key=lambda data: data != b'"short"')]


async def nothing_held(store) -> bool:
    return not await store.held(group="shop.relay", states=("retry", "dead", "done"))


async def test_while_a_broker_is_down_publishing_does_not_hasten_the_next_attempt(tmp_path):
    broker = Broker(is_up=False)
    async with Messages("shop", f"sqlite:///{tmp_path}/shop.db", broker=broker) as app:
        began = time.monotonic()
        for n in range(40):
            await app.publish(Placed(n))
            await asyncio.sleep(0.01)
        calls, took_s = broker.calls, time.monotonic() - began
        assert sum(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**n) for n in range(calls - 1)) <= took_s
        broker.is_up = True
        await until(lambda: len(broker.taken) == 40)
