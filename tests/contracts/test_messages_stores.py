"""One contract for consumers over every store: order by key, once, retries that are stored, quarantine, dead letters."""

from __future__ import annotations

import asyncio
import sqlite3
import time

import msgspec
import pytest

from contracts.messages_world import QUICK, Placed, Recorder, Reserved, service, stored, until, until_so
from yaoki import effect
from yaoki.errors import (
    ConfigError,
    DeclinedError,
    DefinitionError,
    FencedError,
    NoReplyError,
    NoTransactionError,
    RefusedError,
)
from yaoki.messages import Message, Messages, Pace, Retries, event
from yaoki.messages.boxes import discard, edit, find, redrive
from yaoki.messages.brokers.stored import StoredBroker
from yaoki.messages.envelope import PARTS
from yaoki.messages.store.port import Held, Settlement


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.live)])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/messages.db"
    return request.getfixturevalue("postgres").new_database()


def made(n: int, key: str = "", id_: str = "") -> Message:
    return Message(id=id_ or f"id-{n:06}", source="elsewhere", type="Placed", key=key, data=b'{"n":%d}' % n, time=1.0)


async def test_a_message_that_is_published_is_handled_once(url):
    app, saw = service(url), Recorder()

    @app.on(Placed)
    async def take(placed: Placed):
        saw.note("", placed.n)

    async with app:
        await app.publish(*(Placed(n) for n in range(100)))
        await until(lambda: len(saw.seen) == 100)
    async with service(url) as again:
        assert (await again.store.lag("orders.take"))[0].waiting == 0
    assert sorted(saw.seen) == list(range(100))


async def test_a_message_known_by_source_and_id_is_passed_over(url):
    async with stored(url) as store:
        await store.append([made(1), made(2)])
        await store.append([made(2), made(3)])
        page = await store.read(None, dict.fromkeys(range(PARTS), (0, 0)), 100)
        assert [entry.message.id for entry in page.entries] == ["id-000001", "id-000002", "id-000003"]


async def test_many_at_once_of_which_some_are_known_keep_their_order_and_are_there_once(url):
    many = [made(n, key=f"k{n % 5}") for n in range(300)]
    async with stored(url) as store:
        await store.append(many[40:45])
        await store.append(many)  # in bulk, where a store may have a quicker way for what is new
        await store.append([*many, made(300, key="k0")])
        page = await store.read(None, dict.fromkeys(range(PARTS), (0, 0)), 1000)
    names = [entry.message.id for entry in page.entries]
    assert sorted(names) == [each.id for each in [*many, made(300)]]
    for key in range(5):
        along = [int(name[3:]) for name in names if int(name[3:]) % 5 == key and not 40 <= int(name[3:]) < 45]
        assert along == sorted(along)


async def test_messages_of_a_key_are_handled_in_order_and_keys_side_by_side(url):
    app, saw = service(url), Recorder()
    under_way, most, beside = 0, 0, asyncio.Event()

    @app.on(Placed)
    async def take(placed: Placed, message: Message):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if most > 1:
            beside.set()
        await beside.wait()  # the first one, for a message of another key
        await asyncio.sleep(0.001)
        saw.note(message.key, placed.n)
        under_way -= 1

    async with app:
        for n in range(0, 200, 10):
            await asyncio.gather(*(app.publish(Placed(n + i), key=f"k{i}") for i in range(10)))
        await until(lambda: len(saw.seen) == 200)
    assert all(seen == sorted(seen) for seen in saw.by_key.values())
    assert most > 1


