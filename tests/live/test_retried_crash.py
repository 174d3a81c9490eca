"""kill -9 while runs are taken back and made anew: nothing is made twice, nothing is left of what was taken back, every run ends.

Where a worker dies is drawn, and certain to be come to: see `retried_worker.py`. What became of it is read from the journal and from the
service's own database.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from servers import PostgresServer
from yaoki.app import journal_at
from yaoki.saga.graph import Graph
from yaoki.saga.journal.port import Query
from yaoki.saga.machine import decide
from yaoki.saga.records import Kind, Record, Retried, RunState, Stored

WORKER = Path(__file__).parent / "retried_worker.py"

RECORDS = ("retried", "undone", "anew", "done", "waiting")
PLACES = [" ".join(words) for words in product(("before", "after"), ("do", "undo"))]
PLACES += [" ".join(words) for words in product(("before the record", "giving the record", "after the record"), RECORDS)]

MADE = {"hotel": [""], "flight": [""], "bags": ["/0", "/1"], "seat": [""], "payment": [""], "mail": [""]}
"""Steps with effects, and their parts."""

pytestmark = pytest.mark.live


class Nursery:
    """One process that forks workers, one after the other. buried: told the pid of each that has died."""

    def __init__(self, process: subprocess.Popen[str], buried: Callable[[int], None]) -> None:
        self._process = process
        self._buried = buried

    def live(self, place: str, *, nth: int = 1, seed: int = 0) -> int:
        """One life, to its end; returns its exit code, below 0 a signal."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode({"place": place, "nth": nth, "seed": seed}).decode() + "\n")
        self._process.stdin.flush()
        answer = msgspec.json.decode(self._process.stdout.readline() or "{}")
        assert answer, "the process that forks the workers has ended"
        self._buried(answer["pid"])
        return int(answer["exit"])


