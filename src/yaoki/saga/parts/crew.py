"""Parts side by side, a bounded number at once.

What has ended and what begins next is written in one go, and a part begins once its beginning is durable; meanwhile the
others go on. No part is looked at twice, however many there are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from yaoki import runtime
from yaoki.saga.records import Failure, Kind, Record

if TYPE_CHECKING:
    from yaoki.saga.driver import Driver

_NOT_BEGUN = msgspec.json.encode(Failure("NotBegun", "the run was to be undone before it was begun", attempts=0))
_PASSED = msgspec.json.encode(Failure("Passed", "another was first", in_doubt=True))


class Job:
    """One part to be made or undone.

    Attributes:
        name: `step/part`. run: makes its attempts.
        begins: is its beginning to be recorded? given: JSON, what it begins with.
    """

    __slots__ = ("begins", "given", "name", "run")

    def __init__(self, name: str, run: Callable[[], Awaitable[Record | None]], *, begins: bool = False, given: bytes = b"") -> None:
        self.name = name
        self.run = run
        self.begins = begins
        self.given = given


class Crew:
    """Works on jobs until none is left, or enough has happened.

    Args:
        size: how many at once.
        enough: asked before anything is begun: begin nothing more?
        first: one that is done is enough, and those under way are given up: cancelled, and in doubt.

    Attributes:
        failures, successes: how many have failed, or are done, here.
        blocked: what needs a person; not written here.
        handed_over: was something left as it is, because the program is stopping?
    """

    def __init__(self, driver: Driver, jobs: Iterable[Job], size: int, enough: Callable[[], bool], *, first: bool = False) -> None:
        self._driver = driver
        self._jobs = deque(jobs)
        self._size = size
        self._enough = enough
        self._first = first
        self._running: dict[asyncio.Task[Record | None], Job] = {}
        self._ended: list[asyncio.Task[Record | None]] = []
        self._records: list[Record] = []
        self._woken = asyncio.Event()
        self.failures = self.successes = 0
        self.blocked: list[Record] = []
        self.handed_over = False

    async def work(self) -> None:
        """Raises what the journal raises; then, as when this is cancelled, what is under way goes with it, in doubt."""
        try:
            while True:
                fresh = self._next_jobs()
                await self._write(fresh)
                self._begin(fresh)
                if self._records:
                    continue
                if not self._running:
                    break
                await self._woken.wait()
                self._woken.clear()
                self._collect()
        finally:
            await self._abandon()

    def _next_jobs(self) -> list[Job]:
        fresh: list[Job] = []
        while self._jobs and len(self._running) + len(fresh) < self._size and not self._is_over():
            fresh.append(self._jobs.popleft())
        return fresh

    def _is_over(self) -> bool:
        return bool(self.blocked) or self.handed_over or self._driver.is_stopping() or self._enough()

    async def _write(self, fresh: list[Job]) -> None:
        now = runtime.unix_time()
        begins = [Record(Kind.STARTED, job.name, job.given, now) for job in fresh if job.begins]
        records, self._records = [*self._records, *begins], []
        if records:
            await self._driver.write(*records)

    def _begin(self, fresh: list[Job]) -> None:
        if fresh and self._is_over():  # since their beginnings were sent to the journal
            if self._enough():  # else they are begun again later on
                self._records += [Record(Kind.FAILED, job.name, _NOT_BEGUN, runtime.unix_time()) for job in fresh if job.begins]
            return
        for job in fresh:
            task = runtime.spawn(self._run(job), name=f"yaoki-{job.name}")
            self._running[task] = job
            task.add_done_callback(self._has_ended)

    async def _run(self, job: Job) -> Record | None:
        return await job.run()

    def _has_ended(self, task: asyncio.Task[Record | None]) -> None:
        self._ended.append(task)
        self._woken.set()

    def _collect(self) -> None:
        ended, self._ended = self._ended, []
        won = False
        for task in ended:
            job = self._running.pop(task)
            record = self._passed(job) if task.cancelled() else task.result()
            if record is None:
                self.handed_over = True
            elif record.kind is Kind.BLOCKED:
                self.blocked.append(record)
            else:
                self._records.append(record)
                self.failures += record.kind is Kind.FAILED
                self.successes += record.kind is Kind.DONE
                won = won or record.kind is Kind.DONE
        if won and self._first:
            for task in self._running:
                task.cancel()

    def _passed(self, job: Job) -> Record:
        return Record(Kind.FAILED, job.name, _PASSED, runtime.unix_time())

    async def _abandon(self) -> None:
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
