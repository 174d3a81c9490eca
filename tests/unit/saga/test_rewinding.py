"""Runs that are retried from a step in place: what is taken back, what is made anew, and what is refused; drawn, and through the front door."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import yaoki
from unit.saga.test_machine import TRIP, World, abort, blocked, done, failed, graphs, undone
from yaoki import DeclinedError, Effect, Flow, Saga, heartbeat
from yaoki.errors import RetryFromError, TooLateError, UsageError
from yaoki.saga.driver import Driver
from yaoki.saga.graph import Graph, Node
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.port import Append, NewRun
from yaoki.saga.machine import HistoryError, Machine, decide
from yaoki.saga.outside.answers import answer
from yaoki.saga.records import Abort, Kind, Record, Resolution, Retried, RunState, Stored, Waiting
from yaoki.saga.rewinding import Retry, check, retried

pytestmark = pytest.mark.timeout(120)

ANEW = Record(Kind.ANEW)


def retry(machine: Machine, step: str, *started: str, id: str = "1") -> Record:  # noqa: A002
    record = retried(machine, Retry(step, id), started, 1.0)
    assert record is not None
    return record


def told(records: list[Record], *more: Record) -> Machine:
    return decide(TRIP, [*records, *more])


# ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────────


UP_TO_PAYMENT = [done("hotel"), done("flight"), done("points"), blocked("payment")]


def test_a_step_and_what_follows_from_it_is_undone_and_made_anew_and_nothing_else():
    history = [done("hotel"), done("flight"), done("points")]
    machine = decide(TRIP, history)
    machine.apply(retry(machine, "flight"))
    assert (machine.start, machine.undo, machine.state) == ([], ["points"], RunState.RUNNING)
    machine.apply(undone("points"))
    assert machine.undo == ["flight"]
    machine.apply(undone("flight"))
    assert machine.is_taken_back
    machine.apply(ANEW)
    assert machine.start == ["flight"]
    assert machine.rounds == {1: 1, 2: 1, 3: 1, 4: 1}
    for name in ("flight", "points", "payment", "ticket"):
        machine.apply(done(name))
    assert machine.state is RunState.COMPLETED


def test_what_runs_is_awaited_and_what_it_did_undone():
    machine = decide(TRIP, [done("hotel"), done("flight")])
    machine.apply(retry(machine, "flight", "points"))
    assert (machine.awaited, machine.undo) == (["points"], [])
    machine.apply(done("points"))
    assert machine.undo == ["points"]


def test_what_fails_meanwhile_does_not_abort_the_run():
    machine = decide(TRIP, [done("hotel"), done("flight")])
    machine.apply(retry(machine, "flight", "points"))
    machine.apply(failed("points"))
    assert (machine.failed, machine.undo) == ("", ["flight"])


def test_a_step_beside_it_goes_on():
    machine = decide(TRIP, [done("flight")])
    machine.apply(retry(machine, "flight"))
    assert machine.start == ["hotel"]
    machine.apply(done("hotel"))
    assert machine.undo == ["flight"]
    machine.apply(undone("flight"))
    machine.apply(ANEW)
    assert machine.start == ["flight"]


def test_an_abort_that_comes_meanwhile_undoes_the_rest_once():
    machine = decide(TRIP, [done("hotel"), done("flight"), done("points")])
    machine.apply(retry(machine, "flight"))
    machine.apply(undone("points"))
    machine.apply(abort(cancelled=True))
    assert set(machine.undo) == {"flight", "hotel"}
    machine.apply(undone("flight"))
    machine.apply(undone("hotel"))
    assert machine.state is RunState.CANCELLED


def test_what_is_awaited_when_the_abort_comes_is_awaited_still():
    machine = decide(TRIP, [done("flight")])
    machine.apply(retry(machine, "hotel", "hotel"))
    machine.apply(abort())
    assert machine.awaited == ["hotel"]


def test_an_undo_that_is_blocked_meanwhile_waits_for_a_person():
    machine = decide(TRIP, [done("hotel"), done("flight")])
    machine.apply(retry(machine, "flight"))
    machine.apply(blocked("flight", undo=True))
    assert machine.state is RunState.BLOCKED
    with pytest.raises(HistoryError):
        machine.apply(ANEW)


def test_the_same_request_read_twice_takes_the_run_back_once():
    machine = decide(TRIP, [done("flight")])
    machine.apply(retry(machine, "flight"))
    machine.apply(undone("flight"))
    machine.apply(ANEW)
    machine.apply(done("flight"))
    assert retried(machine, Retry("flight", "1"), (), 2.0) is None
    assert retried(machine, Retry("flight", "2"), (), 2.0) is not None


TAIL = Graph("tail", (Node("pay", pivot=True), Node("ship", ("pay",), undo=True), Node("mail", ("ship",)), Node("nap", ("ship",), waits="sleep")))


@pytest.mark.parametrize(("graph", "history", "step", "why"), [
    (TRIP, [], "boat", "no step 'boat'"),
    (TRIP, [], "flight", "has not begun"),
    (TRIP, [done("hotel")], "payment", "has not begun"),
    (TRIP, [done(name) for name in TRIP.names], "hotel", "is completed"),
    (TRIP, [failed("hotel"), abort()], "hotel", "undone|undoes"),
    (TRIP, [done("flight"), failed("hotel"), abort()], "flight", "undoes itself"),
    (TRIP, UP_TO_PAYMENT, "hotel", "point of no return"),
    (TRIP, UP_TO_PAYMENT, "payment", "point of no return"),
    (TAIL, [done("pay"), done("ship"), done("mail")], "pay", "point of no return"),
    (TAIL, [done("pay"), done("ship"), done("mail")], "ship", "mail comes after the point of no return"),
    (TAIL, [done("pay"), done("ship"), blocked("mail")], "mail", "mail comes after the point of no return"),
])
def test_what_cannot_be_taken_back_is_refused_with_the_reason(graph: Graph, history: list[Record], step: str, why: str):
    with pytest.raises(RetryFromError, match=why):
        check(decide(graph, history), step)


def test_below_the_pivot_what_can_be_undone_is_made_anew():
    machine = decide(TAIL, [done("pay"), done("ship"), Record(Kind.WAITING, "nap", msgspec.json.encode(Waiting(5.0)))])
    machine.apply(retry(machine, "ship"))
    assert machine.undo == ["ship"]


class Retrying(World):
    """... in which people have runs retried from steps. An effect that nothing takes back must not be made a second time."""

    def write(self, *records: Record) -> None:
        super().write(*records)
        self.effects -= {record.step for record in records if record.kind is Kind.UNDONE}
        if self.machine.is_taken_back:
            assert self.machine.rewinding is not None
            numbers = self.machine.rewinding.numbers
            taken_back = {self.graph.names[number] for number in numbers}
            for number in numbers & {self.graph.index[name] for name in self.effects}:
                node = self.graph.nodes[number]
                assert not node.undo, f"{node.name} is made anew, and is there"
                assert number < self.graph.pivot or self.graph.pivot < 0, f"{node.name} is made anew, and nothing took it back"
            assert not taken_back & set(self.running)
            self.effects -= taken_back
            self.perhaps -= taken_back
            super().write(ANEW)

    def step(self) -> None:
        if self.faults and self.draw(st.integers(0, 5)) == 0:
            for name in self.draw(st.permutations(self.graph.names)):
                try:
                    record = retried(self.machine, Retry(name, str(len(self.history))), self.begun(), 1.0)
                except RetryFromError:
                    continue
                assert record is not None
                self.write(record)
                return
        if self.machine.abort is None and self.machine.rewinding is not None:
            self.turn()
        else:
            super().step()

    def turn(self) -> None:
        """What goes on while a part of it is taken back."""
        moves = [("begin", name) for name in self.machine.undo if name not in self.running] + [("end", name) for name in self.running]
        moves += [("resolve", self.graph.names[number]) for number in self.machine.blocked]
        if self.faults and self.draw(st.integers(0, 9)) == 0:
            moves += [("crash", ""), ("cancel", "")]
        move, name = self.draw(st.sampled_from(moves))
        getattr(self, move)(name)

    def begin(self, name: str) -> None:
        if self.is_undo(name):
            self.check_undo(name)
        else:
            self.started.add(name)
        self.running.append(name)

    def check_undo(self, name: str) -> None:
        assert name in self.started or name in self.perhaps, f"{name} was never started, and is undone"
        assert not set(self.machine.awaited) & set(self.running)
        for follower in self.graph.followers[self.graph.index[name]]:
            assert self.graph.names[follower] not in self.effects or not self.graph.nodes[follower].undo, "undone out of order"

    def is_undo(self, name: str) -> bool:
        return self.machine.is_undone_now(name)

    def cancel(self, name: str) -> None:
        if not self.machine.past_pivot:
            super().cancel(name)


@settings(max_examples=150, deadline=None)
@given(graphs(), st.data())
def test_however_often_it_is_retried_every_run_ends_and_leaves_all_or_nothing(graph: Graph, data: st.DataObject):
    world = Retrying(graph, data.draw)
    for _ in range(data.draw(st.integers(0, 40))):
        if world.machine.state.is_end:
            break
        world.step()
    world.faults = False
    for _ in range(300):
        if world.machine.state.is_end:
            break
        world.step()
    state = world.machine.state
    assert state.is_end, world.history
    if state is RunState.COMPLETED:
        assert world.effects == set(graph.names)
    else:
        undoable = {node.name for node in graph.nodes if node.undo or node.pivot}
        assert not world.effects & undoable, "what cannot be undone exists, and the run says undone"
    again = decide(graph, world.history)
    assert (again.steps, again.doubt, again.rounds, again.state) == (world.machine.steps, world.machine.doubt, world.machine.rounds, state)


# ── through the front door ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.live)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres").new_database())
    return f"sqlite:///{tmp_path}/runs.db"


async def until(true: Callable[[], bool], *, seconds: float = 100.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  the condition is in several places
            await asyncio.sleep(0.01)


async def retry_now(run: Any, step: str = "", **words: str) -> None:
    """Ask, and wait until it is recorded: until then the run is blocked yet."""
    async def count() -> int:
        return sum(record.kind in {Kind.RETRIED, Kind.RESOLVED} for record in (await run.stored()).records)

    before = await count()
    await run.retry(step, **words)
    async with asyncio.timeout(100):
        while await count() == before:  # noqa: ASYNC110  another task writes it
            await asyncio.sleep(0.01)


class Bug:
    """What the last step trips over, until it is mended."""

    def __init__(self) -> None:
        self.there = True


def journey(log: list[str], bug: Bug) -> Saga[str]:
    saga = Saga("journey", input=str)

    def noted(name: str, needs: str = "") -> None:
        async def do(guest: str, effect: Effect) -> str:
            log.append(f"do {effect.key}")
            return f"{name}{effect.round}"

        step = saga.step(name=name, after=[needs] if needs else [])(do)

        async def no(guest: str, effect: Effect) -> None:
            log.append(f"undo {effect.key}")

        step.undo(no)

    noted("hotel")
    noted("flight")
    noted("seat", "flight")

    @saga.step(undo=None)
    async def ticket(guest: str, hotel: str, seat: str, flight: str) -> str:
        if bug.there:
            raise KeyError("price")
        return f"{hotel} {flight} {seat}"

    return saga


async def test_what_is_made_anew_has_been_undone_by_its_old_key_and_has_a_new_one(url: str):
    log, bug = list[str](), Bug()
    saga = journey(log, bug)
    async with yaoki.open(url, sagas=[saga]) as app:
        run = await app.start(saga, "ada", id="t")
        assert await run.wait() is RunState.BLOCKED
        log.clear()
        bug.there = False
        await retry_now(run, from_="flight", who="ada", why="wrong date")
        assert await run.result() == "hotel0 flight1 seat1"
        assert log == ["undo t/seat", "undo t/flight", "do t/flight~2", "do t/seat~2"]
        (line,) = await app.journal.operations(name="t")
        assert (line.action, line.who, line.why) == ("retry", "ada", "wrong date")
        said = next(record for record in (await run.stored()).records if record.kind is Kind.RETRIED)
        assert msgspec.json.decode(said.data, type=Retried).who == "ada"
        with pytest.raises(RetryFromError, match="has ended"):
            await app.retry("t", from_="flight")


async def test_a_blocked_step_is_retried_by_its_old_key_when_no_step_is_named_to_begin_from(url: str):
    log, bug = list[str](), Bug()
    saga = journey(log, bug)
    async with yaoki.open(url, sagas=[saga]) as app:
        run = await app.start(saga, "ada", id="t")
        await run.wait()
        bug.there = False
        with pytest.raises(UsageError, match="not blocked"):
            await app.retry("t", "hotel")
        await retry_now(run)
        assert await run.result() == "hotel0 flight0 seat0"


async def test_what_a_run_retries_for_ever_is_given_up_when_it_is_taken_back(url: str):
    """... and its failure does not abort the run, for the person was first."""
    tried, saga = list[str](), Saga("stubborn", input=int)

    @saga.step
    async def call(n: int, effect: Effect) -> str:
        tried.append(effect.key)
        if effect.round == 0:
            raise ConnectionError("the line is dead")
        return effect.key

    call.retrying = call.undo_retrying  # as after a pivot: for half an hour

    @call.undo
    async def hang_up(n: int, call: str | None, effect: Effect) -> None:
        tried.append(f"undo {effect.key} {call}")

    async with yaoki.open(url, sagas=[saga]) as app:
        run = await app.start(saga, 1, id="t")
        await until(lambda: len(tried) > 1)
        await retry_now(run, from_="call")
        assert await run.result() == "t/call~2"
    assert tried[-1] == "t/call~2"
    assert [each for each in tried if each.startswith("undo")] in ([], ["undo t/call None"])


async def driven(saga: Saga[str], journal: MemoryJournal, *asked: tuple[str, Any], more: Sequence[Record] = ()) -> RunState:
    """A driver of a run whose last step is blocked, of which this is asked."""
    await journal.open()
    header = (await journal.create(NewRun("t", "journey", saga.graph.hash, b'"ada"', at=1.0))).header
    records = [done("hotel", b'"h"'), done("flight", b'"f"'), done("seat", b'"s"'), blocked("ticket"), *more]
    await journal.append(Append(header.no, 0, tuple(records), RunState.BLOCKED))
    header.state = RunState.BLOCKED
    driver = Driver(saga, Stored(header, records), journal, lambda: False, lambda no: None)
    for no, (kind, data) in enumerate(asked, 1):
        driver.ask(kind, data, no)
    return await driver.drive()


async def test_a_request_that_comes_too_late_is_refused_and_the_log_says_why():
    log, journal = list[str](), MemoryJournal()
    state = await driven(journey(log, Bug()), journal, ("cancel", Abort("no", cancelled=True)), ("retry", Retry("flight", "1", "ada", "date")))
    assert state is RunState.CANCELLED
    (line,) = await journal.operations(name="t")
    assert (line.action, line.who, line.why) == ("refuse retry", "ada", "date")
    assert "undoes itself" in msgspec.json.decode(line.data)["refused"]


async def test_a_request_that_is_read_twice_is_carried_out_once():
    """Its process died after the run was retried, and before the request's row was removed."""
    log, journal, bug = list[str](), MemoryJournal(), Bug()
    bug.there = False
    again = Retry("seat", "1")
    said = Retried("seat", ("seat", "ticket"), (), again.id)
    before = [Record(Kind.RETRIED, "", msgspec.json.encode(said)), undone("seat"), ANEW, done("seat", b'"s"'), blocked("ticket")]
    resolve = ("ticket", Resolution("retry"))
    assert await driven(journey(log, bug), journal, ("retry", again), ("resolve", resolve), more=before) is RunState.COMPLETED
    assert log == []


