"""What the demo does, one after the other: it owns the processes, the switch of the faults and the kills."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from yaoki.app import journal_at
from yaoki.errors import ConfigError, YaokiError
from yaoki.examples.travel.audit import Report, audit, prices
from yaoki.examples.travel.catalogue import SERVICES, trips
from yaoki.examples.travel.faults import LATE_S, Switch, count
from yaoki.saga.journal.port import Query

KILLS_BETWEEN = (0.02, 0.85)  # of the trips have ended
KILL_WITHIN_S = 0.4  # ... and then at a random instant within this time
KILLED_SOON = 0.3  # the share of kills that come while the orchestrator still takes up what the last one left
SOON_S = 2.0
FAULTS_UNTIL = 0.97  # of the trips have ended: the rest is let finish
STALLED_S = 15.0  # without a trip ending, faults and waits have met: kill what is to be killed, then stop the faults
SETTLE_S = LATE_S + 0.3  # a duplicate may come that late; what it does then must be seen by the audit
VISIT_EVERY_S = 0.2
PAGE = 1000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do. Raises ConfigError for a figure out of range."""

    trips: int
    faults: float
    kills: int
    seed: int
    folder: Path
    port: int = 0
    limit_s: float = 900.0
    choreographed: bool = False  # nobody is in charge: the participants are killed

    def __post_init__(self) -> None:
        for name, value, least in (("trips", self.trips, 1), ("kills", self.kills, 0), ("limit", self.limit_s, 1)):
            if value < least:
                raise ConfigError(f"--{name} is {value}, and must be at least {least}", do=f"give --{name} a larger number")
        if not 0 <= self.faults <= 1:
            raise ConfigError(f"--faults is a share of the requests, from 0 to 1, and is {self.faults:g}", do="--faults 0.2, say")
        if self.port and not 1024 <= self.port <= 65_000:
            raise ConfigError(f"--port is from 1024 to 65000, and is {self.port}", do="leave it out for free ports")


@dataclass
class Progress:
    """Where the demo is, for those who watch."""

    phase: str = "starting"
    ended: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    kills: Counter[str] = field(default_factory=Counter)  # of the orchestrator; or of participants and their broker
    service_kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    front_page: Counter[str] = field(default_factory=Counter)  # whole, degraded (without recommendations), failed
    seconds: float = 0.0
    tombstones: int = 0  # undos whose do had not come, or never came
    cpu_s: float = 0.0  # of all processes; unlike the seconds it hardly depends on what else the machine does


@dataclass
class Outcome:
    """What came of it."""

    plan: Plan
    report: Report
    progress: Progress


