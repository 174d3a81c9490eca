"""What people ask of runs: cancel, resolve, signal. A request is a row, and is removed once its run has recorded what came of it.

    request ──durable──▶ handed to the run's driver ──its record is durable──▶ carried out: the row goes
                              └─ not in memory: the run is taken up for it
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki import runtime
from yaoki.errors import JournalError, RunNotFoundError, UsageError
from yaoki.saga import codec
from yaoki.saga.driver import Driver
from yaoki.saga.family import UNDO
from yaoki.saga.journal.port import Request
from yaoki.saga.outside.completing import Completed
from yaoki.saga.records import Abort, Resolution, RunState
from yaoki.saga.rewinding import Retry
from yaoki.saga.waiting import check_answer

if TYPE_CHECKING:
    from yaoki.saga.engine.engine import Engine

log = logging.getLogger("yaoki.saga")


class Requests:
    """The requests of one engine: which a driver has, and which are answered."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.handed: set[int] = set()  # those that a driver has, and has not answered yet
        self._answered: list[int] = []
        # What was read of a run must not be begun after somebody else has taken it up for a request, and gone on with it.
        self.taking = asyncio.Lock()
        self._foreign: set[int] = set()  # for runs whose saga this engine does not have

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def cancel(self, run_id: str, reason: str, who: str) -> None:
        await self.ask(run_id, "cancel", msgspec.json.encode({"reason": reason, "who": who}))

    async def resolve(self, run_id: str, step: str, decision: str, result: Any, *, who: str, why: str) -> None:
        if decision not in {"retry", "done", "undone"}:
            raise UsageError(f"a blocked step is resolved as 'retry', 'done' or 'undone', not {decision!r}",
                             do="see `yk help YK-4002`")
        decided = {"step": step, "decision": decision, "result": msgspec.Raw(codec.encode(result)), "who": who, "why": why}
        await self.ask(run_id, "resolve", msgspec.json.encode(decided))

    async def signal(self, run_id: str, name: str, answer: Any, who: str) -> None:
        found = await self._engine.journal.headers([run_id])
        if not found:
            raise RunNotFoundError(f"there is no run {run_id!r}", do="check the id: `yk runs list`", run_id=run_id)
        data = codec.encode(answer)
        saga = self._engine.sagas.get(found[0].saga)
        if saga is not None:
            check_answer(saga, name, data)
        asked = {"name": name, "answer": msgspec.Raw(data), "who": who}
        await self.ask(run_id, "signal", msgspec.json.encode(asked))

    async def ask(self, run_id: str, kind: str, data: bytes) -> None:
        """Ask something of a run: durable when it returns."""
        await self._engine.journal.request(run_id, kind, data, runtime.unix_time())
        await self.carry_out()

    # ── carrying out ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def pending(self) -> bool:
        """Are there answered requests whose rows are still to be removed?"""
        return bool(self._answered)

    def carried_out(self, no: int) -> None:
        """What came of this request is durable."""
        self._answered.append(no)

    def hand_out_again(self, numbers: Iterable[int]) -> None:
        self.handed.difference_update(numbers)

    def hand_out(self, request: Request) -> bool:
        """Hand a request to its run's driver. False when it is not in memory."""
        driver = self._engine.floor.drivers.get(request.run)
        if driver is not None and request.no not in self.handed:
            self.handed.add(request.no)
            try:
                _hand(driver, request)
            except msgspec.DecodeError as error:
                self._drop(request, error)
        return driver is not None

    def _drop(self, request: Request, error: msgspec.DecodeError) -> None:
        """It was written by somebody's SQL, say. Nobody will ever be able to carry it out, and those behind it are not to wait for that."""
        log.error("what is asked of run %s (%s) cannot be read, and is dropped: %s", request.run, request.kind, error)
        self._answered.append(request.no)

    async def carry_out(self) -> None:
        """Hand requests to the runs they are for."""
        async with self.taking:
            await self._carry_out()

    async def _carry_out(self) -> None:
        for request in await self._engine.journal.requests():
            if request.no in self.handed or request.no in self._foreign:
                continue
            try:
                if await self._is_done(request):
                    self._answered.append(request.no)
            except msgspec.DecodeError as error:
                self._drop(request, error)
        await self._remove_rows()

    async def _is_done(self, request: Request) -> bool:
        """Carry this one out, or hand it to who does. True: nothing is left to do."""
        if request.kind == "fork":
            if await self._engine.forks.carry_out(request):
                return True
            self._foreign.add(request.no)
            return False
        if request.kind == "resume":
            self._engine.intake.release_brake(msgspec.json.decode(request.data, type=_Resume).saga)
            return True
        return await self._take_up(request) and not self.hand_out(request) and await self._is_over(request)

    async def _remove_rows(self) -> None:
        if self._answered:
            answered = list(self._answered)
            await self._engine.journal.carried_out(answered)  # should that fail, the next look does it
            del self._answered[:len(answered)]
            self.handed.difference_update(answered)

    async def _take_up(self, request: Request) -> bool:
        """Have the run in memory, if there is something to drive. False: it is for an engine that has this saga's code."""
        engine = self._engine
        if request.run in engine.floor.drivers:
            return True
        life = engine.lives
        stored = await engine.journal.take_one(request.run)
        if stored is None and request.kind == "undo":
            stored = await engine.journal.take_ended(request.run)
        if life != engine.lives:
            engine.floor.give_back([stored] if stored is not None else [])
            return False
        if stored is not None and stored.header.saga not in engine.sagas:
            engine.journal.release(stored.header.no)
            self._foreign.add(request.no)
            return False
        if stored is not None and request.run not in engine.floor.drivers:
            engine.floor.begin(stored)
        return True

    async def _is_over(self, request: Request) -> bool:
        """Is there no such run, or has it ended? Else another worker has taken it in this moment, or it cannot be driven here."""
        engine = self._engine
        if request.run in engine.floor.unfit:
            self._foreign.add(request.no)
            return False
        found = await engine.journal.headers([request.run])
        # A completed run may still be undone as a whole, if not by us.
        return not found or (found[0].state.is_end and not (request.kind == "undo" and found[0].state is RunState.COMPLETED))

    async def tick_off(self) -> None:
        """Before closing: else people would be told that their decision still waits."""
        if self._answered:
            with contextlib.suppress(JournalError):
                await self._remove_rows()

    def forget(self) -> None:
        """Another owner has the runs, and their requests with them."""
        self.handed.clear()
        self._answered.clear()


