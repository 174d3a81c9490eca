"""Steps that wait, that are made at most once, and that are their service's own transaction: the same in both forms of a saga."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from typing import Any

import msgspec
import pytest

from contracts.choreography_world import choreographed, new_run
from contracts.messages_world import until
from yaoki.effect import Effect
from yaoki.errors import ConfigError, DeclinedError, DefinitionError, InDoubtError, InputError
from yaoki.messages import Messages, open_broker
from yaoki.messages.choreography import Monitor, RunView, participate, signal, start
from yaoki.messages.choreography.told import Run, Told
from yaoki.saga.define import Saga
from yaoki.saga.records import RunState


class Trip(msgspec.Struct):
    who: str
    pause: float = 0.05


class Decision(msgspec.Struct):
    yes: bool


SERVICES = {"hotels": ["hotel"], "boss": ["cooling_off", "approval"], "bank": ["payment"]}


class Called:
    """What was called, and what fails."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.undone: list[tuple[str, object]] = []
        self.decline = ""

    def make(self, step: str) -> str:
        self.calls[step] += 1
        if step == self.decline:
            raise DeclinedError("no")
        return f"{step}-ok"


def waiting_saga(called: Called, *, timeout: float | None = None, otherwise: Decision | None = None) -> Saga[Trip]:
    saga: Saga[Trip] = Saga("wait-trip", input=Trip, brake=None)

    @saga.step
    async def hotel(trip: Trip) -> str:
        return called.make("hotel")

    @hotel.undo
    async def cancel_hotel(trip: Trip, hotel: str | None) -> None:
        called.undone.append(("hotel", hotel))

    @saga.sleep
    def cooling_off(trip: Trip, hotel: str) -> float:
        called.make("cooling_off")
        return trip.pause

    @saga.wait_for(Decision, after="cooling_off", timeout=timeout, **({"otherwise": otherwise} if otherwise else {}))
    async def approval(trip: Trip, hotel: str, effect: Effect) -> None:
        called.make("approval")

    @saga.step(pivot=True, undo=None)
    async def payment(trip: Trip, approval: Decision) -> str:
        if not approval.yes:
            raise DeclinedError("the boss said no")
        return called.make("payment")

    return saga


async def test_a_sleep_ends_by_itself_and_an_answer_goes_to_the_step_that_asked(form):
    called, run = Called(), new_run()
    async with form(waiting_saga(called), SERVICES) as saga:
        await saga.start(run, Trip("ana"))
        await until(lambda: called.calls["approval"])
        await saga.signal(run, "approval", Decision(yes=True))
        assert await saga.wait(run) is RunState.COMPLETED
        assert await saga.result(run) == "payment-ok"
    assert called.calls == {"hotel": 1, "cooling_off": 1, "approval": 1, "payment": 1}


async def test_an_answer_that_comes_before_the_question_counts_and_a_second_one_does_not(form):
    called, run = Called(), new_run()
    async with form(waiting_saga(called), SERVICES) as saga:
        await saga.start(run, Trip("ana", pause=0.5))
        await until(lambda: called.calls["cooling_off"])
        await saga.signal(run, "approval", Decision(yes=False))
        await saga.signal(run, "approval", Decision(yes=True))
        assert await saga.wait(run) is RunState.UNDONE
    assert called.undone == [("hotel", "hotel-ok")]
    assert not called.calls["payment"]


async def test_nobody_answers_and_the_run_undoes_itself(form):
    called, run = Called(), new_run()
    async with form(waiting_saga(called, timeout=0.2), SERVICES) as saga:
        await saga.start(run, Trip("ana"))
        assert await saga.wait(run) is RunState.UNDONE
    assert called.undone == [("hotel", "hotel-ok")]


async def test_nobody_answers_and_what_was_agreed_for_that_is_the_answer(form):
    called, run = Called(), new_run()
    async with form(waiting_saga(called, timeout=0.2, otherwise=Decision(yes=True)), SERVICES) as saga:
        await saga.start(run, Trip("ana"))
        assert await saga.wait(run) is RunState.COMPLETED


async def test_a_run_that_waits_can_be_cancelled(form):
    called, run = Called(), new_run()
    async with form(waiting_saga(called), SERVICES) as saga:
        await saga.start(run, Trip("ana"))
        await until(lambda: called.calls["approval"])
        await asyncio.sleep(0.1)
        await saga.cancel(run)
        assert await saga.wait(run) is RunState.CANCELLED
    assert called.undone == [("hotel", "hotel-ok")]


