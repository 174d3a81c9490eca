"""Queues with limits, pauses, attributes and forks, through the front door; on a file, and on a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import yaoki
from yaoki import DeclinedError, Effect, Saga, events
from yaoki.app import journal_at
from yaoki.errors import ForkError, InputError, RunNotFoundError
from yaoki.saga.engine import watch
from yaoki.saga.journal.port import Append, Query
from yaoki.saga.queue import Queue
from yaoki.saga.records import RunState


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.live)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres").new_database())
    return f"sqlite:///{tmp_path}/runs.db"


class Gate:
    """Steps that wait until they are let go, and how many were at it at once."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside: list[int] = []
        self.most = 0
        self.done: list[int] = []

    async def through(self, n: int) -> int:
        self.inside.append(n)
        self.most = max(self.most, len(self.inside))
        await self.open.wait()
        self.inside.remove(n)
        self.done.append(n)
        return n


def one_step(gate: Gate, **more: Any) -> Saga[int]:
    saga = Saga("mail", input=int, **more)

    @saga.step(undo=None)
    async def send(n: int) -> int:
        return await gate.through(n)

    return saga


async def until(true: Callable[[], bool], *, seconds: float = 100.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  the condition is in several places
            await asyncio.sleep(0.01)


@pytest.fixture
def heard() -> Iterator[list[events.Event]]:
    found: list[events.Event] = []
    with events.listen(found.append):
        yield found


# ── queues ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_sagas_queue_bounds_how_many_of_its_runs_are_under_way(url: str):
    gate = Gate()
    saga = one_step(gate, queue=Queue("mail", concurrency=3))
    async with yaoki.open(url, sagas=[saga]) as app:
        runs = [await app.start(saga, n) for n in range(8)]
        await until(lambda: len(gate.inside) == 3)
        await asyncio.sleep(0.1)
        assert gate.most == 3
        gate.open.set()
        assert sorted([await run.result() for run in runs]) == list(range(8))
    assert gate.most == 3


async def test_places_that_become_free_are_taken_at_once_and_not_at_the_next_look(url: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("POLL_S", "SHARED_POLL_S"):
        monkeypatch.setattr(watch, name, 10.0)  # by looks the runs would take 300 s
    gate = Gate()
    gate.open.set()
    saga = one_step(gate)
    mail = Queue("mail", concurrency=1)
    async with yaoki.open(url, sagas=[saga], limits=[mail]) as app:
        async with asyncio.timeout(100):
            assert await app.start_many(saga, [(f"r{n}", n) for n in range(30)], queue=mail) == 30
            for n in range(30):
                await app.run(saga, f"r{n}").wait()
    assert gate.most == 1


async def test_a_rate_is_kept_and_used(url: str):
    gate = Gate()
    gate.open.set()
    saga = one_step(gate, queue=Queue("mail", rate=20, burst=1))
    loop = asyncio.get_running_loop()
    async with yaoki.open(url, sagas=[saga]) as app:
        began = loop.time()
        runs = [await app.start(saga, n) for n in range(11)]
        for run in runs:
            await run.wait()
        took = loop.time() - began
    assert took >= 0.45, "ten of them wait 50 ms each"


# ── pauses ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def two_steps(gate: Gate, log: list[str]) -> Saga[int]:
    saga = Saga("trip", input=int)

    @saga.step
    async def hotel(n: int) -> str:
        log.append(f"hotel {n}")
        await gate.through(n)
        return f"h{n}"

    @hotel.undo
    async def no_hotel(n: int, hotel: str | None) -> None:
        log.append(f"no hotel {n}")

    @saga.step(undo=None)
    async def flight(n: int, hotel: str) -> str:
        log.append(f"flight {n}")
        return f"f{n}"

    return saga


@pytest.mark.parametrize("kind", ["saga", "run", "queue"])
async def test_what_is_paused_ends_its_attempt_and_begins_nothing_until_it_is_resumed(url: str, kind: str):
    gate, log = Gate(), list[str]()
    saga = two_steps(gate, log)
    async with yaoki.open(url, sagas=[saga]) as app:
        run = await app.start(saga, 1, id="a", queue="slow" if kind == "queue" else "")
        await until(lambda: gate.inside == [1])
        if kind == "run":
            assert await run.pause(who="ada", why="look first")
        else:
            assert await app.pause(saga if kind == "saga" else "slow", who="ada", why="look first")
        gate.open.set()
        later = await app.start(saga, 2, id="b", queue="slow" if kind == "queue" else "")
        if kind == "run":
            await later.wait()  # the others go on
            log[:] = [line for line in log if line.endswith("1")]
        await until(lambda: app.engine.in_memory == 0)
        await asyncio.sleep(0.2)
        assert log == ["hotel 1"]
        assert await run.state() is RunState.RUNNING
        if kind == "run":
            assert await run.resume(who="ada")
        else:
            assert await app.resume(saga if kind == "saga" else "slow", who="ada")
        assert await run.result() == "f1"
        assert await later.result() == "f2"
        told = [(line.action, line.kind, line.who, line.why) for line in await app.journal.operations()]
        assert told == [("resume", kind, "ada", ""), ("pause", kind, "ada", "look first")]


async def test_a_pause_outlives_the_program_and_holds_what_the_next_one_takes_up(url: str):
    gate, log = Gate(), list[str]()
    gate.open.set()
    saga = two_steps(gate, log)
    async with yaoki.open(url, sagas=[saga], work=False) as app:
        await app.start(saga, 1, id="a")
        await app.pause(saga)
    async with yaoki.open(url, sagas=[saga]) as app:
        await until(lambda: app.engine.intake.feeding is None and not app.engine.in_memory)
        assert log == []
        assert await app.resume(saga)
        assert await app.run(saga, "a").result() == "f1"


async def test_a_pause_that_ends_before_a_run_is_parked_leaves_none_behind(url: str, monkeypatch: pytest.MonkeyPatch):
    gate, log = Gate(), list[str]()
    saga = two_steps(gate, log)
    async with yaoki.open(url, sagas=[saga]) as app:
        run = await app.start(saga, 1, id="a")
        await until(lambda: gate.inside == [1])
        assert await app.pause(saga)
        append, parked = app.journal.append, list[str]()

        async def after_it_ended(entry: Append) -> None:
            parked.append("a")
            await app.resume(saga)
            await append(entry)

        monkeypatch.setattr(app.journal, "append", lambda entry: append(entry) if entry.due_at is None else after_it_ended(entry))
        gate.open.set()
        assert await asyncio.wait_for(run.result(), 100) == "f1"
        assert parked == ["a"]


async def test_a_pause_from_elsewhere_is_noticed_and_so_is_its_end(url: str):
    gate, log = Gate(), list[str]()
    saga = two_steps(gate, log)
    beside = journal_at(url)
    async with yaoki.open(url, sagas=[saga]) as app:
        run = await app.start(saga, 1, id="a")
        await until(lambda: gate.inside == [1])
        await beside.observe()
        await beside.pause("saga", "trip", who="ada")
        await until(lambda: app.engine.floor.drivers["a"].held)
        gate.open.set()
        await until(lambda: app.engine.in_memory == 0)
        assert log == ["hotel 1"]
        await beside.resume("saga", "trip", who="ada")
        assert await run.result() == "f1"
    await beside.close()


async def test_a_paused_run_can_be_cancelled_and_undoes_itself_once_it_is_resumed(url: str):
    gate, log = Gate(), list[str]()
    saga = two_steps(gate, log)
    async with yaoki.open(url, sagas=[saga]) as app:
        run = await app.start(saga, 1, id="a")
        await until(lambda: gate.inside == [1])
        await run.pause()
        gate.open.set()
        await until(lambda: app.engine.in_memory == 0)
        await run.cancel("customer asked")
        await asyncio.sleep(0.3)
        assert log == ["hotel 1"]
        await run.resume()
        assert await run.wait() is RunState.CANCELLED
    assert log == ["hotel 1", "no hotel 1"]


async def test_a_program_that_does_not_work_only_starts(url: str):
    gate = Gate()
    gate.open.set()
    saga = one_step(gate)
    async with yaoki.open(url, sagas=[saga], work=False) as app:
        await app.start(saga, 1, id="a")
        await app.start_many(saga, [("b", 2)])
        await asyncio.sleep(0.2)
        assert gate.done == []
    async with yaoki.open(url, sagas=[saga]) as app:
        assert [await app.run(saga, name).result() for name in "ab"] == [1, 2]


# ── blocked runs are a queue with an alarm ───────────────────────────────────────────────────────────────────────────


async def test_blocked_runs_raise_an_alarm_with_their_number_and_the_oldest(url: str, heard: list[events.Event]):
    saga = Saga("bug", input=int)

    @saga.step(undo=None)
    async def typo(n: int) -> int:
        raise KeyError(n)

    async with yaoki.open(url, sagas=[saga]) as app:
        for n in range(3):
            await (await app.start(saga, n)).wait()
        await app.engine.gates.tell_blocked()
    alarm = next(event for event in heard if isinstance(event, events.RunsBlocked) and event.runs == 3)
    assert alarm.saga == "bug"
    assert alarm.oldest_s >= 0


# ── attributes ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_runs_are_found_by_what_their_saga_and_their_start_say(url: str):
    gate = Gate()
    gate.open.set()
    saga = one_step(gate, attributes=lambda n: {"even": n % 2 == 0, "n": n})
    async with yaoki.open(url, sagas=[saga]) as app:
        for n in range(4):
            await (await app.start(saga, n, id=f"r{n}", attributes={"customer": 42} if n else None)).wait()
        await app.start_many(saga, [("r4", 4)])

        async def found(**where: str) -> list[str]:
            return [header.id for header in await app.journal.search(Query(where=tuple(where.items())))]

        assert await found(even="true") == ["r4", "r2", "r0"]
        assert await found(even="true", customer="42") == ["r2"]
        assert await found(n="3") == ["r3"]
        with pytest.raises(InputError, match="customer"):
            await app.start(saga, 1, attributes={"customer": ["a", "list"]})


# ── forks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def journey(log: list[str], *, flight_fails: list[bool]) -> Saga[str]:
    saga = Saga("journey", input=str)

    @saga.step
    async def hotel(guest: str, effect: Effect) -> str:
        log.append(f"hotel {effect.key}")
        return "h"

    @hotel.undo
    async def no_hotel(guest: str, hotel: str | None, effect: Effect) -> None:
        log.append(f"no hotel {effect.key}")

    @saga.step
    async def flight(guest: str, effect: Effect) -> str:
        log.append(f"flight {effect.key}")
        return "f"

    @flight.undo
    async def no_flight(guest: str, flight: str | None, effect: Effect) -> None:
        log.append(f"no flight {effect.key}")

    @saga.step(undo=None)
    async def ticket(guest: str, flight: str, hotel: str) -> str:
        if flight_fails[0]:
            raise DeclinedError("no seats")
        return f"{guest} {flight} {hotel}"

    return saga


async def test_a_fork_adopts_what_does_not_follow_from_its_step_and_makes_the_rest_with_keys_of_its_own(url: str):
    log, fails = list[str](), [False]
    saga = journey(log, flight_fails=fails)
    async with yaoki.open(url, sagas=[saga]) as app:
        assert await (await app.start(saga, "ada", id="t", attributes={"customer": 42})).result() == "ada f h"
        log.clear()
        fork = await app.fork(saga, "t", "flight", who="bob", why="wrong date")
        assert fork.id == "t~1"
        assert await fork.result() == "ada f h"
        assert log == [f"flight {fork.id}/flight"]
        assert (await app.fork(saga, "t", "hotel")).id == "t~2"
        (line,) = await app.journal.operations(name="t", limit=1, before_no=(await app.journal.operations(name="t"))[0].no)
        assert (line.action, line.who, line.why) == ("fork", "bob", "wrong date")
        found = await app.journal.search(Query(where=(("forked-from", "t"), ("customer", "42"))))
        assert {header.id for header in found} == {"t~1", "t~2"}


async def test_a_fork_that_is_undone_leaves_alone_what_it_adopted(url: str):
    log, fails = list[str](), [False]
    saga = journey(log, flight_fails=fails)
    async with yaoki.open(url, sagas=[saga]) as app:
        await (await app.start(saga, "ada", id="t")).result()
        fails[0] = True
        log.clear()
        fork = await app.fork(saga, "t", "flight")
        assert await fork.wait() is RunState.UNDONE
    assert log == ["flight t~1/flight", "no flight t~1/flight"]


async def test_what_cannot_be_forked_is_refused_with_a_remedy(url: str):
    log, fails = list[str](), [True]
    saga = journey(log, flight_fails=fails)
    async with yaoki.open(url, sagas=[saga]) as app:
        await (await app.start(saga, "ada", id="t")).wait()
        with pytest.raises(ForkError, match="undone"):
            await app.fork(saga, "t", "flight")
        with pytest.raises(ForkError, match="no step 'boat'"):
            await app.fork(saga, "t", "boat")
        with pytest.raises(RunNotFoundError):
            await app.fork(saga, "x", "flight")
