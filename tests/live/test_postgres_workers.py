"""Several workers on one PostgreSQL: takeover, fencing, commits in doubt, asking across workers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

import yaoki
from cut_proxy import CutProxy
from servers import PostgresServer
from yaoki import Effect, Saga, events
from yaoki.app import App
from yaoki.errors import FencedError, JournalError, JournalForeignError, RunBlockedError, RunUndoneError
from yaoki.saga.engine import watch
from yaoki.saga.journal.port import Append, NewRun
from yaoki.saga.journal.postgres import PostgresJournal
from yaoki.saga.journal.postgres.link import Link, Target
from yaoki.saga.journal.postgres.schema import LOCK, VERSION, upgrade, version_of
from yaoki.saga.journal.queues import postgres as queues
from yaoki.saga.records import Kind, Record, RunState

pytestmark = pytest.mark.live

SOON = 60.0  # ample, for a machine that others use as well; what is to be quicker than a lease is tried with a long lease


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


class World:
    """What the steps of all workers did, and a gate that keeps the second step from ending."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str, int]] = []
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.bug = False


def saga_of(world: World) -> Saga[int]:
    saga = Saga("pair", input=int)

    @saga.step(undo=None)
    async def first(n: int, effect: Effect) -> int:
        world.log.append(("first", effect.key, effect.fence))
        return n

    @saga.step(undo=None)
    async def second(n: int, first: int, effect: Effect) -> int:
        world.log.append(("second", effect.key, effect.fence))
        world.begun.set()
        if world.bug:
            raise TypeError("a bug")
        await world.gate.wait()
        return n + first

    @saga.step(undo=None)
    async def third(n: int, second: int) -> int:
        return second

    return saga


@contextlib.asynccontextmanager
async def worker(url: str, world: World, **options: Any) -> AsyncIterator[App]:
    async with yaoki.open(url, sagas=[saga_of(world)], grace=0.0, **options) as app:
        yield app


async def declare_dead(url: str, incarnation: int) -> None:
    """What another worker's reaper does once the lease has run out."""
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE yaoki.worker SET state = 'dead' WHERE no = $1", incarnation)
    await connection.execute("UPDATE yaoki.run SET owner = NULL WHERE owner = $1 AND finished_at = 0", incarnation)
    await connection.close()


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait for it, as long as it may take."""
    async with asyncio.timeout(SOON):
        while not await condition():  # noqa: ASYNC110  it is a server that is asked
            await asyncio.sleep(0.02)


async def is_completed(run: yaoki.Run) -> bool:
    return await run.state() is RunState.COMPLETED


async def until_told(app: App) -> None:
    """The run's driver has what was asked of it."""
    async def told() -> bool:
        return bool(app.engine.requests.handed)

    await until(told)


def journal_of(app: App) -> PostgresJournal:
    assert isinstance(app.journal, PostgresJournal)
    return app.journal


async def test_a_zombies_batch_is_refused_whole(url: str):
    zombie = PostgresJournal(url)
    await zombie.open()
    no = (await zombie.create(NewRun("a", "pair", "h", b"1"))).header.no
    await declare_dead(url, zombie.incarnation)
    writes = [zombie.append(Append(no, 0, (Record(Kind.DONE, "first", b"1"),))), zombie.create(NewRun("b", "pair", "h", b"1"))]
    for write in writes:
        with pytest.raises(FencedError):
            await write
    with pytest.raises(FencedError):
        await zombie.take(5)
    await zombie.open()  # a new incarnation may go on
    (taken,) = await zombie.take(5)
    assert (taken.header.id, taken.records, taken.header.fence) == ("a", [], 2)
    assert await zombie.read("b") is None
    await zombie.close()