# ── once ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def once_saga(called: Called, *, found: str | None, error: BaseException | None) -> Saga[Trip]:
    saga: Saga[Trip] = Saga("once-trip", input=Trip, brake=None)

    async def look(trip: Trip) -> str | None:
        called.calls["verify"] += 1
        return found

    @saga.step(once=True, verify=look)
    async def letter(trip: Trip) -> str:
        called.make("letter")
        if error is not None and called.calls["letter"] == 1:
            raise error
        return "posted"

    @letter.undo
    async def call_after_it(trip: Trip, letter: str | None) -> None:
        called.undone.append(("letter", letter))

    @saga.step(pivot=True, undo=None)
    async def payment(trip: Trip, letter: str) -> str:
        return letter

    return saga


async def test_a_step_that_is_made_at_most_once_is_looked_for_and_not_repeated(form):
    called, run = Called(), new_run()
    async with form(once_saga(called, found="found", error=InDoubtError("no answer")), {"post": ["letter"], "bank": ["payment"]}) as saga:
        await saga.start(run, Trip("ana"))
        assert await saga.wait(run) is RunState.COMPLETED
        assert await saga.result(run) == "found"
    assert called.calls == {"letter": 1, "verify": 1}


async def test_a_step_that_certainly_was_not_made_has_failed(form):
    called, run = Called(), new_run()
    async with form(once_saga(called, found=None, error=InDoubtError("no answer")), {"post": ["letter"], "bank": ["payment"]}) as saga:
        await saga.start(run, Trip("ana"))
        assert await saga.wait(run) is RunState.UNDONE
    assert (called.calls["letter"], called.undone) == (1, [])


async def test_a_killed_participant_does_not_repeat_what_is_made_at_most_once(tmp_path):
    called = Called()
    saga = once_saga(called, found="found", error=None)
    store = f"sqlite:///{tmp_path}/all.db"
    begun = asyncio.Event()

    async def hangs(trip: Trip) -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    letter, saga.steps["letter"].fn = saga.steps["letter"].fn, hangs
    doomed = Messages("post", store)
    participate(saga, steps=["letter", "payment"], app=doomed)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(doomed)
        await start(doomed, saga, Trip("ana"), id="trip-1")
        await begun.wait()
        for task in [task for worker in doomed._workers if hasattr(worker, "_tasks") for task in worker._tasks]:
            task.cancel()  # as a killed process: nothing of it is told
    saga.steps["letter"].fn = letter
    heir = Messages("post", store)
    participate(saga, steps=["letter", "payment"], app=heir)
    monitor = Monitor(saga, heir)
    async with heir:
        assert await monitor.wait("trip-1", timeout=100) is RunState.COMPLETED
    assert called.calls == {"verify": 1}


# ── tx ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def tx_saga(called: Called, *, on_postgres: bool = False) -> Saga[Trip]:
    saga: Saga[Trip] = Saga("tx-trip", input=Trip, brake=None)

    def make() -> None:
        if called.make("hotel") and called.calls["hotel"] == 1:
            raise ConnectionResetError("after it has written")

    async def in_postgres(trip: Trip, tx: Any) -> int:
        await tx.execute("CREATE TABLE IF NOT EXISTS rooms (who TEXT)")
        await tx.execute("INSERT INTO rooms VALUES ($1)", trip.who)
        make()
        return int(await tx.fetchval("SELECT count(*) FROM rooms"))

    def in_sqlite(trip: Trip, tx: sqlite3.Connection) -> int:
        tx.execute("CREATE TABLE IF NOT EXISTS rooms (who TEXT)")
        tx.execute("INSERT INTO rooms VALUES (?)", (trip.who,))
        make()
        return int(tx.execute("SELECT count(*) FROM rooms").fetchone()[0])

    hotel = saga.step(name="hotel", tx=True)(in_postgres if on_postgres else in_sqlite)

    @hotel.undo
    async def free(trip: Trip, hotel: int | None) -> None:
        called.undone.append(("hotel", hotel))

    @saga.step(pivot=True, undo=None)
    async def payment(trip: Trip, hotel: int) -> int:
        called.make("payment")
        return hotel

    return saga


async def test_what_a_transactional_step_writes_and_says_are_one(form, request):
    called, run = Called(), new_run()
    async with form(tx_saga(called, on_postgres="postgres" in request.node.name), {"hotels": ["hotel"], "bank": ["payment"]}) as saga:
        await saga.start(run, Trip("ana"))
        assert await saga.wait(run) is RunState.COMPLETED
        assert await saga.result(run) == 1, "the first attempt was rolled back"
    assert called.calls["hotel"] == 2


# ── what it cannot do ────────────────────────────────────────────────────────────────────────────────────────────────


def refused(saga: Saga[Trip], step: str) -> str:
    with pytest.raises(DefinitionError) as error:
        participate(saga, steps=[step], app=Messages("hotels", "sqlite:///unused.db"))
    return str(error.value)


