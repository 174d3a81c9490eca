"""Queues with limits, and pauses, of the simulated journal that several workers share.

A model of `yaoki.saga.journal.queues.postgres`: a claim from limited queues is a statement of its own, before the claim from all others;
a place stands as long as its run is under way with the worker that took it; what is paused is in no claim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import TypeVar

from yaoki import runtime
from yaoki.errors import JournalError
from yaoki.explore.journal import Platter, SimJournal, at_once
from yaoki.saga.journal.operations import PAUSED_UNTIL
from yaoki.saga.journal.queues import QueueState
from yaoki.saga.journal.queues.one_owner import Lane
from yaoki.saga.queue import Due, Queue, Usage, admit, deal, taken_up

T = TypeVar("T")

LIMITED, PAUSED = 1, 2


class QueuedPlatter(Platter):
    """What is durable besides runs: who has a place in which queue.

    Attributes:
        owners: the worker's number, by the run's.
        places: the queue and the worker that took it, by the run's number.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.owners: dict[int, int] = {}
        self.places: dict[int, tuple[str, int]] = {}

    def digest_of_queues(self) -> object:
        """Nothing at all where nobody uses queues or pauses."""
        desk = self.kept._desk
        if not (desk.lanes or desk.turns.queues or desk.turns.pauses or desk.log):
            return ()
        return (sorted(desk.lanes.items()), sorted(self.standing().items()), [(each.kind, each.name) for each in desk.turns.pauses],
                [(name, kept.queue.limits(), kept.tat) for name, kept in sorted(desk.turns.queues.items())], len(desk.log))

    def lane_of(self, no: int) -> Lane:
        header = self.kept._headers[no]
        return self.kept._desk.lanes.get(no, (header.saga, "default", 5, ""))

    def gate_of(self, no: int) -> int:
        """0: anybody may take it. LIMITED: if there is a place. PAUSED: nobody."""
        turns, lane = self.kept._desk.turns, self.lane_of(no)
        if turns.is_paused(lane):
            return PAUSED
        kept = turns.queues.get(lane[1])
        return LIMITED if kept is not None and kept.queue.is_limited else 0

    def standing(self) -> dict[int, tuple[str, int]]:
        """The places that count: their run is under way with the worker that took it."""
        headers = self.kept._headers
        return {no: place for no, place in self.places.items()
                if self.owners.get(no) == place[1] and not headers[no].state.is_end and headers[no].state.value != "blocked"}

    def room(self, free: Sequence[int], worker: int, wanted: int, now: float) -> tuple[dict[str, float], float]:
        """How many runs of each of these limited queues may begin now with this worker, and when to look again."""
        queues, standing = self.kept._desk.turns.queues, self.standing()
        left: dict[str, float] = {}
        look_at = inf
        for name in sorted({self.lane_of(no)[1] for no in free}):
            used = [owner for queue, owner in standing.values() if queue == name]
            admission = admit(queues[name].queue, Usage(len(used), used.count(worker), queues[name].tat), now, wanted)
            left[name], look_at = admission.count, min(look_at, admission.again_at)
        return left, look_at

    def admitted(self, free: Sequence[int], worker: int, wanted: int, now: float) -> list[int]:
        """Which of these runs of limited queues begin now with this worker: they have their places."""
        queues = self.kept._desk.turns.queues
        left, _ = self.room(free, worker, wanted, now)
        self.places = self.standing()
        lanes: dict[Lane, list[int]] = {}
        for no in free:
            lanes.setdefault(self.lane_of(no), []).append(no)
        order = list(lanes)
        shares = deal([Due(i, lane[1], lane[2], min(wanted, len(lanes[lane]))) for i, lane in enumerate(order)], left, wanted, runtime.rng())
        found: list[int] = []
        for i, count in sorted(shares.items()):
            taken, queue = lanes[order[i]][:count], queues[order[i][1]]
            queue.tat = taken_up(queue.queue, queue.tat, now, len(taken))
            self.places.update(dict.fromkeys(taken, (order[i][1], worker)))
            found += taken
        return sorted(found)


class SharedQueues(SimJournal):
    """What an operator does, as statements at which a worker can die; whoever asks later sees it."""

    table: QueuedPlatter

    def _is_free(self, no: int) -> bool:
        raise NotImplementedError

    def _free_behind(self, gate: int) -> Iterable[int]:
        return (no for no in self._headers if self._is_free(no) and self.table.gate_of(no) == gate)

    async def _said(self, what: str, work: Callable[[], T]) -> T:
        """A statement of its own, beside the batches of records."""
        try:
            return await self._beside(what, work)
        except OSError as error:
            raise JournalError(f"the journal did not answer: {error}", do="nothing: it is asked again") from error

    async def pause(self, kind: str, name: str, *, who: str = "", why: str = "") -> bool:
        def work() -> bool:
            no = self._numbers.get(name) if kind == "run" else None
            if no is not None and self._is_free(no):
                self._parked[no] = PAUSED_UNTIL
            return at_once(super(SharedQueues, self).pause(kind, name, who=who, why=why))

        return await self._said("pause", work)

    async def resume(self, kind: str, name: str, *, who: str = "", why: str = "") -> bool:
        return await self._said("resume", lambda: at_once(super(SharedQueues, self).resume(kind, name, who=who, why=why)))

    async def set_queue(self, queue: Queue, *, who: str = "", why: str = "") -> None:
        await self._said("set", lambda: at_once(super(SharedQueues, self).set_queue(queue, who=who, why=why)))

    async def queue_states(self) -> list[QueueState]:
        turns, standing = self._desk.turns, self.table.standing()
        paused = {each.name for each in turns.pauses if each.kind == "queue"}
        lanes = {no: self.table.lane_of(no)[1] for no in self._headers}
        found = []
        for name in sorted({*turns.queues, *paused, *lanes.values()}):
            kept = turns.queues.get(name)
            waiting = sum(lane == name and self._is_free(no) for no, lane in lanes.items())
            found.append(QueueState(kept.queue if kept else Queue(name), sum(queue == name for queue, _ in standing.values()), waiting,
                                    name in paused, kept.by_hand if kept else False))
        return found
