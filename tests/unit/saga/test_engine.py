"""The engine on virtual time and a journal in memory: what a run does, whatever its steps do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

import yaoki
from virtual_time import run
from yaoki import DeclinedError, Effect, Saga, effect, events, runtime
from yaoki.app import App
from yaoki.errors import (
    InDoubtError,
    InputError,
    JournalError,
    RunBlockedError,
    RunConflictError,
    RunError,
    RunUndoneError,
    UsageError,
)
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.port import Append, NewRun, Query
from yaoki.saga.records import Attempted, Kind, Record, RunState


class Trip(msgspec.Struct):
    city: str = "Kyoto"


class World:
    """What the steps did, in order, and how they are to fail: by name, a list of what each call does."""

    def __init__(self, **plan: list[Any]) -> None:
        self.log: list[str] = []
        self.plan = plan
        self.keys: dict[str, set[str]] = {}

    async def act(self, name: str, result: Any = None) -> Any:
        self.log.append(name)
        under_way = effect.current.get()
        assert under_way is not None
        self.keys.setdefault(name, set()).add(under_way.key)
        todo = self.plan.get(name, [])
        what = todo.pop(0) if todo else result
        if isinstance(what, BaseException):
            raise what
        if isinstance(what, float):
            await runtime.sleep(what)
            return result
        return what


def trip_saga(world: World, **options: Any) -> Saga[Trip]:
    """hotel ∥ flight → payment, each with an undo."""
    saga = Saga("trip", input=Trip, **options)

    @saga.step
    async def hotel(trip: Trip) -> str:
        return await world.act("hotel", f"hotel in {trip.city}")

    @hotel.undo
    async def cancel_hotel(trip: Trip, hotel: str | None) -> None:
        await world.act("undo hotel" if hotel else "undo hotel?")

    @saga.step
    async def flight(trip: Trip) -> str:
        return await world.act("flight", "seat 7")

    @flight.undo
    async def cancel_flight(trip: Trip, flight: str | None) -> None:
        await world.act("undo flight" if flight else "undo flight?")

    @saga.step
    async def payment(trip: Trip, hotel: str, flight: str) -> str:
        return await world.act("payment", f"paid {hotel}, {flight}")

    @payment.undo
    async def refund(trip: Trip, payment: str | None) -> None:
        await world.act("undo payment" if payment else "undo payment?")

    return saga


def on_app(saga: Saga[Any], work: Any, journal: MemoryJournal | None = None, **options: Any) -> Any:
    async def main() -> Any:
        app = App(journal or MemoryJournal(), [saga], concurrency=options.pop("concurrency", 100), grace=options.pop("grace", 1.0))
        async with app:
            return await work(app)

    return run(main())


def outcome(world: World, saga: Saga[Trip] | None = None, journal: MemoryJournal | None = None) -> tuple[str, Any]:
    saga = saga or trip_saga(world)

    async def work(app: App) -> tuple[str, Any]:
        handle = await app.start(saga, Trip(), id="t")
        try:
            return "completed", await handle.result()
        except (RunUndoneError, RunBlockedError) as error:
            return type(error).__name__, str(error)

    return on_app(saga, work, journal)


def test_a_run_completes_and_gives_the_last_steps_result():
    world = World()
    assert outcome(world) == ("completed", "paid hotel in Kyoto, seat 7")
    assert world.log == ["hotel", "flight", "payment"]
    assert world.keys["hotel"] == {"t/hotel"}


def test_a_declined_step_undoes_what_was_done_in_reverse_and_not_itself():
    world = World(payment=[DeclinedError("card declined")])
    kind, text = outcome(world)
    assert kind == "RunUndoneError"
    assert "payment: DeclinedError: card declined" in text
    assert sorted(world.log[3:]) == ["undo flight", "undo hotel"]


def test_a_failure_aborts_also_when_a_sibling_is_done_in_the_same_instant():
    world = World(hotel=[DeclinedError("sold out")])
    kind, text = outcome(world)
    assert (kind, world.log) == ("RunUndoneError", ["hotel", "flight", "undo flight"])
    assert "hotel: DeclinedError: sold out" in text


def test_a_history_that_ends_with_a_failure_is_aborted_when_it_is_taken_up():
    world, journal = World(), MemoryJournal()
    saga = trip_saga(world)

    async def left_behind() -> None:
        await journal.open()
        created = await journal.create(NewRun("t", saga.name, saga.graph.hash, b'{"city":"Kyoto"}'))
        records = (Record(Kind.FAILED, "hotel", b'{"error":"DeclinedError"}'), Record(Kind.DONE, "flight", b'"seat 7"'))
        await journal.append(Append(created.header.no, 0, records))
        await journal.close()

    run(left_behind())
    assert resumed(saga, journal) is RunState.UNDONE
    assert world.log == ["undo flight"]


def test_a_step_in_doubt_is_repeated_with_the_same_key_and_then_undone_with_none():
    world = World(payment=[InDoubtError("no answer")] * 3)
    kind, _ = outcome(world)
    assert kind == "RunUndoneError"
    assert world.log.count("payment") == 3
    assert world.log[5] == "undo payment?", "its undo comes before those of what it needed"
    assert world.keys["payment"] == {"t/payment"}
    assert world.keys["undo payment?"] == {"t/payment"}


def test_a_transient_failure_is_retried_and_nobody_notices():
    world = World(flight=[InDoubtError("lost"), ConnectionRefusedError()])
    assert outcome(world)[0] == "completed"
    assert world.log.count("flight") == 3


def test_a_running_sibling_is_awaited_before_anything_is_undone():
    world = World(hotel=[DeclinedError("sold out")], flight=[5.0])
    kind, _ = outcome(world)
    assert kind == "RunUndoneError"
    assert world.log == ["hotel", "flight", "undo flight"]


def test_a_sibling_between_attempts_makes_no_further_one_and_is_undone_in_doubt():
    world = World(hotel=[DeclinedError("sold out")], flight=[InDoubtError("lost")] * 99)
    kind, _ = outcome(world)
    assert kind == "RunUndoneError"
    assert world.log == ["hotel", "flight", "undo flight?"]


@pytest.mark.parametrize("bug", [TypeError("x"), KeyError("y"), AssertionError("z"), NameError("n")])
def test_a_bug_blocks_the_run_and_undoes_nothing(bug: Exception):
    world = World(payment=[bug])
    kind, _ = outcome(world)
    assert kind == "RunBlockedError"
    assert world.log == ["hotel", "flight", "payment"]


def test_a_result_that_is_not_what_the_step_declares_is_a_bug():
    world = World(payment=[7])
    assert outcome(world)[0] == "RunBlockedError"


def test_a_blocked_run_goes_on_when_somebody_says_so():
    world = World(payment=[TypeError("bug")])
    saga = trip_saga(world)

    async def work(app: App) -> str:
        handle = await app.start(saga, Trip(), id="t")
        assert await handle.wait() is RunState.BLOCKED
        await handle.resolve("payment", "retry")
        return await handle.result()

    assert on_app(saga, work) == "paid hotel in Kyoto, seat 7"


def test_a_blocked_step_can_be_resolved_as_done_with_its_result():
    world = World(hotel=[TypeError("bug")])
    saga = trip_saga(world)

    async def work(app: App) -> str:
        handle = await app.start(saga, Trip(), id="t")
        assert await handle.wait() is RunState.BLOCKED
        await handle.resolve("hotel", "done", result="booked by phone")
        return await handle.result()

    assert on_app(saga, work) == "paid booked by phone, seat 7"


def test_a_decision_that_was_carried_out_is_ticked_off_also_when_the_engine_is_closed_at_once():
    world, journal = World(hotel=[TypeError("bug")]), MemoryJournal()
    saga = trip_saga(world)

    async def work(app: App) -> None:
        handle = await app.start(saga, Trip(), id="t")
        await handle.wait()
        await handle.resolve("hotel", "done", result="booked by phone")
        await handle.result()

    on_app(saga, work, journal)
    assert run(journal.requests()) == []


def test_a_result_that_is_not_what_the_step_returns_is_refused_and_the_run_stays_blocked():
    world, journal = World(hotel=[TypeError("bug")]), MemoryJournal()
    saga = trip_saga(world)

    async def work(app: App) -> tuple[str, str]:
        handle = await app.start(saga, Trip(), id="t")
        await handle.wait()
        await handle.resolve("hotel", "done", result=7)
        while await journal.requests():
            await runtime.sleep(0.1)
        refused = (await handle.stored()).header
        assert refused.state is RunState.BLOCKED
        await handle.resolve("hotel", "done", result="booked by phone")
        return refused.reason, await handle.result()

    reason, result = on_app(saga, work, journal)
    assert "the result that was given is not what it returns: Expected `str`, got `int`" in reason
    assert result == "paid booked by phone, seat 7"


def test_a_request_for_a_run_of_another_saga_waits_for_an_engine_that_has_its_code():
    world, journal = World(hotel=[TypeError("bug")]), MemoryJournal()
    saga, other = trip_saga(world), Saga("other", input=Trip)

    @other.step(undo=None)
    async def car(trip: Trip) -> int:
        return 1

    async def blocked(app: App) -> None:
        assert await (await app.start(saga, Trip(), id="t")).wait() is RunState.BLOCKED

    async def elsewhere(app: App) -> int:
        await journal.request("t", "resolve", b'{"step":"hotel","decision":"retry"}', 0.0)
        await runtime.sleep(3.0)
        return len(await journal.requests())

    async def here(app: App) -> RunState:
        await runtime.sleep(1.0)
        return await app.run(saga, "t").wait()

    on_app(saga, blocked, journal)
    assert on_app(other, elsewhere, journal) == 1
    assert on_app(saga, here, journal) is RunState.COMPLETED


def test_an_undo_that_gives_up_blocks_the_run_and_can_be_resolved():
    world = World(payment=[DeclinedError("no")])
    world.plan["undo flight"] = [DeclinedError("too late to cancel")]
    saga = trip_saga(world)

    async def work(app: App) -> RunState:
        handle = await app.start(saga, Trip(), id="t")
        assert await handle.wait() is RunState.BLOCKED
        assert "undo hotel" in world.log, "the other branch is undone all the same"
        await handle.resolve("flight", "undone")
        return await handle.wait()

    assert on_app(saga, work) is RunState.UNDONE


def test_an_undo_is_retried_through_a_long_outage():
    world = World(payment=[DeclinedError("no")])
    world.plan["undo flight"] = [ConnectionResetError()] * 50
    assert outcome(world)[0] == "RunUndoneError"
    assert world.log.count("undo flight") == 51


def test_earlier_attempts_are_written_with_what_became_of_the_step():
    world = World(flight=[InDoubtError("lost"), ConnectionRefusedError("nobody there")])
    saga, journal = trip_saga(world), MemoryJournal()
    assert outcome(world, saga, journal)[0] == "completed"
    stored = asyncio.run(journal.read("t"))
    assert stored is not None
    (note,) = [record for record in stored.records if record.kind is Kind.ATTEMPTS]
    told = msgspec.json.decode(note.data, type=Attempted)
    assert [(failed.error, failed.message) for failed in told.failed] == [
        ("InDoubtError", "lost"), ("ConnectionRefusedError", "nobody there")]
    assert all(failed.wait_s > 0 for failed in told.failed)
    assert resumed(saga, journal) is RunState.COMPLETED, "a note changes nothing"


def test_of_a_night_of_attempts_the_beginning_and_the_end_are_told():
    world = World(payment=[DeclinedError("no")])
    world.plan["undo flight"] = [ConnectionResetError(str(n)) for n in range(90)]
    saga, journal = trip_saga(world), MemoryJournal()
    assert outcome(world, saga, journal)[0] == "RunUndoneError"
    stored = asyncio.run(journal.read("t"))
    assert stored is not None
    (note,) = [record for record in stored.records if record.kind is Kind.ATTEMPTS]
    told = msgspec.json.decode(note.data, type=Attempted)
    assert told.undo
    assert [failed.message for failed in told.failed] == [str(n) for n in [*range(10), *range(80, 90)]]
    assert told.left_out == 70


def test_the_same_id_is_the_same_run_and_another_input_is_refused():
    world = World()
    saga = trip_saga(world)

    async def work(app: App) -> None:
        first = await app.start(saga, Trip(), id="t")
        await app.start(saga, Trip(), id="t")
        await first.result()
        again = await app.start(saga, Trip(), id="t")
        assert await again.result() == "paid hotel in Kyoto, seat 7"
        with pytest.raises(RunConflictError):
            await app.start(saga, Trip("Osaka"), id="t")

    on_app(saga, work)
    assert world.log == ["hotel", "flight", "payment"]


def test_a_wrong_input_is_refused_before_anything_is_stored():
    world = World()
    saga = trip_saga(world)
    journal = MemoryJournal()

    async def work(app: App) -> None:
        with pytest.raises(InputError, match="Trip"):
            await app.start(saga, {"city": 3}, id="t")  # type: ignore[arg-type]
        assert await journal.search(Query()) == []

    on_app(saga, work, journal)


def test_cancelling_a_run_undoes_it_at_the_next_step_boundary():
    world = World(hotel=[10.0], flight=[10.0])
    saga = trip_saga(world)

    async def work(app: App) -> RunState:
        handle = await app.start(saga, Trip(), id="t")
        await runtime.sleep(1.0)
        await handle.cancel("changed my mind")
        return await handle.wait()

    assert on_app(saga, work) is RunState.CANCELLED
    assert sorted(world.log) == ["flight", "hotel", "undo flight", "undo hotel"]


def test_a_runs_deadline_undoes_it():
    world = World(hotel=[100.0])
    saga = trip_saga(world, deadline=30.0)
    kind, text = outcome(world, saga)
    assert kind == "RunUndoneError"
    assert "deadline" in text


def test_an_attempt_that_takes_too_long_is_in_doubt():
    world = World()
    saga = Saga("slow", input=Trip)

    @saga.step(timeout=1.0, retry=2)
    async def slow(trip: Trip) -> int:
        world.log.append("slow")
        await runtime.sleep(60.0)
        return 1

    @slow.undo
    async def undo(trip: Trip, slow: int | None) -> None:
        world.log.append(f"undo {slow}")

    kind, text = outcome(world, saga)
    assert kind == "RunUndoneError"
    assert "AttemptTimeoutError" in text
    assert world.log == ["slow", "slow", "undo None"]


def test_a_steps_deadline_bounds_all_its_attempts():
    saga = Saga("slow", input=Trip)
    tries: list[float] = []

    @saga.step(deadline=3.0, retry=1000, undo=None)
    async def slow(trip: Trip) -> int:
        tries.append(runtime.monotonic())
        await runtime.sleep(0.5)
        raise ConnectionResetError

    kind, _ = outcome(World(), saga)
    assert kind == "RunUndoneError"
    assert tries[-1] - tries[0] < 3.0
    assert len(tries) > 2


def pivoted(world: World, **options: Any) -> Saga[Trip]:
    saga = Saga("pivoted", input=Trip, **options)

    @saga.step
    async def hotel(trip: Trip) -> str:
        return await world.act("hotel", "h")

    @hotel.undo
    async def cancel(trip: Trip, hotel: str | None) -> None:
        await world.act("undo hotel")

    @saga.step(pivot=True)
    async def payment(trip: Trip, hotel: str) -> str:
        return await world.act("payment", "p")

    @saga.step
    async def ticket(trip: Trip, payment: str) -> str:
        return await world.act("ticket", "t")

    return saga


def test_after_the_pivot_a_step_is_retried_until_it_succeeds():
    world = World(ticket=[ConnectionResetError()] * 200)
    assert outcome(world, pivoted(world)) == ("completed", "t")
    assert world.log.count("ticket") == 201


def test_a_pivot_in_doubt_without_undo_is_repeated_until_its_answer_is_known():
    world = World(payment=[InDoubtError("lost")] * 20)
    assert outcome(world, pivoted(world))[0] == "completed"
    declined = World(payment=[InDoubtError("lost"), DeclinedError("no")])
    assert outcome(declined, pivoted(declined))[0] == "RunUndoneError"
    assert declined.log[-1] == "undo hotel"


@pytest.mark.parametrize("last", [DeclinedError("no"), ConnectionRefusedError()])
def test_a_step_whose_last_request_did_nothing_is_undone_for_the_ones_before_it(last: Exception):
    """A card is authorised, the capture is refused: the hold on the card must not stay."""
    saga = Saga("pay", input=Trip)
    world = World(capture=[last] * 3)

    @saga.step(pivot=True)
    async def payment(effect: Effect) -> str:
        for request in ("authorise", "capture"):
            effect.next_key()
            await world.act(request)
        return "paid"

    @payment.undo
    async def refund(payment: str | None) -> None:
        await world.act("refund" if payment else "refund?")

    assert outcome(world, saga)[0] == "RunUndoneError"
    assert world.log[-1] == "refund?"


def test_a_refusal_on_the_way_is_no_answer_to_a_pivot_in_doubt():
    world = World(payment=[InDoubtError("lost"), ConnectionRefusedError(), ConnectionRefusedError(), ConnectionRefusedError(), 1.0])
    saga = pivoted(world)

    async def work(app: App) -> RunState:
        handle = await app.start(saga, Trip(), id="t")
        while len([name for name in world.log if name == "payment"]) < 3:
            await runtime.sleep(0.01)
        await handle.cancel("too late: it may be paid")
        return await handle.wait()

    assert on_app(saga, work) is RunState.COMPLETED
    assert "undo hotel" not in world.log


def test_a_pivot_that_an_earlier_process_may_have_made_is_not_given_up_by_a_deadline():
    world = World(payment=[50.0])
    saga, journal = pivoted(world, deadline=30.0), MemoryJournal()
    killed(saga, journal, 1.0)

    async def main() -> RunState:
        await runtime.sleep(100.0)
        async with App(journal, [saga], concurrency=10, grace=0.0) as app:
            return await app.run(saga, "t").wait()

    assert run(main()) is RunState.COMPLETED
    assert "undo hotel" not in world.log


def test_a_pivot_that_is_blocked_by_a_bug_and_has_no_undo_is_not_cancelled_but_resolved():
    world = World(payment=[KeyError("after it was paid")])
    saga = pivoted(world)

    async def work(app: App) -> RunState:
        handle = await app.start(saga, Trip(), id="t")
        assert await handle.wait() is RunState.BLOCKED
        await handle.cancel("by somebody in a hurry")
        assert await handle.wait() is RunState.BLOCKED
        assert "undo hotel" not in world.log
        await handle.resolve("payment", "undone")
        return await handle.wait()

    assert on_app(saga, work) is RunState.UNDONE
    assert world.log[-1] == "undo hotel"


def test_a_decline_after_the_pivot_is_for_a_person():
    world = World(ticket=[DeclinedError("printer on fire")])
    assert outcome(world, pivoted(world))[0] == "RunBlockedError"
    assert "undo hotel" not in world.log


def test_cancelling_after_the_pivot_changes_nothing():
    world = World(ticket=[5.0])
    saga = pivoted(world)

    async def work(app: App) -> RunState:
        handle = await app.start(saga, Trip(), id="t")
        await runtime.sleep(1.0)
        await handle.cancel()
        return await handle.wait()

    assert on_app(saga, work) is RunState.COMPLETED


def test_plain_functions_are_steps_too():
    saga = Saga("plain", input=Trip)

    @saga.step(undo=None)
    def double(trip: Trip) -> int:
        under_way = effect.current.get()
        assert under_way is not None
        return len(trip.city) * 2

    assert outcome(World(), saga) == ("completed", 10)


def test_the_effect_under_way_can_be_asked_for():
    saga = Saga("asks", input=Trip)

    @saga.step(undo=None)
    async def ask(trip: Trip, effect: Effect) -> str:
        return f"{effect.key} {effect.attempt} {effect.next_key()} {effect.next_key()}"

    assert outcome(World(), saga) == ("completed", "t/ask 1 t/ask t/ask#2")


def test_only_as_many_runs_as_allowed_are_in_memory_and_all_end():
    world = World()
    saga = trip_saga(world)
    most = 0

    async def work(app: App) -> int:
        nonlocal most
        handles = [await app.start(saga, Trip(), id=f"t{i}") for i in range(60)]
        most = app.engine.in_memory
        for handle in handles:
            await handle.result()
        return len(handles)

    assert on_app(saga, work, concurrency=5) == 60
    assert most <= 5


def test_the_brake_holds_new_runs_when_all_are_undone_and_gives_them_back():
    saga = Saga("bad", input=Trip, brake=0.9)
    broken = True

    @saga.step(undo=None)
    async def one(trip: Trip) -> int:
        if broken:
            raise DeclinedError("no")
        return 1

    async def work(app: App) -> tuple[bool, RunState]:
        nonlocal broken
        heard: list[Any] = []
        with events.listen(heard.append, kinds=(events.SagaPaused,)):
            for i in range(200):
                await (await app.start(saga, Trip(), id=f"t{i}")).wait()
        assert [event.saga for event in heard] == ["bad"]
        held = await app.start(saga, Trip(), id="held")
        broken = False
        return await app.resume(saga), await held.wait()

    assert on_app(saga, work) == (True, RunState.COMPLETED)


def test_a_run_without_progress_raises_an_event_once():
    world = World(hotel=[1000.0], flight=[1000.0])
    saga = trip_saga(world, stuck_after=60.0)
    heard: list[Any] = []

    async def work(app: App) -> None:
        with events.listen(heard.append, kinds=(events.RunStuck,)):
            await (await app.start(saga, Trip(), id="t")).result()

    on_app(saga, work)
    assert [(event.run, event.waiting_for) for event in heard] == [("t", "hotel, flight")]


def test_events_tell_the_story_of_a_run():
    world = World(payment=[DeclinedError("no")])
    heard: list[Any] = []
    with events.listen(heard.append, kinds=(events.RunEvent,)):
        outcome(world)
    names = [type(event).__name__ for event in heard]
    assert names[:1] == ["RunStarted"]
    assert names[-1] == "RunFinished"
    assert "RunAborting" in names


def test_two_sagas_of_one_name_are_refused():
    with pytest.raises(UsageError):
        yaoki.open("memory:", sagas=[trip_saga(World()), trip_saga(World())])


# ── restarts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def killed(saga: Saga[Any], journal: MemoryJournal, until: float, *, input_: Any = None) -> None:
    """Start a run, and drop the whole engine after `until` seconds, as if the process had died."""

    async def main() -> None:
        app = App(journal, [saga], concurrency=10, grace=0.0)
        await app.engine.open()
        await app.start(saga, input_ or Trip(), id="t")
        await runtime.sleep(until)
        await app.engine.close(grace_s=0.0)

    run(main())


def resumed(saga: Saga[Any], journal: MemoryJournal) -> RunState:
    async def work(app: App) -> RunState:
        return await app.run(saga, "t").wait()

    return on_app(saga, work, journal)


def test_a_restart_repeats_only_what_was_not_recorded():
    world = World(payment=[50.0])
    saga, journal = trip_saga(world), MemoryJournal()
    killed(saga, journal, 1.0)
    assert resumed(saga, journal) is RunState.COMPLETED
    assert world.log == ["hotel", "flight", "payment", "payment"]
    assert world.keys["payment"] == {"t/payment"}


def test_a_restart_in_the_middle_of_an_abort_undoes_the_step_that_was_under_way_in_doubt():
    world = World(hotel=[DeclinedError("no")], flight=[50.0])
    saga, journal = trip_saga(world), MemoryJournal()
    killed(saga, journal, 1.0)
    assert resumed(saga, journal) is RunState.UNDONE
    assert world.log == ["hotel", "flight", "undo flight?"]


def test_a_run_cancelled_while_nothing_ran_undoes_what_may_have_been_under_way():
    world = World(hotel=[50.0, 50.0], flight=[50.0, 50.0])
    saga, journal = trip_saga(world), MemoryJournal()
    killed(saga, journal, 1.0)
    asyncio.run(journal.request("t", "cancel", b'{"reason":"no", "who":"me"}', 0.0))
    assert resumed(saga, journal) is RunState.CANCELLED
    assert {"undo hotel", "undo flight"} & set(world.log) or {"undo hotel?", "undo flight?"} & set(world.log)
    assert asyncio.run(journal.requests()) == []


def test_a_graceful_close_lets_steps_end_and_hands_over_the_rest():
    world = World(hotel=[2.0], flight=[2.0])
    saga, journal = trip_saga(world), MemoryJournal()

    async def main() -> None:
        app = App(journal, [saga], concurrency=10, grace=10.0)
        async with app:
            await app.start(saga, Trip(), id="t")
            await runtime.sleep(1.0)

    run(main())
    assert world.log == ["hotel", "flight"]
    stored = asyncio.run(journal.read("t"))
    assert stored is not None
    assert [record.kind for record in stored.records] == [Kind.DONE, Kind.DONE]
    assert resumed(saga, journal) is RunState.COMPLETED
    assert world.log == ["hotel", "flight", "payment"]


def test_a_close_does_not_wait_for_a_step_between_attempts():
    world = World(payment=[InDoubtError("lost")] * 2)
    saga, journal = trip_saga(world), MemoryJournal()

    async def main() -> float:
        app = App(journal, [saga], concurrency=10, grace=1000.0)
        async with app:
            await app.start(saga, Trip(), id="t")
            while "payment" not in world.log:
                await runtime.sleep(0.001)
            began = runtime.monotonic()
        return runtime.monotonic() - began

    assert run(main()) < 0.01
    stored = asyncio.run(journal.read("t"))
    assert stored is not None
    assert [record.kind for record in stored.records] == [Kind.DONE, Kind.DONE]
    assert resumed(saga, journal) is RunState.COMPLETED


def test_a_run_taken_up_after_its_deadline_starts_nothing_and_undoes_what_may_have_been_started():
    world = World(hotel=[50.0], flight=[50.0])
    saga, journal = trip_saga(world, deadline=30.0), MemoryJournal()
    killed(saga, journal, 1.0)

    async def main() -> RunState:
        await runtime.sleep(100.0)
        async with App(journal, [saga], concurrency=10, grace=0.0) as app:
            return await app.run(saga, "t").wait()

    assert run(main()) is RunState.UNDONE
    assert sorted(world.log) == ["flight", "hotel", "undo flight?", "undo hotel?"]


def test_a_run_that_the_code_does_not_fit_any_more_is_left_alone_and_told():
    world = World(payment=[50.0])
    saga, journal = trip_saga(world), MemoryJournal()
    killed(saga, journal, 1.0)
    other = Saga("trip", input=Trip)

    @other.step(undo=None)
    async def car(trip: Trip) -> int:
        return 1

    async def work(app: App) -> dict[str, str]:
        with pytest.raises(RunError, match="does not fit the code"):  # whoever waits is told, before and after it was looked at
            await app.run(other, "t").wait()
        await runtime.sleep(1.0)
        with pytest.raises(RunError, match="does not fit the code"):
            await app.run(other, "t").wait()
        return app.engine.unfit

    assert "hotel" in on_app(other, work, journal)["t"] or "flight" in on_app(other, work, journal)["t"]
    assert resumed(trip_saga(world), journal) is RunState.COMPLETED


class FullDisk(MemoryJournal):
    """Takes the start of a run and nothing more."""

    async def _commit(self, batch: list[Any]) -> list[Any]:
        if any(not hasattr(each, "input") for each in batch):
            raise JournalError("no space left", do="free some space")
        return await super()._commit(batch)


def test_when_a_record_cannot_be_kept_everybody_is_told_and_nothing_more_begins():
    world = World()
    saga = trip_saga(world)

    async def main() -> None:
        app = App(FullDisk(), [saga], concurrency=10, grace=0.0)
        async with app:
            handle = await app.start(saga, Trip(), id="t")
            with pytest.raises(JournalError, match="no space"):
                await handle.result()
            with pytest.raises(JournalError, match="no space"):
                await app.start(saga, Trip(), id="u")

    run(main())
    assert "payment" not in world.log


def test_many_runs_at_once_are_independent_of_each_other():
    world = World()
    saga = trip_saga(world)

    async def work(app: App) -> set[Any]:
        async def one(i: int) -> Any:
            return await (await app.start(saga, Trip(f"c{i}"), id=f"t{i}")).result()

        jobs: list[Coroutine[Any, Any, Any]] = [one(i) for i in range(200)]
        return set(await asyncio.gather(*jobs))

    assert on_app(saga, work) == {f"paid hotel in c{i}, seat 7" for i in range(200)}


def test_a_plain_program_can_use_it_too():
    world = World()
    saga = trip_saga(world)
    with yaoki.open("memory:", sagas=[saga]) as app:
        assert app.start(saga, Trip(), id="t").result(timeout=100) == "paid hotel in Kyoto, seat 7"


# ── a step that cancels the task it runs in ──────────────────────────────────────────────────────────────────────────


def cancels_itself(times: int, *, beside: bool) -> tuple[Saga[Trip], list[str]]:
    """A saga whose `hotel` cancels its own task in its first `times` calls; `beside`: while another step runs."""
    saga, log = Saga("self", input=Trip), []

    @saga.step(undo=None)
    async def hotel(trip: Trip) -> str:
        log.append("hotel")
        if len(log) <= times:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await runtime.sleep(1.0)
        return "room"

    if beside:
        @saga.step(undo=None)
        async def flight(trip: Trip) -> str:
            await runtime.sleep(5.0)
            return "seat"

    return saga, log


@pytest.mark.parametrize("beside", [False, True])
def test_a_step_that_cancels_the_task_it_runs_in_is_in_doubt_and_made_again(beside):
    saga, log = cancels_itself(2, beside=beside)

    async def main() -> RunState:
        async with App(MemoryJournal(), [saga], concurrency=10, grace=1.0) as app:
            return await (await app.start(saga, Trip())).wait()

    assert run(main()) is RunState.COMPLETED
    assert log == ["hotel"] * 3


def test_one_that_does_so_each_time_is_set_aside_and_who_waits_is_told():
    saga, log = cancels_itself(1000, beside=False)

    async def main() -> None:
        async with App(MemoryJournal(), [saga], concurrency=10, grace=1.0) as app:
            begun = await app.start(saga, Trip())
            with pytest.raises(RunError):
                await begun.wait()
            assert begun.id in app.engine.unfit

    run(main())
    assert len(log) == 4