async def test_a_failing_message_is_tried_again_and_only_its_key_waits(url):
    app, saw = service(url), Recorder()
    failures = 0

    @app.on(Placed, retries=QUICK)
    async def take(placed: Placed, message: Message):
        nonlocal failures
        if placed.n == 0 and failures < 2:
            failures += 1
            raise OSError("not now")
        saw.note(message.key, placed.n)

    async with app:
        for n in range(10):
            await app.publish(Placed(n), key="slow" if n < 5 else "quick")
        await until(lambda: len(saw.seen) == 10)
        await until_nothing(app, "retry")
        assert (await app.store.lag("orders.take"))[0].states == {}
    assert saw.by_key == {"slow": [0, 1, 2, 3, 4], "quick": [5, 6, 7, 8, 9]}


async def test_poison_blocks_only_its_key_and_goes_on_in_order_when_redriven(url):
    app, saw = service(url), Recorder()
    cured = False

    @app.on(Placed, retries=QUICK)
    async def take(placed: Placed, message: Message):
        if placed.n == 0 and not cured:
            raise ValueError("cannot be")
        saw.note(message.key, placed.n)

    async with app:
        for n in range(10):
            await app.publish(Placed(n), key="bad" if n < 5 else "good")
        await until(lambda: len(saw.seen) == 5)
        await until_held(app, "quarantined")
        (box,) = await find(app.store)
        assert (box.state, box.attempts, box.message.key) == ("quarantined", 3, "bad")
        assert box.error == "ValueError: cannot be"
        assert len(box.history) == 2
        cured = True
        plan = await redrive(app.store, dry_run=True)
        assert [each.message.id for each in plan.chosen] == [box.message.id]
        assert len(saw.seen) == 5
        await redrive(app.store)
        await until(lambda: len(saw.seen) == 10)
        assert await find(app.store) == []
    assert saw.by_key == {"good": [5, 6, 7, 8, 9], "bad": [0, 1, 2, 3, 4]}


async def until_held(app: Messages, state: str, count: int = 1) -> None:
    async def there() -> bool:
        return len(await app.store.held(states=(state,), limit=1000)) >= count

    await until_so(there, f"something becomes {state}")


async def test_with_skip_the_key_goes_on_and_the_message_is_a_dead_letter(url):
    app, saw = service(url), Recorder()

    @app.on(Placed, retries=Retries(attempts=1, poison="skip"))
    async def take(placed: Placed, message: Message):
        if placed.n == 0:
            raise ValueError("cannot be")
        saw.note(message.key, placed.n)

    async with app:
        await app.publish(*(Placed(n) for n in range(5)), key="k")
        await until(lambda: saw.seen == [1, 2, 3, 4])
        await until_held(app, "dead")
        assert await discard(app.store, ids=["none of these"]) == []
        (box,) = await find(app.store)
        assert [each.message.id for each in await discard(app.store, ids=[box.message.id])] == [box.message.id]
        assert await find(app.store) == []


async def test_a_dead_letter_can_be_corrected_and_redriven(url):
    app, saw = service(url), Recorder()

    @app.on(Placed, retries=QUICK)
    async def take(placed: Placed):
        saw.note("", placed.n)

    async with app:
        await app.store.append([msgspec.structs.replace(made(1, "k"), data=b'{"n":"one"}'), made(2, "k")])
        await until_held(app, "quarantined")
        (box,) = await find(app.store)
        assert box.attempts == 1, "data that cannot be read is not tried again"
        await edit(app.store, box, b'{"n": 1}')
        await redrive(app.store)
        await until(lambda: saw.seen == [1, 2])


async def test_redriving_the_same_poison_stops_at_max_replays(url):
    app = service(url)

    @app.on(Placed, retries=Retries(attempts=1))
    async def take(placed: Placed):
        raise ValueError("never")

    async with app:
        await app.publish(Placed(1), key="k")
        for replays in range(3):
            await until_held(app, "quarantined")
            chosen = await redrive(app.store, max_replays=3)
            assert [each.replays for each in chosen.chosen] == [replays]
            await until_nothing(app, "retry")
        await until_held(app, "quarantined")
        chosen = await redrive(app.store, max_replays=3)
        assert (chosen.chosen, len(chosen.worn_out)) == ([], 1)


