"""The participant over HTTP: what a caller sees for every mistake, repetition and order."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from yaoki.errors import DeclinedError, InProgressError, UsageError
from yaoki.saga.participant import AsyncParticipant, EffectEndpoint, Participant, problem


class Order(msgspec.Struct):
    room: int


class Hotel:
    """A hotel of one room a number, behind an `EffectEndpoint`."""

    def __init__(self, *, threads: bool = False) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.effects = Participant()
        self.effects.create(self.db)
        self.db.execute("CREATE TABLE bookings (room INTEGER PRIMARY KEY, key TEXT)")
        self.fail = False
        self.endpoint = EffectEndpoint(self.effects, transaction=self.transaction, do=self.book, undo=self.cancel, type=Order,
                                       threads=threads, limit_bytes=100)
        app = Starlette(routes=[Route("/bookings", self.endpoint), Route("/others", self.endpoint)])
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hotel")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def book(self, db: sqlite3.Connection, order: Order, key: str) -> dict[str, Any]:
        if db.execute("SELECT 1 FROM bookings WHERE room = ?", (order.room,)).fetchone():
            raise DeclinedError("sold out", do="choose another room", status=409, room=order.room)
        if order.room > 100:
            raise DeclinedError("card declined", do="pay otherwise", status=402)
        db.execute("INSERT INTO bookings VALUES (?, ?)", (order.room, key))
        if self.fail:
            raise ZeroDivisionError
        return {"room": order.room}

    def cancel(self, db: sqlite3.Connection, answer: Any, key: str) -> dict[str, Any]:
        db.execute("DELETE FROM bookings WHERE key = ?", (key,))
        return {"freed": answer["room"]}

    async def post(self, key: str | None, room: Any, path: str = "/bookings") -> httpx.Response:
        return await self.client.post(path, json={"room": room}, headers={} if key is None else {"Idempotency-Key": key})

    def rooms(self) -> list[int]:
        return [room for (room,) in self.db.execute("SELECT room FROM bookings ORDER BY room")]


@pytest.fixture(params=[False, True], ids=["on the loop", "in a thread"])
async def hotel(request: pytest.FixtureRequest) -> AsyncIterator[Hotel]:
    made = Hotel(threads=request.param)
    yield made
    await made.client.aclose()
    made.db.close()


async def test_a_repeated_post_replays_the_first_answer_and_says_so(hotel: Hotel) -> None:
    first = await hotel.post("r/hotel", 7)
    again = await hotel.post("r/hotel", 7)
    assert (first.status_code, first.json()) == (again.status_code, again.json()) == (200, {"room": 7})
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert hotel.rooms() == [7]


@pytest.mark.parametrize("own", ["r/hotel:undo", '"r/hotel:undo"'])
async def test_delete_finds_the_effect_by_its_own_key(hotel: Hotel, own: str) -> None:
    await hotel.post("r/hotel", 7)
    for _ in range(2):
        reply = await hotel.client.delete("/bookings", headers={"Idempotency-Key": own})
        assert (reply.status_code, reply.json()) == (200, {"freed": 7})
    assert hotel.rooms() == []


async def test_delete_of_a_second_effect_of_a_step(hotel: Hotel) -> None:
    await hotel.post("r/hotel#2", 8)
    assert (await hotel.client.delete("/bookings", headers={"Idempotency-Key": "r/hotel:undo#2"})).json() == {"freed": 8}
    await hotel.post("r/hotel#3", 9)
    assert (await hotel.client.delete("/bookings", params={"key": "r/hotel#3"})).json() == {"freed": 9}


async def test_a_do_after_its_undo_is_a_409_that_names_suspension(hotel: Hotel) -> None:
    assert (await hotel.client.delete("/bookings", params={"key": "r/hotel"})).status_code == 200
    reply = await hotel.post("r/hotel", 7)
    assert reply.status_code == 409
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["code"] == "YK-1106"
    assert reply.json()["key"] == "r/hotel"
    assert hotel.rooms() == []


async def test_a_refusal_keeps_its_status_and_is_repeated_even_when_the_reason_is_gone(hotel: Hotel) -> None:
    await hotel.post("a/hotel", 7)
    first = await hotel.post("b/hotel", 7)
    await hotel.client.delete("/bookings", params={"key": "a/hotel"})
    again = await hotel.post("b/hotel", 7)
    assert first.status_code == again.status_code == 409
    assert first.json() == again.json()
    assert (again.json()["title"], again.json()["room"]) == ("sold out", 7)
    assert (await hotel.post("c/hotel", 101)).status_code == 402
    assert hotel.rooms() == []


async def test_another_body_or_path_under_the_same_key_is_a_422(hotel: Hotel) -> None:
    await hotel.post("r/hotel", 7)
    assert (await hotel.post("r/hotel", 8)).json()["code"] == "YK-2004"
    assert (await hotel.post("r/hotel", 7, path="/others")).status_code == 422
    assert hotel.rooms() == [7]


async def test_a_failing_effect_is_a_500_that_keeps_nothing_and_tells_nothing(hotel: Hotel) -> None:
    hotel.fail = True
    reply = await hotel.post("r/hotel", 7)
    assert reply.status_code == 500
    assert "ZeroDivision" not in reply.text
    hotel.fail = False
    assert (await hotel.post("r/hotel", 7)).json() == {"room": 7}
    assert hotel.rooms() == [7]


async def test_every_mistake_gets_its_status_and_a_remedy(hotel: Hotel) -> None:
    replies = {
        400: [await hotel.post(None, 7), await hotel.post("x" * 256, 7), await hotel.client.delete("/bookings"),
              await hotel.client.delete("/bookings", headers={"Idempotency-Key": "r/hotel"})],
        405: [await hotel.client.get("/bookings")],
        413: [await hotel.client.post("/bookings", content=b"x" * 101, headers={"Idempotency-Key": "k"})],
        422: [await hotel.post("k", "seven"), await hotel.client.post("/bookings", content=b"{", headers={"Idempotency-Key": "k"})],
    }
    for status, those in replies.items():
        for reply in those:
            assert (reply.status_code, reply.json()["status"]) == (status, status)
            assert reply.json()["do"]
    assert replies[405][0].headers["allow"] == "POST, DELETE"
    assert hotel.rooms() == []
    assert hotel.effects.look(hotel.db, "k") is None


async def test_a_request_that_breaks_off_does_nothing(hotel: Hotel) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/bookings", "headers": [(b"idempotency-key", b"k")], "query_string": b""}
    await hotel.endpoint(scope, receive, send)
    assert sent[0]["status"] == 400
    assert hotel.rooms() == []
    with pytest.raises(UsageError):
        await hotel.endpoint({"type": "websocket"}, receive, send)


def test_an_effect_in_progress_says_when_to_ask_again() -> None:
    assert problem(InProgressError("busy", do="ask again", key="k"))[0] == 409


async def test_coroutine_functions_serve_an_async_participant() -> None:
    """The whole path with a connection that answers like asyncpg's; the real one is in the contract suite."""

    class Connection:
        def __init__(self) -> None:
            self.rows: dict[str, list[Any]] = {}

        def is_in_transaction(self) -> bool:
            return True

        async def execute(self, sql: str, *values: Any) -> str:
            if sql.startswith("UPDATE") and "'undone'" not in sql:
                self.rows[values[3]][1:5:2] = [values[0], values[1]]
            elif sql.startswith("UPDATE"):
                self.rows[values[2]][1] = "undone"
            return "OK"

        async def fetchrow(self, sql: str, *values: Any) -> Any:
            if sql.startswith("INSERT"):
                if values[0] in self.rows:
                    return None
                self.rows[values[0]] = [values[0], values[1], values[2], "null", "null", values[3]]
                return (values[0],)
            return self.rows.get(values[0])

    db = Connection()

    @asynccontextmanager
    async def transaction() -> AsyncIterator[Connection]:
        yield db

    async def book(_: Any, order: Order, key: str) -> dict[str, Any]:
        if order.room == 0:
            raise DeclinedError("no such room", do="choose another", status=404)
        return {"room": order.room}

    async def cancel(_: Any, answer: Any, key: str) -> None:
        assert answer == {"room": 7}

    endpoint = EffectEndpoint(AsyncParticipant(), transaction=transaction, do=book, undo=cancel, type=Order)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(endpoint), base_url="http://hotel") as client:
        headers = {"Idempotency-Key": "r/hotel"}
        assert (await client.post("/", json={"room": 7}, headers=headers)).json() == {"room": 7}
        assert (await client.post("/", json={"room": 7}, headers=headers)).headers["idempotency-replayed"] == "true"
        assert (await client.delete("/?key=r/hotel")).status_code == 200
        assert (await client.post("/", json={"room": 7}, headers=headers)).status_code == 409
        assert (await client.post("/", json={"room": 0}, headers={"Idempotency-Key": "x"})).status_code == 404