async def test_a_batch_of_the_last_incarnation_is_not_written_in_the_name_of_the_next(url: str):
    """Found by the torture: a batch that was waiting for the server while its worker was declared dead and joined again."""
    zombie, other = PostgresJournal(url), PostgresJournal(url)
    await zombie.open()
    await other.open()
    no = (await other.create(NewRun("a", "pair", "h", b"1"))).header.no
    gate, run = asyncio.Event(), zombie._writer.run

    async def slowly(work: Any) -> Any:
        await gate.wait()
        return await run(work)

    zombie._writer.run = slowly  # type: ignore[method-assign]
    write = asyncio.ensure_future(zombie.append(Append(no, 0, (Record(Kind.DONE, "first", b"1"),))))
    await asyncio.sleep(0.05)
    await declare_dead(url, zombie.incarnation)
    zombie._was_fenced()
    again = asyncio.create_task(zombie.open())
    await asyncio.sleep(0.2)
    gate.set()
    with pytest.raises(FencedError):
        await write
    await again
    found = await other.read("a")
    assert found is not None
    assert found.records == []
    await zombie.close()
    await other.close()


async def test_a_fenced_worker_drops_its_runs_and_starts_again_and_they_end_once(url: str):
    world = World()
    seen: list[Any] = []
    with events.listen(seen.append, kinds=(events.WorkerEvent,)):
        async with worker(url, world) as app:
            run = await app.start(saga_of_app(app), 20, id="r")
            await asyncio.wait_for(world.begun.wait(), SOON)
            before = journal_of(app).incarnation
            world.begun.clear()
            await declare_dead(url, before)
            if journal_of(app).incarnation == before:  # else it has noticed by itself, and has joined already
                app.engine.fence()
            await asyncio.wait_for(world.begun.wait(), SOON)
            world.gate.set()
            assert await run.result() == 40
            assert journal_of(app).incarnation > before
    assert [type(each).__name__ for each in seen] == ["WorkerJoined", "WorkerFenced", "WorkerJoined"]
    assert [name for name, _, _ in world.log] == ["first", "second", "second"]
    fences = [fence for name, _, fence in world.log if name == "second"]
    assert fences[1] > fences[0], "the fence grows with each takeover, so that a resource can refuse the older one"
    assert len({key for name, key, _ in world.log if name == "second"}) == 1


async def test_a_run_that_is_ours_and_that_nobody_drives_is_given_back(url: str, monkeypatch: pytest.MonkeyPatch):
    """As if a claim had been answered while the worker started again."""
    monkeypatch.setattr(watch, "SERVE_S", 0.1)
    world = World()
    async with worker(url, world) as app:
        saga, journal = saga_of_app(app), journal_of(app)
        async with app.engine.requests.taking:  # nobody else takes it
            await journal.create(NewRun("lost", saga.name, saga.graph.hash, b"20", at=journal.now(), keep=False))
            assert await journal.take_one("lost") is not None
        world.gate.set()
        assert await asyncio.wait_for(app.run(saga, "lost").result(), SOON) == 40


async def test_no_claim_spans_two_lives_of_a_worker(url: str):
    """Else it could come through in the name of the new life, and what it took would be nobody's to drive."""
    async with worker(url, World()) as app:
        before = journal_of(app).incarnation
        async with app.engine.requests.taking:  # as while something is being taken
            app.engine.fence()
            again = app.engine.fencing
            assert again is not None
            await asyncio.wait([again], timeout=0.3)
            assert journal_of(app).incarnation == before
        await asyncio.wait_for(again, SOON)
        assert journal_of(app).incarnation > before


async def test_who_is_cancelled_inside_a_transaction_leaves_none_open(url: str):
    """Else what others do on that connection afterwards is in it, and is gone when it closes: a worker never left, for one."""
    link = Link(Target.of(url), "test", patience_s=5.0)
    await link.execute("CREATE TABLE done (no integer)")

    async def begin(connection: Any) -> None:
        await connection.transaction().start()
        await asyncio.sleep(60)

    begun = asyncio.create_task(link.run(begin))
    await asyncio.wait([begun], timeout=0.2)
    begun.cancel()
    await asyncio.wait([begun])
    await link.execute("INSERT INTO done VALUES (1)")
    await link.close()
    look = Link(Target.of(url), "test", patience_s=5.0)
    assert await look.fetch("SELECT no FROM done") == [(1,)]
    await look.close()