async def until_nothing(app: Messages, state: str) -> None:
    async def gone() -> bool:
        return not await app.store.held(states=(state,))

    await until_so(gone, f"nothing stays {state}")


async def test_a_canary_goes_first_and_stops_the_rest_when_it_fails_again(url):
    app, cured = service(url), False
    saw = Recorder()

    @app.on(Placed, retries=Retries(attempts=1))
    async def take(placed: Placed, message: Message):
        if not cured:
            raise ValueError("not yet")
        saw.note(message.key, placed.n)

    async with app:
        await app.publish(*(Placed(n) for n in range(1)), key="a")
        for n in range(1, 10):
            await app.publish(Placed(n), key=f"k{n}")
        await until_held(app, "quarantined", 10)
        stopped = await redrive(app.store, canary=2)
        assert (len(stopped.chosen), len(stopped.failed), len(stopped.left)) == (2, 2, 8)
        cured = True
        whole = await redrive(app.store, canary=2)
        assert (len(whole.chosen), whole.failed, whole.left) == (10, [], [])
        await until(lambda: len(saw.seen) == 10)


async def test_the_effect_and_the_mark_commit_together(url):
    app = service(url)
    applied: list[int] = []
    failures = 0

    @app.on(Placed, retries=QUICK)
    async def take(placed: Placed, tx) -> Reserved:
        nonlocal failures
        await write(tx, placed.n)
        if placed.n == 5 and failures < 2:
            failures += 1
            raise OSError("after the write")
        applied.append(placed.n)
        return Reserved(placed.n)

    @app.on(Reserved)
    async def note(reserved: Reserved):
        pass

    async with app:
        await make_table(app)
        await app.publish(*(Placed(n) for n in range(10)), key="k")
        await until(lambda: sorted(set(applied)) == list(range(10)))
        await until_nothing(app, "retry")
        assert await written(app) == list(range(10))
        page = await app.store.read(["Reserved"], dict.fromkeys(range(PARTS), (0, 0)), 100)
        assert sorted(entry.message.data for entry in page.entries) == [b'{"n":%d}' % n for n in range(10)]


async def make_table(app: Messages) -> None:
    async with app.store.transaction() as tx:
        done = tx.connection.execute("CREATE TABLE IF NOT EXISTS effects (n integer)")
        if not isinstance(done, sqlite3.Cursor):
            await done


async def write(tx, n: int) -> None:
    if isinstance(tx, sqlite3.Connection):
        tx.execute("INSERT INTO effects VALUES (?)", (n,))
    else:
        await tx.execute("INSERT INTO effects VALUES ($1)", n)


async def written(app: Messages) -> list[int]:
    async with app.store.transaction() as tx:
        if isinstance(tx.connection, sqlite3.Connection):
            return sorted(n for (n,) in tx.connection.execute("SELECT n FROM effects"))
        return sorted(row["n"] for row in await tx.connection.fetch("SELECT n FROM effects"))


async def test_publishing_in_a_transaction_that_rolls_back_publishes_nothing(url):
    app, saw = service(url), Recorder()

    @app.on(Placed)
    async def take(placed: Placed):
        saw.note("", placed.n)

    async with app:
        with pytest.raises(ZeroDivisionError):
            async with app.store.transaction() as tx:
                await app.publish(Placed(1), connection=tx.connection)
                raise ZeroDivisionError
        async with app.store.transaction() as tx:
            await app.publish(Placed(2), connection=tx.connection)
        await until(lambda: saw.seen)
        assert saw.seen == [2]
        with pytest.raises(NoTransactionError, match="no transaction is open"):
            await publish_without_transaction(app)


async def publish_without_transaction(app: Messages) -> None:
    if app.store.url.startswith("sqlite"):
        with_autocommit = sqlite3.connect(app.store.path, isolation_level=None)
        try:
            await app.publish(Placed(3), connection=with_autocommit)
        finally:
            with_autocommit.close()
    else:
        async with app.store.pool.acquire() as connection:
            await app.publish(Placed(3), connection=connection)


