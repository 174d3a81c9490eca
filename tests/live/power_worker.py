"""A process on a disk whose power is cut: acknowledges on standard output, one name a line, what it believes to be safe.

    python power_worker.py broker|journal FOLDER [durability=process]
"""

from __future__ import annotations

import asyncio
import itertools
import sys

import msgspec

import yaoki
from yaoki.messages import Message, open_broker
from yaoki.saga.define import Saga

AT_ONCE = 8


class Trip(msgspec.Struct):
    n: int


def trip_saga() -> Saga[Trip]:
    saga: Saga[Trip] = Saga("cut-trip", input=Trip, brake=None)

    @saga.step(undo=None)
    async def hotel(trip: Trip) -> int:
        return trip.n

    @saga.step(undo=None)
    async def flight(trip: Trip, hotel: int) -> int:
        return hotel

    return saga


async def publish(folder: str, query: str) -> None:
    broker = await open_broker(f"sqlite:///{folder}/broker.db{query}")
    numbers = itertools.count()

    async def one() -> None:
        for n in numbers:
            await broker.publish([Message(id=f"m{n:07}", source="shop", type="Placed", key=f"k{n % 5}", data=b'{"n":1}' * 40)])
            print(f"m{n:07}", flush=True)

    await asyncio.gather(*(one() for _ in range(AT_ONCE)))


async def book(folder: str) -> None:
    saga = trip_saga()
    async with yaoki.open(f"sqlite:///{folder}/journal.db", sagas=[saga]) as app:
        numbers = itertools.count()

        async def one() -> None:
            for n in numbers:
                run = await app.start(saga, Trip(n), id=f"r{n:07}")
                print(f"started r{n:07}", flush=True)
                await run.result()
                print(f"completed r{n:07}", flush=True)

        await asyncio.gather(*(one() for _ in range(AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(publish(sys.argv[2], "?" + sys.argv[3] if len(sys.argv) > 3 else "") if sys.argv[1] == "broker" else book(sys.argv[2]))
