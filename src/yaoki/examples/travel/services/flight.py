"""Seats on departures from New York in June 2013, and the tickets for them."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.routing import Route

from yaoki.errors import DeclinedError
from yaoki.examples.travel.catalogue import rows
from yaoki.examples.travel.services.serving import Selling

SCHEMA = """
CREATE TABLE IF NOT EXISTS flights (id TEXT PRIMARY KEY, origin TEXT, dest TEXT, departs TEXT, seats INTEGER, free INTEGER);
CREATE TABLE IF NOT EXISTS bookings (id INTEGER PRIMARY KEY, key TEXT, trip TEXT, flight TEXT, traveller TEXT, state TEXT);
CREATE INDEX IF NOT EXISTS bookings_by_key ON bookings (key);
CREATE INDEX IF NOT EXISTS bookings_by_flight ON bookings (flight, state);
CREATE TABLE IF NOT EXISTS tickets (id INTEGER PRIMARY KEY, key TEXT, trip TEXT, booking INTEGER, state TEXT);
CREATE INDEX IF NOT EXISTS tickets_by_key ON tickets (key);
"""


class Seat(msgspec.Struct, forbid_unknown_fields=True):
    trip: str
    flight: str
    traveller: str


class Ticket(msgspec.Struct, forbid_unknown_fields=True):
    trip: str
    booking: str
    receipt: str


def book(db: sqlite3.Connection, seat: Seat, key: str) -> dict[str, Any]:
    flight = db.execute("SELECT free, departs FROM flights WHERE id = ?", (seat.flight,)).fetchone()
    if flight is None:
        raise DeclinedError(f"there is no flight {seat.flight}", do="choose another flight", status=404)
    taken = db.execute("SELECT count(*) FROM bookings WHERE flight = ? AND state = 'booked'", (seat.flight,)).fetchone()[0]
    if taken >= flight[0]:
        raise DeclinedError(f"{seat.flight} is sold out", do="choose another flight", status=409)
    booking = db.execute("INSERT INTO bookings (key, trip, flight, traveller, state) VALUES (?, ?, ?, ?, 'booked')",
                         (key, seat.trip, seat.flight, seat.traveller)).lastrowid
    return {"booking": f"F{booking}", "departs": flight[1]}


def cancel(db: sqlite3.Connection, _: Any, key: str) -> None:
    db.execute("UPDATE bookings SET state = 'cancelled' WHERE key = ?", (key,))


def issue(db: sqlite3.Connection, ticket: Ticket, key: str) -> dict[str, Any]:
    found = db.execute("SELECT state FROM bookings WHERE id = ?", (int(ticket.booking[1:]),)).fetchone()
    if found is None or found[0] != "booked":
        raise DeclinedError(f"there is no booking {ticket.booking} to issue a ticket for", do="book a seat first", status=409)
    number = db.execute("INSERT INTO tickets (key, trip, booking, state) VALUES (?, ?, ?, 'issued')",
                        (key, ticket.trip, int(ticket.booking[1:]))).lastrowid
    return {"ticket": f"016-{number:010}"}


def void(db: sqlite3.Connection, _: Any, key: str) -> None:
    db.execute("UPDATE tickets SET state = 'void' WHERE key = ?", (key,))


def make(store_url: str) -> Starlette:
    selling = Selling(store_url, SCHEMA)
    columns = ("id", "origin", "dest", "departs", "seats", "free")
    selling.store.fill("flights", ", ".join(columns), lambda: (tuple(row[each] for each in columns) for row in rows("flights")))
    return selling.app(Route("/bookings", selling.endpoint(book, cancel, Seat)),
                       Route("/tickets", selling.endpoint(issue, void, Ticket)))
