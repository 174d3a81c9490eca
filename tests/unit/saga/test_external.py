"""Steps that the outside world completes by a token: in time, twice, otherwise, too late, and not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from virtual_time import Clock, run
from yaoki import Effect, Saga
from yaoki.app import App
from yaoki.errors import AnswerConflictError, DefinitionError, InputError, RunUndoneError, TokenError, TooLateError
from yaoki.saga.graph import Graph, Node
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.sqlite import SqliteJournal
from yaoki.saga.machine import HistoryError, decide
from yaoki.saga.outside.token import Token
from yaoki.saga.records import Abort, Failure, Kind, Late, Record, RunState, Waiting


async def until(true: Callable[[], bool], step_s: float = 0.01) -> None:
    for _ in range(20_000):
        if true():
            return
        await asyncio.sleep(step_s)
    raise AssertionError("it never came")


class Printer:
    """What is outside: it is asked for tickets, and keeps the tokens."""

    def __init__(self, **settings: Any) -> None:
        self.asked: list[str] = []
        self.undone: list[Any] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.undoing = asyncio.Event()
        saga = self.saga = Saga("print", input=int)

        @saga.step
        async def reserve(n: int) -> int:
            return n

        @reserve.undo
        async def release(n: int, reserve: int | None) -> None:
            self.undone.append(("reserve", reserve))

        @saga.external(str, **settings)
        async def ticket(n: int, reserve: int, effect: Effect) -> None:
            self.asked.append(effect.token)

        @ticket.undo
        async def tear_up(n: int, ticket: str | None) -> None:
            self.undoing.set()
            await self.gate.wait()
            self.undone.append(("ticket", ticket))

        @saga.step(undo=None)
        async def send(n: int, ticket: str) -> str:
            return f"sent {ticket}"

    async def token(self, number: int = 1) -> str:
        await until(lambda: len(self.asked) >= number)
        return self.asked[number - 1]


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    kept = MemoryJournal()
    return (lambda: kept) if request.param == "memory" else lambda: SqliteJournal(tmp_path / "j.db", durability="process")


def opened(place: Any, printer: Printer) -> App:
    return App(place(), [printer.saga], concurrency=10, grace=1.0)


async def test_the_outside_completes_a_step_once_and_saying_so_again_is_harmless(place: Any):
    printer = Printer(timeout=60)
    async with opened(place, printer) as app:
        handle = await app.start(printer.saga, 7, id="r")
        token = await printer.token()
        assert await app.complete(token, "T-1", wait=100)
        assert await handle.result() == "sent T-1"
        assert await app.complete(token, "T-1", wait=100), "also when the run has ended"
        with pytest.raises(AnswerConflictError):
            await app.complete(token, "T-2")
        with pytest.raises(AnswerConflictError):
            await app.fail(token, "no paper")
        with pytest.raises(TooLateError):
            await app.heartbeat(token)
    assert printer.undone == []


async def test_a_completion_finds_its_run_after_a_restart(place: Any):
    printer = Printer(timeout=60)
    async with opened(place, printer) as app:
        await app.start(printer.saga, 7, id="r")
        token = await printer.token()
        for _ in range(10_000):
            if any(record.kind is Kind.WAITING for record in (await app.run(printer.saga, "r").stored()).records):
                break
            await asyncio.sleep(0.01)
    async with opened(place, printer) as app:
        assert await app.complete(token, "T-1", wait=100)
        assert await app.run(printer.saga, "r").result() == "sent T-1"
    assert printer.asked == [token], "it was asked once"


async def test_the_outside_fails_a_step_and_the_run_undoes_itself_but_for_what_was_never_done(place: Any):
    printer = Printer()
    async with opened(place, printer) as app:
        handle = await app.start(printer.saga, 7, id="r")
        assert await app.fail(await printer.token(), "no paper", wait=100)
        with pytest.raises(RunUndoneError, match="no paper"):
            await handle.result()
        assert await app.fail(await printer.token(), "no paper", wait=100), "twice is once"
    assert printer.undone == [("reserve", 7)]


async def test_a_failure_in_doubt_is_undone_too(place: Any):
    printer = Printer()
    async with opened(place, printer) as app:
        handle = await app.start(printer.saga, 7, id="r")
        await app.fail(await printer.token(), "the printer is on fire", in_doubt=True)
        await handle.wait()
    assert printer.undone == [("ticket", None), ("reserve", 7)]


async def test_a_result_of_another_type_is_refused_and_the_step_goes_on_waiting(place: Any):
    printer = Printer()
    async with opened(place, printer) as app:
        handle = await app.start(printer.saga, 7, id="r")
        token = await printer.token()
        with pytest.raises(InputError):
            await app.complete(token, 1)
        await app.complete(token, "T-1")
        assert await handle.result() == "sent T-1"


async def test_a_forged_or_mangled_token_is_refused(place: Any):
    printer = Printer()
    async with opened(place, printer) as app:
        await app.start(printer.saga, 7, id="r")
        token = await printer.token()
        for wrong in ("", "x", token[:-2], token + "A", token.replace("yk1", "yk2"), Token("r", "ticket", 2).signed(b"guessed"),
                      ".".join([*token.split(".")[:2], "!!"])):
            with pytest.raises(TokenError):
                await app.complete(wrong, "T-1")
        assert token not in repr(TokenError)


async def test_a_result_that_comes_while_the_run_undoes_itself_is_given_to_the_undo(place: Any):
    printer = Printer()
    async with opened(place, printer) as app:
        handle = await app.start(printer.saga, 7, id="r")
        token = await printer.token()
        printer.gate.clear()
        await handle.cancel()
        await printer.undoing.wait()
        late = asyncio.ensure_future(app.complete(token, "T-1", wait=30))
        for _ in range(10_000):
            if any(asked.kind == "complete" for asked in await app.journal.requests()):
                break
            await asyncio.sleep(0.01)
        printer.gate.set()
        with pytest.raises(TooLateError) as caught:
            await late
        assert await handle.wait() is RunState.CANCELLED
        assert caught.value.undone
        assert caught.value.taken_back
        assert printer.undone == [("ticket", None), ("ticket", "T-1"), ("reserve", 7)]
        with pytest.raises(TooLateError):
            await app.complete(token, "T-1")


async def test_a_result_that_comes_after_the_undo_is_refused_and_the_outside_is_told_to_take_it_back(place: Any):
    printer = Printer()
    async with opened(place, printer) as app:
        handle = await app.start(printer.saga, 7, id="r")
        token = await printer.token()
        await handle.cancel()
        await handle.wait()
        with pytest.raises(TooLateError, match="cancelled") as caught:
            await app.complete(token, "T-1")
        assert (caught.value.undone, caught.value.taken_back) == (True, False)
        with pytest.raises(TooLateError):
            await app.heartbeat(token)


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def in_virtual_time(work: Any, **settings: Any) -> Printer:
    made: list[Printer] = []

    async def main(clock: Clock) -> None:
        printer = Printer(**settings)
        made.append(printer)
        async with opened(MemoryJournal, printer) as app:
            await work(app, printer, await app.start(printer.saga, 7, id="r"))

    clock = Clock()
    run(main(clock), clock=clock)
    return made[0]


def test_who_is_silent_for_too_long_is_asked_again_with_another_token_and_the_first_ones_result_still_counts():
    async def work(app: App, printer: Printer, handle: Any) -> None:
        first = await printer.token()
        second = await printer.token(2)
        assert first != second
        with pytest.raises(TooLateError, match="newer attempt"):
            await app.heartbeat(first)
        with pytest.raises(TooLateError, match="newer attempt"):
            await app.fail(first, "I was restarted")
        await app.complete(first, "T-1")
        assert await handle.result() == "sent T-1"
        assert await app.complete(second, "T-1")
        with pytest.raises(AnswerConflictError):
            await app.complete(second, "T-2")

    in_virtual_time(work, heartbeat=60)


def test_signs_of_life_prolong_the_wait_up_to_the_timeout():
    async def work(app: App, printer: Printer, handle: Any) -> None:
        token = await printer.token()
        for minute in range(9):
            await asyncio.sleep(50)
            await app.heartbeat(token, {"minute": minute})
        assert len(printer.asked) == 1
        with pytest.raises(RunUndoneError, match="within 500 s"):
            await handle.result()
        assert not [record for record in (await handle.stored()).records if record.kind is Kind.AGAIN]

    printer = in_virtual_time(work, heartbeat=60, timeout=500)
    assert printer.undone == [("ticket", None), ("reserve", 7)]


def test_who_is_never_heard_of_fails_the_step_in_doubt_after_all_its_attempts():
    async def work(app: App, printer: Printer, handle: Any) -> None:
        with pytest.raises(RunUndoneError, match="no sign of life"):
            await handle.result()
        assert len(printer.asked) == 3
        assert len(set(printer.asked)) == 3

    assert in_virtual_time(work, heartbeat=60).undone == [("ticket", None), ("reserve", 7)]


def test_after_the_pivot_it_is_asked_until_somebody_answers():
    async def main(clock: Clock) -> None:
        asked: list[str] = []
        saga = Saga("forward", input=int)

        @saga.step(pivot=True)
        async def pay(n: int) -> int:
            return n

        @pay.undo
        async def refund(n: int, pay: int | None) -> None: ...

        @saga.external(str, heartbeat=10, timeout=1000, undo=None)
        async def parcel(n: int, pay: int, effect: Effect) -> None:
            asked.append(effect.token)

        async with App(MemoryJournal(), [saga], concurrency=10, grace=1.0) as app:
            handle = await app.start(saga, 1)
            await until(lambda: len(asked) >= 8, 1.0)
            await app.complete(asked[-1], "P")
            assert await handle.result() == "P"

    clock = Clock()
    run(main(clock), clock=clock)


# ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────────

ORDER = Graph("order", (Node("reserve", undo=True), Node("ticket", ("reserve",), undo=True, waits="token"), Node("send", ("ticket",))))
WAITS = Record(Kind.WAITING, "ticket", msgspec.json.encode(Waiting(60.0)))
RESERVED = Record(Kind.DONE, "reserve", b"1")
ABORT = Record(Kind.ABORT, "", msgspec.json.encode(Abort("because")))
LATE = Record(Kind.LATE, "ticket", msgspec.json.encode(Late(msgspec.Raw(b'"T"'))))
AGAIN = Record(Kind.AGAIN, "ticket", msgspec.json.encode(Failure("Silent", in_doubt=True)))


def undone(step: str) -> Record:
    return Record(Kind.UNDONE, step)


def test_a_late_result_takes_the_doubt_from_an_undo_that_is_still_to_come():
    machine = decide(ORDER, [RESERVED, WAITS, ABORT])
    assert machine.is_doubtful("ticket")
    machine.apply(LATE)
    assert not machine.is_doubtful("ticket")
    assert machine.undo == ["ticket"]


def test_an_undo_that_had_begun_is_made_once_more_and_what_came_before_waits_for_it():
    once_more = Record(Kind.LATE, "ticket", msgspec.json.encode(Late(msgspec.Raw(b'"T"'), again=True)))
    machine = decide(ORDER, [RESERVED, WAITS, ABORT, once_more, undone("ticket")])
    assert machine.undo == ["ticket"]
    machine.apply(undone("ticket"))
    assert machine.undo == ["reserve"]
    machine.apply(undone("reserve"))
    assert machine.state is RunState.UNDONE


def test_what_was_undone_already_is_undone_again_and_the_run_ends_only_then():
    alone = Record(Kind.LATE, "ticket", msgspec.json.encode(Late(msgspec.Raw(b'"T"'), alone=True)))
    machine = decide(ORDER, [RESERVED, WAITS, ABORT, undone("ticket"), alone])
    assert machine.undo == ["ticket"]
    for step in ("ticket", "reserve"):
        assert machine.undo == [step]
        machine.apply(undone(step))
    assert machine.state is RunState.UNDONE


def test_what_was_undone_already_is_undone_again_beside_what_is_under_way_and_the_run_ends_only_then():
    machine = decide(ORDER, [RESERVED, WAITS, ABORT, undone("ticket"), LATE])
    assert sorted(machine.undo) == ["reserve", "ticket"]
    machine.apply(undone("reserve"))
    assert machine.state is RunState.UNDOING
    machine.apply(undone("ticket"))
    assert machine.state is RunState.UNDONE
    with pytest.raises(HistoryError):
        machine.apply(LATE)


def test_an_asked_again_step_is_in_doubt_when_it_fails_even_for_certain():
    failed = Record(Kind.FAILED, "ticket", msgspec.json.encode(Failure("NoPaper", in_doubt=False)))
    machine = decide(ORDER, [RESERVED, WAITS, AGAIN, WAITS, failed, ABORT])
    assert machine.is_doubtful("ticket")


@pytest.mark.parametrize("history", [[AGAIN], [RESERVED, AGAIN], [RESERVED, WAITS, LATE], [LATE]])
def test_an_impossible_history_is_refused(history: list[Record]):
    with pytest.raises(HistoryError):
        decide(ORDER, history)


def test_it_must_be_said_what_undoes_it_and_times_are_above_zero():
    saga = Saga("s", input=int)
    with pytest.raises(DefinitionError, match="heartbeat"):
        saga.external(str, heartbeat=0)

    @saga.external(str)
    async def ticket(n: int) -> None: ...

    with pytest.raises(DefinitionError, match="has no undo"):
        _ = saga.graph
