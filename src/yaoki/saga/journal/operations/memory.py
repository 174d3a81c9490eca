"""Pauses, attributes, the operators' log and queues of a journal in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from yaoki import runtime
from yaoki.saga.attributes import Attributes
from yaoki.saga.journal.operations import PAUSED_UNTIL, Operation, Pause, set_by_hand, told
from yaoki.saga.journal.queues import QueueState
from yaoki.saga.journal.queues.one_owner import Kept, Lane, Turns, said
from yaoki.saga.queue import Due, Queue
from yaoki.saga.records import Header, RunState

if TYPE_CHECKING:
    from yaoki.saga.journal.port import Ask, NewRun

T = TypeVar("T")


class Desk:
    """What a journal in memory keeps besides runs."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.log: list[Operation] = []
        self.lanes: dict[int, Lane] = {}  # of runs that wait in queues, by their numbers
        self.attributes: dict[int, Attributes] = {}


class MemoryOperations:
    """What it reads of the journal is declared here."""

    _desk: Desk
    _headers: dict[int, Header]
    _numbers: dict[str, int]
    _parked: dict[int, float]
    _taken: set[int]

    async def _beside(self, what: str, write: Callable[[], T]) -> T:
        del what
        return write()

    if TYPE_CHECKING:

        def now(self) -> float: ...

    async def request(self, run_id: str, kind: str, data: bytes, at: float) -> None:
        raise NotImplementedError

    # ── operators ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def request_many(self, asked: Sequence[Ask], at: float) -> None:
        for each in asked:
            await self.request(each.run, each.kind, each.data, at)

    def _log_request(self, asked: Ask, at: float) -> None:
        if (line := told(asked, at)) is not None:
            self._log(line)

    def _log(self, line: Operation) -> None:
        self._desk.log.append(msgspec.structs.replace(line, no=len(self._desk.log) + 1, at=line.at or runtime.unix_time()))

    async def log_operation(self, operation: Operation) -> None:
        self._log(operation)

    async def operations(self, *, kind: str = "", name: str = "", before_no: int = 0, limit: int = 50) -> list[Operation]:
        return [line for line in reversed(self._desk.log) if kind in {"", line.kind} and name in {"", line.name}
                and (not before_no or line.no < before_no)][:limit]

    async def news(self) -> int:
        return len(self._desk.log)

    async def pause(self, kind: str, name: str, *, who: str = "", why: str = "") -> bool:
        turns = self._desk.turns
        if any((each.kind, each.name) == (kind, name) for each in turns.pauses):
            return False
        turns.pauses.append(Pause(kind, name, runtime.unix_time(), who, why))
        self._log(Operation("pause", kind, name, who, why))
        return True

    async def resume(self, kind: str, name: str, *, who: str = "", why: str = "") -> bool:
        turns = self._desk.turns
        left = [each for each in turns.pauses if (each.kind, each.name) != (kind, name)]
        if len(left) == len(turns.pauses):
            return False
        turns.pauses = left
        await self.free_paused()
        self._log(Operation("resume", kind, name, who, why))
        return True

    async def pauses(self) -> list[Pause]:
        pauses = self._desk.turns.pauses
        return sorted(pauses, key=lambda each: (each.kind, each.name)) if pauses else []

    async def free_paused(self) -> int:
        if not self._parked:
            return 0
        paused = {(each.kind, each.name) for each in self._desk.turns.pauses}
        freed = 0
        for no in [no for no, until in self._parked.items() if until == PAUSED_UNTIL]:
            header, lane = self._headers[no], self._desk.lanes.get(no, ("", "default", 0, ""))
            if not paused & {("run", header.id), ("saga", header.saga), ("queue", lane[1])}:
                self._parked[no] = self.now()
                freed += 1
        return freed

    async def attributes(self, numbers: Sequence[int]) -> dict[int, dict[str, str]]:
        return {no: dict(self._desk.attributes[no]) for no in numbers if no in self._desk.attributes}

    async def blocked(self) -> list[tuple[str, int, float]]:
        found: dict[str, list[float]] = {}
        for header in self._headers.values():
            if header.state is RunState.BLOCKED:
                found.setdefault(header.saga, []).append(header.updated_at)
        return [(saga, len(since), min(since)) for saga, since in sorted(found.items())]

    # ── queues ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def look_at(self) -> float:
        return self._desk.turns.look_at

    def _place(self, no: int, run: NewRun) -> None:
        """A run that does not begin at once waits in a queue, unless it is a plain one and plain ones have no limits."""
        plain = (run.queue, run.priority, run.tenant) == ("default", 5, "")
        if not plain or (not run.keep and "default" in self._desk.turns.queues):
            self._desk.lanes[no] = (run.saga, run.queue, run.priority, run.tenant)

    def _take_from_queues(self, wanted: int) -> list[int]:
        desk, now = self._desk, self.now()
        waiting: dict[Lane, list[int]] = {}
        for no, lane in desk.lanes.items():
            header = self._headers[no]
            if (no not in self._taken and self._parked.get(no, 0.0) <= now and not desk.turns.is_paused(lane)
                    and header.state in {RunState.RUNNING, RunState.UNDOING}):
                waiting.setdefault(lane, []).append(no)
        lanes = list(waiting)
        due = [Due(i, lane[1], lane[2], min(wanted, len(waiting[lane]))) for i, lane in enumerate(lanes)]
        found: list[int] = []
        for i, count in desk.turns.deal(due, wanted, now).items():
            numbers = waiting[lanes[i]][:count]
            desk.turns.take(numbers, lanes[i][1], now)
            found += numbers
        return found

    async def declare(self, queues: Sequence[Queue]) -> None:
        known = self._desk.turns.queues
        for queue in queues:
            if queue.name not in known or known[queue.name].declared != said(queue):
                known[queue.name] = Kept(queue, declared=said(queue))

    async def limited(self) -> set[str]:
        queues = self._desk.turns.queues
        return {name for name, kept in queues.items() if kept.queue.is_limited} if queues else set()

    async def set_queue(self, queue: Queue, *, who: str = "", why: str = "") -> None:
        known = self._desk.turns.queues.get(queue.name)
        self._desk.turns.queues[queue.name] = Kept(queue, known.tat if known else 0.0, known.declared if known else "", by_hand=True)
        self._log(set_by_hand(queue, who, why))

    async def queue_states(self) -> list[QueueState]:
        turns, desk = self._desk.turns, self._desk
        paused = {each.name for each in turns.pauses if each.kind == "queue"}
        names = {*turns.queues, *paused, *(lane[1] for lane in desk.lanes.values())}
        found = []
        for name in sorted(names):
            kept = turns.queues.get(name, Kept(Queue(name)))
            waiting = sum(lane[1] == name and no not in self._taken and not self._headers[no].state.is_end
                          and (self._parked.get(no, 0.0) <= self.now() or self._parked[no] == PAUSED_UNTIL)
                          for no, lane in desk.lanes.items())
            found.append(QueueState(kept.queue, turns.count(name), waiting, name in paused, kept.by_hand))
        return found