async def test_each_first_of_and_flow_are_made_anew_part_by_part(url: str):
    log, bug = list[str](), Bug()
    saga = Saga("parts", input=str)

    @saga.step(each=lambda who: ["a", "b"], key=str)
    async def items(who: str, item: str, effect: Effect) -> str:
        log.append(effect.key)
        return item

    @items.undo
    async def drop(who: str, item: str, effect: Effect) -> None:
        log.append(f"undo {effect.key}")

    pay = saga.first_of("pay")

    @pay.option
    async def card(who: str, effect: Effect) -> str:
        log.append(effect.key)
        if effect.round == 0:
            raise DeclinedError("no card")
        return "card"

    @card.undo
    async def refund(who: str, card: str | None) -> None: ...

    @pay.option
    async def invoice(who: str, effect: Effect) -> str:
        log.append(effect.key)
        return "invoice"

    @invoice.undo
    async def credit(who: str, invoice: str | None, effect: Effect) -> None:
        log.append(f"undo {effect.key}")

    async def reserve(row: int, effect: Effect) -> int:
        log.append(effect.key)
        return row

    async def release(row: int, result: int | None, effect: Effect) -> None:
        log.append(f"undo {effect.key}")

    @saga.flow(undos=[release])
    async def tour(who: str, flow: Flow) -> int:
        return await flow.step("row", reserve, 7, undo=release)

    @saga.step(undo=None)
    async def end(who: str, items: list[str], pay: str, tour: int) -> str:
        if bug.there:
            raise KeyError
        return f"{items} {pay} {tour}"

    async with yaoki.open(url, sagas=[saga]) as app:
        run = await app.start(saga, "ada", id="t")
        await run.wait()
        log.clear()
        for step in ("items", "pay", "tour"):
            await retry_now(run, from_=step)
            await until(lambda: bool(log))
            assert await run.wait() is RunState.BLOCKED
            log.append("|")
        bug.there = False
        await retry_now(run, "end")
        assert await run.result() == "['a', 'b'] card 7"
    said = " ".join(log)
    assert sorted(said[:said.index("|")].split()) == sorted(["undo", "t/items/b", "undo", "t/items/a", "t/items~2/a", "t/items~2/b"])
    assert said.split("|")[1].split() == ["undo", "t/pay/invoice", "t/pay~2/card"]
    assert said.split("|")[2].split() == ["undo", "t/tour/row", "t/tour~2/row"]