async def test_what_a_handler_publishes_follows_from_what_it_handles(url):
    app = service(url)
    got: list[Message] = []

    @app.on(Placed)
    async def take(placed: Placed) -> list[Reserved]:
        await app.publish(Reserved(1))
        return [Reserved(2), Reserved(3)]

    @app.on(Reserved)
    async def note(reserved: Reserved, message: Message):
        got.append(message)

    async with app:
        (first,) = await app.publish(Placed(1), key="k")
        await until(lambda: len(got) == 3)
    assert {message.cause for message in got} == {first.id}
    assert {message.correlation for message in got} == {first.id}


async def test_a_request_gets_its_answer_and_a_missing_one_is_said(url):
    app = service(url)

    @app.on(Placed)
    def answer(placed: Placed) -> Reserved:
        return Reserved(placed.n * 2)

    async with app:
        assert await asyncio.gather(*(app.request(Placed(n)) for n in range(5))) == [{"n": 2 * n} for n in range(5)]
        with pytest.raises(NoReplyError, match="no answer"):
            await app.request(Reserved(1), timeout=0.05)
    async with stored(url) as store:
        assert not [lag.group for lag in await store.lag() if "reply" in lag.group]


async def test_a_scheduled_message_waits_for_its_time_and_blocks_nothing(url):
    app, saw = service(url), Recorder()

    @app.on(Placed)
    async def take(placed: Placed):
        saw.note("", placed.n)

    async with app:
        for n, delay in enumerate((1.0, 10.0, 60.0)):  # until the machine has not stood still for so long
            due = time.monotonic() + delay
            await app.publish(Placed(2 * n + 1), key="k", delay=delay)
            await app.publish(Placed(2 * n), key="k")
            await until(lambda n=n: 2 * n in saw.seen)
            if in_time := time.monotonic() < due:
                break
        await until(lambda: len(saw.seen) == 2 * n + 2)
    assert in_time
    assert saw.seen[-2:] == [2 * n, 2 * n + 1]


async def test_each_handler_has_its_own_progress(url):
    app, first, second = service(url), Recorder(), Recorder()

    @app.on(Placed, retries=QUICK)
    async def one(placed: Placed):
        first.note("", placed.n)
        raise DeclinedError("not for me")

    @app.on(Placed)
    async def two(placed: Placed):
        second.note("", placed.n)

    async with app:
        await app.publish(Placed(1))
        await until_held(app, "quarantined")
        await until(lambda: second.seen)
    assert (first.seen, second.seen) == ([1], [1])


async def test_a_refusal_is_not_counted_as_an_attempt(url):
    app, calls = service(url), 0

    @app.on(Placed, retries=QUICK)
    async def take(placed: Placed):
        nonlocal calls
        calls += 1
        if calls < 6:
            raise RefusedError("the breaker is open")

    async with app:
        await app.publish(Placed(1))
        await until(lambda: calls == 6)
        await until_nothing(app, "retry")
        assert await find(app.store) == []


async def test_a_stable_key_comes_with_every_attempt(url):
    app, keys = service(url), []

    @app.on(Placed, retries=QUICK)
    async def take(placed: Placed):
        keys.append(effect.current.get().key)
        if len(keys) < 3:
            raise OSError

    async with app:
        (message,) = await app.publish(Placed(1))
        await until(lambda: len(keys) == 3)
    assert set(keys) == {f"orders/{message.id}/orders.take"}


async def test_older_versions_are_brought_up(url):
    @event(name="Placed", version=3, upcasts={1: lambda old: {"m": old["n"]}, 2: lambda old: {"number": old["m"]}})
    class Newest(msgspec.Struct):
        number: int

    app, saw = service(url), Recorder()

    @app.on(Newest)
    async def take(placed: Newest):
        saw.note("", placed.number)

    async with app:
        await app.store.append([made(7), msgspec.structs.replace(made(8), version=2, data=b'{"m":8}')])
        await until(lambda: sorted(saw.seen) == [7, 8])