class _Signal(msgspec.Struct):
    name: str
    answer: msgspec.Raw = msgspec.Raw(b"null")
    who: str = ""


class _Cancel(msgspec.Struct):
    reason: str = ""
    who: str = ""


class _Resume(msgspec.Struct):
    saga: str


class _Resolve(msgspec.Struct):
    step: str
    decision: str
    result: msgspec.Raw = msgspec.Raw(b"null")
    who: str = ""
    why: str = ""


def _hand(driver: Driver, request: Request) -> None:
    if request.kind == "resolve":
        asked = msgspec.json.decode(request.data, type=_Resolve)
        driver.ask("resolve", (asked.step, Resolution(asked.decision, asked.result, asked.who, asked.why)), request.no)
    elif request.kind == "retry":
        driver.ask("retry", msgspec.json.decode(request.data, type=Retry), request.no)
    elif request.kind == "signal":
        signal = msgspec.json.decode(request.data, type=_Signal)
        driver.ask("signal", (signal.name, bytes(signal.answer)), request.no)
    elif request.kind == "complete":
        driver.ask("complete", msgspec.json.decode(request.data, type=Completed), request.no)
    elif request.kind == "wake":  # what it waited for may be there
        driver.ask("wake", None, request.no)
    elif request.kind == "child":
        driver.ask("child", request.data, request.no)
    elif request.kind == "undo":
        undo = UNDO.decode(request.data)
        driver.ask("undo", Abort(undo.said, cancelled=undo.person, past_pivot=undo.past_pivot), request.no)
    elif request.kind == "cancel":
        cancel = msgspec.json.decode(request.data, type=_Cancel)
        by = f" by {cancel.who}" if cancel.who else ""
        driver.ask("cancel", Abort(f"{cancel.reason or 'cancelled'}{by}", cancelled=True), request.no)