async def test_a_child_is_undone_as_a_whole_and_another_is_started(url: str):
    log, bug = list[str](), Bug()
    charge = Saga("charge", input=str)

    @charge.step
    async def take(who: str, effect: Effect) -> str:
        log.append(effect.key)
        return effect.run

    @take.undo
    async def give(who: str, take: str | None, effect: Effect) -> None:
        log.append(f"undo {effect.key}")

    saga = Saga("trip", input=str)

    @saga.child(charge)
    def payment(who: str) -> str:
        return who

    @saga.step(undo=None)
    async def end(who: str, payment: str) -> str:
        if bug.there:
            raise KeyError
        return payment

    async with yaoki.open(url, sagas=[saga]) as app:
        run = await app.start(saga, "ada", id="t")
        assert await run.wait() is RunState.BLOCKED
        bug.there = False
        await retry_now(run, from_="payment")
        assert await run.result() == "t/payment.2"
        assert await app.run(charge, "t/payment").state() is RunState.UNDONE
    assert log == ["t/payment/take", "undo t/payment/take", "t/payment.2/take"]


async def test_an_answer_and_a_token_of_before_count_no_more(url: str):
    tokens, bug = list[str](), Bug()
    saga = Saga("outside", input=str)

    @saga.wait_for(str)
    async def approval(who: str) -> None: ...

    @saga.external(str)
    async def print_it(who: str, approval: str, effect: Effect) -> None:
        tokens.append(effect.token)

    @print_it.undo
    async def tear_up(who: str, print_it: str | None) -> None: ...

    @saga.step(undo=None)
    async def end(who: str, approval: str, print_it: str) -> str:
        if bug.there:
            raise KeyError
        return f"{approval} {print_it}"

    async with yaoki.open(url, sagas=[saga]) as app:
        run = await app.start(saga, "ada", id="t")
        await run.signal("approval", "yes")
        await until(lambda: len(tokens) == 1)
        await app.complete(tokens[0], "T-1")
        assert await run.wait() is RunState.BLOCKED
        bug.there = False
        await retry_now(run, from_="approval")
        while (await run.stored()).records[-1].kind is not Kind.WAITING:  # noqa: ASYNC110  another task writes it
            await asyncio.sleep(0.01)
        assert await answer(app.engine, "t", "approval", "again")
        await until(lambda: len(tokens) == 2)
        with pytest.raises(TooLateError, match="made anew"):
            await app.complete(tokens[0], "T-1")
        await app.complete(tokens[1], "T-2")
        assert await run.result() == "again T-2"


async def test_signs_of_life_of_before_are_not_read_again(url: str):
    seen, bug = list[Any](), Bug()
    saga = Saga("report", input=str)

    @saga.step(heartbeat=30.0, undo=None)
    async def build(who: str, effect: Effect) -> str:
        seen.append(effect.detail)
        heartbeat({"row": 5})
        await asyncio.sleep(0.05)
        return who

    @saga.step(undo=None)
    async def end(who: str, build: str) -> str:
        if bug.there:
            raise KeyError
        return build

    async with yaoki.open(url, sagas=[saga]) as app:
        run = await app.start(saga, "ada", id="t")
        assert await run.wait() is RunState.BLOCKED
        bug.there = False
        await retry_now(run, from_="build")
        assert await run.result() == "ada"
    assert seen == [None, None]