async def test_two_workers_share_the_partitions_and_a_leaver_frees_them(url):
    async with stored(url) as store:
        await store.declare("g", ["Placed"], since="beginning")
        alone = await store.balance("g", "a", 60.0)
        assert len(alone.leases) == PARTS
        assert not (await store.balance("g", "b", 60.0)).leases
        asked = await store.balance("g", "a", 60.0)
        assert len(asked.surplus) == PARTS // 2
        await store.release("g", "a", asked.surplus, leaving=False)
        half = await store.balance("g", "b", 60.0)
        assert set(half.leases) == asked.surplus
        assert all(lease.fence == 2 for lease in half.leases.values())
        await store.release("g", "b", half.leases, leaving=True)
        assert len((await store.balance("g", "a", 60.0)).leases) == PARTS


async def test_a_settlement_of_a_former_owner_is_refused_whole(url):
    async with stored(url) as store:
        await store.declare("g", ["Placed"], since="beginning")
        old = await store.balance("g", "a", 60.0)
        await store.release("g", "a", [3], leaving=True)
        await store.balance("g", "b", 60.0)
        row = Held(part=3, position=(0, 1), key="k", state="retry")
        with pytest.raises(FencedError):
            await store.settle("g", Settlement(
                fences={part: lease.fence for part, lease in old.leases.items()},
                cursors=dict.fromkeys(old.leases, (5, 5)), hold=[row], publish=[made(1)]))
        assert await store.get("id-000001") == []
        again = await store.balance("g", "b", 60.0)
        assert {lease.position for lease in again.leases.values()} == {(0, 0)}


async def test_a_new_handler_can_begin_now(url):
    app, saw = service(url), Recorder()
    async with app:
        await app.publish(Placed(1))
    later = service(url)

    @later.on(Placed, since="now")
    async def take(placed: Placed):
        saw.note("", placed.n)

    async with later:
        await until_working(later)
        await later.publish(Placed(2))
        await until(lambda: saw.seen)
    assert saw.seen == [2]


async def until_working(app: Messages) -> None:
    async def working() -> bool:
        lags = await app.store.lag()
        return bool(lags) and all(lag.parts == PARTS for lag in lags)

    await until_so(working, "a reader comes to work")


async def test_old_messages_go_when_every_group_has_done_them(url):
    app = service(url)

    @app.on(Placed, retries=Retries(attempts=1))
    async def take(placed: Placed):
        if placed.n == 3:
            raise ValueError("kept")

    async with app:
        await app.publish(*(Placed(n) for n in range(10)))
        await until_held(app, "quarantined")

        async def all_read() -> bool:
            return not any(lag.waiting for lag in await app.store.lag())

        await until_so(all_read)
    async with stored(url) as store:
        assert await store.prune(3600.0) == 0
        assert await store.prune(-10.0) == 9
        (box,) = await find(store)
        assert box.message.data == b'{"n":3}'


async def test_what_readers_of_a_broker_have_passed_by_is_not_kept_for_them(url):
    """A group that reads other types has no message to acknowledge here; one that only chooses who reads has none at all."""
    async with stored(url) as store:
        broker = StoredBroker(store, lease_s=0.05)
        reader = await broker.subscribe("bank", ["Paid"])
        await store.declare("orders.intake", [], since="now")
        await store.append([made(n) for n in range(5)])

        async def pruned() -> bool:
            await reader.fetch(10, 0.01)
            return await store.prune(-10.0) == 5

        await until_so(pruned)
        await reader.close()


