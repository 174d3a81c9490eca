"""What the tortured workers run. Every effect is a line in a file, written before the step goes on, like a request to a service.

A line is `run/step do|undo fence`. The service behind it is idempotent by key, so a line that comes twice is one effect.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from yaoki import DeclinedError, Effect, Saga, runtime
from yaoki.policies import backoff, retry


class Trip(msgspec.Struct):
    """`fails`: the step that says no, or "". `slow`: seconds that a step takes. `insured`: has it the step that not all have?"""

    fails: str = ""
    slow: float = 0.0
    insured: bool = False


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


class TicketOffice:
    """A service that knows no keys: what it is asked twice it does twice. But it compares fences.

    Who asks whether a ticket was made says under which fence it asks, and from then on an older one is refused: else a worker that
    was paused between its record and its request would make a ticket after everybody has made sure that there is none.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tickets.db"
        with self._open() as db:
            db.execute("CREATE TABLE IF NOT EXISTS ticket (key TEXT, fence INTEGER)")
            db.execute("CREATE TABLE IF NOT EXISTS asked (key TEXT PRIMARY KEY, fence INTEGER)")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # A worker that is paused in here keeps the others waiting, in their threads.
        db = sqlite3.connect(self._path, isolation_level=None, timeout=60.0)
        try:
            db.execute("PRAGMA synchronous = OFF")  # processes are killed, not machines
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        finally:
            db.close()

    def issue(self, effect: Effect) -> Done:
        with self._open() as db:
            (newest,) = db.execute("SELECT coalesce(max(fence), 0) FROM asked WHERE key = ?", (effect.key,)).fetchone()
            if newest > effect.fence:
                raise DeclinedError("a newer owner has asked for it")
            db.execute("INSERT INTO ticket VALUES (?, ?)", (effect.key, effect.fence))
        return Done(effect.fence, os.getpid())

    def was_issued(self, effect: Effect) -> Done | None:
        with self._open() as db:
            db.execute("INSERT INTO asked VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET fence = max(fence, excluded.fence)",
                       (effect.key, effect.fence))
            made = db.execute("SELECT fence FROM ticket WHERE key = ?", (effect.key,)).fetchone()
        return Done(effect.fence, os.getpid()) if made else None

    def cancel(self, effect: Effect) -> None:
        with self._open() as db:
            db.execute("DELETE FROM ticket WHERE key = ?", (effect.key,))


def tickets_in(folder: Path) -> list[str]:
    """The key of every ticket there is, as often as there is one."""
    with contextlib.closing(sqlite3.connect(folder / "tickets.db")) as db:
        return [key for (key,) in db.execute("SELECT key FROM ticket")]


def trips(service: Service, office: TicketOffice) -> Saga[Trip]:
    """hotel ∥ flight → a nap (parked) → a visa (somebody's answer) → debit (a transaction) → ticket (at most once) → payment (pivot)
    → insurance (if it is wanted) ∥ mail.
    """
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

    @saga.wait_for(str, after="nap", timeout=600.0, otherwise="nobody answered")
    def visa(trip: Trip) -> None: ...

    @saga.step(tx=True)
    async def debit(trip: Trip, visa: str, effect: Effect, tx: Any) -> Done:
        await tx.execute("INSERT INTO public.ledger VALUES ($1, 1, $2)", effect.run, effect.fence)
        if runtime.rng().random() < 0.05:
            raise ConnectionError("changed its mind")
        return Done(effect.fence, os.getpid())

    @debit.undo
    async def give_back(trip: Trip, debit: Done | None, effect: Effect) -> None:
        await service.call(effect, trip)

    def was_issued(trip: Trip, effect: Effect) -> Done | None:
        return office.was_issued(effect)

    @saga.step(once=True, verify=was_issued)
    def ticket(trip: Trip, debit: Done, effect: Effect) -> Done:
        if trip.fails == "ticket":
            raise DeclinedError("sold out")
        return office.issue(effect)

    @ticket.undo
    def cancel_ticket(trip: Trip, ticket: Done | None, effect: Effect) -> None:
        office.cancel(effect)

    @saga.step(retry=patient, pivot=True)
    async def payment(trip: Trip, hotel: Done, flight: Done, ticket: Done, effect: Effect) -> Done:
        return await service.call(effect, trip)

    @payment.undo
    async def refund(trip: Trip, payment: Done | None, effect: Effect) -> None:
        await service.call(effect, trip)

    @saga.step(retry=patient, when=lambda trip, payment: trip.insured)
    async def insurance(trip: Trip, payment: Done, effect: Effect) -> Done:
        return await service.call(effect, trip)

    @saga.step(retry=patient)
    async def mail(trip: Trip, payment: Done, effect: Effect) -> Done:
        return await service.call(effect, trip)

    return saga