async def begun_by(journal: PostgresJournal, graph: str, run: str) -> None:
    """The run is this worker's own. Its lease is so short that a machine that stands still for a moment ends it: then it begins again."""
    while True:
        try:
            await journal.create(NewRun(run, "pair", graph, b"4"))
        except FencedError:
            await journal.open()
        else:
            return


def saga_of_app(app: App) -> Saga[Any]:
    return next(iter(app.engine.sagas.values()))


async def test_a_silent_workers_runs_are_taken_over_within_its_lease(url: str):
    url += "?lease=1"
    lost, well = World(), World()
    well.gate.set()
    silent = PostgresJournal(url, name="silent")
    await silent.open()
    async with worker(url, well) as app:
        await begun_by(silent, saga_of_app(app).graph.hash, "r")
        assert silent._lease is not None
        silent._lease.stop()  # the process died: nobody renews, nobody says goodbye
        silent._lease = None
        assert await asyncio.wait_for(app.run(saga_of_app(app), "r").result(), SOON) == 8
        states = [row["state"] for row in await journal_of(app).workers() if row["name"] == "silent"]
        assert states[-1] == "dead"
    silent.incarnation = 0
    await silent.close()
    assert lost.log == []


async def test_a_worker_whose_loop_stands_still_loses_its_lease(url: str):
    stuck, other = PostgresJournal(url + "?lease=1", name="stuck"), PostgresJournal(url, name="other")
    await stuck.open()
    await other.open()
    assert stuck._lease is not None
    assert stuck._lease._beat is not None
    stuck._lease._beat.cancel()  # as a blocked loop would

    async def is_dead() -> bool:
        return [row["state"] for row in await other.workers() if row["name"] == "stuck"] == ["dead"]

    await until(is_dead)
    with pytest.raises(FencedError):
        await stuck.create(NewRun("a", "pair", "h", b"1"))
    await stuck.close()
    await other.close()


async def test_a_commit_whose_answer_is_lost_is_settled_by_reading_back(postgres: PostgresServer, url: str):
    async with CutProxy(postgres.port) as proxy:
        through = url.replace(str(postgres.port), str(proxy.port))
        journal = PostgresJournal(through)
        await journal.open()
        proxy.cut_answer_to(b"first-run")
        created = await journal.create(NewRun("first-run", "pair", "h", b"1", at=5.0))
        assert created.new
        assert proxy.cuts == 1
        proxy.cut_answer_to(b"marked-step")
        await journal.append(Append(created.header.no, 0, (Record(Kind.DONE, "marked-step", b"1"),)))
        assert proxy.cuts == 2
        again = await journal.create(NewRun("first-run", "pair", "h", b"1", at=5.0))
        assert not again.new
        found = await journal.read("first-run")
        assert found is not None
        assert [record.step for record in found.records] == ["marked-step"], "committed once, and acknowledged once"
        proxy.cut_all()
        await journal.append(Append(created.header.no, 1, (Record(Kind.DONE, "next", b"1"),)))
        await journal.close()


async def test_a_claim_whose_answer_is_lost_loses_no_run(postgres: PostgresServer, url: str):
    async with CutProxy(postgres.port) as proxy:
        journal = PostgresJournal(url.replace(str(postgres.port), str(proxy.port)))
        await journal.open()
        for i in range(5):
            await journal.create(NewRun(f"r{i}", "pair", "h", b"1", keep=i == 0))
        proxy.cut_answer_to(journal._claim.__class__(journal._claim + 1).to_bytes(8, "big"))
        taken = await journal.take(10)
        assert proxy.cuts == 1
        assert [stored.header.id for stored in taken] == ["r1", "r2", "r3", "r4"]
        await journal.close()


async def test_a_server_that_crashes_and_comes_back_loses_nothing_that_was_acknowledged(postgres: PostgresServer, url: str):
    world = World()
    world.gate.set()
    async with worker(url, world) as app:
        runs = [await app.start(saga_of_app(app), n) for n in range(20)]
        await asyncio.to_thread(postgres.restart, "immediate")
        runs += [await app.start(saga_of_app(app), n) for n in range(20)]
        assert [await run.result() for run in runs] == [2 * n for n in range(20)] * 2


