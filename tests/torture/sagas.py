"""What the tortured workers run. Every effect is a line in a file, written before the step goes on, like a request to a service.

A line is `run/step do|undo fence`. The service behind it is idempotent by key, so a line that comes twice is one effect.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from yaoki import DeclinedError, Effect, Saga, runtime
from yaoki.policies import backoff, retry


class Trip(msgspec.Struct):
    """`fails`: the step that says no, or "". `slow`: seconds that a step takes."""

    fails: str = ""
    slow: float = 0.0


class Done(msgspec.Struct):
    """A step's result: under which fence it was made, so that the checker sees the owners in a run's history."""

    fence: int
    pid: int


def effects_in(folder: Path) -> list[tuple[str, str, int]]:
    """(key, do or undo, fence) of every effect, in the order of each process."""
    lines = [line.split() for path in sorted(folder.glob("effects-*.log")) for line in path.read_text().splitlines()]
    return [(line[0], line[1], int(line[2])) for line in lines if len(line) == 3]


class Service:
    """Appends to a file of its own in each process: a line is in the page cache before the step goes on, so kill -9 keeps it."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / f"effects-{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    async def call(self, effect: Effect, trip: Trip) -> Done:
        if trip.slow:
            await runtime.sleep(trip.slow * runtime.rng().random() * 2)
        if trip.fails == effect.step and not effect.undo:
            raise DeclinedError("sold out")
        if runtime.rng().random() < 0.05:
            raise ConnectionError("the service is having a moment")
        os.write(self._fd, f"{effect.key} {'undo' if effect.undo else 'do'} {effect.fence}\n".encode())
        return Done(effect.fence, os.getpid())


def trips(service: Service) -> Saga[Trip]:
    """hotel ∥ flight → a nap (parked) → debit (a transaction) → payment (pivot) → mail."""
    saga = Saga("trips", input=Trip, brake=None)
    patient = retry(20, backoff.exponential(0.01, cap=0.1))

    @saga.step(retry=patient)
    async def hotel(trip: Trip, effect: Effect) -> Done:
        return await service.call(effect, trip)

    @hotel.undo
    async def cancel_hotel(trip: Trip, hotel: Done | None, effect: Effect) -> None:
        await service.call(effect, trip)

    @saga.step(retry=patient)
    async def flight(trip: Trip, effect: Effect) -> Done:
        return await service.call(effect, trip)

    @flight.undo
    async def cancel_flight(trip: Trip, flight: Done | None, effect: Effect) -> None:
        await service.call(effect, trip)

    @saga.sleep
    def nap(trip: Trip, hotel: Done, flight: Done) -> float:
        return 2.5 if trip.slow else 0.0

    @saga.step(tx=True, after="nap")
    async def debit(trip: Trip, effect: Effect, tx: Any) -> Done:
        await tx.execute("INSERT INTO public.ledger VALUES ($1, 1, $2)", effect.run, effect.fence)
        if runtime.rng().random() < 0.05:
            raise ConnectionError("changed its mind")
        return Done(effect.fence, os.getpid())

    @debit.undo
    async def give_back(trip: Trip, debit: Done | None, effect: Effect) -> None:
        await service.call(effect, trip)

    @saga.step(retry=patient, pivot=True)
    async def payment(trip: Trip, hotel: Done, flight: Done, debit: Done, effect: Effect) -> Done:
        return await service.call(effect, trip)

    @payment.undo
    async def refund(trip: Trip, payment: Done | None, effect: Effect) -> None:
        await service.call(effect, trip)

    @saga.step(retry=patient)
    async def mail(trip: Trip, payment: Done, effect: Effect) -> Done:
        return await service.call(effect, trip)

    return saga