class Play:
    """One demo. `watch` is called some times a second."""

    stalled_s = STALLED_S

    def __init__(self, plan: Plan, watch: Callable[[Progress], None]) -> None:
        self.plan = plan
        self.progress = Progress()
        self._watch = watch
        self._rng = random.Random(f"{plan.seed}/kills")
        self._switch = Switch.create(plan.folder / "faults.switch", plan.faults)
        self._began = time.monotonic()
        self._host: asyncio.subprocess.Process | None = None
        self._orchestrator: asyncio.subprocess.Process | None = None
        self._urls: dict[str, str] = {}
        self._trouble = "their host was killed"
        self._last_ended = (0, self._began)

    async def run(self) -> Outcome:
        """Raises ConfigError when something cannot start. However it ends, no process is left."""
        beside: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(self.plan.limit_s):
                await self._start_host()
                beside = [asyncio.create_task(self._listen()), asyncio.create_task(self._visit())]
                await self._while_served(self._book(), beside[0])
                if self.plan.faults:
                    self._say("waiting for requests that come late")
                    await asyncio.sleep(SETTLE_S)
        except TimeoutError:
            self._say(f"gave up after {self.plan.limit_s:g} s")
        finally:
            for task in beside[1:]:
                task.cancel()
            await self._stop()
            if beside:
                await asyncio.wait(beside, timeout=5)
        self._say("auditing")
        used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        self.progress.cpu_s = sum(each.ru_utime + each.ru_stime for each in used)
        self.progress.faults = count(self.plan.folder)
        asked = prices(trips(self.plan.trips))
        report = await asyncio.to_thread(audit, self.plan.folder, asked, await self._claimed())
        self.progress.tombstones = tombstones(self.plan.folder)
        self._say("done")
        return Outcome(self.plan, report, self.progress)

    async def _claimed(self) -> dict[str, str]:
        return await claims(self.plan.folder)

    # ── the services ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _start_host(self) -> None:
        self._host = await _spawn("host", "--dir", str(self.plan.folder), "--port", str(self.plan.port), "--seed", str(self.plan.seed))
        assert self._host.stdout is not None
        told = json.loads(await self._host.stdout.readline() or b"{}")
        if "ready" not in told:
            raise ConfigError(told.get("message", "the services did not start"), do=told.get("do", "try again"))
        self._urls = told["ready"]

    async def _listen(self) -> None:
        """Take in what the host tells, until it ends."""
        assert self._host is not None
        assert self._host.stdout is not None
        while line := await self._host.stdout.readline():
            told = json.loads(line)
            if told.get("signal") == 9:
                self.progress.service_kills[told["died"]] += 1
            elif "failed" in told:
                self._trouble = f"{told['failed']} {told['message']}".strip()

    async def _while_served(self, work: Coroutine[Any, Any, None], listening: asyncio.Task[None]) -> None:
        """Do `work`, but not without services."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ConfigError(f"the services stopped: {self._trouble}", do=f"is the disk full? Otherwise see {self.plan.folder}")
            task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _visit(self) -> None:
        """Look at the front page again and again: it must always be there, with recommendations or without."""
        async with httpx.AsyncClient(base_url=self._urls["front"], timeout=30) as visitor:
            while True:
                try:
                    reply = await visitor.get("/")
                    found = "failed" if reply.status_code != 200 else "degraded" if reply.headers["x-degraded"] == "true" else "whole"
                except httpx.HTTPError:
                    found = "failed"
                self.progress.front_page[found] += 1
                await asyncio.sleep(VISIT_EVERY_S)

    # ── the orchestrator ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _book(self) -> None:
        """Run the orchestrator to its end, killing it on the way."""
        low, high = KILLS_BETWEEN
        points = sorted(self._rng.uniform(low, high) for _ in range(self.plan.kills))
        for share in (*points, None):
            # One that is to be killed does not end before: a fast machine may have booked everything by then.
            self._orchestrator = await _spawn("orchestrator", "--dir", str(self.plan.folder), "--trips", str(self.plan.trips),
                                              *([] if share is None else ["--stay"]),
                                              **{f"TRAVEL_{name.upper()}": url for name, url in self._urls.items()})
            self._say("booking while everything fails" if self._switch.share else "booking")
            await self._ran_until(*self._kill_at(share))
            if share is None:
                return
            self._orchestrator.kill()
            await self._orchestrator.wait()
            self.progress.kills["orchestrator"] += 1

    def _kill_at(self, share: float | None) -> tuple[int | None, float]:
        """After how many ended trips to kill the orchestrator, and within how many seconds from then."""
        if share is None:
            return None, 0.0
        if self._rng.random() < KILLED_SOON:
            return 0, SOON_S
        return int(share * self.plan.trips), KILL_WITHIN_S

    async def _ran_until(self, kill_at: int | None, within_s: float) -> None:
        """Watch the orchestrator until it has ended by itself, or until it is time to kill it."""
        process = self._orchestrator
        assert process is not None
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self._take_in(json.loads(line))
            stalled = self._is_stalled()
            if kill_at is not None and (self.progress.ended.total() >= kill_at or stalled):
                self._last_ended = (self._last_ended[0], time.monotonic())
                # The instant is what matters: in the middle of whatever is under way.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._rng.uniform(0, within_s)):
                        await self._ended_nearly_all(process.stdout)
                return
            if kill_at is None and self._switch.share and (stalled or self._nearly_all_ended()):
                self._switch.share = 0.0
                self._say("faults stopped, letting the rest end")
        if await process.wait() or kill_at is not None:
            raise self._stopped()

    async def _ended_nearly_all(self, told: asyncio.StreamReader) -> None:
        """Wait until hardly a trip is left: a kill that came later would meet nothing under way."""
        while not self._nearly_all_ended():
            if not (line := await told.readline()):
                raise self._stopped()
            self._take_in(json.loads(line))

    def _stopped(self) -> ConfigError:
        return ConfigError("the orchestrator stopped before its work was done", do=f"see {self.plan.folder}")

    def _nearly_all_ended(self) -> bool:
        return self.progress.ended.total() >= FAULTS_UNTIL * self.plan.trips

    def _take_in(self, told: dict[str, Any]) -> None:
        if "failed" in told:
            raise ConfigError(f"the orchestrator failed: {told['failed']}", do=told.get("do", ""))
        self.progress.ended = Counter(told["ended"])
        self.progress.under_way = told["under_way"]
        self._say(self.progress.phase)

    def _is_stalled(self) -> bool:
        ended, now = self.progress.ended.total(), time.monotonic()
        if ended != self._last_ended[0]:
            self._last_ended = (ended, now)
        return now - self._last_ended[1] > self.stalled_s

    def _say(self, phase: str) -> None:
        self.progress.phase = phase
        self.progress.seconds = time.monotonic() - self._began
        self._watch(self.progress)

    async def _stop(self) -> None:
        """End every process. Both would also end by themselves, for their standard input ends with this process."""
        if self._orchestrator is not None and self._orchestrator.returncode is None:
            self._orchestrator.kill()
            await self._orchestrator.wait()
        if self._host is not None and self._host.returncode is None:
            assert self._host.stdin is not None
            self._host.stdin.close()
            try:
                await asyncio.wait_for(self._host.wait(), 10)
            except TimeoutError:
                self._host.kill()
                await self._host.wait()


def tombstones(folder: Path) -> int:
    """How many undos came without their do: proof that this rare path was taken."""
    found = 0
    for name in SERVICES:
        with closing(sqlite3.connect(folder / f"{name}.db")) as db:
            found += db.execute("SELECT count(*) FROM yaoki_effects WHERE state = 'undone' AND request = ''").fetchone()[0]
    return found


async def claims(folder: Path) -> dict[str, str]:
    """What the journal says became of every run, by id."""
    if not (folder / "trips.db").exists():
        return {}
    journal = journal_at(f"sqlite:///{folder / 'trips.db'}")
    await journal.observe()
    try:
        found: dict[str, str] = {}
        before = 0
        while page := await journal.search(Query(limit=PAGE, before_no=before)):
            found.update((header.id, header.state.value) for header in page)
            before = page[-1].no
        return found
    finally:
        await journal.close()


async def _spawn(module: str, *words: str, **env: str) -> asyncio.subprocess.Process:
    """A process of ours, in a session of its own: Ctrl-C is for the demo, which then ends all in order."""
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"yaoki.examples.travel.{module}", *words, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, env={**os.environ, **env}, start_new_session=True)
    except OSError as error:
        raise YaokiError(f"a process could not be started: {error}", do="free memory or processes") from error
