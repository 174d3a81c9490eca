"""One suite for every database a service may have: sqlite3, psycopg, asyncpg.

The service under test is a table of bookings. The claim behind every test: whatever is asked, repeated, cut off or
overtaken, a key has at most one booking, and has it exactly when it was done and not undone.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servers import PostgresServer
from yaoki.errors import ConfigError, DeclinedError, InProgressError, KeyReusedError, SuspendedError, UsageError
from yaoki.saga.participant import Answer, AsyncParticipant, EffectEndpoint, Participant

BOOKINGS = "CREATE TABLE IF NOT EXISTS bookings (key TEXT NOT NULL, live INTEGER NOT NULL)"


class Crash(Exception):
    """The process died here: nothing after this line ran, and the open transaction was rolled back."""


class Desk:
    """A booking desk over one kind of connection. `crash`: '', 'working' (in the middle), 'before' or 'after' the commit."""

    marker = "?"

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def do(self, key: str, *, request: Any = "room", crash: str = "", decline: bool = False) -> Answer:
        raise NotImplementedError

    async def undo(self, key: str, *, crash: str = "") -> Answer:
        raise NotImplementedError

    async def live(self, key: str) -> int:
        raise NotImplementedError

    async def look(self, key: str) -> Any:
        raise NotImplementedError

    async def purge(self, older_than: float) -> int:
        raise NotImplementedError


class BlockingDesk(Desk):
    """sqlite3 and psycopg: one connection a call, as a pool would give it."""

    def __init__(self, connect: Callable[[], Any], marker: str, participant: Participant | None = None) -> None:
        self.connect = connect
        self.marker = marker
        self.participant = participant or Participant()

    async def start(self) -> None:
        with self._connection() as db:
            self.participant.create(db)
            db.execute(BOOKINGS)
            db.execute("DELETE FROM bookings")
            db.execute("DELETE FROM yaoki_effects")

    def _connection(self) -> Any:
        return Closing(self.connect())

    def _do(self, key: str, request: Any, crash: str, decline: bool) -> Answer:
        with self._connection() as db:
            def work() -> dict[str, str]:
                db.execute(f"INSERT INTO bookings VALUES ({self.marker}, 1)", (key,))
                if crash == "working":
                    raise Crash
                if decline:
                    raise DeclinedError("sold out", do="choose another night", status=409, rooms=0)
                return {"booked": key}

            declined = None
            answer = Answer(None)
            try:
                answer = self.participant.do(db, key, work, request=request)
            except DeclinedError as error:
                declined = error
            if crash == "before":
                raise Crash
        if crash == "after":
            raise Crash
        if declined:
            raise declined
        return answer

    def _undo(self, key: str, crash: str) -> Answer:
        with self._connection() as db:
            def work(answer: Any) -> dict[str, Any]:
                db.execute(f"UPDATE bookings SET live = 0 WHERE key = {self.marker}", (key,))
                if crash == "working":
                    raise Crash
                return {"cancelled": answer["booked"]}

            answer = self.participant.undo(db, key, work)
            if crash == "before":
                raise Crash
        if crash == "after":
            raise Crash
        return answer

    async def do(self, key: str, *, request: Any = "room", crash: str = "", decline: bool = False) -> Answer:
        return await asyncio.to_thread(self._do, key, request, crash, decline)

    async def undo(self, key: str, *, crash: str = "") -> Answer:
        return await asyncio.to_thread(self._undo, key, crash)

    async def live(self, key: str) -> int:
        with self._connection() as db:
            return int(db.execute(f"SELECT count(*) FROM bookings WHERE live = 1 AND key = {self.marker}", (key,)).fetchone()[0])

    async def look(self, key: str) -> Any:
        with self._connection() as db:
            return self.participant.look(db, key)

    async def purge(self, older_than: float) -> int:
        with self._connection() as db:
            return self.participant.purge(db, older_than=older_than)


class Closing:
    """A connection with a transaction, committed or rolled back, and closed."""

    def __init__(self, db: Any) -> None:
        self.db = db

    def __enter__(self) -> Any:
        if isinstance(self.db, sqlite3.Connection):
            self.db.execute("BEGIN IMMEDIATE")
        return self.db

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            self.db.commit() if kind is None else self.db.rollback()
        finally:
            self.db.close()


class AsyncpgDesk(Desk):
    def __init__(self, url: str, *, wait: bool = True) -> None:
        self.url = url
        self.participant = AsyncParticipant(wait=wait)

    async def start(self) -> None:
        async with self._transaction() as db:
            await self.participant.create(db)
            await db.execute(BOOKINGS)
            await db.execute("DELETE FROM bookings")
            await db.execute("DELETE FROM yaoki_effects")

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        db = await asyncpg.connect(self.url)
        try:
            async with db.transaction():
                yield db
        finally:
            await db.close()

    async def do(self, key: str, *, request: Any = "room", crash: str = "", decline: bool = False) -> Answer:
        async with self._transaction() as db:
            async def work() -> dict[str, str]:
                await db.execute("INSERT INTO bookings VALUES ($1, 1)", key)
                if crash == "working":
                    raise Crash
                if decline:
                    raise DeclinedError("sold out", do="choose another night", status=409, rooms=0)
                return {"booked": key}

            declined = None
            answer = Answer(None)
            try:
                answer = await self.participant.do(db, key, work, request=request)
            except DeclinedError as error:
                declined = error
            if crash == "before":
                raise Crash
        if crash == "after":
            raise Crash
        if declined:
            raise declined
        return answer

    async def undo(self, key: str, *, crash: str = "") -> Answer:
        async with self._transaction() as db:
            async def work(answer: Any) -> dict[str, Any]:
                await db.execute("UPDATE bookings SET live = 0 WHERE key = $1", key)
                if crash == "working":
                    raise Crash
                return {"cancelled": answer["booked"]}

            answer = await self.participant.undo(db, key, work)
            if crash == "before":
                raise Crash
        if crash == "after":
            raise Crash
        return answer

    async def live(self, key: str) -> int:
        async with self._transaction() as db:
            return int(await db.fetchval("SELECT count(*) FROM bookings WHERE live = 1 AND key = $1", key))

    async def look(self, key: str) -> Any:
        async with self._transaction() as db:
            return await self.participant.look(db, key)

    async def purge(self, older_than: float) -> int:
        async with self._transaction() as db:
            return await self.participant.purge(db, older_than=older_than)


@pytest.fixture(scope="session")
def postgres_url(postgres: PostgresServer) -> str:
    return postgres.new_database()


def sqlite_desk(path: Path) -> BlockingDesk:
    def connect() -> sqlite3.Connection:
        db = sqlite3.connect(path, timeout=90, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=OFF")
        return db

    return BlockingDesk(connect, "?")


@pytest.fixture(params=["sqlite3", pytest.param("psycopg", marks=pytest.mark.live), pytest.param("asyncpg", marks=pytest.mark.live)])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    made: Desk
    if request.param == "sqlite3":
        made = sqlite_desk(tmp_path / "hotel.db")
    else:
        url = request.getfixturevalue("postgres_url")
        made = BlockingDesk(lambda: psycopg.connect(url), "%s") if request.param == "psycopg" else AsyncpgDesk(url)
    await made.start()
    return made


async def refused(call: Awaitable[Any], kind: type[BaseException]) -> Any:
    with pytest.raises(kind) as caught:
        await call
    return caught.value


async def test_a_repeated_do_gets_the_first_answer_and_one_effect(desk: Desk) -> None:
    assert await desk.do("r/hotel") == Answer({"booked": "r/hotel"})
    assert await desk.do("r/hotel") == Answer({"booked": "r/hotel"}, replayed=True)
    assert await desk.live("r/hotel") == 1


async def test_a_repeated_undo_gets_the_first_answer_and_reverses_once(desk: Desk) -> None:
    await desk.do("r/hotel")
    assert await desk.undo("r/hotel") == Answer({"cancelled": "r/hotel"})
    assert await desk.undo("r/hotel") == Answer({"cancelled": "r/hotel"}, replayed=True)
    assert await desk.live("r/hotel") == 0


async def test_an_undo_whose_do_never_came_succeeds_and_a_late_do_is_refused(desk: Desk) -> None:
    assert await desk.undo("r/hotel") == Answer(None)
    error = await refused(desk.do("r/hotel"), SuspendedError)
    assert error.key == "r/hotel"
    assert await desk.undo("r/hotel") == Answer(None, replayed=True)
    assert await desk.live("r/hotel") == 0


async def test_a_do_after_its_undo_is_refused(desk: Desk) -> None:
    await desk.do("r/hotel")
    await desk.undo("r/hotel")
    await refused(desk.do("r/hotel"), SuspendedError)
    assert await desk.live("r/hotel") == 0


async def test_a_key_used_for_another_request_is_refused(desk: Desk) -> None:
    await desk.do("r/hotel", request={"room": 1})
    await refused(desk.do("r/hotel", request={"room": 2}), KeyReusedError)
    assert await desk.live("r/hotel") == 1


async def test_a_refusal_is_kept_its_writes_are_not_and_every_repetition_gets_it(desk: Desk) -> None:
    first = await refused(desk.do("r/hotel", decline=True), DeclinedError)
    again = await refused(desk.do("r/hotel"), DeclinedError)  # a room became free, and still: the first answer stands
    assert (again.message, again.do, again.rooms) == (first.message, first.do, 0)
    assert await desk.live("r/hotel") == 0
    assert await desk.undo("r/hotel") == Answer(None)
    await refused(desk.do("r/hotel"), SuspendedError)


@pytest.mark.parametrize("crash", ["working", "before"])
async def test_a_crash_before_the_commit_leaves_no_trace(desk: Desk, crash: str) -> None:
    await refused(desk.do("r/hotel", crash=crash), Crash)
    assert await desk.live("r/hotel") == 0
    assert await desk.look("r/hotel") is None
    assert (await desk.do("r/hotel")).replayed is False
    await refused(desk.undo("r/hotel", crash=crash), Crash)
    assert await desk.live("r/hotel") == 1


async def test_a_crash_after_the_commit_is_answered_by_repeating(desk: Desk) -> None:
    await refused(desk.do("r/hotel", crash="after"), Crash)
    assert await desk.do("r/hotel") == Answer({"booked": "r/hotel"}, replayed=True)


async def test_what_is_kept_can_be_looked_at_and_purged(desk: Desk) -> None:
    await desk.do("r/hotel")
    row = await desk.look("r/hotel")
    assert (row.key, row.state, row.answer) == ("r/hotel", "done", '{"booked":"r/hotel"}')
    assert await desk.purge(3600) == 0
    assert await desk.purge(-1) == 1
    assert await desk.look("r/hotel") is None


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb"])
async def test_a_malformed_key_is_refused_before_anything_is_written(desk: Desk, key: str) -> None:
    await refused(desk.do(key), UsageError)
    await refused(desk.undo(key), UsageError)


@pytest.mark.parametrize("seed", range(3))
async def test_requests_that_race_for_a_key_make_one_effect_or_none(desk: Desk, seed: int) -> None:
    """Twelve requests at once; the last decision in commit order is what the database shows."""
    rng = random.Random(seed)
    undos = rng.choice([0, 0, 1, 3])

    async def ask(kind: str) -> str:
        await asyncio.sleep(rng.random() * 0.01)
        try:
            await (desk.do("r/hotel") if kind == "do" else desk.undo("r/hotel"))
        except SuspendedError:
            return "suspended"
        return kind

    kinds = ["undo"] * undos + ["do"] * (12 - undos)
    rng.shuffle(kinds)
    answers = await asyncio.gather(*map(ask, kinds))
    assert answers.count("undo") == undos
    assert await desk.live("r/hotel") == (0 if undos else 1)
    if not undos:
        assert "suspended" not in answers


ASKED = st.tuples(st.sampled_from(["do", "undo"]), st.sampled_from(["a", "b"]), st.sampled_from(["", "working", "before", "after"]),
                  st.booleans())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(asked=st.lists(ASKED, max_size=12))
def test_any_order_repetition_and_crash_agrees_with_the_first_decision_and_the_last(asked: list[Any], tmp_path: Path) -> None:
    """Property: the database shows what the committed decisions say, however often and in whatever order they were asked for."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    desk = BlockingDesk(lambda: _Kept(memory), "?", Participant(style="qmark"))
    decided: dict[str, str] = {}
    memory.execute(BOOKINGS)
    desk.participant.create(memory)
    for kind, key, crash, decline in asked:
        before = decided.get(key)
        memory.execute("BEGIN IMMEDIATE")
        try:
            answer = desk._do(key, "room", crash, decline) if kind == "do" else desk._undo(key, crash)
            assert not (kind == "do" and answer.replayed and before != "done")
        except SuspendedError:
            assert before == "undone"
        except DeclinedError:
            assert before == "declined" or (before is None and decline)
        except Crash:
            pass
        # The model: crashes before the commit decide nothing; a crash in the work happens only where work is done.
        works = (kind == "do" and before is None) or (kind == "undo" and before == "done")
        if crash == "before" or (crash == "working" and works):
            pass
        elif kind == "undo":
            decided[key] = "undone"
        elif before is None:
            decided[key] = "declined" if decline else "done"
        for each in ("a", "b"):
            count = memory.execute("SELECT count(*) FROM bookings WHERE live = 1 AND key = ?", (each,)).fetchone()[0]
            assert count == (1 if decided.get(each) == "done" else 0)
            row = desk.participant.look(memory, each)
            assert (row.state if row else None) == decided.get(each)
    memory.close()