async def test_a_run_of_another_worker_can_be_waited_for_and_cancelled(url: str):
    world, elsewhere = World(), World()
    async with worker(url, world) as app, worker(url, elsewhere) as other:
        run = await app.start(saga_of_app(app), 1, id="r")
        await asyncio.wait_for(world.begun.wait(), SOON)
        waiting = asyncio.create_task(other.run(saga_of_app(other), "r").result())
        await other.run(saga_of_app(other), "r").cancel("changed my mind")
        await until_told(app)
        world.gate.set()
        with pytest.raises(RunUndoneError):
            await waiting
        assert await run.state() is RunState.CANCELLED
    assert elsewhere.log == []


async def test_a_run_that_one_worker_blocked_can_be_resolved_from_another(url: str):
    world, elsewhere = World(), World()
    world.bug = True
    elsewhere.gate.set()
    async with worker(url, world) as app:
        run = await app.start(saga_of_app(app), 1, id="r")
        with pytest.raises(RunBlockedError):
            await run.result()
    async with worker(url, elsewhere) as other:
        again = other.run(saga_of_app(other), "r")
        assert await again.state() is RunState.BLOCKED
        await again.resolve("second", "retry", who="me", why="mended")
        await until(lambda: is_completed(again))
        assert await again.result() == 2
        stored = await again.stored()
        assert [record.kind.value for record in stored.records] == ["done", "blocked", "resolved", "done", "done"]


async def test_work_that_one_worker_has_no_room_for_goes_to_a_new_one_at_once(url: str):
    url += "?lease=600"
    world, helping = World(), World()
    helping.gate.set()
    async with worker(url, world, concurrency=2) as app:
        runs = [await app.start(saga_of_app(app), n) for n in range(10)]
        await asyncio.wait_for(world.begun.wait(), SOON)
        async with worker(url, helping):
            async with asyncio.timeout(SOON):
                while len(helping.log) < 16:  # noqa: ASYNC110  a plain list
                    await asyncio.sleep(0.02)
            assert len(helping.log) == 16, "eight of ten runs waited in the journal"
            world.gate.set()
            assert [await run.result() for run in runs] == [2 * n for n in range(10)]


async def test_leaving_gives_runs_back_at_once(url: str):
    url += "?lease=600"
    first, second = World(), World()
    second.gate.set()
    async with worker(url, first) as app:
        await app.start(saga_of_app(app), 5, id="r")
        await asyncio.wait_for(first.begun.wait(), SOON)
    async with worker(url, second) as app:
        assert await asyncio.wait_for(app.run(saga_of_app(app), "r").result(), SOON) == 10


async def test_many_processes_may_make_the_schema_at_once_and_a_newer_one_is_refused(url: str):
    connections = [await asyncpg.connect(url) for _ in range(4)]
    found = await asyncio.gather(*(upgrade(connection) for connection in connections))
    assert sorted(before for before, _ in found) == [0, VERSION, VERSION, VERSION]
    await connections[0].execute("INSERT INTO yaoki.migration (version) VALUES ($1)", VERSION + 1)
    journal = PostgresJournal(url)
    with pytest.raises(JournalForeignError) as caught:
        await journal.open()
    assert "newer" in caught.value.do
    for connection in connections:
        await connection.close()


async def test_somebody_elses_schema_is_left_alone(url: str):
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE SCHEMA yaoki; CREATE TABLE yaoki.run (x int)")
    with pytest.raises(JournalForeignError):
        await PostgresJournal(url).open()
    await connection.close()


def two_steps(world: World, *, extra: bool = False, gives: type = int) -> Saga[int]:
    """`pair` again, as a deploy would change it."""
    saga = Saga("pair", input=int)

    async def first(n: int) -> Any:
        world.log.append(("first", "", 0))
        return n if gives is int else str(n)

    async def second(n: int, first: Any) -> int:
        world.begun.set()
        await world.gate.wait()
        return n

    async def third(n: int, second: int) -> int:
        world.log.append(("third", "", 0))
        return second

    async def survey(n: int, third: int) -> int:
        world.log.append(("survey", "", 0))
        return third

    first.__annotations__["return"] = gives
    for fn in (first, second, third, *((survey,) if extra else ())):
        saga.step(undo=None)(fn)
    return saga


