"""Members' points. A spend may not overdraw the account; returning it gives the points back."""

from __future__ import annotations

import sqlite3
from typing import Annotated, Any

import msgspec
from starlette.applications import Starlette
from starlette.routing import Route

from yaoki.errors import DeclinedError
from yaoki.examples.travel.catalogue import rows
from yaoki.examples.travel.services.serving import Selling

SCHEMA = """
CREATE TABLE IF NOT EXISTS members (id TEXT PRIMARY KEY, name TEXT, opening INTEGER, balance INTEGER);
CREATE TABLE IF NOT EXISTS spends (id INTEGER PRIMARY KEY, key TEXT, trip TEXT, member TEXT, points INTEGER, state TEXT);
CREATE INDEX IF NOT EXISTS spends_by_key ON spends (key);
"""


class Spend(msgspec.Struct, forbid_unknown_fields=True):
    trip: str
    member: str
    points: Annotated[int, msgspec.Meta(ge=1)]


def spend(db: sqlite3.Connection, wish: Spend, key: str) -> dict[str, Any]:
    member = db.execute("SELECT balance FROM members WHERE id = ?", (wish.member,)).fetchone()
    if member is None:
        raise DeclinedError(f"there is no member {wish.member}", do="join first", status=404)
    if member[0] < wish.points:
        raise DeclinedError(f"{wish.member} has {member[0]} points, not {wish.points}", do="spend fewer points", status=409)
    db.execute("UPDATE members SET balance = balance - ? WHERE id = ?", (wish.points, wish.member))
    number = db.execute("INSERT INTO spends (key, trip, member, points, state) VALUES (?, ?, ?, ?, 'spent')",
                        (key, wish.trip, wish.member, wish.points)).lastrowid
    return {"spend": f"P{number}", "left": member[0] - wish.points}


def give_back(db: sqlite3.Connection, _: Any, key: str) -> None:
    for member, points in db.execute("SELECT member, points FROM spends WHERE key = ? AND state = 'spent'", (key,)).fetchall():
        db.execute("UPDATE members SET balance = balance + ? WHERE id = ?", (points, member))
    db.execute("UPDATE spends SET state = 'returned' WHERE key = ?", (key,))


def make(store_url: str) -> Starlette:
    selling = Selling(store_url, SCHEMA)
    selling.store.fill("members", "id, name, opening, balance",
                       lambda: ((row["id"], row["name"], row["points"], row["points"]) for row in rows("members")))
    return selling.app(Route("/spends", selling.endpoint(spend, give_back, Spend)))
