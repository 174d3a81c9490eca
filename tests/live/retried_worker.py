"""The workers that `test_retried_crash.py` kills: they retry runs from steps in place, over and over, until they come to their gate.

    python retried_worker.py FOLDER JOURNAL_URL RUNS

Each line that it reads is one worker's life, and is answered by a line when that is over (`{"pid": 4711, "exit": -9}`):

    {"place": "after undo", "nth": 3, "seed": 7}   retries, and dies by SIGKILL the third time that it has undone something
    {"place": "", "seed": 8}                       retries no more, and ends when all runs have ended

A life is a fork of this process, so that it costs no start of Python. A gate only counts what is done to a run that is being taken
back or made anew, and a worker goes on retrying until it has come to its own: so each kill is in the midst of a retry.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import msgspec

import yaoki
from yaoki import DeclinedError, Effect, InDoubtError, Saga
from yaoki.app import App, Run
from yaoki.errors import RetryFromError
from yaoki.saga.journal.port import Append

FOLDER, URL, RUNS = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
STEPS = ("hotel", "flight", "bags", "seat", "approval")

# Nobody waits so long: then a gate was not come to, which is an error.
TOO_LONG_S = 120


class Life(msgspec.Struct):
    place: str
    nth: int = 1
    seed: int = 0


class Gate:
    """Where a worker dies. `passes` is called wherever it could."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._left = life.nth
        self.app: App | None = None

    def passes(self, place: str, *, retried: bool) -> None:
        self._left -= retried and place == self._life.place
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)

    def is_retried(self, run: str | int) -> bool:
        """Is this run being taken back, or made anew? run: its id, or its number."""
        assert self.app is not None
        machine = next((each.machine for each in self.app.engine.floor.drivers.values() if run in {each.header.id, each.header.no}), None)
        return machine is not None and (machine.rewinding is not None or bool(machine.rounds))


class Service:
    """Do and undo by key, each once; a do after its undo is refused. Its database, one for all, is what the test reads in the end."""

    def __init__(self) -> None:
        self.gate = Gate(Life(""))
        self.rng = random.Random()
        self._db: sqlite3.Connection | None = None

    def begin(self, life: Life) -> None:
        """In the forked process, for a connection must not come along."""
        self.gate, self.rng = Gate(life), random.Random(life.seed)
        self._db = sqlite3.connect(FOLDER / "service.db", isolation_level=None, timeout=60.0)
        self._db.execute("PRAGMA synchronous = OFF")

    async def do(self, effect: Effect) -> str:
        await self._call(effect, "do", "INSERT INTO effect VALUES (?, 'done') ON CONFLICT (key) DO UPDATE SET state = state RETURNING state")
        return effect.key

    async def undo(self, effect: Effect) -> None:
        await self._call(effect, "undo", "INSERT INTO effect VALUES (?, 'undone') ON CONFLICT (key) DO UPDATE SET state = 'undone' RETURNING state")

    async def _call(self, effect: Effect, what: str, statement: str) -> None:
        await asyncio.sleep(self.rng.random() * 0.002)
        retried = self.gate.is_retried(effect.run)
        self.gate.passes(f"before {what}", retried=retried)
        assert self._db is not None
        self._db.execute("BEGIN IMMEDIATE")
        ((state,),) = self._db.execute(statement, (effect.key,)).fetchall()
        refused = what == "do" and state == "undone"
        self._db.execute("INSERT INTO call (key, what) VALUES (?, ?)", (effect.key, "refused" if refused else what))
        self._db.execute("COMMIT")
        self.gate.passes(f"after {what}", retried=retried)
        if refused:
            raise DeclinedError("it was undone already")
        if effect.attempt == 1 and self.rng.random() < 0.2:  # the second attempt gets its answer, so that no run is undone for that
            raise InDoubtError("the answer was lost")


service = Service()
trip = Saga("trip", input=int, brake=None)


async def do(n: int, effect: Effect) -> str:
    return await service.do(effect)


async def do_item(n: int, item: int, effect: Effect) -> str:
    return await service.do(effect)


async def undo(n: int, effect: Effect) -> None:
    await service.undo(effect)


async def undo_item(n: int, item: int, effect: Effect) -> None:
    await service.undo(effect)


trip.step(name="hotel", undo=undo)(do)
trip.step(name="flight", undo=undo)(do)
trip.step(name="bags", each=lambda n: [0, 1], after="flight", undo=undo_item)(do_item)
trip.step(name="seat", after="flight", undo=undo)(do)
trip.wait_for(str, name="approval", after=["hotel", "bags", "seat"])(lambda n: None)


@trip.step(pivot=True)
async def payment(n: int, approval: str, effect: Effect) -> str:
    if n % 3 == 0:
        raise DeclinedError("card declined")
    return await service.do(effect)


trip.step(name="mail", after="payment")(do)


# ── a life ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def live(life: Life) -> None:
    service.begin(life)
    async with yaoki.open(URL, sagas=[trip], concurrency=RUNS) as app:
        service.gate.app = app
        watch_commits(app, service.gate)
        runs = [await app.start(trip, n, id=f"run-{n}") for n in range(RUNS)]
        if life.place:
            await asyncio.wait_for(asyncio.gather(*(retry_for_ever(run) for run in runs)), TOO_LONG_S)
        await asyncio.wait_for(asyncio.gather(*(end(run) for run in runs)), TOO_LONG_S)


def watch_commits(app: App, gate: Gate) -> None:
    """Have the gate in each commit of a record too."""
    append = app.journal.append

    async def watched(entry: Append) -> None:
        kinds, retried = [record.kind.value for record in entry.records], gate.is_retried(entry.run)
        for kind in kinds:
            gate.passes(f"before the record {kind}", retried=retried)
        given = append(entry)
        for kind in kinds:
            gate.passes(f"giving the record {kind}", retried=retried)
        await given
        for kind in kinds:
            gate.passes(f"after the record {kind}", retried=retried)

    app.journal.append = watched  # type: ignore[method-assign]


async def retry_for_ever(run: Run) -> None:
    """A person who is never content."""
    while True:
        try:
            await run.retry(from_=service.rng.choice(STEPS), who="torture")
        except RetryFromError:  # it is being taken back, or has not come so far
            pass
        await asyncio.sleep(service.rng.random() * 0.02)


async def end(run: Run) -> None:
    """Answer what it waits for, each time: an answer to a question that a retry takes back is none."""
    ended = asyncio.ensure_future(run.wait())
    while not ended.done():
        await run.signal("approval", "yes")
        await asyncio.wait([ended], timeout=0.05)
    await ended


# ── the process that is forked ───────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    for line in sys.stdin:
        answer: dict[str, Any] = {"pid": spawned(msgspec.json.decode(line, type=Life))}
        _, status = os.waitpid(answer["pid"], 0)
        answer["exit"] = os.waitstatus_to_exitcode(status)
        print(msgspec.json.encode(answer).decode(), flush=True)


def spawned(life: Life) -> int:
    pid = os.fork()
    if not pid:
        code = 1
        try:
            asyncio.run(live(life))
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


if __name__ == "__main__":
    main()