class _Kept:
    """A connection that survives the desk's `close`, as a pool's does."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.execute, self.cursor = db.execute, db.cursor
        self.commit, self.rollback = db.commit, db.rollback

    def close(self) -> None: ...


# ── what differs between databases ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.live
async def test_without_waiting_a_key_in_progress_is_refused(postgres_url: str) -> None:
    await AsyncpgDesk(postgres_url).start()
    asyncs = AsyncParticipant(wait=False)
    first, second = await asyncpg.connect(postgres_url), await asyncpg.connect(postgres_url)

    async def work() -> dict[str, str]:
        async with second.transaction():
            await refused(asyncs.do(second, "r/busy", _never), InProgressError)
        with psycopg.connect(postgres_url) as third, pytest.raises(InProgressError):
            Participant(wait=False).do(third, "r/busy", lambda: None)
        return {"ok": "yes"}

    async with first.transaction():
        assert (await asyncs.do(first, "r/busy", work)).value == {"ok": "yes"}
    await first.close()
    await second.close()


async def _never() -> None:
    raise AssertionError


@pytest.mark.live
async def test_the_endpoint_over_asyncpg_answers_a_storm_of_requests_with_one_effect(postgres_url: str) -> None:
    await AsyncpgDesk(postgres_url).start()
    pool = await asyncpg.create_pool(postgres_url, min_size=4, max_size=4)

    @asynccontextmanager
    async def transaction() -> AsyncIterator[Any]:
        async with pool.acquire() as db, db.transaction():
            yield db

    async def book(db: Any, body: dict[str, int], key: str) -> dict[str, int]:
        await db.execute("INSERT INTO bookings VALUES ($1, 1)", key)
        if body["room"] == 13:
            raise DeclinedError("there is no room 13", do="choose another", status=404)
        return body

    async def cancel(db: Any, answer: Any, key: str) -> dict[str, int]:
        await db.execute("UPDATE bookings SET live = 0 WHERE key = $1", key)
        return {"freed": answer["room"]}

    endpoint = EffectEndpoint(AsyncParticipant(), transaction=transaction, do=book, undo=cancel, type=dict[str, int])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(endpoint), base_url="http://hotel") as client:
        async def post(key: str, room: int) -> httpx.Response:
            return await client.post("/", json={"room": room}, headers={"Idempotency-Key": key})

        replies = await asyncio.gather(*(post("s/hotel", 7) for _ in range(12)))
        assert [(reply.status_code, reply.json()) for reply in replies] == [(200, {"room": 7})] * 12
        assert sum("idempotency-replayed" not in reply.headers for reply in replies) == 1
        assert [(await post("t/hotel", 13)).status_code for _ in range(2)] == [404, 404]
        undone = await asyncio.gather(*(client.delete("/", params={"key": "s/hotel"}) for _ in range(4)))
        assert [reply.json() for reply in undone] == [{"freed": 7}] * 4
        assert (await post("s/hotel", 7)).status_code == 409
    async with transaction() as db:
        assert [tuple(row) for row in await db.fetch("SELECT key, live FROM bookings")] == [("s/hotel", 0)]
    await pool.close()


@pytest.mark.live
async def test_a_postgres_connection_without_a_transaction_is_refused(postgres_url: str) -> None:
    db = await asyncpg.connect(postgres_url)
    await refused(AsyncParticipant().do(db, "r/hotel", _never), UsageError)
    await db.close()
    with psycopg.connect(postgres_url, autocommit=True) as blocking, pytest.raises(UsageError):
        Participant().do(blocking, "r/hotel", lambda: None)


def test_the_first_answer_is_what_its_repetitions_are() -> None:
    """JSON has no tuples, no dates and no numbers as keys: better seen at once than after the first lost reply."""
    with closing(sqlite3.connect(":memory:")) as db:
        Participant().create(db)

        def work() -> Any:
            return {1: (2, 3), "on": date(2026, 11, 21)}

        first = Participant().do(db, "r/hotel", work)
        again = Participant().do(db, "r/hotel", work)
        assert first.value == again.value == {"1": [2, 3], "on": "2026-11-21"}
        undone = Participant().undo(db, "r/hotel", lambda answer: {1: answer["on"]})
        assert undone.value == Participant().undo(db, "r/hotel", work).value == {"1": "2026-11-21"}


def test_a_sqlite_connection_without_a_transaction_is_refused() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    Participant().create(db)
    with pytest.raises(UsageError, match="no transaction"):
        Participant().do(db, "r/hotel", lambda: None)
    with pytest.raises(UsageError, match="no transaction"):
        Participant().undo(db, "r/hotel", lambda _: None)
    db.close()


def test_work_that_commits_in_its_middle_is_seen_and_named() -> None:
    db = sqlite3.connect(":memory:")

    def work() -> None:
        db.commit()
        raise Crash

    Participant().create(db)
    with pytest.raises(Crash):
        Participant().do(db, "r/hotel", work)
    db.rollback()
    with pytest.raises(InProgressError, match="committed before it was finished"):
        Participant().do(db, "r/hotel", lambda: None)
    with pytest.raises(InProgressError):
        Participant().undo(db, "r/hotel", lambda _: None)
    db.close()


def test_a_table_name_that_is_not_a_name_and_an_unknown_driver_are_refused() -> None:
    with pytest.raises(ConfigError, match="letters, digits"):
        Participant("x; DROP TABLE bookings", style="qmark")
    with pytest.raises(ConfigError, match="style must be"):
        Participant(style="pyformat")
    with pytest.raises(ConfigError, match="not known"):
        Participant().look(object(), "k")
