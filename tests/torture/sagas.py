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

from torture.compound import add_early_steps, add_late_steps
from torture.service import Done, Service, Trip
from yaoki import DeclinedError, Effect, Saga, runtime
from yaoki.policies import backoff, retry


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
    """hotel ∥ flight ∥ bags (each) ∥ cover (a child) ∥ taxi (first of) → a nap (parked) → a visa (somebody's answer) → debit (a transaction) → ticket (at most once)
    → extras (a flow) → payment (pivot) → insurance (if it is wanted) ∥ mail.
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

    early = add_early_steps(saga, service)

    def nap(trip: Trip, hotel: Done, flight: Done) -> float:
        return 2.5 if trip.slow else 0.0

    saga.sleep(nap, name="nap", after=early)

    @saga.wait_for(str, after="nap", timeout=600.0, otherwise="nobody answered")
    def visa(trip: Trip) -> None: ...

    @saga.step(tx=True, retry=patient)  # three attempts would be too few, once in ten thousand runs
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

    add_late_steps(saga, service)

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
