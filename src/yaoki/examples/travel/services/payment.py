"""A payment provider: authorise a card, capture the money, refund it or void the authorisation.

    authorised ──capture──▶ captured ──refund──▶ refunded
        └──void──▶ voided

Every request carries an `Idempotency-Key`. `DELETE /captures` refunds, `DELETE /authorizations` voids, by the key of what
is to be undone, whether it ever came or not. The card `tok_declined` is always declined.
"""

from __future__ import annotations

import sqlite3
from typing import Annotated, Any

import msgspec
from starlette.applications import Starlette
from starlette.routing import Route

from yaoki.errors import DeclinedError
from yaoki.examples.travel.services.serving import Selling

SCHEMA = """
CREATE TABLE IF NOT EXISTS authorizations (id INTEGER PRIMARY KEY, key TEXT, trip TEXT, card TEXT, amount INTEGER, state TEXT);
CREATE INDEX IF NOT EXISTS authorizations_by_key ON authorizations (key);
CREATE TABLE IF NOT EXISTS captures (id INTEGER PRIMARY KEY, key TEXT, trip TEXT, authorization INTEGER, amount INTEGER, state TEXT);
CREATE INDEX IF NOT EXISTS captures_by_key ON captures (key);
"""


class Authorization(msgspec.Struct, forbid_unknown_fields=True):
    trip: str
    card: str
    amount: Annotated[int, msgspec.Meta(ge=1)]


class Capture(msgspec.Struct, forbid_unknown_fields=True):
    trip: str
    authorization: str


def authorise(db: sqlite3.Connection, wish: Authorization, key: str) -> dict[str, Any]:
    if wish.card == "tok_declined":
        raise DeclinedError("the card was declined", do="pay with another card", status=402)
    number = db.execute("INSERT INTO authorizations (key, trip, card, amount, state) VALUES (?, ?, ?, ?, 'authorised')",
                        (key, wish.trip, wish.card, wish.amount)).lastrowid
    return {"authorization": f"A{number}", "amount": wish.amount}


def void(db: sqlite3.Connection, _: Any, key: str) -> None:
    db.execute("UPDATE authorizations SET state = 'voided' WHERE key = ? AND state = 'authorised'", (key,))


def capture(db: sqlite3.Connection, wish: Capture, key: str) -> dict[str, Any]:
    number = int(wish.authorization[1:])
    found = db.execute("SELECT amount, state FROM authorizations WHERE id = ?", (number,)).fetchone()
    if found is None or found[1] != "authorised":
        raise DeclinedError(f"{wish.authorization} cannot be captured: {found[1] if found else 'unknown'}", do="authorise first", status=409)
    db.execute("UPDATE authorizations SET state = 'captured' WHERE id = ?", (number,))
    receipt = db.execute("INSERT INTO captures (key, trip, authorization, amount, state) VALUES (?, ?, ?, ?, 'captured')",
                         (key, wish.trip, number, found[0])).lastrowid
    return {"receipt": f"C{receipt}", "amount": found[0]}


def refund(db: sqlite3.Connection, _: Any, key: str) -> None:
    db.execute("UPDATE authorizations SET state = 'refunded' WHERE id IN (SELECT authorization FROM captures WHERE key = ?)", (key,))
    db.execute("UPDATE captures SET state = 'refunded' WHERE key = ?", (key,))


def make(store_url: str) -> Starlette:
    selling = Selling(store_url, SCHEMA)
    return selling.app(Route("/authorizations", selling.endpoint(authorise, void, Authorization)),
                       Route("/captures", selling.endpoint(capture, refund, Capture)))
