"""Several workers on PostgreSQL, killed all the time: one run at a time for each key, each instant once, stuck steps elsewhere."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import yaoki
from live.outside_worker import Log, booking, reporting, ticking
from servers import PostgresServer
from yaoki.saga.journal.port import Query
from yaoki.saga.journal.registers import of_run
from yaoki.saga.records import RunState

pytestmark = pytest.mark.live

WORKER = Path(__file__).with_name("outside_worker.py")


class Crew:
    """Worker processes by number."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.kills = 0

    def start(self, number: int, *words: str) -> None:
        with (self._folder / f"worker-{number}.err").open("ab") as err:
            self._processes[number] = subprocess.Popen(
                [sys.executable, str(WORKER), self._url, f"w{number}", str(self._folder), *words], stderr=err, stdout=err)

    def kill(self, number: int) -> None:
        self._processes[number].kill()
        self._processes[number].wait()
        self.kills += 1

    def end(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def crew(postgres: PostgresServer, tmp_path: Path) -> Iterator[Crew]:
    made = Crew(f"{postgres.new_database()}?lease=2", tmp_path)
    yield made
    made.end()


def events(folder: Path) -> list[list[str]]:
    """What was said so far, but for a line that is being written."""
    path = folder / "events.log"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return sorted((line.split() for line in lines), key=lambda words: float(words[0]))


async def until_ready(folder: Path, count: int) -> None:
    """So many workers have begun to work."""
    async with asyncio.timeout(120):
        while sum(words[2] == "ready" for words in events(folder)) < count:  # noqa: ASYNC110  other processes say so
            await asyncio.sleep(0.05)


def wrong_turns(told: list[list[str]]) -> list[str]:
    """For each key: a run that comes back after another one had the key, or leaves after another one has entered.

    A worker that stands still for longer than its lease wakes up in the middle of a step that another one has made meanwhile. Services tell
    it by its fence, which is older than one that they have seen; so does this check.
    """
    wrong, holder, had, fences = [], dict[str, str](), defaultdict[str, set[str]](set), defaultdict[str, int](int)
    for at, _, what, *rest in told:
        if what not in {"enter", "leave"}:
            continue
        key, run, fence = *rest[:2], int(rest[2])
        if fence < fences[run]:
            continue
        fences[run] = fence
        if what == "enter":
            if holder.get(key) != run and run in had[key]:
                wrong.append(f"{at}: {run} has {key} again, after {holder[key]}")
            holder[key] = run
            had[key].add(run)
        elif holder.get(key) != run:
            wrong.append(f"{at}: {run} leaves {key}, which {holder.get(key)} has")
    return wrong


async def campaign(crew: Crew, folder: Path, *, seconds: float, count: int, seed: int, pause_s: float = 1.0) -> dict[str, float]:
    rng = random.Random(seed)
    log = Log(folder)
    saga = booking(log)
    for number in range(3):
        crew.start(number)
    app = yaoki.open(crew._url, sagas=[saga], work=False)
    names = {}
    async with app:
        inputs = []
        for n in range(count):
            run = f"run-{n:04d}{'x' if rng.random() < 0.2 else ''}"
            inputs.append((run, f"{run}:{','.join(rng.sample(['a', 'b', 'c', 'd'], rng.choice((1, 1, 2))))}"))
            names[run] = RunState.UNDONE if run.endswith("x") else RunState.COMPLETED
        assert await app.start_many(saga, inputs) == count
        await until_ready(folder, 3)
        until = time.monotonic() + seconds
        while time.monotonic() < until or crew.kills < 2:
            await asyncio.sleep(rng.uniform(0.6 * pause_s, 1.4 * pause_s))
            number = rng.randrange(3)
            crew.kill(number)
            crew.start(number)
        healed = time.monotonic()
        left, moved = count, healed
        while left and time.monotonic() - moved < 90:  # as long as something moves, nobody was forgotten
            counts = await app.journal.counts("booking")
            now_left = counts.get(RunState.RUNNING, 0) + counts.get(RunState.UNDOING, 0)
            left, moved = now_left, moved if now_left == left else time.monotonic()
            await asyncio.sleep(0.25)
        async with asyncio.timeout(90):
            while len(await app.journal.search(Query(saga="tick", limit=3))) < 3:  # noqa: ASYNC110  a schedule's instants come by the clock
                await asyncio.sleep(0.25)
        took = time.monotonic() - healed
        found = {header.id: header.state for header in await app.journal.search(Query(saga="booking", limit=count + 1))}
        ticks = sorted(header.id for header in await app.journal.search(Query(saga="tick", limit=10_000)))
        claims = await app.journal.claims()
    assert left == 0, f"{left} runs wait for nobody"
    assert found == names
    assert claims == []
    told = events(folder)
    assert wrong_turns(told) == []
    instants = sorted({yaoki_instant(tick) for tick in ticks})
    assert len(instants) == len(ticks)
    assert instants[-1] - instants[0] == len(instants) - 1, "an instant was left out"
    done = {words[3] for words in told if words[2] == "tick"}
    return {"runs": count, "kills": crew.kills, "seconds to the end after healing": round(took, 1), "instants": len(instants),
            "instants done": len(done), "enters": sum(words[2] == "enter" for words in told)}


def yaoki_instant(run: str) -> int:
    from datetime import datetime

    return int(datetime.fromisoformat(run.partition("@")[2]).timestamp())


async def test_one_run_at_a_time_for_each_key_and_each_instant_once_while_workers_are_killed(crew: Crew, tmp_path: Path):
    figures = await campaign(crew, tmp_path, seconds=4.0, count=40, seed=1)
    assert figures["kills"] >= 2
    assert figures["instants"] >= 3


@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 3])
async def test_the_same_for_longer(crew: Crew, tmp_path: Path, seed: int):
    figures = await campaign(crew, tmp_path, seconds=60.0, count=300, seed=seed, pause_s=3.0)
    print(figures)
    assert figures["kills"] >= 12


