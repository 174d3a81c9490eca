"""The torture: workers killed, paused, cut off from a server that crashes, for a while; then all is healed, and checked.

    python tests/torture/campaign.py --seconds 60 --runs 4000 --seed 1 --json     (from the top of a checkout)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asyncpg
import msgspec

from cut_proxy import CutProxy
from servers import PostgresServer, running_postgres
from torture import evidence
from torture.checker import STEPS, check
from torture.compound import FAILING
from torture.errands import COUNTER, TABLES, errands, inputs
from torture.sagas import Service, TicketOffice, Trip, trips
from yaoki import Saga
from yaoki.errors import JournalError
from yaoki.saga.journal.port import NewRun
from yaoki.saga.journal.postgres import PostgresJournal
from yaoki.saga.journal.postgres import statements as sql

WORKERS = 4
LONGER_S = 60.0
"""How much longer than asked for a campaign may fail, for what it is there for to come about."""
HOURS = (0.0, -7200.0, 3600.0, 10_800.0)
"""How far each worker's clock is off, in seconds."""


class Campaign:
    """One torture.

    Args:
        server: to be crashed. folder: for effects and logs. seconds: of failures, then all is healed.
        runs: how many are started, half of them before the failures begin, the rest in their midst.
        must_happen: events of workers. Until each was seen failures go on, for a minute at most, and runs for them to strike.
    """

    def __init__(self, server: PostgresServer, folder: Path, *, seconds: float, runs: int, seed: int, lease_s: float = 2.0,
                 broken_fence: bool = False, must_happen: tuple[str, ...] = ()) -> None:
        self.server = server
        self.folder = folder
        self.seconds = seconds
        self.rng = random.Random(seed)
        self.lease_s = lease_s
        self.broken_fence = broken_fence
        self.must_happen = must_happen
        self.did: Counter[str] = Counter()
        self.verbose = False
        self.expected: dict[str, str] = {}
        self._draw(runs)
        self.errands = inputs(min(runs // 2, 200), self.rng)  # three at once, however long the torture
        self.cancelled: set[str] = set()
        self._unanswered: list[str] = []
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._database = server.new_database().rpartition("/")[2]
        self._url = server.url_of(self._database)

    async def run(self) -> tuple[list[str], dict[str, Any]]:
        began = time.monotonic()
        self.server.run_sql(f"CREATE TABLE public.ledger (run text, n int, fence int); {TABLES}", self._url)
        async with CutProxy(self.server.port) as proxy:
            self._through = self.server.url_of(self._database, port=proxy.port) + f"?lease={self.lease_s:g}"
            names = list(self.expected)
            await self._start(names[:len(names) // 2])
            try:
                for number in range(WORKERS):
                    self._spawn(number)
                late = asyncio.create_task(self._start_slowly(names[len(names) // 2:]))
                await self._fail_everything(proxy, late)
                await late
                await self._operate(self._resume_all)
                healed = time.monotonic()
                left = await self._wait_for_the_end()
                if left:
                    await evidence.keep(self._url, self.folder)
                    await evidence.tell_tasks(self._workers.values())
            finally:
                await asyncio.to_thread(self._end_workers)  # they say goodbye through the proxy, which is in this loop
        wrong, figures = await check(self._url, self.folder, self.expected, self.cancelled)
        if wrong and not left:
            await evidence.keep(self._url, self.folder)
        return wrong, {**figures, **{f"did: {what}": n for what, n in sorted(self.did.items())}, "left unfinished": left,
                       "seconds to the end after healing": round(time.monotonic() - healed, 1), "seconds": round(time.monotonic() - began, 1)}

    def _draw(self, number: int) -> list[str]:
        """So many more runs, and what fails in them."""
        can_fail = ("hotel", "flight", "ticket", "payment", *FAILING)
        names = [f"run-{n:06d}" for n in range(len(self.expected), len(self.expected) + number)]
        self.expected |= {name: self.rng.choice(can_fail) if self.rng.random() < 0.25 else "" for name in names}
        return names

    # ── starting runs ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self, names: list[str]) -> None:
        """Until it has succeeded: the server may be away for longer than a journal's patience. What is said twice counts once."""
        while True:
            try:
                await self._start_once(names)
            except JournalError:
                await asyncio.sleep(0.2)
            else:
                return

    async def _start_once(self, names: list[str]) -> None:
        service = Service(self.folder)
        saga, other = trips(service, TicketOffice(self.folder)), errands(service)
        journal = PostgresJournal(self._url, name="front")
        try:
            await journal.open()
            for each in (saga, other):
                await journal.save_graph(each.graph.hash, each.name, each.graph.to_json())
            await self._create(journal, names, saga, other)
            await self._answer(journal)
        finally:
            await journal.close()
        self._unanswered = names

    async def _create(self, journal: PostgresJournal, names: list[str], saga: Saga[Any], other: Saga[Any]) -> None:
        waits = [journal.create(NewRun(name, saga.name, saga.graph.hash, _input(name, self.expected[name]),
                                       at=journal.now(), keep=False)) for name in names]
        numbers = [name.partition("-")[2] for name in names]
        waits += [journal.create(NewRun(f"errand-{n}", other.name, other.graph.hash, self.errands[f"errand-{n}"], at=journal.now(), keep=False,
                                        queue=COUNTER.name, tenant=f"tenant-{int(n) % 3}")) for n in numbers if f"errand-{n}" in self.errands]
        await asyncio.gather(*waits)

    async def _answer(self, journal: PostgresJournal) -> None:
        """The runs before these get the answer for which they wait, or will."""
        answer, names = b'{"name":"visa","answer":"yes","who":"consul"}', self._unanswered
        await journal._side.run(lambda c: c.executemany(sql.REQUEST, [(name, "signal", answer, 1.0) for name in names]))
        await journal.ring()
        self.did["answered"] += len(names)

    # ── what operators do meanwhile ──────────────────────────────────────────────────────────────────────────────────

    async def _operate(self, work: Callable[[PostgresJournal], Awaitable[None]]) -> None:
        """As an operator at a shell would: until it has succeeded."""
        while True:
            journal = PostgresJournal(self._url, name="operator")
            try:
                await journal.observe()
                await work(journal)
            except JournalError:
                await asyncio.sleep(0.2)
            else:
                return
            finally:
                await journal.close()

    async def _pause_something(self) -> None:
        kind, name = self.rng.choice((("queue", COUNTER.name), ("saga", "trips"), ("saga", "errands"), ("run", self.rng.choice(list(self.expected)))))

        async def pause(journal: PostgresJournal) -> None:
            await journal.pause(kind, name, who="torture", why="to see")

        async def resume(journal: PostgresJournal) -> None:
            await journal.resume(kind, name, who="torture")

        await self._operate(pause)
        await asyncio.sleep(self.rng.uniform(0.2, 1.0))
        if self.rng.random() < 0.7:  # the others stay until all is healed
            await self._operate(resume)
        self.did["pause of a saga, queue or run"] += 1

    async def _cancel_some(self) -> None:
        names = self.rng.sample(sorted(self.errands), min(5, len(self.errands)))

        async def cancel(journal: PostgresJournal) -> None:
            for name in names:
                await journal.request(name, "cancel", b'{"reason":"torture"}', 1.0)

        await self._operate(cancel)
        self.cancelled |= set(names)
        self.did["cancelled"] += len(names)

    async def _resume_all(self, journal: PostgresJournal) -> None:
        for each in await journal.pauses():
            await journal.resume(each.kind, each.name, who="torture")

    async def _start_slowly(self, names: list[str]) -> None:
        size = max(1, len(names) // 20)
        for begin in range(0, len(names), size):
            await self._start(names[begin:begin + size])
            await asyncio.sleep(self.seconds / 25)
        await self._start([])  # for the last of them to be answered

    # ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _spawn(self, number: int) -> None:
        words = [sys.executable, str(Path(__file__).with_name("worker.py")), self._through, f"w{number}", str(self.folder), str(HOURS[number])]
        log = (self.folder / f"worker-{number}.err").open("ab")
        self._workers[number] = subprocess.Popen([*words, *(["--broken-fence"] if self.broken_fence else [])], stderr=log, stdout=log)
        log.close()

    async def _fail_everything(self, proxy: CutProxy, late: asyncio.Task[None]) -> None:
        await self._until_all_have_joined()
        until = time.monotonic() + self.seconds
        failures = [self._kill, self._pause, self._pause, lambda: self._cut(proxy), lambda: self._cut_in_commit(proxy),
                    lambda: self._cut_in_commit(proxy), self._crash_server, self._pause_something, self._cancel_some]
        self.rng.shuffle(failures)
        while time.monotonic() < until or (time.monotonic() < until + LONGER_S and not all(map(self._seen, self.must_happen))):
            if time.monotonic() > until:
                await late
                await self._start(self._draw(40))
                await self._start([])  # they are answered
                self.did["round more"] += 1
            for failure in failures:
                await failure()
                await asyncio.sleep(self.rng.uniform(0.2, 0.8))

    def _seen(self, event: str) -> int:
        """How often a worker has told of it."""
        return sum(path.read_text().count(f'"{event}"') for path in self.folder.glob("events-*.log"))

    async def _until_all_have_joined(self) -> None:
        """They are Python programs, and have to start."""
        began = time.monotonic()
        while self._seen("WorkerJoined") < WORKERS and time.monotonic() - began < 60.0:  # noqa: ASYNC110  other processes tell it
            await asyncio.sleep(0.05)

    async def _kill(self) -> None:
        number = self.rng.randrange(WORKERS)
        self._workers[number].kill()
        self._workers[number].wait()
        self.did["kill -9"] += 1
        self._spawn(number)

    async def _pause(self) -> None:
        """Longer than the lease, so that the others take over, and it wakes up as a zombie in the middle of its work."""
        process = self._workers[self.rng.randrange(WORKERS)]
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self.lease_s * 1.6)
        process.send_signal(signal.SIGCONT)
        self.did["pause"] += 1

    async def _cut(self, proxy: CutProxy) -> None:
        proxy.cut_all()
        self.did["cut"] += 1

    async def _cut_in_commit(self, proxy: CutProxy) -> None:
        """The next batch that records a step reaches the server, and its answer does not come back."""
        proxy.cut_answer_to(self.rng.choice((*STEPS, "bags", "cover", "extras")).encode())
        await asyncio.sleep(0.3)
        self.did["cut in a commit"] += 1

    async def _crash_server(self) -> None:
        await asyncio.to_thread(self.server.restart, "immediate")
        self.did["server crash"] += 1

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _wait_for_the_end(self) -> int:
        limit_s = 20.0 if self.broken_fence else 300.0  # two owners of one run may keep each other from ending it
        began, left = time.monotonic(), len(self.expected)
        for _ in range(int(limit_s / 0.25)):
            for number, process in self._workers.items():
                if process.poll() is not None:
                    self._spawn(number)
            try:
                connection = await asyncpg.connect(self._url)
                left = await connection.fetchval("SELECT count(*) FROM yaoki.run WHERE finished_at = 0 AND saga <> 'clockwork'")
                await connection.close()
            except (OSError, asyncpg.PostgresError):
                left = -1
            if self.verbose:
                print(round(time.monotonic() - began, 1), "left", left, flush=True)
            if left == 0:
                break
            await asyncio.sleep(0.25)
        return left

    def _end_workers(self) -> None:
        began = time.monotonic()
        for process in self._workers.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for number, process in self._workers.items():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.did["killed, for it did not end"] += 1
                process.send_signal(signal.SIGUSR1)
                time.sleep(0.5)
                process.kill()
                process.wait()
            if self.verbose:
                print(f"worker {number} has ended", round(time.monotonic() - began, 1), flush=True)


def _input(name: str, fails: str) -> bytes:
    return msgspec.json.encode(Trip(fails, 0.6, insured=int(name[-1]) % 2 == 0))


def main() -> int:
    words = argparse.ArgumentParser()
    words.add_argument("--seconds", type=float, default=30.0)
    words.add_argument("--runs", type=int, default=2000)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--lease", type=float, default=2.0)
    words.add_argument("--broken-fence", action="store_true", help="let the dead write, to see the checker find it")
    words.add_argument("--keep", action="store_true", help="keep the folder with effects and logs, and say where it is; a finding is kept anyhow")
    words.add_argument("--verbose", action="store_true", help="say how many runs are left, while it waits")
    asked = words.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    with running_postgres() as server:
        campaign = Campaign(server, folder, seconds=asked.seconds, runs=asked.runs, seed=asked.seed, lease_s=asked.lease,
                            broken_fence=asked.broken_fence)
        campaign.verbose = asked.verbose
        wrong, figures = asyncio.run(campaign.run())
    print(json.dumps({"wrong": len(wrong), "first": wrong[:20], **figures, "seed": asked.seed}, indent=1))
    if asked.keep or wrong or figures["left unfinished"]:
        print(folder, file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return 1 if wrong or figures["left unfinished"] else 0


if __name__ == "__main__":
    sys.exit(main())
