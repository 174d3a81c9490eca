"""A saga for tests of the command line: what an order's card says is what happens to it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from yaoki import DeclinedError, Saga


class Card(msgspec.Struct):
    number: str


class Order(msgspec.Struct):
    id: str
    card: Card
    qty: int = 1


order = Saga("order", input=Order)
other = Saga("other", input=Order)
PAUSE_S = float(os.environ.get("ORDERS_PAUSE", "0"))


@order.step
async def reserve(order: Order) -> str:
    await asyncio.sleep(PAUSE_S)
    while order.card.number == "wait" and not Path("go").exists():  # noqa: ASYNC110  the test is another process
        await asyncio.sleep(0.02)
    return f"place for {order.id}"


@reserve.undo
async def release(order: Order, reserve: str | None) -> None:
    if order.card.number == "sticky" and not Path("fixed").exists():
        raise TypeError("the undo has a bug")


@order.step(pivot=True)
async def pay(order: Order, reserve: str) -> int:
    await asyncio.sleep(PAUSE_S)
    if order.card.number in {"declined", "sticky"}:
        raise DeclinedError("card declined")
    if order.card.number == "bug" and not Path("fixed").exists():
        raise KeyError("currency")
    return 100 * order.qty


@order.step
async def ship(order: Order, pay: int) -> str:
    await asyncio.sleep(PAUSE_S)
    return f"shipped for {pay}"


@other.step(undo=None)
async def nothing(order: Order) -> None: ...
