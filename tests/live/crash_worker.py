"""The process that `test_crash.py` kills: runs trips on a SQLite journal, against a 'service' with a database of its own.

    python crash_worker.py FOLDER RUNS

Prints the id of each run as soon as its start was acknowledged.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from pathlib import Path

import msgspec

import yaoki
from yaoki import DeclinedError, Effect, InDoubtError, Saga

FOLDER = Path(sys.argv[1])
RUNS = int(sys.argv[2])


class Trip(msgspec.Struct):
    number: int


class Service:
    """Do and undo by key, each once; a do after its undo is refused. Its database is what the test reads in the end."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(FOLDER / "service.db", isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("CREATE TABLE IF NOT EXISTS effect (key TEXT PRIMARY KEY, state TEXT NOT NULL)")
        self.db.execute("CREATE TABLE IF NOT EXISTS call (key TEXT NOT NULL, what TEXT NOT NULL)")

    async def do(self, key: str) -> str:
        await asyncio.sleep(random.random() * 0.002)
        (state,) = self.db.execute("INSERT INTO effect VALUES (?, 'done') ON CONFLICT (key) DO UPDATE SET state = state"
                                   " RETURNING state", (key,)).fetchone()
        self.db.execute("INSERT INTO call VALUES (?, 'do')", (key,))
        if state == "undone":
            raise DeclinedError("it was undone already")
        if random.random() < 0.1:
            raise InDoubtError("the answer was lost")
        return key

    async def undo(self, key: str) -> None:
        await asyncio.sleep(random.random() * 0.002)
        self.db.execute("INSERT INTO effect VALUES (?, 'undone') ON CONFLICT (key) DO UPDATE SET state = 'undone'", (key,))
        self.db.execute("INSERT INTO call VALUES (?, 'undo')", (key,))
        if random.random() < 0.1:
            raise InDoubtError("the answer was lost")


service = Service()
book = Saga("book", input=Trip, brake=None)


@book.step
async def hotel(trip: Trip, effect: Effect) -> str:
    return await service.do(effect.key)


@hotel.undo
async def cancel_hotel(trip: Trip, hotel: str | None, effect: Effect) -> None:
    await service.undo(effect.key)


@book.step
async def flight(trip: Trip, effect: Effect) -> str:
    return await service.do(effect.key)


@flight.undo
async def cancel_flight(trip: Trip, flight: str | None, effect: Effect) -> None:
    await service.undo(effect.key)


@book.step
async def card(trip: Trip, hotel: str, flight: str) -> int:
    if trip.number % 4 == 0:
        raise DeclinedError("card declined")
    return trip.number


@card.undo
async def nothing(trip: Trip) -> None: ...


@book.step(pivot=True)
async def payment(trip: Trip, card: int, effect: Effect) -> str:
    return await service.do(effect.key)


@book.step
async def mail(trip: Trip, effect: Effect) -> str:
    return await service.do(effect.key)


async def main() -> None:
    async with yaoki.open(f"sqlite:///{FOLDER}/journal.db", sagas=[book], concurrency=64) as app:
        for number in range(RUNS):
            run = await app.start(book, Trip(number), id=f"trip-{number}")
            sys.stdout.write(f"{run.id}\n")  # line and end in one piece: the next word after a kill begins a line of its own
            sys.stdout.flush()
        for number in range(RUNS):
            await app.run(book, f"trip-{number}").wait()
    print("ended", flush=True)


asyncio.run(main())
