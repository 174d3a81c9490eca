"""Rooms by the night. A hotel has so many; a booking takes one for every night of the stay."""

from __future__ import annotations

import sqlite3
from datetime import date, timedelta
from typing import Annotated, Any

import msgspec
from starlette.applications import Starlette
from starlette.routing import Route

from yaoki.errors import DeclinedError
from yaoki.examples.travel.catalogue import rows
from yaoki.examples.travel.services.serving import Selling

SCHEMA = """
CREATE TABLE IF NOT EXISTS hotels (id TEXT PRIMARY KEY, name TEXT, city TEXT, rooms INTEGER, price INTEGER);
CREATE TABLE IF NOT EXISTS bookings (id INTEGER PRIMARY KEY, key TEXT, trip TEXT, hotel TEXT, check_in TEXT, nights INTEGER,
                                     guest TEXT, state TEXT);
CREATE INDEX IF NOT EXISTS bookings_by_key ON bookings (key);
CREATE TABLE IF NOT EXISTS taken (hotel TEXT, night TEXT, booking INTEGER, PRIMARY KEY (hotel, night, booking)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS taken_by_booking ON taken (booking);
"""


class Stay(msgspec.Struct, forbid_unknown_fields=True):
    trip: str
    hotel: str
    check_in: date
    nights: Annotated[int, msgspec.Meta(ge=1, le=30)]
    guest: str


def book(db: sqlite3.Connection, stay: Stay, key: str) -> dict[str, Any]:
    hotel = db.execute("SELECT name, rooms FROM hotels WHERE id = ?", (stay.hotel,)).fetchone()
    if hotel is None:
        raise DeclinedError(f"there is no hotel {stay.hotel}", do="choose another hotel", status=404)
    nights = [(stay.check_in + timedelta(days=day)).isoformat() for day in range(stay.nights)]
    for night in nights:
        if db.execute("SELECT count(*) FROM taken WHERE hotel = ? AND night = ?", (stay.hotel, night)).fetchone()[0] >= hotel[1]:
            raise DeclinedError(f"{hotel[0]} is full on {night}", do="choose another hotel or day", status=409)
    booking = db.execute("INSERT INTO bookings (key, trip, hotel, check_in, nights, guest, state) VALUES (?, ?, ?, ?, ?, ?, 'booked')",
                         (key, stay.trip, stay.hotel, stay.check_in.isoformat(), stay.nights, stay.guest)).lastrowid
    db.executemany("INSERT INTO taken VALUES (?, ?, ?)", [(stay.hotel, night, booking) for night in nights])
    return {"booking": f"H{booking}", "name": hotel[0]}


def cancel(db: sqlite3.Connection, _: Any, key: str) -> None:
    db.execute("DELETE FROM taken WHERE booking IN (SELECT id FROM bookings WHERE key = ?)", (key,))
    db.execute("UPDATE bookings SET state = 'cancelled' WHERE key = ?", (key,))


def make(store_url: str) -> Starlette:
    selling = Selling(store_url, SCHEMA)
    selling.store.fill("hotels", "id, name, city, rooms, price",
                       lambda: ((row["id"], row["name"], row["city"], row["rooms"], row["price"]) for row in rows("hotels")))
    return selling.app(Route("/bookings", selling.endpoint(book, cancel, Stay)))