async def test_a_service_that_says_how_long_it_keeps_messages_prunes_by_itself(url):
    app = Messages("orders", url, pace=Pace(lease_s=15.0), keep=0.05)
    saw = Recorder()

    @app.on(Placed)
    async def take(placed: Placed):
        saw.note("", placed.n)

    async with app:
        for n in range(20):
            await app.publish(Placed(n))
        await until(lambda: len(saw.seen) == 20)

        async def left() -> bool:
            page = await app.store.read(None, dict.fromkeys(range(PARTS), (0, 0)), 100)
            return [entry.message.id for entry in page.entries] == []

        await until_so(left)
    assert sorted(saw.seen) == list(range(20))


async def test_what_is_in_flight_can_be_seen_from_outside(url):
    app, gate = service(url), asyncio.Event()

    @app.on(Placed, in_flight=5)
    async def take(placed: Placed):
        await gate.wait()

    async with app:
        await app.publish(*(Placed(n) for n in range(9)))

        async def five() -> bool:
            return [lag.under_way for lag in await app.store.lag()] == [5]

        await until_so(five)
        gate.set()


async def test_what_a_handler_is_annotated_to_return_is_what_may_follow(url):
    app = service(url)

    @app.on(Placed, retries=Retries(attempts=1))
    async def reserve(placed: Placed) -> Reserved | None:
        return Reserved(placed.n) if placed.n else Placed(7)  # type: ignore[return-value]

    async with app:
        await app.publish(Placed(0), Placed(1))
        await until_so(lambda: find(app.store))
        ((letter),) = await find(app.store)
    assert "returned a Placed, and says that Reserved follows" in letter.error


async def test_stopping_lets_handlers_finish(url):
    app, done, gate = service(url), [], asyncio.Event()

    @app.on(Placed)
    async def take(placed: Placed):
        await gate.wait()
        done.append(placed.n)

    async with app:
        await app.publish(*(Placed(n) for n in range(5)))
        await until(lambda: app._workers[0].lanes.under_way == 5)
        asyncio.get_running_loop().call_later(0.1, gate.set)
    assert sorted(done) == [0, 1, 2, 3, 4]
    async with stored(url) as store:
        assert (await store.lag("orders.take"))[0].waiting == 0


def test_mistakes_are_said_before_anything_is_sent():
    app = Messages("orders", "sqlite:///unused.db")
    with pytest.raises(DefinitionError, match="takes"):
        app.on(Placed)(lambda placed, surprise: None)
    with pytest.raises(DefinitionError, match="handles nothing"):
        app.on()(lambda placed: None)
    with pytest.raises(ConfigError, match="since"):
        app.on(Placed, since="yesterday")
    with pytest.raises(ConfigError, match="poison"):
        Retries(poison="ignore")
    with pytest.raises(ConfigError, match="name of a service"):
        Messages("a.b", "sqlite:///unused.db")


async def test_a_message_held_beyond_the_cursor_is_not_read_again_by_the_next_owner(url):
    app, first, gate = service(url, lease_s=2.0), asyncio.Event(), asyncio.Event()
    calls: list[int] = []

    @app.on(Placed, retries=Retries(attempts=9, first_s=0.2))
    async def take(placed: Placed):
        calls.append(placed.n)
        if placed.n == 2 and calls.count(2) == 1:
            first.set()
            raise OSError("once")
        if placed.n == 1:
            await gate.wait()

    async with stored(url) as store:
        app._given = store
        key = next(key for key in map(str, range(99)) if made(1, key).part == made(2, "other").part)
        await store.append([made(1, key), made(2, "other")])
        await app.__aenter__()
        await first.wait()
        await until_held(app, "retry")
        for task in app._tasks:  # as if killed: nothing is drained, the first message is still under way
            task.cancel()
        await asyncio.gather(*app._tasks, return_exceptions=True)
        again = service(store)
        again.on(Placed, name="take")(take)
        gate.set()
        async with again:
            await until(lambda: calls.count(2) == 2 and calls.count(1) == 2)
            await until_nothing(again, "retry")
        assert calls.count(2) == 2