async def test_new_code_adopts_runs_of_old_code_where_the_change_is_harmless(url: str):
    old, new = World(), World()
    new.gate.set()
    saga = two_steps(old)
    async with yaoki.open(url, sagas=[saga], grace=0.0) as app:
        await app.start(saga, 5, id="r")
        await asyncio.wait_for(old.begun.wait(), SOON)
    changed = two_steps(new, extra=True)
    assert changed.graph.hash != saga.graph.hash
    async with yaoki.open(url, sagas=[changed], grace=0.0) as app:
        assert await asyncio.wait_for(app.run(changed, "r").result(), SOON) == 5
    assert [name for name, _, _ in new.log] == ["third", "survey"]


async def test_runs_that_new_code_cannot_go_on_with_wait_for_old_workers_and_it_is_told(url: str):
    old, new = World(), World()
    saga = two_steps(old)
    async with yaoki.open(url, sagas=[saga], grace=0.0) as app:
        await app.start(saga, 5, id="r")
        await asyncio.wait_for(old.begun.wait(), SOON)
    changed = two_steps(new, gives=str)
    async with yaoki.open(url, sagas=[changed], grace=0.0) as app:
        await asyncio.sleep(1.5)
        assert new.log == []
        assert await app.journal.stranded() == [("pair", saga.graph.hash, 1)]
        old.gate.set()
        async with yaoki.open(url, sagas=[saga], grace=0.0) as beside:
            assert await app.journal.stranded() == []
            assert await asyncio.wait_for(beside.run(saga, "r").result(), SOON) == 5
    assert [name for name, _, _ in old.log] == ["first", "third"]


async def test_what_was_claimed_and_could_not_be_loaded_is_given_back(url: str):
    """Found by the torture: the server went away between a claim and the reading of its histories, and the runs were nobody's."""
    journal = PostgresJournal(url)
    await journal.open()
    await journal.create(NewRun("a", "pair", "h", b"1", keep=False))
    fetch = journal._side.fetch

    async def away(*_: Any) -> Any:
        raise JournalError("the server is away")

    journal._side.fetch = away  # type: ignore[method-assign]
    with pytest.raises(JournalError):
        await journal.take(5)
    journal._side.fetch = fetch  # type: ignore[method-assign]
    assert [stored.header.id for stored in await journal.take(5)] == ["a"]
    await journal.close()


async def test_a_claim_that_was_given_up_on_is_settled_before_the_next(url: str):
    journal = PostgresJournal(url)
    await journal.open()
    await journal.create(NewRun("a", "pair", "h", b"1", keep=False))
    await journal.create(NewRun("mine", "pair", "h", b"1"))
    await journal.peek()  # no queue has limits, so a claim is one statement
    run = journal._side.run

    async def given_up(work: Any) -> Any:
        await run(work)
        raise JournalError("no answer within the patience")

    journal._side.run = given_up  # type: ignore[method-assign]
    with pytest.raises(JournalError):
        await journal.take(5)
    journal._side.run = run  # type: ignore[method-assign]
    assert await journal.take(5) == [], "what came through is noticed, and given back"
    assert [stored.header.id for stored in await journal.take(5)] == ["a"], "and what this worker began itself is left alone"
    await journal.close()


