"""The simulated shared journal and PostgreSQL, asked the same things in the same order, give the same answers.

The explorer proves the workers' protocol on the simulated one, in virtual time; the decisions of the real one are SQL. So what is
proved holds for what runs only as long as both decide alike: who may write, who gets which run, when, and under which fence.
Two workers do what Hypothesis draws, one thing after the other; the lease of either runs out when it says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from servers import PostgresServer
from yaoki.errors import FencedError, JournalError
from yaoki.explore.shared import SharedPlatter, SharedSimJournal
from yaoki.saga.journal.port import Append, NewRun
from yaoki.saga.journal.postgres import PostgresJournal
from yaoki.saga.journal.postgres import journal as journal_of_postgres
from yaoki.saga.journal.postgres import statements as sql
from yaoki.saga.journal.postgres.lease import Lease
from yaoki.saga.records import Kind, Record, RunState, Stored

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

WORKERS = (0, 1)
RUNS = ("a", "b", "c")

# What one worker does. PAST is due at once, and NEVER when somebody asks for something.
PAST, NEVER = 1.0, inf
workers, runs = st.sampled_from(WORKERS), st.sampled_from(RUNS)
steps = st.one_of(
    st.tuples(st.just("create"), workers, runs, st.booleans(), st.sampled_from([0.0, PAST, 9e9])),
    st.tuples(st.just("record"), workers, runs),
    st.tuples(st.just("end"), workers, runs),
    st.tuples(st.just("park"), workers, runs, st.sampled_from([PAST, 9e9])),
    st.tuples(st.just("block"), workers, runs, st.sampled_from([None, NEVER])),
    st.tuples(st.just("take"), workers),
    st.tuples(st.just("take one"), workers, runs),
    st.tuples(st.just("release"), workers, runs),
    st.tuples(st.just("ask"), workers, runs),
    st.tuples(st.just("asked"), workers),
    st.tuples(st.just("look"), workers),
    st.tuples(st.just("lease over"), workers),
    st.tuples(st.just("reap by"), workers),
    st.tuples(st.just("open"), workers),
)


class Pair:
    """Two workers on one journal. Answers are such that both kinds of journal can give them."""

    def __init__(self, journals: list[Any], quiet: Callable[[Any], Awaitable[None]], end_lease: Callable[[int], Awaitable[None]],
                 reap: Callable[[int], Awaitable[None]]) -> None:
        self.journals = journals
        self._quiet = quiet  # lets an opened journal do nothing by itself
        self._end_lease = end_lease
        self._reap = reap
        self._numbers: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self._mine: set[tuple[int, str]] = set()  # what each has, as far as it knows

    async def do(self, step: tuple[Any, ...]) -> Any:
        what, worker, *words = step
        try:
            return await getattr(self, f"_{what.replace(' ', '_')}")(worker, *words)
        except FencedError:
            self._mine = {each for each in self._mine if each[0] != worker}
            return "fenced"
        except JournalError:
            return "refused"

    async def _create(self, worker: int, run: str, keep: bool, due_at: float) -> Any:
        created = await self.journals[worker].create(NewRun(run, "s", "g", b"1", at=5.0, keep=keep, due_at=0.0 if keep else due_at))
        self._numbers[run] = created.header.no
        if created.new:
            self._written[run] = 0
            if keep:
                self._mine.add((worker, run))
        return created.new, created.header.state, created.header.fence

    async def _append(self, worker: int, run: str, **more: Any) -> Any:
        """By who has the run, or had it and does not know that it has lost it."""
        if (worker, run) not in self._mine:
            return "not mine"
        record = Record(Kind.DONE, f"step{self._written[run]}", b"1", 2.0)
        await self.journals[worker].append(Append(self._numbers[run], self._written[run], (record,), at=6.0, **more))
        self._written[run] += 1
        if more:
            self._mine.discard((worker, run))
        return "written"

    _record = _append

    async def _end(self, worker: int, run: str) -> Any:
        return await self._append(worker, run, state=RunState.COMPLETED, result=b"1")

    async def _park(self, worker: int, run: str, due_at: float) -> Any:
        return await self._append(worker, run, due_at=due_at)

    async def _block(self, worker: int, run: str, due_at: float | None) -> Any:
        return await self._append(worker, run, state=RunState.BLOCKED, reason="bug", due_at=due_at)

    async def _take(self, worker: int) -> Any:
        return self._took(worker, await self.journals[worker].take(100))

    async def _take_one(self, worker: int, run: str) -> Any:
        found = await self.journals[worker].take_one(run)
        return self._took(worker, [found] if found is not None else [])

    def _took(self, worker: int, found: list[Stored]) -> Any:
        self._mine |= {(worker, stored.header.id) for stored in found}
        return sorted((stored.header.id, stored.header.state, stored.header.fence, [record.step for record in stored.records]) for stored in found)

    async def _release(self, worker: int, run: str) -> Any:
        if (worker, run) not in self._mine:
            return "not mine"
        self._mine.discard((worker, run))
        journal = self.journals[worker]
        journal.release(self._numbers[run])
        with contextlib.suppress(FencedError):  # the next thing it does says so
            await getattr(journal, "flush", _nothing)()
        return "given back"

    async def _ask(self, worker: int, run: str) -> Any:
        await self.journals[worker].request(run, "cancel", b"{}", 7.0)

    async def _asked(self, worker: int) -> Any:
        return [(each.run, each.kind) for each in await self.journals[worker].requests()]

    async def _look(self, worker: int) -> Any:
        return await self.journals[worker].peek()

    async def _lease_over(self, worker: int) -> None:
        await self._end_lease(worker)

    async def _reap_by(self, worker: int) -> None:
        await self._reap(worker)

    async def _open(self, worker: int) -> None:
        await self.journals[worker].open()
        await self._quiet(self.journals[worker])
        self._mine = {each for each in self._mine if each[0] != worker}


async def _nothing() -> None:
    """What is released is free at once."""


async def simulated() -> Pair:
    platter = SharedPlatter("journal")
    journals = [SharedSimJournal(None, platter, f"w{number}") for number in WORKERS]  # type: ignore[arg-type]

    async def end_lease(worker: int) -> None:
        me = journals[worker]._me
        assert me is not None
        me.lease_until = 0.0

    async def reap(worker: int) -> None:
        journals[worker]._renew()
        await quiet(journals[worker])

    async def quiet(journal: SharedSimJournal) -> None:
        journal._stop()

    for journal in journals:
        await journal.open()
        await quiet(journal)
    return Pair(journals, quiet, end_lease, reap)


async def real(url: str) -> Pair:
    journals = [PostgresJournal(url + "?lease=3600", name=f"w{number}") for number in WORKERS]
    await journals[0].open()
    side = journals[0]._side
    await side.execute("TRUNCATE yaoki.run, yaoki.record, yaoki.request, yaoki.worker")

    async def quiet(journal: PostgresJournal) -> None:
        """It has just joined, and the first thing that its lease would do is this."""
        await reap(journals.index(journal))

    async def end_lease(worker: int) -> None:
        await side.execute("UPDATE yaoki.worker SET lease_until = 0 WHERE no = $1", journals[worker].incarnation)

    async def reap(worker: int) -> None:
        """As a worker's lease does it: it renews its own first."""
        rows = await side.fetch(sql.RENEW, journals[worker].incarnation)
        if rows:
            await side.fetch(sql.REAP)

    for journal in journals:
        await journal.open()
        await quiet(journal)
    return Pair(journals, quiet, end_lease, reap)


