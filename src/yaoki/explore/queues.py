"""A queue for scenarios: at least once, like most of them; on demand in order, and with a box for what nobody can handle.

    send ──▶ visible ──receive──▶ hidden for a while ──ack──▶ gone
                ▲                      │
                └───── not acked ──────┘──── delivered `max_deliveries` times ──▶ dead
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from yaoki.chaos.faults import At
from yaoki.explore import world as worlds
from yaoki.explore.store import copied, universe

POISON = "\ufffd\ufffd{not a message"
"""What the body of a message is after `msg.poison`: a text where data was, in this delivery and every later one."""


class Message(msgspec.Struct):
    """One delivery. `id` is the message's own and the same in every delivery; `delivery` counts them from 1."""

    id: str
    body: Any
    delivery: int = 1
    key: str = ""


class _Kept(msgspec.Struct):
    id: str
    body: Any
    key: str = ""
    visible_at: float = 0.0
    deliveries: int = 0


class Line:
    """What a queue keeps. The world is asked for the time.

    Attributes:
        kept: in the order of sending. acked: ids. dead: what was delivered too often.
    """

    def __init__(self, *, ordered: bool = False) -> None:
        self.ordered = ordered
        self.kept: list[_Kept] = []
        self.numbers = 0
        self.acked: list[str] = []
        self.dead: list[_Kept] = []

    def lose_memory(self) -> None:
        """A broker keeps what it acknowledged; who had which message it does not know any more."""
        for kept in self.kept:
            kept.visible_at = 0.0

    def digest(self) -> Any:
        now = universe().now
        return (tuple((each.id, repr(each.body), each.deliveries, round(max(0.0, each.visible_at - now), 6)) for each in self.kept), tuple(self.acked),
                tuple(each.id for each in self.dead))

    def visible(self, now: float) -> list[_Kept]:
        """What may be delivered now: in an ordered queue the first of each key only, and not while it is under way."""
        if not self.ordered:
            return [each for each in self.kept if each.visible_at <= now]
        first: dict[str, _Kept] = {}
        for each in self.kept:
            first.setdefault(each.key, each)
        return [each for each in first.values() if each.visible_at <= now]


class FakeQueue:
    """A queue that delivers at least once: what is not acknowledged within `hidden_for` seconds comes again.

    Args:
        name: its name in sites and timelines.
        hidden_for: seconds in which a received message is given to nobody else.
        poll: seconds between looks at an empty queue.
        ordered: messages of a key are delivered in their order: none before the one ahead of it is acknowledged.
        max_deliveries: after so many a message goes to `line.dead`; None: never.
    """

    def __init__(self, name: str, *, hidden_for: float = 30.0, poll: float = 0.5, timeout: float | None = 5.0, ordered: bool = False,
                 max_deliveries: int | None = None) -> None:
        self.name = name
        self.hidden_for = hidden_for
        self.poll = poll
        self.timeout = timeout
        self.ordered = ordered
        self.max_deliveries = max_deliveries

    @property
    def line(self) -> Line:
        """What it keeps, without a call: for invariants."""
        world = universe()
        line = world.services.get(self.name)
        if line is None:
            line = world.services[self.name] = Line(ordered=self.ordered)
        return line

    async def send(self, body: Any, *, id: str = "", key: str = "") -> None:  # noqa: A002  what brokers call it
        """Put a message into the queue."""
        line, body = self.line, copied(body)

        def put() -> None:
            line.numbers += 1
            line.kept.append(_Kept(id or f"{self.name}-{line.numbers}", body, key))

        await universe().call(self.name, "send", put, kind=At.SEND, timeout_s=self.timeout, variants={"msg.drop": lambda: None})

    async def receive(self) -> Message:
        """Wait for a message. Nobody else gets it for `hidden_for` seconds, or ever once it is acknowledged."""
        world, line = universe(), self.line
        while True:
            if self._deliverable(world.now):
                message = await world.call(self.name, "receive", lambda: self._take(0, self.hidden_for), kind=At.RECEIVE,
                                           timeout_s=self.timeout, variants=self._receive_variants(line))
                if message is not None:
                    return message  # type: ignore[no-any-return]
            else:
                await asyncio.sleep(self.poll)

    async def ack(self, message: Message) -> None:
        """Say that the work is done: it will not come again."""
        line = self.line

        def drop() -> None:
            line.kept = [each for each in line.kept if each.id != message.id]
            line.acked.append(message.id)

        await universe().call(self.name, "ack", drop, kind=At.ACK, timeout_s=self.timeout, variants={"msg.redeliver": self._again(message)})

    async def wait_empty(self) -> None:
        """Wait until every message has been acknowledged, or is dead."""
        while self.line.kept:  # noqa: ASYNC110  a broker is asked, it does not call
            await asyncio.sleep(self.poll)

    def _deliverable(self, now: float) -> list[_Kept]:
        """What may be delivered now; what was delivered too often is put away."""
        line = self.line
        visible = line.visible(now)
        most = self.max_deliveries
        if most is None or all(each.deliveries < most for each in visible):
            return visible
        worn = [each for each in visible if each.deliveries >= most]
        line.dead += worn
        line.kept = [each for each in line.kept if each not in worn]
        return self._deliverable(now)

    def _take(self, which: int, hidden_s: float) -> Message | None:
        now = universe().now
        visible = self._deliverable(now)
        if not visible:
            return None
        kept = visible[min(which, len(visible) - 1)]
        kept.visible_at = now + hidden_s
        kept.deliveries += 1
        return Message(kept.id, copied(kept.body), kept.deliveries, kept.key)

    def _receive_variants(self, line: Line) -> worlds.Variants:
        found: dict[str, Callable[[], Any]] = {"msg.duplicate": lambda: self._take(0, 0.0), "msg.delay": self._hide, "msg.poison": self._poison}
        if len(line.visible(universe().now)) > 1:  # with one there is nothing to overtake it
            found["msg.reorder"] = lambda: self._take(1, self.hidden_for)
        return found

    def _poison(self) -> Message | None:
        for kept in self._deliverable(universe().now)[:1]:
            kept.body = POISON
        return self._take(0, self.hidden_for)

    def _hide(self) -> None:
        for kept in self._deliverable(universe().now)[:1]:
            kept.visible_at = universe().now + self.hidden_for

    def _again(self, message: Message) -> Callable[[], None]:
        def forget() -> None:
            for kept in self.line.kept:
                if kept.id == message.id:
                    kept.visible_at = universe().now

        return forget