@contextmanager
def nursery(folder: Path, url: str, runs: int, buried: Callable[[int], None]) -> Iterator[Nursery]:
    with subprocess.Popen([sys.executable, str(WORKER), str(folder), url, str(runs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        try:
            yield Nursery(process, buried)
        finally:
            assert process.stdin is not None
            process.stdin.close()  # its sign to end


def prepare(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "service.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE effect (key TEXT PRIMARY KEY, state TEXT NOT NULL)")
        db.execute("CREATE TABLE call (no INTEGER PRIMARY KEY, key TEXT NOT NULL, what TEXT NOT NULL)")


async def torture(folder: Path, url: str, *, kills: int, runs: int, seed: int, side_by_side: int = 1,
                  buried: Callable[[int], None] = lambda pid: None) -> None:
    """Kill so many workers in the midst of retries, let one go on to the end, and check."""
    prepare(folder)
    ways = random.Random(seed).sample(range(len(PLACES)), len(PLACES))
    found: list[tuple[str, int]] = []

    def kill_some(first: int) -> None:
        rng = random.Random(f"{seed}/{first}")
        with nursery(folder, url, runs, buried) as workers:
            for number in range(first, kills, side_by_side):
                place = PLACES[ways[number % len(PLACES)]]
                found.append((place, workers.live(place, nth=rng.randint(1, 5), seed=seed + number)))

    threads = [threading.Thread(target=kill_some, args=[first]) for first in range(side_by_side)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each for each in found if each[1] != -9] == [], "not killed: such a worker never came to its gate"
    assert len(found) == kills
    with nursery(folder, url, runs, buried) as workers:
        assert workers.live("", seed=seed) == 0
    await check(folder, url, runs, side_by_side=side_by_side)


# ── the checker ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def check(folder: Path, url: str, runs: int, *, side_by_side: int) -> None:
    journal = journal_at(url)
    await journal.observe()
    try:
        found = [await journal.read(header.id) for header in await journal.search(Query(limit=runs + 1))]
        assert [request for request in await journal.requests() if request.kind == "retry"] == []
        graph = await journal.load_graph(found[0].header.graph) if found[0] else None
    finally:
        await journal.close()
    assert graph is not None
    stored = [each for each in found if each is not None]
    assert len(stored) == runs
    with closing(sqlite3.connect(folder / "service.db")) as db:
        existing = {key for key, in db.execute("SELECT key FROM effect WHERE state = 'done'")}
        calls = db.execute("SELECT key, what FROM call ORDER BY no").fetchall()
    expected, made_anew = set[str](), 0
    for each in stored:
        rounds = decided(each, Graph.from_json(graph))
        made_anew += rounds.total()
        expected |= effects_of(each, rounds)
    assert made_anew, "nothing was made anew, so nothing was tested"
    assert existing == expected
    check_calls(calls, may_refuse=side_by_side > 1)


def decided(stored: Stored, graph: Graph) -> Counter[str]:
    """How often each step of the run was begun anew, if its history is one that a run can have and has come to an end."""
    header, records = stored.header, stored.records
    assert decide(graph, records).state is header.state, header.id
    assert header.state is (RunState.UNDONE if int(header.id.removeprefix("run-")) % 3 == 0 else RunState.COMPLETED), header.id
    return rounds_of(header.id, records)


def rounds_of(run: str, records: list[Record]) -> Counter[str]:
    rounds: Counter[str] = Counter()
    asked: set[str] = set()
    done: set[tuple[str, int]] = set()
    going: frozenset[str] = frozenset()
    aborted = False
    for record in records:
        step = record.step.partition("/")[0]
        if record.kind is Kind.RETRIED:
            retried = msgspec.json.decode(record.data, type=Retried)
            assert not going, f"{run} is taken back while it is taken back"
            assert not aborted, f"{run} is taken back while it undoes itself"
            assert retried.id not in asked, f"{run} is taken back twice for one request"
            asked.add(retried.id)
            going = frozenset(retried.steps)
        elif record.kind is Kind.ANEW:
            assert going, f"{run} is made anew, and was not taken back"
            rounds.update(going)
            done -= {each for each in done if each[0] in going}
            going = frozenset()
        elif record.kind is Kind.ABORT:
            aborted, going = True, frozenset()
        elif record.kind is Kind.UNDONE:
            assert aborted or step in going, f"{run} undoes {record.step}, which nobody takes back"
        elif record.kind is Kind.DONE:
            assert (record.step, rounds[step]) not in done, f"{record.step} of {run} is done twice"
            done.add((record.step, rounds[step]))
    return rounds


def effects_of(stored: Stored, rounds: Counter[str]) -> set[str]:
    """The keys of what is to exist of it."""
    if stored.header.state is not RunState.COMPLETED:
        return set()
    return {f"{stored.header.id}/{step}{f'~{rounds[step] + 1}' if rounds[step] else ''}{part}" for step, parts in MADE.items() for part in parts}


def check_calls(calls: list[tuple[str, str]], *, may_refuse: bool) -> None:
    """Of each step there was one effect at a time: what is made anew is made once nothing is left of the old one.

    may_refuse: with several workers one may wake up late, and be told no.
    """
    there: dict[str, set[str]] = defaultdict(set)
    counts: Counter[str] = Counter()
    for key, what in calls:
        run, _, rest = key.partition("/")
        step, slash, part = rest.partition("/")
        name = f"{run}/{step.partition('~')[0]}{slash}{part}"
        counts[what] += 1
        if what == "do":
            there[name].add(key)
            assert len(there[name]) == 1, f"there twice: {sorted(there[name])}"
        elif what == "undo":
            there[name].discard(key)
    assert counts["undo"] > 0
    assert may_refuse or not counts["refused"], counts


# ── the tests ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_workers_on_sqlite_killed_while_they_retry_runs_lose_and_double_nothing(tmp_path: Path):
    await torture(tmp_path, f"sqlite:///{tmp_path}/journal.db", kills=6, runs=4, seed=1)


async def test_workers_on_postgresql_killed_while_they_retry_runs_lose_and_double_nothing(postgres: PostgresServer, tmp_path: Path):
    url = postgres.new_database()
    await torture(tmp_path, url, kills=3, runs=4, seed=2, buried=lease_ends(postgres, url))


def lease_ends(server: PostgresServer, url: str) -> Callable[[int], None]:
    """As if a dead worker's lease had run out by now."""
    return lambda pid: void(server.run_sql(f"UPDATE yaoki.worker SET lease_until = 0 WHERE pid = {pid} AND state = 'alive'", url))


def void(_: Any) -> None:
    return None


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(5))
async def test_hundreds_of_kills_on_sqlite(tmp_path: Path, seed: int):
    await torture(tmp_path, f"sqlite:///{tmp_path}/journal.db", kills=100, runs=8, seed=100 + seed)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("side_by_side", [1, 3])
async def test_hundreds_of_kills_on_postgresql(postgres: PostgresServer, tmp_path: Path, side_by_side: int):
    url = postgres.new_database()
    await torture(tmp_path, f"{url}?lease=6", kills=120, runs=9, seed=200 + side_by_side, side_by_side=side_by_side, buried=lease_ends(postgres, url))
