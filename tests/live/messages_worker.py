"""A process to be killed: a service that takes `Placed`, writes an effect with its mark, and says so in a second table.

    python messages_worker.py ROLE STORE [BROKER]

ROLE: `consume` handles; `die` too, and exits at number 3; `relay` only sends what is in the store to the broker.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time

import msgspec

from yaoki.messages import Messages, Pace, Retries, open_broker

LEASE_S = 1.0


class Placed(msgspec.Struct):
    n: int


class Done(msgspec.Struct):
    n: int


async def main(role: str, store: str, broker_url: str = "") -> None:
    broker = await open_broker(broker_url) if broker_url else None
    app = Messages("shop" if role == "relay" else "hotel", store, broker=broker, pace=Pace(lease_s=LEASE_S))
    if role in {"consume", "die"}:

        # Killed from outside hundreds of times, a message may be under way at several of the kills by no fault of its own.
        @app.on(Placed, in_flight=16, retries=Retries(attempts=2 if role == "die" else 50, first_s=0.1))
        async def take(placed: Placed, tx) -> Done:
            if role == "die" and placed.n == 3:
                os._exit(9)
            row = (placed.n, time.time())
            if isinstance(tx, sqlite3.Connection):
                tx.execute("INSERT INTO effects VALUES (?, ?)", row)
            else:
                await tx.execute("INSERT INTO effects VALUES ($1, $2)", *row)
            await asyncio.sleep(0.001)
            return Done(placed.n)

    async with app:
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