def test_the_check_of_turns_finds_what_it_looks_for():
    def told(*lines: str) -> list[list[str]]:
        return [[str(n), "1", *line.split()] for n, line in enumerate(lines)]

    assert not wrong_turns(told("enter a r1 1", "enter a r1 1", "leave a r1 1", "enter a r2 1", "enter b r1 1"))
    assert wrong_turns(told("enter a r1 1", "enter a r2 1", "leave a r1 1"))
    assert wrong_turns(told("enter a r1 1", "enter a r2 1", "enter a r1 1"))
    assert wrong_turns(told("enter a r1 1", "enter a r2 1", "leave a r1 2"))
    assert not wrong_turns(told("enter a r1 1", "enter a r1 2", "leave a r1 2", "enter a r2 1", "leave a r1 1")), "a zombie's"


async def test_a_step_that_is_stuck_on_one_worker_is_repeated_on_another_from_its_last_detail(crew: Crew, tmp_path: Path):
    log = Log(tmp_path)
    saga = reporting(log, stuck=False)
    crew.start(0, "stuck")
    async with yaoki.open(crew._url, sagas=[saga, booking(log), ticking(log)], work=False) as app:
        run = await app.start(saga, 1, id="report-1")
        async with asyncio.timeout(120):
            while not await app.journal.registers(of_run("report-1")):  # noqa: ASYNC110  another process writes it
                await asyncio.sleep(0.05)
        crew.start(1)
        result = await asyncio.wait_for(run.result(), 120)
        built = [words for words in events(tmp_path) if words[2] == "build"]
        assert result == built[-2][1], "the detail of the one that was stuck"
        assert built[-1][1] != built[0][1], "elsewhere"
        assert await app.journal.registers(of_run("report-1")) == {}
