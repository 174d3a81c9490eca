"""Sleeps and answers as steps: in the machine alone, and in the engine on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import yaoki
from virtual_time import Clock, run
from yaoki import Effect, Saga, runtime
from yaoki.app import App
from yaoki.errors import DefinitionError, InputError, RunUndoneError
from yaoki.saga.graph import Graph, Node
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.port import Append, Journal, NewRun
from yaoki.saga.journal.sqlite import SqliteJournal
from yaoki.saga.machine import HistoryError, Machine, decide
from yaoki.saga.records import Abort, Failure, Kind, Record, RunState, Waiting

ORDER = Graph("order", (
    Node("reserve", undo=True),
    Node("approval", ("reserve",), waits="signal"),
    Node("cooling", ("reserve",), waits="sleep"),
    Node("pay", ("approval", "cooling"), pivot=True),
))


def done(step: str) -> Record:
    return Record(Kind.DONE, step, b"1")


def waiting(step: str, until: float = 0.0) -> Record:
    return Record(Kind.WAITING, step, msgspec.json.encode(Waiting(until)))


def signal(step: str, data: bytes = b"true") -> Record:
    return Record(Kind.SIGNAL, step, data)


def abort(*started: str) -> Record:
    return Record(Kind.ABORT, "", msgspec.json.encode(Abort("because", started=started)))


# ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_parked_step_is_not_run_and_its_followers_wait():
    machine = decide(ORDER, [done("reserve"), waiting("approval"), waiting("cooling", 50.0)])
    assert machine.start == []
    assert machine.state is RunState.RUNNING
    assert machine.wakes_at == 50.0
    assert machine.ripe(49.0) == []
    assert machine.ripe(50.0) == [("cooling", None)]


def test_the_first_answer_counts_also_when_it_comes_before_the_question():
    machine = decide(ORDER, [signal("approval", b"1"), done("reserve"), signal("approval", b"2"), waiting("approval")])
    assert machine.ripe(0.0) == [("approval", b"1")]
    machine.apply(done("approval"))
    machine.apply(signal("approval", b"3"))
    assert machine.ripe(0.0) == []


def test_an_abort_undoes_what_was_parked_as_doubtful_for_its_question_was_asked():
    graph = Graph("ask", (Node("a", undo=True), Node("b", ("a",), undo=True, waits="signal")))
    machine = decide(graph, [done("a"), waiting("b", 9.0), abort()])
    assert machine.undo == ["b"]
    assert machine.is_doubtful("b")
    assert machine.wakes_at == 0.0
    assert machine.ripe(99.0) == []


@pytest.mark.parametrize("history", [
    [waiting("reserve")],
    [waiting("approval")],
    [signal("reserve")],
    [done("reserve"), waiting("approval"), waiting("approval")],
])
def test_an_impossible_history_is_refused(history: list[Record]):
    with pytest.raises(HistoryError):
        decide(ORDER, history)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 6))
    nodes = []
    for number in range(count):
        needs = tuple(f"s{n}" for n in range(number) if draw(st.booleans()))
        waits = draw(st.sampled_from(("", "", "sleep", "signal")))
        nodes.append(Node(f"s{number}", needs, undo=draw(st.booleans()), waits=waits))
    return Graph("drawn", tuple(nodes))


@given(graphs(), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_whatever_comes_a_run_with_waits_ends_and_nothing_overtakes_a_wait(graph: Graph, seed: int):
    """Safety: no step begins before the waits that it needs are over. Liveness: time and answers bring every run to its end."""
    machine, history, now, rng = Machine(graph), [], 0.0, Random(seed)

    def apply(record: Record) -> None:
        history.append(record)
        machine.apply(record)
        for name in machine.start:
            needs = graph.needs[graph.index[name]]
            assert all(machine.is_done(graph.names[need]) for need in needs)

    for _ in range(1000):
        if machine.state.is_end:
            break
        now += 1.0
        choice = rng.random()
        waits = [node.name for node in graph.nodes if node.waits == "signal"]
        if choice < 0.2 and waits and machine.abort is None:
            apply(signal(rng.choice(waits)))
        elif (ripe := machine.ripe(now)) and choice < 0.7:
            name, data = rng.choice(ripe)
            apply(Record(Kind.DONE, name, data or b"null"))
        elif machine.abort is None and choice > 0.97:
            apply(abort(*[name for name in machine.start if rng.random() < 0.5]))
        elif machine.abort is not None and machine.awaited:
            name = rng.choice(machine.awaited)
            node = graph.nodes[graph.index[name]]
            apply(waiting(name, now + 3) if node.waits else
                  rng.choice([done(name), Record(Kind.FAILED, name, msgspec.json.encode(Failure("X", in_doubt=True)))]))
        elif machine.abort is None and machine.start:
            name = rng.choice(machine.start)
            node = graph.nodes[graph.index[name]]
            apply(waiting(name, now + rng.randint(1, 5) if node.waits == "sleep" else 0.0) if node.waits else done(name))
        elif machine.undo:
            apply(Record(Kind.UNDONE, rng.choice(machine.undo)))
    assert machine.state.is_end
    again = decide(graph, history)
    assert (again.state, again.steps) == (machine.state, machine.steps)


# ── the engine ───────────────────────────────────────────────────────────────────────────────────────────────────────


class World:
    def __init__(self) -> None:
        self.log: list[str] = []


def order_saga(world: World, **waits: Any) -> Saga[int]:
    saga = Saga("order", input=int)

    @saga.step
    async def reserve(n: int) -> str:
        world.log.append("reserve")
        return f"seat {n}"

    @reserve.undo
    async def release(n: int, reserve: str | None) -> None:
        world.log.append("release")

    @saga.sleep
    def cooling(n: int, reserve: str) -> float:
        return 3600.0

    @saga.wait_for(bool, after="cooling", **waits)
    async def approval(n: int, reserve: str, effect: Effect) -> None:
        world.log.append(f"ask {effect.key}")

    @saga.step(undo=None)
    async def pay(n: int, reserve: str, approval: bool) -> str:
        world.log.append(f"pay {approval}")
        return f"{reserve} paid"

    return saga


def places(folder: Path) -> dict[str, Callable[[], Journal]]:
    kept = MemoryJournal()
    return {"memory": lambda: kept, "sqlite": lambda: SqliteJournal(folder / "journal.db", durability="process")}


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Journal]:
    return places(tmp_path)[request.param]


def app_on(place: Callable[[], Journal], saga: Saga[Any]) -> App:
    return App(place(), [saga], concurrency=10, grace=1.0)


def test_a_run_sleeps_asks_and_goes_on_with_the_answer_and_rests_outside_of_memory(place: Callable[[], Journal]):
    world, clock = World(), Clock()

    async def main() -> None:
        saga = order_saga(world)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 7, id="r")
            await runtime.sleep(1.0)
            assert app.engine.in_memory == 0, "a parked run is a row, and nothing else"
            began = runtime.monotonic()
            await runtime.sleep(3500.0)
            assert world.log == ["reserve"]
            await runtime.sleep(200.0)
            assert world.log == ["reserve", "ask r/approval"]
            assert app.engine.in_memory == 0
            await handle.signal("approval", answer=True)
            assert await handle.result() == "seat 7 paid"
            assert runtime.monotonic() - began < 3800.0
            assert [record.kind.value for record in (await handle.stored()).records] == [
                "done", "waiting", "done", "waiting", "signal", "done", "done"]

    run(main(), clock=clock)
    assert world.log == ["reserve", "ask r/approval", "pay True"]


def test_a_sleep_goes_on_while_no_process_runs_and_is_not_begun_again(place: Callable[[], Journal]):
    world, clock = World(), Clock()

    async def main() -> None:
        saga = order_saga(world)
        async with app_on(place, saga) as app:
            await app.start(saga, 7, id="r")
            await runtime.sleep(5.0)
        await runtime.sleep(10_000.0)
        async with app_on(place, saga) as app:
            await runtime.sleep(2.0)
            assert world.log == ["reserve", "ask r/approval"]
            await app.run(saga, "r").signal("approval", answer=False)
            await app.run(saga, "r").result()

    run(main(), clock=clock)
    assert world.log[-1] == "pay False"


def test_nobody_answers_in_time_and_the_run_undoes_itself(place: Callable[[], Journal]):
    world, clock = World(), Clock()

    async def main() -> None:
        saga = order_saga(world, timeout=600.0)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 7, id="r")
            began = runtime.monotonic()
            with pytest.raises(RunUndoneError, match="nobody answered within 600 s"):
                await handle.result()
            assert 4200.0 <= runtime.monotonic() - began < 4205.0

    run(main(), clock=clock)
    assert world.log == ["reserve", "ask r/approval", "release"]


def test_nobody_answers_in_time_and_the_run_goes_on_with_the_default():
    world = World()

    async def main() -> None:
        saga = order_saga(world, timeout=600.0, otherwise=True)
        async with App(MemoryJournal(), [saga], concurrency=10, grace=1.0) as app:
            assert await (await app.start(saga, 7)).result() == "seat 7 paid"

    run(main())
    assert world.log[-1] == "pay True"


def test_a_parked_run_can_be_cancelled(place: Callable[[], Journal]):
    world, clock = World(), Clock()

    async def main() -> None:
        saga = order_saga(world)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, 7, id="r")
            await runtime.sleep(5.0)
            await handle.cancel("not any more")
            assert await handle.wait() is RunState.CANCELLED

    run(main(), clock=clock)
    assert world.log == ["reserve", "release"]


def test_a_deadline_wakes_a_parked_run():
    world = World()

    async def main() -> None:
        saga = order_saga(world)
        saga.deadline = 100.0
        async with App(MemoryJournal(), [saga], concurrency=10, grace=1.0) as app:
            handle = await app.start(saga, 7)
            began = runtime.monotonic()
            with pytest.raises(RunUndoneError, match="deadline"):
                await handle.result()
            assert runtime.monotonic() - began < 102.0

    run(main())


def test_an_answer_that_nobody_waits_for_or_of_another_type_is_refused_before_it_is_stored():
    world = World()

    async def main() -> None:
        saga = order_saga(world)
        async with App(MemoryJournal(), [saga], concurrency=10, grace=1.0) as app:
            handle = await app.start(saga, 7)
            with pytest.raises(InputError, match="no step 'aproval'"):
                await handle.signal("aproval", answer=True)
            with pytest.raises(InputError, match="not what approval waits for"):
                await handle.signal("approval", answer="maybe")
            assert await app.journal.requests() == []

    run(main())


def test_a_short_sleep_stays_in_memory():
    saga = Saga("nap", input=int)
    saga.sleep(0.5, name="nap")

    async def main() -> None:
        async with App(MemoryJournal(), [saga], concurrency=10, grace=1.0) as app:
            handle = await app.start(saga, 7)
            began = runtime.monotonic()
            await asyncio.sleep(0.1)
            assert app.engine.in_memory == 1
            await handle.result()
            assert 0.5 <= runtime.monotonic() - began + 0.1 < 0.7

    run(main())


@pytest.mark.parametrize("define", [
    lambda saga: saga.sleep(5),
    lambda saga: saga.wait_for(bool, timeout=0),
    lambda saga: saga.wait_for(bool, otherwise=True),
])
def test_a_wait_that_cannot_work_is_refused_when_it_is_defined(define: Any):
    with pytest.raises(DefinitionError) as caught:
        define(Saga("wrong", input=int))
    assert caught.value.do


async def test_a_parked_run_is_given_when_it_is_due_and_not_before(place: Callable[[], Journal]):
    journal = place()
    await journal.open()
    no = (await journal.create(NewRun("a", "order", "h", b"1"))).header.no
    await journal.append(Append(no, 0, (waiting("x"),), due_at=journal.now() + 1000))
    assert await journal.take(5) == []
    await journal.append(Append(no, 1, (), due_at=journal.now() - 1))
    (taken,) = await journal.take(5)
    assert taken.header.id == "a"
    await journal.append(Append(no, 1, (), due_at=inf))
    assert await journal.take(5) == []
    assert await journal.take_one("a") is not None
    await journal.close()


def test_the_names_that_users_need_are_there():
    assert yaoki.Saga.sleep.__doc__
    assert yaoki.Saga.wait_for.__doc__
