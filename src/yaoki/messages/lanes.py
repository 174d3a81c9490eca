"""Which message may be handled next, and how far a reader has come: pure.

A lane is the messages of one key of one partition, in order; one is under way at a time. Messages without a key have a
lane each. When one has to be tried again, or gave up, what follows in its lane is put `behind` it and stays in the
store; other lanes do not notice.

    offered ──▶ lane ──take──▶ under way ──finish──▶ done, or held
                                             cursor: the last message before which everything is done or held

Safety: two messages of a key are never under way together, and never in another order than the log's.
Liveness: while a lane has a message and there is room, `take` gives one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from yaoki.messages.envelope import Message
from yaoki.messages.store.port import BLOCKING, Entry, Held, Lease, Page, Position, Settlement

LaneId = tuple[int, str | Position]
"""Its partition, and its key; of a message without a key, where it is."""


class _Part:
    """One leased partition: what was read and not finished, in the order of the log."""

    def __init__(self, lease: Lease) -> None:
        self.fence = lease.fence
        self.crashes = lease.crashes
        self.read_to = lease.position
        self.written = lease.position
        self.order: deque[Position] = deque()
        self.finished: set[Position] = set()
        self.blocked: set[str] = set()
        self.skip: set[Position] = set()

    def cursor(self) -> Position:
        """Everything up to here is finished."""
        at = self.written
        while self.order and self.order[0] in self.finished:
            at = self.order.popleft()
            self.finished.remove(at)
        return at if self.order else max(at, self.read_to)


LIMIT_BYTES = 64 * 2**20
"""Enough for a thousand messages of 64 KiB, and little beside what a Python program takes anyway."""
FIRST_READ = 64
"""Messages that are read before it is known how large they are."""


class Lanes:
    """The messages of one group in one worker.

    Args:
        limit: messages in memory at most, waiting or under way.
        limit_bytes: of their data, about: how large the next ones are is guessed from the last. One is always let in.
    """

    def __init__(self, *, limit: int, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit = limit
        self.limit_bytes = limit_bytes
        self._bytes = 0
        self._mean_bytes = limit_bytes / FIRST_READ
        self._parts: dict[int, _Part] = {}
        self._lanes: dict[LaneId, list[Entry]] = {}
        self._ready: deque[LaneId] = deque()
        self._busy: dict[Position, tuple[LaneId, Entry]] = {}
        self._busy_lanes: dict[LaneId, int] = {}
        self._known: set[Position] = set()
        self._decided: set[Position] = set()  # held messages of which the store still shows the past
        self._writing: set[Position] = set()
        self._next = Settlement()
        self._follow: list[tuple[int, Message]] = []
        self._touched: set[int] = set()

    # ── partitions ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def parts(self) -> frozenset[int]:
        return frozenset(self._parts)

    def grant(self, leases: Iterable[Lease]) -> list[int]:
        """Hold these partitions, and no others. Returns the ones that are new."""
        leases = list(leases)
        for part in self.parts - {lease.part for lease in leases}:
            self.revoke(part)
        new = []
        for lease in leases:
            held = self._parts.get(lease.part)
            if held is not None and held.fence != lease.fence:
                self.revoke(lease.part)
                held = None
            if held is None:
                self._parts[lease.part] = _Part(lease)
                new.append(lease.part)
        return new

    def revoke(self, part: int) -> None:
        """Forget a partition and everything of it; what is under way there will be ignored."""
        self._parts.pop(part, None)
        for lane in [each for each in self._lanes if each[0] == part]:
            for entry in self._lanes.pop(lane):
                self._forget(entry)
        self._ready = deque(each for each in self._ready if each[0] != part)
        for entry in [entry for lane, entry in self._busy.values() if lane[0] == part]:
            self._not_busy(entry.position)
            self._forget(entry)
        self._touched.discard(part)
        self._follow = [each for each in self._follow if each[0] != part]
        self._next = Settlement(hold=[row for row in self._next.hold if row.part != part],
                                drop=[row for row in self._next.drop if row[0] != part])

    def forget(self) -> None:
        """Revoke all: after a settlement of which it is not known that it was written, nothing of it may be built upon."""
        for part in self.parts:
            self.revoke(part)

    def block(self, part: int, keys: Iterable[str]) -> None:
        """What the store says of the partition's blocked keys; those of unwritten decisions are added."""
        held = self._parts.get(part)
        if held is not None:
            pending = {row.key for row in self._next.hold if row.part == part and row.state in BLOCKING}
            held.blocked = {*keys, *pending}

    def skip(self, places: Iterable[tuple[int, Position]]) -> None:
        """Held messages that lie beyond their partition's cursor: they are not read from the log a second time."""
        for part, position in places:
            if part in self._parts:
                self._parts[part].skip.add(position)

    def is_idle(self, part: int) -> bool:
        """Is nothing of this partition in memory?"""
        held = self._parts.get(part)
        return held is None or not (held.order or any(lane[0] == part for lane in self._lanes)
                                    or any(lane[0] == part for lane in self._busy_lanes))

    # ── messages in ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def room(self) -> int:
        """How many messages may be read now."""
        by_size = int((self.limit_bytes - self._bytes) / self._mean_bytes)
        return min(self.limit - len(self._known), by_size if self._known else max(1, by_size))

    @property
    def under_way(self) -> int:
        return len(self._busy)

    @property
    def ready(self) -> int:
        """How many messages could be taken now, one after the other."""
        return len(self._ready)

    def after(self, draining: frozenset[int] = frozenset()) -> dict[int, Position]:
        """From where each partition is to be read."""
        return {part: held.read_to for part, held in self._parts.items() if part not in draining}

    def offer(self, page: Page, *, now: float) -> None:
        """Take in what was read."""
        for part, position in page.read_to.items():
            held = self._parts.get(part)
            if held is not None and position > held.read_to:
                held.read_to = position
        if page.entries:
            self._mean_bytes = max(1.0, sum(len(entry.message.data) for entry in page.entries) / len(page.entries))
        for entry in page.entries:
            held = self._parts.get(entry.part)
            if held is None:
                continue
            held.order.append(entry.position)
            if entry.position in held.skip:
                held.skip.remove(entry.position)
                held.finished.add(entry.position)
            elif entry.message.due > now:
                self._hold(entry, _scheduled(entry))
            elif entry.message.key in held.blocked:
                self._hold(entry, _behind(entry))
            else:
                self._queue(entry)

    def offer_held(self, entries: Iterable[Entry]) -> None:
        """Take in held messages whose time has come, each with what waits behind it."""
        for entry in entries:
            stale = entry.position in self._decided or entry.position in self._writing
            if entry.part in self._parts and entry.position not in self._known and not stale:
                self._queue(entry)

    def _queue(self, entry: Entry) -> None:
        lane = (entry.part, entry.message.key or entry.position)
        self._known.add(entry.position)
        self._bytes += len(entry.message.data)
        waiting = self._lanes.get(lane)
        if waiting is None:
            self._lanes[lane] = [entry]
            if lane not in self._busy_lanes:
                self._ready.append(lane)
        else:
            waiting.append(entry)

    # ── messages out ─────────────────────────────────────────────────────────────────────────────────────────────

    def take(self) -> Entry | None:
        """The next message that may be handled beside those under way."""
        if not self._ready:
            return None
        lane = self._ready.popleft()
        waiting = self._lanes[lane]
        entry = waiting.pop(0)
        if not waiting:
            del self._lanes[lane]
        self._now_busy(entry, lane)
        return entry

    def take_batch(self, limit: int) -> list[Entry]:
        """Messages to be handled one after the other in this order, several of a key among them.

        They are the first of the log that are left, so that the cursors can say all of them are done. What commits with
        its mark is then marked exactly: nothing that is done lies behind something that is not.
        """
        waiting = [entry for lane in self._ready for entry in self._lanes[lane]]
        batch = sorted(waiting, key=_held_first)[:limit]
        chosen = {entry.position for entry in batch}
        lanes, self._ready = self._ready, deque()
        for lane in lanes:
            left = [entry for entry in self._lanes[lane] if entry.position not in chosen]
            for entry in self._lanes.pop(lane):
                if entry.position in chosen:
                    self._now_busy(entry, lane)
            if left:
                self._lanes[lane] = left
                if lane not in self._busy_lanes:
                    self._ready.append(lane)
        return batch

    def is_under_way(self, entry: Entry) -> bool:
        """Is it still ours to handle? Not when its partition went, or an earlier one of its batch and key failed."""
        return entry.position in self._busy

    def put_back(self, entries: Sequence[Entry]) -> None:
        """The end of a batch that was not begun: it is taken again, first of its lanes."""
        for entry in reversed(entries):
            lane = self._not_busy(entry.position)
            if lane is None:
                continue
            self._lanes.setdefault(lane, []).insert(0, entry)
            if lane not in self._busy_lanes and lane not in self._ready:
                self._ready.appendleft(lane)

    def crashes(self, part: int) -> int:
        """How many owners of the partition died in a row without getting further, by the last that is known."""
        held = self._parts.get(part)
        return held.crashes if held is not None else 0

    def fence(self, part: int) -> int | None:
        held = self._parts.get(part)
        return held.fence if held is not None else None

    def finish(self, entry: Entry, held: Held | None = None, publish: Sequence[Message] = (), *, guarded: bool = False) -> bool:
        """Record how a message ended: done (with what followed from it), or held. False: its partition is gone.

        guarded: it has a held row although it came from the log, to be dropped when it is done.
        """
        lane = self._not_busy(entry.position)
        if lane is None:
            return False
        self._forget(entry)
        if held is None:
            self._done(entry)
            self._parts[entry.part].crashes = 0
            if guarded and not entry.held:
                self._decided.add(entry.position)
                self._next.drop.append((entry.part, entry.position))
        else:
            self._hold(entry, held)
            if held.state in BLOCKING:
                self._put_behind(lane)
        self._follow.extend((entry.part, message) for message in publish)
        if lane in self._lanes and lane not in self._busy_lanes:
            self._ready.append(lane)
        return True

    def _forget(self, entry: Entry) -> None:
        self._known.discard(entry.position)
        self._bytes -= len(entry.message.data)

    def _now_busy(self, entry: Entry, lane: LaneId) -> None:
        self._busy[entry.position] = lane, entry
        self._busy_lanes[lane] = self._busy_lanes.get(lane, 0) + 1

    def _not_busy(self, position: Position) -> LaneId | None:
        lane, _ = self._busy.pop(position, (None, None))
        if lane is not None:
            left = self._busy_lanes.pop(lane) - 1
            if left:
                self._busy_lanes[lane] = left
        return lane

    def _done(self, entry: Entry) -> None:
        self._touched.add(entry.part)
        if entry.held:
            self._decided.add(entry.position)
            self._next.drop.append((entry.part, entry.position))
        else:
            self._parts[entry.part].finished.add(entry.position)

    def _hold(self, entry: Entry, held: Held) -> None:
        self._touched.add(entry.part)
        part = self._parts[entry.part]
        if entry.held:
            self._decided.add(entry.position)
        else:
            part.finished.add(entry.position)
        self._next.hold.append(held)
        if held.key and held.state in BLOCKING:
            part.blocked.add(held.key)

    def _put_behind(self, lane: LaneId) -> None:
        """Everything after a message that must wait waits too. Held ones are in the store already."""
        of_batch = [entry for other, entry in self._busy.values() if other == lane] if lane in self._busy_lanes else []
        for entry in of_batch:
            self._not_busy(entry.position)
        for entry in [*of_batch, *self._lanes.pop(lane, ())]:
            self._forget(entry)
            if entry.held:
                self._decided.add(entry.position)
            else:
                self._hold(entry, _behind(entry))

    # ── how far ──────────────────────────────────────────────────────────────────────────────────────────────────

    def settlement(self, *, all_parts: bool = False) -> Settlement:
        """What to write now. The caller writes it and says `written`, or revokes all partitions. May be falsy: nothing."""
        self._writing |= self._decided
        self._decided = set()
        settlement, self._next = self._next, Settlement()
        settlement.publish, self._follow = [message for _, message in self._follow], []
        touched, self._touched = self._touched, set()
        for part, held in self._parts.items() if all_parts or touched else ():
            if all_parts or part in touched:
                settlement.fences[part] = held.fence
                at = held.cursor()
                if at > held.written:
                    held.written = settlement.cursors[part] = at
        self._keep_done_beyond(settlement)
        return settlement

    def _keep_done_beyond(self, settlement: Settlement) -> None:
        """A held message that is done beyond its cursor stays as `done`, or the next owner would read it again."""
        beyond = [place for place in settlement.drop if place[1] > self._parts[place[0]].written]
        if beyond:
            settlement.drop = [place for place in settlement.drop if place not in beyond]
            settlement.hold += [Held(part=part, position=position, state="done") for part, position in beyond]

    def written(self) -> None:
        """The last settlement is durable: what the store shows from now on is true again."""
        self._writing.clear()


def _held_first(entry: Entry) -> tuple[bool, Position]:
    return not entry.held, entry.position


def _scheduled(entry: Entry) -> Held:
    message = entry.message
    return Held(part=entry.part, position=entry.position, key=message.key, state="scheduled", due_at=message.due)


def _behind(entry: Entry) -> Held:
    return Held(part=entry.part, position=entry.position, key=entry.message.key, state="behind",
                attempts=entry.attempts)
