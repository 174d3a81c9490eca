"""One process on a SQLite file, killed again and again: keys, tokens, heartbeats and schedules are found as they were."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from live.test_outside_workers import Crew, events, wrong_turns, yaoki_instant
from yaoki.saga.journal.port import Query
from yaoki.saga.journal.registers import of_run
from yaoki.saga.journal.sqlite import SqliteJournal
from yaoki.saga.outside.completing import end
from yaoki.saga.records import RunState

pytestmark = pytest.mark.live


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    made = Crew(f"sqlite:///{tmp_path}/trips.db", tmp_path)
    yield made
    made.end()


async def until_said(folder: Path, what: str, times: int) -> list[list[str]]:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        said = [words for words in events(folder) if words[2] == what]
        if len(said) >= times:
            return said
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {what}: {(folder / 'worker-0.err').read_text()[-2000:]}")


async def until_kept(folder: Path) -> None:
    """What the report has said of itself is in the file."""
    journal = SqliteJournal(folder / "trips.db")
    await journal.observe()
    async with asyncio.timeout(120):
        while not await journal.registers(of_run("report-1")):  # noqa: ASYNC110  another process writes it
            await asyncio.sleep(0.05)
    await journal.close()


async def test_nothing_is_lost_and_nothing_done_twice_whenever_it_is_killed(crew: Crew, tmp_path: Path):
    rng = random.Random(7)
    for life in range(4):
        crew.start(0, "starts", *(["stuck"] if life < 3 else []))
        await until_said(tmp_path, "ready", life + 1)
        await asyncio.sleep(rng.uniform(0.05, 1.0))
        if life == 1:
            token = (await until_said(tmp_path, "token", 1))[0][3]
        if life == 2:
            await until_kept(tmp_path)
        if life < 3:
            crew.kill(0)
        if life == 1:  # nobody is there: it is stored, and counts
            journal = SqliteJournal(tmp_path / "trips.db")
            await journal.observe()
            assert not await end(journal, token, result=b'"T-1"', wait_s=0.0)
            await journal.close()
    journal = SqliteJournal(tmp_path / "trips.db")
    await journal.observe()
    until = time.monotonic() + 150
    while time.monotonic() < until:
        runs = {header.id: header for header in await journal.search(Query(limit=1000)) if header.saga != "tick"}
        if len(runs) == 10 and all(header.state.is_end for header in runs.values()):
            break
        await asyncio.sleep(0.1)
    assert {header.state for header in runs.values()} == {RunState.COMPLETED}
    assert runs["print-1"].result == b'"T-1"'
    assert await journal.claims() == []
    ticks = [header.id for header in await journal.search(Query(saga="tick", limit=1000))]
    await journal.close()
    told = events(tmp_path)
    assert wrong_turns(told) == []
    instants = sorted(yaoki_instant(tick) for tick in ticks)
    assert instants == list(range(instants[0], instants[-1] + 1))
    assert len({words[3] for words in told if words[2] == "token"}) == 1, "the same attempt has the same token"
    assert [words[5] for words in told if words[2] == "build"][-1] != "None", "what the killed ones have said"
