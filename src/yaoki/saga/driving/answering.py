"""What is asked of a run in memory: by people, by its deadline, by its family. Honoured one after the other, at the next step boundary."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec

from yaoki import runtime
from yaoki.errors import RetryFromError
from yaoki.saga.child import heard
from yaoki.saga.driving.resting import Resting
from yaoki.saga.journal.operations import Operation
from yaoki.saga.journal.port import Append
from yaoki.saga.naming import now_called
from yaoki.saga.outside.external import take_in
from yaoki.saga.records import Abort, Kind, Record, Resolution, Retried, RunState
from yaoki.saga.rewinding import Retry, retried
from yaoki.saga.undoing import as_a_whole

_encode = msgspec.json.encode


class Answering(Resting):
    """The part of a driver that listens."""

    def ask(self, kind: str, data: Any, no: int = 0) -> None:
        """Take in a request: `cancel` (an `Abort`) or `resolve` (step, `Resolution`). Honoured at the next step boundary."""
        self._asked.append((kind, data, no))
        self.wake()

    @property
    def unanswered(self) -> list[int]:
        """Numbers of the requests that came too late for this driver, or in whose midst it was stopped."""
        return [no for no in (self._in_hand, *(no for _, _, no in self._asked)) if no]

    async def _answer(self) -> None:
        """One after the other, and as long as the run is here: what is left keeps it from being given back between two of them."""
        while self._asked and not self._let_go:
            kind, data, no = self._asked.pop(0)
            self._in_hand = no
            if kind == "cancel":
                await self._cancel(data)
            elif kind == "signal":
                await self._signal(*data)
            elif kind == "child":
                if (heard_of := heard(self.machine, self.header.id, data, runtime.unix_time())) is not None:
                    await self.write(heard_of)
            elif kind == "undo":
                await self._undo_as_a_whole(data)
            elif kind == "complete":
                await take_in(self, data)
            elif kind == "resolve":
                await self._resolve(*data)
            elif kind == "retry":
                await self._retry(data)
            elif kind == "wake" and self.locks is not None:
                self.locks.look_again()
            self._in_hand = 0
            if no:
                self._answered(no)

    # ── undoing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _cancel(self, abort: Abort) -> None:
        started = self._started()
        if self.machine.abort or self.machine.state.is_end or self.machine.too_late(started):
            return
        await self.write(self._abort(msgspec.structs.replace(abort, started=started)))

    async def _undo_as_a_whole(self, abort: Abort) -> None:
        """The run that started this one undoes itself, or a person wants it: now, or, past the pivot, as soon as this one is completed."""
        machine, started = self.machine, self._started()
        if machine.abort or machine.undo_asked:
            return
        if (stay := self._would_stay(started)) and not abort.past_pivot:  # looked at when it was asked for; it has gone on since
            await self._refuse("undo", {"refused": f"something would stay of {', '.join(stay)}"}, why=abort.reason)
        elif machine.state is RunState.COMPLETED:
            await self.write(self._abort(as_a_whole(abort, stay)))
        elif machine.too_late(started):
            await self.write(Record(Kind.UNDO_ASKED, "", _encode(abort), runtime.unix_time()))
        else:
            await self.write(self._abort(msgspec.structs.replace(abort, started=started)))

    def _set_deadline(self) -> None:
        if self.header.deadline_at and not self.machine.abort:
            left = max(0.0, self.header.deadline_at - self.now())
            late = Abort(f"the run's deadline passed ({self.saga.deadline:g} s)" if self.saga.deadline else "deadline passed")
            if left:
                self._deadline = asyncio.get_running_loop().call_later(left, self.ask, "cancel", late)
            else:
                self.ask("cancel", late)

    # ── retrying from a step ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _retry(self, asked: Retry) -> None:
        """It was looked at when it was asked for; the run may have gone on since. Then the operators' log says why it was not done."""
        try:
            record = retried(self.machine, asked, self._started(), self.now())
        except RetryFromError as error:
            await self._refuse("retry", {"step": asked.step, "refused": str(error)}, who=asked.who, why=asked.why)
        else:
            if record is not None:
                await self.write(record)

    async def _refuse(self, what: str, data: dict[str, str], *, who: str = "", why: str = "") -> None:
        await self.journal.log_operation(Operation(f"refuse {what}", "run", self.header.id, who, why, msgspec.Raw(_encode(data))))

    def _retry_of(self, name: str) -> tuple[Record, int] | None:
        """The record by which a request that is still to be answered takes this step back, and the request's number."""
        for kind, data, no in self._asked:
            if kind == "retry":
                with contextlib.suppress(RetryFromError):
                    record = retried(self.machine, data, (*self._started(), name), self.now())
                    if record is not None and name in msgspec.json.decode(record.data, type=Retried).steps:
                        return record, no
        return None

    @property
    def gives_up(self) -> bool:
        """Is there no point in another attempt of a do, because the run is going to undo itself?"""
        return self.machine.abort is not None or any(kind in {"cancel", "undo"} for kind, _, _ in self._asked)

    def gives_up_on(self, name: str, *, forward: bool) -> bool:
        """The same of one step, which may also be taken back alone. forward: it can only be made, as things are."""
        return (self.gives_up and not forward) or self._is_taken_back(name.partition("/")[0])

    def _is_taken_back(self, name: str) -> bool:
        rewinding = self.machine.rewinding
        if rewinding is not None:
            return self.machine.graph.index[name] in rewinding.numbers
        return self._retry_of(name) is not None

    # ── deciding and answering ───────────────────────────────────────────────────────────────────────────────────────────

    async def _resolve(self, step: str, resolution: Resolution) -> None:
        number = self.machine.graph.index.get(step, -1)
        if number not in self.machine.blocked:
            return
        if wrong := self._misfit(step, resolution):
            reason = f"{step} needs a person: the result that was given is not what it returns: {wrong}"
            await self.journal.append(Append(self.header.no, self._seq, (), RunState.BLOCKED, b"", reason, self.now()))
        else:
            await self.write(Record(Kind.RESOLVED, step, _encode(resolution), runtime.unix_time()))

    def _misfit(self, step: str, resolution: Resolution) -> str:
        """Why the result that a person gave is not what the step returns, or "". In the history it would stop every later start."""
        if resolution.decision == "done" and not self.machine.is_undone_now(step):
            try:
                self.saga.steps[step].result.decode(bytes(resolution.result))
            except msgspec.ValidationError as error:
                return str(error)
        return ""

    async def _signal(self, step: str, data: bytes) -> None:
        """Nobody waits for a signal of another name, and after an abort nobody waits at all."""
        step = now_called(self.machine, step)  # it may have been asked by the name that it had
        number = self.machine.graph.index.get(step, -1)
        if number >= 0 and self.machine.graph.nodes[number].waits == "signal" and self.machine.abort is None:
            await self.write(Record(Kind.SIGNAL, step, data, runtime.unix_time()))
