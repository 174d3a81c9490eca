"""Steps that start another saga: awaited or left, undone with the run that started it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from unit.saga.places import Place, app_on
from unit.saga.places import place as place  # noqa: PLC0414  a fixture
from virtual_time import run
from yaoki import DeclinedError, Effect, Saga, runtime
from yaoki.errors import DefinitionError, RunBlockedError, RunUndoneError
from yaoki.saga.child import children_of
from yaoki.saga.family import child_id, parent_of
from yaoki.saga.graph import Graph, Node
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.port import Query
from yaoki.saga.machine import HistoryError, decide
from yaoki.saga.queue import Queue
from yaoki.saga.records import Abort, Kind, Record, RunState, Waiting


class World:
    """What the services have done, and whether they say no."""

    def __init__(self, *, declines: str = "", slow: float = 0.0) -> None:
        self.log: list[str] = []
        self.declines = declines
        self.slow = slow

    async def call(self, what: str) -> str:
        if self.slow:
            await runtime.sleep(self.slow)
        if self.declines == what:
            raise DeclinedError(f"no {what}")
        self.log.append(what)
        return what


def charging(world: World, *, pivot: bool = False) -> Saga[int]:
    charge = Saga("charge", input=int)

    @charge.step
    async def hold(amount: int) -> str:
        return await world.call("hold")

    @hold.undo
    async def free(amount: int, hold: str | None) -> None:
        world.log.append("free")

    @charge.step(pivot=pivot)
    async def capture(amount: int, hold: str, effect: Effect) -> str:
        await world.call("capture")
        return f"{amount} by {effect.key}"

    @capture.undo
    async def refund(amount: int, capture: str | None) -> None:
        world.log.append("refund")

    return charge


def trip(world: World, charge: Saga[int], **settings: Any) -> Saga[int]:
    saga = Saga("trip", input=int, deadline=settings.pop("deadline", None))

    @saga.step
    async def hotel(nights: int) -> str:
        return await world.call("hotel")

    @hotel.undo
    async def cancel_hotel(nights: int, hotel: str | None) -> None:
        world.log.append("cancel hotel")

    @saga.child(charge, **settings)
    def payment(nights: int, hotel: str) -> int:
        return nights * 100

    @saga.step(undo=None)
    async def mail(nights: int, payment: str) -> str:
        await world.call("mail")
        return payment

    return saga


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_child_is_called_after_the_step_that_starts_it():
    assert child_id("trip-1", "payment") == "trip-1/payment"
    assert child_id("trip-1", "payment", 2) == "trip-1/payment.3"
    assert parent_of("a/b/payment.3") == ("a/b", "payment")
    assert parent_of("trip-1") is None
    assert parent_of("/x") is None


# ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────────

FAMILY = Graph("trip", (Node("hotel", undo=True), Node("payment", ("hotel",), undo=True, waits="child", child="charge"), Node("mail", ("payment",))))


def record(kind: Kind, step: str, data: Any = None) -> Record:
    return Record(kind, step, msgspec.json.encode(data))


def test_an_undo_that_another_run_makes_is_waited_for_and_what_stands_before_it_waits_too():
    machine = decide(FAMILY, [record(Kind.DONE, "hotel"), record(Kind.WAITING, "payment", Waiting()), record(Kind.ABORT, "", Abort("why"))])
    assert machine.undo == ["payment"]
    machine.apply(record(Kind.WAITING, "payment", Waiting()))
    assert machine.undo == []
    assert machine.state is RunState.UNDOING
    assert machine.hears("payment", undone=True)
    assert not machine.hears("payment", undone=False)
    machine.apply(record(Kind.SIGNAL, "payment", {}))
    assert machine.ripe(0.0) == [("payment", b"{}")]
    machine.apply(record(Kind.UNDONE, "payment"))
    assert machine.undo == ["hotel"]


def test_a_completed_run_is_undone_as_a_whole_and_only_then():
    done = [record(Kind.DONE, name) for name in FAMILY.names]
    with pytest.raises(HistoryError):
        decide(Graph("p", (Node("a", undo=True, pivot=True),)), [record(Kind.DONE, "a"), record(Kind.ABORT, "", Abort("why"))])
    machine = decide(FAMILY, [*done, record(Kind.ABORT, "", Abort("why", whole=True))])
    assert machine.undo == ["payment"]
    assert machine.state is RunState.UNDOING


# ── the engine ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_child_runs_as_a_run_of_its_own_and_its_result_is_the_steps(place: Place):
    world = World()

    async def main() -> None:
        saga = trip(world, charging(world))
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 3, id="t")
            assert await handle.result() == "300 by t/payment/capture"
            child = await app.journal.read("t/payment")
            assert child is not None
            assert (child.header.saga, child.header.state) == ("charge", RunState.COMPLETED)
            await runtime.sleep(1.0)
            assert await app.journal.requests() == [], "what was carried out is removed"

    run(main())
    assert world.log == ["hotel", "hold", "capture", "mail"]


def test_one_run_in_memory_at_a_time_is_enough_for_a_family(place: Place):
    world = World(declines="mail")

    async def main() -> None:
        saga = trip(world, charging(world))
        async with app_on(place, saga, concurrency=1) as app:
            for each in [await app.start(saga, 3, id=f"t{n}") for n in range(3)]:
                assert await each.wait() is RunState.UNDONE

    run(main())
    assert world.log.count("refund") == 3


def test_a_completed_child_is_undone_with_its_parent_in_the_order_of_the_graph(place: Place):
    world = World(declines="mail")

    async def main() -> None:
        saga = trip(world, charging(world))
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 3, id="t")
            assert await handle.wait() is RunState.UNDONE
            child = await app.journal.read("t/payment")
            assert child is not None
            assert child.header.state is RunState.UNDONE
            assert "t is being undone: mail: DeclinedError: no mail" in child.header.reason

    run(main())
    assert world.log == ["hotel", "hold", "capture", "refund", "free", "cancel hotel"]


def test_a_child_past_its_own_pivot_is_undone_when_its_undo_is_asked_for_as_a_whole(place: Place):
    world = World(declines="mail")

    async def main() -> None:
        saga = trip(world, charging(world, pivot=True))
        async with app_on(place, saga) as app:
            assert await (await app.start(saga, 3, id="t")).wait() is RunState.UNDONE

    run(main())
    assert world.log == ["hotel", "hold", "capture", "refund", "free", "cancel hotel"]


def test_a_child_that_undoes_itself_has_left_nothing_and_fails_its_step(place: Place):
    world = World(declines="capture")

    async def main() -> None:
        saga = trip(world, charging(world))
        async with app_on(place, saga) as app:
            with pytest.raises(RunUndoneError, match="t/payment was undone: capture: DeclinedError: no capture"):
                await (await app.start(saga, 3, id="t")).result()

    run(main())
    assert world.log == ["hotel", "hold", "free", "cancel hotel"]


def test_cancelling_a_run_cancels_the_child_that_runs(place: Place):
    world = World(slow=100.0)

    async def main() -> None:
        saga = trip(world, charging(world))
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 3, id="t")
            await runtime.sleep(150.0)
            await handle.cancel("changed my mind")
            assert await handle.wait() is RunState.CANCELLED
            child = await app.journal.read("t/payment")
            assert child is not None
            assert child.header.state is RunState.UNDONE

    run(main())
    assert world.log == ["hotel", "hold", "free", "cancel hotel"]


def test_the_deadline_of_a_run_is_its_childrens_too(place: Place):
    world = World(slow=100.0)

    async def main() -> None:
        saga = trip(world, charging(world), deadline=150.0)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 3, id="t")
            assert await handle.wait() is RunState.UNDONE
            child = await app.journal.read("t/payment")
            assert child is not None
            assert child.header.deadline_at == (await handle.stored()).header.deadline_at

    run(main())
    assert world.log == ["hotel", "hold", "free", "cancel hotel"]


def test_a_child_goes_on_after_a_restart_and_its_parent_with_it(place: Place):
    world = World(slow=100.0)

    async def main() -> None:
        saga = trip(world, charging(world))
        async with app_on(place, saga) as app:
            await app.start(saga, 3, id="t")
            await runtime.sleep(120.0)
        async with app_on(place, saga) as app:
            assert await app.run(saga, "t").result() == "300 by t/payment/capture"

    run(main())
    assert world.log == ["hotel", "hold", "capture", "mail"]


def test_a_detached_child_is_not_awaited_and_is_undone_all_the_same(place: Place):
    world = World(declines="mail")

    async def main() -> None:
        saga = trip(world, charging(world), detached=True)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 3, id="t")
            assert await handle.wait() is RunState.UNDONE
            child = await app.journal.read("t/payment")
            assert child is not None
            assert child.header.state is RunState.UNDONE

    run(main())
    assert world.log[-1] == "cancel hotel"
    assert world.log.count("hold") == world.log.count("free")


def test_a_child_that_is_to_be_left_alone_is_left_alone(place: Place):
    world = World(declines="mail")

    async def main() -> None:
        saga = trip(world, charging(world), detached=True, undo=None)
        async with app_on(place, saga) as app:
            assert await (await app.start(saga, 3, id="t")).wait() is RunState.UNDONE
            assert (await app.engine.wait("t/payment")).state is RunState.COMPLETED

    run(main())
    assert "refund" not in world.log


def test_a_child_with_a_bug_blocks_itself_and_its_parent_waits_until_a_person_has_decided(place: Place):
    world = World()
    charge = Saga("charge", input=int)

    @charge.step(undo=None)
    async def capture(amount: int) -> str:
        raise KeyError("a bug")

    async def main() -> None:
        saga = trip(world, charge)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 3, id="t")
            await runtime.sleep(1.0)
            assert (await app.engine.wait("t/payment")).state is RunState.BLOCKED
            await app.run(charge, "t/payment").resolve("capture", "done", result="by hand")
            assert await handle.result() == "by hand"

    run(main())


def test_a_failed_child_after_the_pivot_needs_a_person_and_a_retry_is_a_new_run(place: Place):
    world = World(declines="capture")
    charge = charging(world)
    saga = Saga("shop", input=int)

    @saga.step(pivot=True, undo=None)
    async def order(n: int) -> int:
        return n

    @saga.child(charge)
    def payment(n: int, order: int) -> int:
        return n

    async def main() -> None:
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 3, id="s")
            with pytest.raises(RunBlockedError, match="payment"):
                await handle.result()
            world.declines = ""
            await handle.resolve("payment", "retry")
            assert await handle.result() == "3 by s/payment.2/capture"

    run(main())


def test_a_function_that_returns_what_the_child_does_not_take_is_a_bug(place: Place):
    world = World()
    saga = Saga("trip", input=int)

    @saga.child(charging(world))
    def payment(nights: int) -> Any:
        return "a lot"

    async def main() -> None:
        async with app_on(place, saga) as app:
            with pytest.raises(RunBlockedError):
                await (await app.start(saga, 3, id="t")).result()

    run(main())


def test_children_of_children_are_known_to_the_engine_and_undone_too(place: Place):
    world = World(declines="mail")

    async def main() -> None:
        inner = trip(World(), charging(world))
        inner.name = "inner"
        outer = Saga("outer", input=int)

        @outer.child(inner)
        def travel(nights: int) -> int:
            return nights

        @outer.step(undo=None)
        async def last(nights: int, travel: str) -> None:
            raise DeclinedError("no")

        assert [each.name for each in children_of([outer])] == ["outer", "inner", "charge"]
        async with app_on(place, outer) as app:
            assert await (await app.start(outer, 3, id="o")).wait() is RunState.UNDONE
            assert (await app.engine.wait("o/travel/payment")).state is RunState.UNDONE

    run(main())
    assert world.log == ["hold", "capture", "refund", "free"]


# ── definitions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_child_that_cannot_be_undone_as_a_whole_is_refused_by_name():
    charge = Saga("charge", input=int)

    @charge.step(pivot=True)
    async def capture(amount: int) -> str:
        return "captured"

    saga = trip(World(), charge)
    with pytest.raises(DefinitionError, match=r"payment.*cannot be undone as a whole: charge\.capture has no undo") as caught:
        _ = saga.graph
    assert "undo=None" in caught.value.do
    assert trip(World(), charge, undo=None).graph.hash


def test_what_a_child_gives_must_be_what_the_next_step_takes():
    saga = Saga("trip", input=int)

    @saga.child(charging(World()))
    def payment(nights: int) -> int:
        return nights

    with pytest.raises(DefinitionError, match=r"'payment' is int, but step 'payment' returns str"):
        @saga.step(undo=None)
        async def mail(nights: int, payment: int) -> None: ...


def test_a_child_saga_without_steps_is_refused():
    with pytest.raises(DefinitionError, match="has no steps yet"):
        Saga("trip", input=int).child(Saga("charge", input=int), name="pay")(lambda n: n)


def test_a_saga_may_be_its_own_child():
    saga = Saga("tree", input=int)

    @saga.step(undo=None)
    async def leaf(n: int) -> int:
        return n

    @saga.child(saga, when=lambda n: n > 0)
    def below(n: int, leaf: int) -> int:
        return n - 1

    async def main() -> None:
        async with app_on(MemoryJournal, saga) as app:
            assert await (await app.start(saga, 2, id="t")).wait() is RunState.COMPLETED
            assert (await app.engine.wait("t/below/below")).state is RunState.COMPLETED

    run(main())


def test_a_family_in_a_queue_with_one_place_gets_on_for_a_parent_that_waits_has_given_it_up(place: Place):
    world = World(declines="mail")
    charge = charging(world)
    charge.queue = one = Queue("one", concurrency=1)
    charge.attributes = lambda amount: {"amount": amount}

    async def main() -> None:
        saga = trip(world, charge)
        saga.queue = one
        async with app_on(place, saga) as app:
            handles = [await app.start(saga, n, id=f"t{n}") for n in (1, 2)]
            for handle in handles:
                assert await handle.wait() is RunState.UNDONE
            (found,) = await app.journal.search(Query(where=(("amount", "100"),)))
            assert found.id == "t1/payment"

    run(main())
    assert world.log.count("refund") == 2


def test_a_child_whose_history_was_removed_cannot_be_undone_and_says_so(place: Place):
    world = World(declines="mail")

    async def main() -> None:
        saga = trip(world, charging(world))
        saga.sleep(100.0, name="later", after="payment")

        @saga.step(undo=None)
        async def last(nights: int, later: None) -> None:
            raise DeclinedError("no")

        world.declines = ""
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 3, id="t")
            await runtime.sleep(50.0)
            assert await app.journal.purge(runtime.unix_time() + 1.0, 10) == 1
            assert await handle.wait() is RunState.BLOCKED
            (blocked,) = [each for each in (await handle.stored()).records if each.kind is Kind.BLOCKED]
            assert b"t/payment was completed, and its history has been removed since" in blocked.data
            await handle.resolve("payment", "undone", who="ann")
            await runtime.sleep(1.0)
            assert await handle.wait() is RunState.UNDONE

    run(main())
    assert world.log[-1] == "cancel hotel"


def test_what_is_asked_of_a_run_that_another_worker_has_taken_in_this_moment_is_not_lost():
    """Found by the torture: a child told its parent that it had ended, and nobody was there to hear it."""
    world, journal = World(), MemoryJournal()
    taken = journal.take_one

    async def main() -> None:
        saga = Saga("ask", input=int)
        saga.wait_for(bool, name="approval")(lambda n: None)
        async with app_on(lambda: journal, saga) as app:
            handle = await app.start(saga, 1, id="a")
            await runtime.sleep(5.0)

            async def by_another(run_id: str) -> None:
                journal.take_one = taken  # type: ignore[method-assign]

            journal.take_one = by_another  # type: ignore[method-assign]
            await handle.signal("approval", answer=True)
            assert [request.kind for request in await journal.requests()] == ["signal"]
            assert await handle.result() is True

    run(main())
    assert world.log == []
