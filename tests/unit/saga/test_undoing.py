"""Runs that are undone as a whole because a person wants it: completed ones, blocked ones, those past their pivot; and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from unit.saga.places import Place, app_on
from unit.saga.places import place as place  # noqa: PLC0414  a fixture
from unit.saga.test_child import World, charging, record, trip
from virtual_time import run
from yaoki import Saga, events, runtime
from yaoki.app import App
from yaoki.errors import RunNotFoundError, UndoRunError
from yaoki.saga.engine.undos import request
from yaoki.saga.graph import Graph, Node
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.machine import Machine, decide
from yaoki.saga.records import Abort, Kind, RunState
from yaoki.saga.standing import Step
from yaoki.saga.undoing import as_a_whole, check, would_stay

PAID = Graph("paid", (Node("hotel", undo=True), Node("payment", ("hotel",), pivot=True), Node("pause", ("payment",), waits="sleep"),
                      Node("mail", ("payment",))))
NAMES = ("hotel", "payment", "pause", "mail")


def has_no_undo(name: str) -> bool:
    return not PAID.nodes[PAID.index[name]].undo


def completed() -> Machine:
    return decide(PAID, [record(Kind.DONE, name) for name in NAMES])


# ── deciding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_made_from_the_pivot_on_and_has_no_undo_would_stay():
    assert would_stay(completed(), has_no_undo) == ("payment", "mail")


def test_what_was_skipped_does_not_stay():
    machine = decide(PAID, [*(record(Kind.DONE, name) for name in NAMES[:3]), record(Kind.SKIPPED, "mail")])
    assert would_stay(machine, has_no_undo) == ("payment",)


def test_above_the_pivot_nothing_stays():
    machine = decide(PAID, [record(Kind.DONE, "hotel")])
    assert would_stay(machine, has_no_undo) == ()
    assert would_stay(machine, has_no_undo, ["payment"]) == ("payment", "mail"), "it may be under way, and could not be undone"


def test_it_is_refused_by_the_names_of_what_would_stay_unless_that_is_left_knowingly():
    with pytest.raises(UndoRunError, match="of payment, mail something would stay") as caught:
        check(completed(), has_no_undo, past_pivot=False)
    assert "@payment.undo" in caught.value.do
    assert check(completed(), has_no_undo, past_pivot=True) == ("payment", "mail")


def test_what_is_kept_is_not_undone_and_the_rest_is():
    machine = completed()
    machine.apply(record(Kind.ABORT, "", as_a_whole(Abort("why"), ("payment", "mail"))))
    assert machine.undo == ["hotel"]
    assert machine.abort is not None
    assert machine.abort.reason == "why (left as it is: payment, mail)"
    machine.apply(record(Kind.UNDONE, "hotel"))
    assert machine.state is RunState.UNDONE
    assert [machine.steps[PAID.index[name]] for name in NAMES] == [Step.CLEAR, Step.KEPT, Step.CLEAR, Step.KEPT]


@pytest.mark.parametrize("more", [["abort"], ["abort", "undone"]])
def test_what_undoes_itself_or_is_undone_is_refused(more: list[str]):
    machine = decide(PAID, [record(Kind.DONE, "hotel"), record(Kind.ABORT, "", Abort("why"))])
    if "undone" in more:
        machine.apply(record(Kind.UNDONE, "hotel"))
    with pytest.raises(UndoRunError):
        check(machine, has_no_undo, past_pivot=True)


# ── through the front door ───────────────────────────────────────────────────────────────────────────────────────────


def paying(world: World, *, undo: Any = None) -> Saga[int]:
    """Its last step has no undo, unless one is given."""
    saga = charging(world, pivot=True)
    more: dict[str, Any] = {} if undo is None else {"undo": undo}

    @saga.step(**more)
    async def mail(amount: int, capture: str) -> str:
        return await world.call("mail")

    return saga


async def cancel_mail(amount: int, mail: str | None) -> None: ...


async def undone(app: App, run_id: str, saga: Saga[int], **more: Any) -> RunState:
    handle = app.run(saga, run_id)
    await handle.undo("called off", who="ada", **more)
    return await handle.wait()


def test_a_completed_run_is_undone_the_last_step_first(place: Place):
    world = World()

    async def main() -> None:
        saga = charging(world)
        async with app_on(place, saga) as app:
            assert await (await app.start(saga, 3, id="r")).wait() is RunState.COMPLETED
            assert await undone(app, "r", saga) is RunState.CANCELLED
            assert (await app.run(saga, "r").stored()).header.reason == "called off by ada"
            (said,) = await app.journal.operations()
            assert (said.action, said.name, said.who, said.why) == ("undo", "r", "ada", "called off")
            with pytest.raises(UndoRunError, match="the run is cancelled"):
                await app.undo("r")

    run(main())
    assert world.log == ["hold", "capture", "refund", "free"]


def test_one_that_would_leave_something_is_refused_and_stays_completed(place: Place):
    world = World()

    async def main() -> None:
        saga = paying(world)
        async with app_on(place, saga) as app:
            await (await app.start(saga, 3, id="r")).result()
            with pytest.raises(UndoRunError, match="of mail something would stay"):
                await app.undo("r")
            assert await app.run(saga, "r").state() is RunState.COMPLETED

    run(main())
    assert world.log == ["hold", "capture", "mail"]


def test_one_that_would_leave_something_is_undone_but_for_that_where_it_is_left_knowingly(place: Place):
    world = World()

    async def main() -> None:
        saga = paying(world)
        async with app_on(place, saga) as app:
            await (await app.start(saga, 3, id="r")).result()
            assert await undone(app, "r", saga, past_pivot=True) is RunState.CANCELLED
            assert (await app.run(saga, "r").stored()).header.reason == "called off by ada (left as it is: mail)"

    run(main())
    assert world.log == ["hold", "capture", "mail", "refund", "free"]


def test_an_undo_that_today_s_code_has_counts(place: Place):
    world = World()

    async def main() -> None:
        async with app_on(place, paying(world)) as app:
            await (await app.start(app.engine.sagas["charge"], 3, id="r")).result()
        saga = paying(world, undo=cancel_mail)
        async with app_on(place, saga) as app:
            assert await undone(app, "r", saga) is RunState.CANCELLED
            assert (await app.run(saga, "r").stored()).header.reason == "called off by ada"

    run(main())


def test_a_request_of_somebody_else_that_would_leave_something_is_refused_in_the_log(place: Place):
    world = World()

    async def main() -> None:
        saga = paying(world)
        async with app_on(place, saga) as app:
            await (await app.start(saga, 3, id="r")).result()
            await app.engine.requests.ask("r", "undo", request("why", past_pivot=False, who="ada"))
            assert await app.run(saga, "r").wait() is RunState.COMPLETED
            refused, asked = await app.journal.operations()
            assert (refused.action, asked.action) == ("refuse undo", "undo")
            assert msgspec.json.decode(refused.data) == {"refused": "something would stay of mail"}
        async with app_on(place, saga) as app:  # it was put back as it was
            assert (await app.run(saga, "r").stored()).header.result == b'"mail"'

    run(main())
    assert world.log == ["hold", "capture", "mail"]


def test_past_its_pivot_it_is_undone_once_it_is_completed_and_an_event_says_so(place: Place):
    world, heard = World(), list[Any]()

    async def main() -> None:
        saga = charging(world, pivot=True)
        saga.wait_for(str, name="receipt", after="capture")(lambda amount: None)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 3, id="r")
            while "capture" not in world.log or len((await handle.stored()).records) < 3:
                await events_pass()
            await handle.undo("called off")
            while not heard:
                await events_pass()
            with pytest.raises(UndoRunError, match="to be undone already"):
                await handle.undo("once more")
            await handle.signal("receipt", "yes")
            assert await handle.wait() is RunState.CANCELLED

    with events.listen(heard.append, kinds=(events.RunUndoAsked, events.RunAborting, events.RunFinished)):
        run(main())
    assert [type(each).__name__ for each in heard] == ["RunUndoAsked", "RunAborting", "RunFinished"]
    assert {each.run for each in heard} == {"r"}
    assert world.log == ["hold", "capture", "refund", "free"]


async def events_pass() -> None:
    await runtime.sleep(0.01)


def test_a_blocked_run_is_undone(place: Place):
    world = World()

    async def main() -> None:
        saga = Saga("bug", input=int)

        @saga.step
        async def hotel(n: int) -> str:
            return await world.call("hotel")

        @hotel.undo
        async def cancel(n: int, hotel: str | None) -> None:
            world.log.append("cancel")

        @saga.step(undo=None)
        async def price(n: int, hotel: str) -> str:
            raise KeyError("price")

        async with app_on(place, saga) as app:
            assert await (await app.start(saga, 1, id="r")).wait() is RunState.BLOCKED
            await app.undo("r")
            while not (state := await app.run(saga, "r").wait()).is_end:
                await events_pass()
            assert state is RunState.CANCELLED

    run(main())
    assert world.log == ["hotel", "cancel"]


def test_a_part_of_another_run_is_refused_as_long_as_that_one_counts_on_it(place: Place):
    world = World()

    async def main() -> None:
        saga = trip(world, charging(world))
        async with app_on(place, saga) as app:
            await (await app.start(saga, 3, id="t")).result()
            with pytest.raises(UndoRunError, match="t/payment is a part of run t"):
                await app.undo("t/payment")
            assert await undone(app, "t", saga) is RunState.CANCELLED
            with pytest.raises(RunNotFoundError):
                await app.undo("nobody")

    run(main())
    assert world.log == ["hotel", "hold", "capture", "mail", "refund", "free", "cancel hotel"]


def test_who_asks_without_an_engine_is_answered_by_the_next_one(place: Place):
    world = World()

    async def main() -> None:
        saga = charging(world)
        async with app_on(place, saga) as app:
            await (await app.start(saga, 3, id="r")).result()
            await app.journal.request("r", "undo", request("why", past_pivot=False, who=""), 1.0)
        async with app_on(place, saga) as app:
            while not await app.journal.operations() or await app.run(saga, "r").state() is not RunState.CANCELLED:
                await events_pass()

    run(main())
    assert world.log == ["hold", "capture", "refund", "free"]


def test_undoing_many_does_not_put_the_brake_on(place: Place):
    world = World()

    async def main() -> None:
        saga = charging(world)
        async with app_on(place, saga) as app:
            for number in range(60):
                await (await app.start(saga, 3, id=f"r{number}")).result()
            for number in range(60):
                assert await undone(app, f"r{number}", saga) is RunState.CANCELLED
            assert not app.engine.intake.is_braked(saga.name)

    run(main())


def test_a_retried_run_says_so_once():
    heard: list[Any] = []

    async def main() -> None:
        world = World()
        saga = charging(world)
        saga.wait_for(str, name="receipt", after="capture")(lambda amount: None)


        async with App(MemoryJournal(), [saga], concurrency=2, grace=1.0) as app:
            handle = await app.start(saga, 3, id="r")
            while len((await handle.stored()).records) < 3:
                await events_pass()
            await handle.retry(from_="capture", who="ada")
            while len((await handle.stored()).records) < 7:
                await events_pass()
            await handle.signal("receipt", "yes")
            await handle.wait()

    with events.listen(heard.append, kinds=(events.RunRetried,)):
        run(main())
    assert [(each.run, each.saga, each.step, each.steps, each.who) for each in heard] == [("r", "charge", "capture", ("capture", "receipt"), "ada")]
    assert msgspec.json.decode(events.to_json(heard[0]))["steps"] == ["capture", "receipt"]


