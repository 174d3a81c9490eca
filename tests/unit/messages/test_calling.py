"""Calling handlers: one that never waits needs no timer, and one that waits is awaited like any coroutine."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from yaoki import effect
from yaoki.errors import InputError
from yaoki.messages.calling import Caller
from yaoki.messages.current import handling
from yaoki.messages.envelope import Message
from yaoki.messages.handlers import Handler
from yaoki.messages.store.port import Entry


class Placed(msgspec.Struct):
    n: int


def caller(fn, **settings) -> Caller:
    return Caller(Handler(fn=fn, name="take", takes={"Placed": Placed}, **settings), service="hotel", group="hotel.take")


def entry(data: bytes = b'{"n": 3}') -> Entry:
    return Entry((0, 1), 0, Message(id="m", source="shop", type="Placed", data=data, key="k"))


async def test_what_a_handler_awaits_comes_back_to_it_also_from_deep_inside():
    async def deep(n: int) -> int:
        await asyncio.sleep(0)
        return n + (await asyncio.gather(asyncio.sleep(0, 10), asyncio.sleep(0, 20)))[1]

    async def take(placed: Placed):
        first = await deep(placed.n)
        with pytest.raises(ZeroDivisionError):
            await raising()
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(0, 100))
        return Placed(first + task.result())

    async def raising() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    (said,) = await caller(take).call(entry())
    assert (said.data, said.cause, said.key) == (b'{"n":123}', "m", "k")


async def test_a_handler_that_waits_too_long_is_cancelled_where_it_waits_and_may_clean_up():
    seen = []

    async def take(placed: Placed) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned up")

    with pytest.raises(TimeoutError):
        await caller(take, timeout_s=0.01).call(entry())
    assert seen == ["cleaned up"]


async def test_a_cancelled_caller_cancels_its_handler():
    begun = asyncio.Event()

    async def take(placed: Placed) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(caller(take).call(entry()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_inside_the_handler_its_message_and_effect_are_known_and_outside_they_are_not():
    seen = []

    async def take(placed: Placed) -> None:
        seen.append((handling.get(), effect.current.get().key))
        await asyncio.sleep(0)
        seen.append((handling.get(), effect.current.get().key))

    at = entry()
    await caller(take).call(at)
    assert seen == [(at.message, "shop/m/hotel.take")] * 2
    assert (handling.get(), effect.current.get()) == (None, None)


async def test_errors_before_and_after_the_first_wait_are_the_callers():
    async def at_once(placed: Placed) -> None:
        raise KeyError("at once")

    async def later(placed: Placed) -> None:
        await asyncio.sleep(0)
        raise KeyError("later")

    for fn in (at_once, later):
        with pytest.raises(KeyError):
            await caller(fn).call(entry())
    with pytest.raises(InputError):
        await caller(at_once).call(entry(b'{"n": "three"}'))