async def test_a_run_that_is_being_taken_up_is_not_taken_up_for_a_request_as_well(url: str):
    """Found by the torture: it was then given back while it was driven, and two workers wrote its history."""
    saga = Saga("asks", input=int, brake=None)
    made: list[str] = []

    @saga.wait_for(str)
    def visa(n: int) -> None: ...

    @saga.step(undo=None)
    async def fly(n: int, visa: str) -> str:
        made.append(visa)
        await asyncio.sleep(0.3)
        return visa

    async with yaoki.open(url, sagas=[saga], grace=0.0) as app:
        journal, taken = journal_of(app), asyncio.Event()
        take_up, released = journal._taken, []
        journal.release = released.append  # type: ignore[method-assign]

        async def slowly(rows: Any) -> Any:
            found = await take_up(rows)
            if rows:
                taken.set()
                await asyncio.sleep(0.3)
            return found

        journal._taken = slowly  # type: ignore[method-assign]
        front = PostgresJournal(url)
        await front.open()
        await front.create(NewRun("r", "asks", saga.graph.hash, b"1", keep=False))
        await front.request("r", "signal", b'{"name":"visa","answer":"yes"}', 1.0)  # wakes the worker
        await front.close()
        await asyncio.wait_for(taken.wait(), SOON)
        await app.engine.requests.carry_out()
        assert await asyncio.wait_for(app.run(saga, "r").result(), SOON) == "yes"
    assert made == ["yes"]
    assert released == []


async def test_after_a_batch_that_failed_nothing_is_written_until_the_worker_starts_again(url: str):
    """Found by the torture: what was handed in next was written, and left a gap in a history."""
    journal = PostgresJournal(url)
    await journal.open()
    a, b = [(await journal.create(NewRun(name, "pair", "h", b"1"))).header.no for name in "ab"]
    step = Record(Kind.DONE, "first", b"1")
    await journal.append(Append(a, 0, (step,)))
    writes = [journal.append(Append(b, 0, (step,))), journal.append(Append(a, 0, (step,)))]  # the second is there already
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    writes.append(journal.append(Append(b, 1, (step,))))  # in the next batch
    for write in writes:
        with pytest.raises(JournalError):
            await write
    found = await journal.read("b")
    assert found is not None
    assert found.records == []
    await journal.open()
    assert {stored.header.id for stored in await journal.take(5)} == {"a", "b"}, "given back, for whoever begins again from what is there"
    await journal.append(Append(b, 0, (step,)))
    await journal.close()


async def test_a_worker_that_stops_inside_a_transaction_does_not_keep_its_runs(url: str):
    """It holds its own row locked. Nobody waits for that: the server ends its session, and then it is declared dead as any other."""
    url += "?lease=1"
    well = World()
    well.gate.set()
    stopped = PostgresJournal(url, name="stopped")
    inside = asyncio.Event()

    async def stop(connection: Any) -> None:
        async with connection.transaction():
            if await connection.fetchval(queues._FENCE, stopped.incarnation, stopped._claim + 1) is not None:
                inside.set()
                await asyncio.sleep(3600)

    async with worker(url, well) as app:
        for run in map(str, itertools.count()):  # a machine that stands still for a moment ends its lease before: then it begins again
            await stopped.open()
            await begun_by(stopped, saga_of_app(app).graph.hash, run)
            assert stopped._lease is not None
            await asyncio.to_thread(stopped._lease.stop)
            held = asyncio.create_task(stopped._side.run(stop))
            await asyncio.wait([held, entered := asyncio.create_task(inside.wait())], return_when=asyncio.FIRST_COMPLETED)
            entered.cancel()
            if inside.is_set():
                break
        assert await asyncio.wait_for(app.run(saga_of_app(app), run).result(), SOON) == 8
        assert not held.done()
        assert journal_of(app)._lease is not None
        assert not journal_of(app)._lease.in_doubt, "who reaps does not wait for the dead"
        held.cancel()
        await asyncio.wait([held])
    await stopped.close()


async def test_who_waited_while_another_made_the_schema_finds_it_made(url: str):
    """Also one that has seen before that there is none: the server's cache would go on saying so in the same transaction."""
    one, two, look = [await Target.of(url).connect("test") for _ in range(3)]
    assert await version_of(two) == 0
    async with one.transaction():
        await one.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        waiting = asyncio.create_task(upgrade(two))
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = $1"
        await until(lambda: look.fetchval(waits, two.get_server_pid()))
        assert await upgrade(one) == (0, VERSION)
    assert await waiting == (VERSION, VERSION)
    for connection in (one, two, look):
        await connection.close()