async def both(url: str, drawn: list[tuple[Any, ...]]) -> None:
    pairs = [await simulated(), await real(url)]
    try:
        for number, step in enumerate(drawn):
            model, server = [await pair.do(step) for pair in pairs]
            assert server == model, f"step {number}, {step}: the server says {server}, the simulation {model}"
    finally:
        for pair in pairs:
            for journal in pair.journals:
                await journal.close()


class NoLease(Lease):
    """In the server only: a thread that renews and reaps by itself would do so between any two of the steps that are drawn."""

    async def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture(scope="module", autouse=True)
def no_threads() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_of_postgres, "Lease", NoLease)
        yield


@pytest.fixture(scope="module")
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


bounded = settings(max_examples=12, deadline=None, derandomize=True,
                   suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@bounded
@given(drawn=st.lists(steps, min_size=3, max_size=30))
@example(drawn=[("create", 0, "a", True, 0.0), ("lease over", 0), ("reap by", 1), ("record", 0, "a"), ("take", 1), ("record", 1, "a")])
@example(drawn=[("create", 0, "a", True, 0.0), ("lease over", 0), ("record", 0, "a"), ("reap by", 1), ("record", 0, "a")])
@example(drawn=[("create", 0, "a", True, 0.0), ("park", 0, "a", 9e9), ("take", 1), ("ask", 1, "a"), ("take", 1), ("asked", 1)])
@example(drawn=[("create", 0, "a", True, 0.0), ("block", 0, "a", NEVER), ("take", 1), ("ask", 0, "a"), ("take", 1)])
@example(drawn=[("create", 0, "a", True, 0.0), ("lease over", 0), ("reap by", 1), ("take", 1), ("release", 0, "a"), ("take", 1)])
@example(drawn=[("create", 0, "a", True, 0.0), ("ask", 0, "a"), ("ask", 1, "a"), ("asked", 0)])
@example(drawn=[("ask", 0, "a"), ("create", 0, "a", False, 9e9), ("take", 1), ("asked", 0), ("take", 1)])
def test_the_simulated_shared_journal_answers_as_the_server_does(url: str, drawn: list[tuple[Any, ...]]):
    asyncio.run(both(url, drawn))


@pytest.mark.long
@pytest.mark.timeout(1200)
@settings(bounded, max_examples=300, derandomize=False)
@given(drawn=st.lists(steps, min_size=10, max_size=80))
def test_and_does_so_for_longer(url: str, drawn: list[tuple[Any, ...]]):
    asyncio.run(both(url, drawn))