def test_what_needs_somebody_in_charge_is_refused_with_the_reason():
    by_token: Saga[Trip] = Saga("token-trip", input=Trip)

    @by_token.external(str, undo=None)
    async def ticket(trip: Trip, effect: Effect) -> None: ...

    alive: Saga[Trip] = Saga("alive-trip", input=Trip)

    @alive.step(heartbeat=10, undo=None)
    async def report(trip: Trip) -> str:
        return ""

    locked: Saga[Trip] = Saga("locked-trip", input=Trip, lock=lambda trip: trip.who)

    @locked.step(undo=None)
    async def room(trip: Trip) -> str:
        return ""

    assert "ticket: it is completed from outside by a token" in refused(by_token, "ticket")
    assert "report: its signs of life" in refused(alive, "report")
    assert "locked-trip: its runs lock keys" in refused(locked, "room")


# ── with a broker and nothing else ───────────────────────────────────────────────────────────────────────────────────


async def test_participants_need_no_more_than_a_broker_that_is_a_database(tmp_path):
    called, address = Called(), f"sqlite:///{tmp_path}/agency.db"
    saga = waiting_saga(called, timeout=0.1, otherwise=Decision(yes=True))
    desk = Messages("desk", address)
    monitor = Monitor(saga, desk)
    broker = await open_broker(address)
    async with (participate(saga, steps=["hotel"], broker=address), participate(saga, steps=["payment"], broker=broker),
                participate(saga, steps=["cooling_off", "approval"], broker=address) as boss, desk):
        await start(boss.app, saga, Trip("ana"), id="trip-1")
        assert await monitor.wait("trip-1", timeout=100) is RunState.COMPLETED
    await broker.close()


def test_a_broker_that_only_carries_needs_a_store_beside_it():
    saga = waiting_saga(Called())
    with pytest.raises(ConfigError, match="only carries"):
        participate(saga, steps=["hotel"], broker="nats://127.0.0.1:4222")
    with pytest.raises(ConfigError, match="either"):
        participate(saga, steps=["hotel"])  # type: ignore[call-overload]
    with pytest.raises(DefinitionError):
        participate(saga, steps=["hotle"], broker="sqlite:///unused.db")


async def test_an_answer_of_the_wrong_type_is_refused_before_it_is_sent(tmp_path):
    saga = waiting_saga(Called())
    async with Messages("desk", f"sqlite:///{tmp_path}/all.db") as desk:
        with pytest.raises(InputError):
            await signal(desk, saga, "trip-1", "approval", "perhaps")
        with pytest.raises(InputError):
            await signal(desk, saga, "trip-1", "hotel", Decision(yes=True))


def test_of_two_words_that_cannot_both_be_true_everybody_heeds_the_first():
    run = Run(waiting_saga(Called()), "trip-1")
    for told in (Told("started", data=msgspec.Raw(b'{"who":"ana"}')), Told("done", "hotel", msgspec.Raw(b'"a"')),
                 Told("failed", "hotel", msgspec.Raw(b'{"error":"Late"}')), Told("done", "hotel", msgspec.Raw(b'"b"'))):
        run.hear(told)
    assert run.results == {"hotel": b'"a"'}
    assert [told.kind for told in run.unheeded] == ["failed", "done"]
    assert run.next_actions == ["cooling_off"]


async def test_a_monitor_knows_a_wait_that_should_be_over(tmp_path, request):
    called = Called()
    saga = waiting_saga(called, timeout=60)
    async with choreographed(saga, SERVICES, "shared", tmp_path, request) as form:
        await form.start("trip-1", Trip("ana"))
        await until(lambda: form.monitor.runs.get("trip-1") and "approval" in form.monitor.runs["trip-1"].waits)
        ((edge),) = form.monitor.edges()
        assert (edge.action, edge.begun) == ("approval:wait", False)
        assert form.monitor.overdue(edge.since + 29) == []
        assert form.monitor.overdue(edge.since + 31) == [edge]


async def test_a_run_is_shown_with_what_it_waits_for_as_json_of_a_schema(tmp_path, request):
    called = Called()
    async with choreographed(waiting_saga(called, timeout=60), SERVICES, "shared", tmp_path, request) as form:
        await form.start("trip-1", Trip("ana"))
        await until(lambda: (view := form.monitor.view("trip-1")) and view.done == ("hotel", "cooling_off") and view.edges)
        await form.cancel("trip-1")
        assert await form.wait("trip-1") is RunState.CANCELLED
        (view,) = form.monitor.views(states=[RunState.CANCELLED])
        assert form.monitor.views(states=[RunState.RUNNING]) == []
        assert form.monitor.view("trip-2") is None
    assert (view.state, view.reason, view.edges, view.blocked) == ("cancelled", "cancelled", (), ())
    assert msgspec.json.decode(msgspec.json.encode(view), type=RunView) == view
    assert set(msgspec.json.schema(RunView)["$defs"]) == {"RunView", "Edge"}
