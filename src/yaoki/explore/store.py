"""A small database and a queue for scenarios: durable, reached over the network, each operation a point.

Both are what many programs lean on: a key-value table with conditional writes, and a queue that delivers at least once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from yaoki.chaos.faults import At
from yaoki.errors import DeclinedError, FencedError
from yaoki.explore import world as worlds


class ConflictError(DeclinedError):
    """A conditional write found another value than it expected. `found` is that value."""

    code = "YK-1392"
    why = "Somebody else wrote in between; read again and decide again."


class Table:
    """What a store keeps: the newest value of each key, and the one before it."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.before: dict[str, Any] = {}
        self.writes = 0
        self.fence = 0

    def write(self, rows: Mapping[str, Any]) -> None:
        for key, value in rows.items():
            self.before[key] = self.rows.get(key)
            self.rows[key] = value
        self.writes += 1

    def lose_memory(self) -> None:
        """A database keeps what it acknowledged."""

    def digest(self) -> Any:
        return msgspec.json.encode((self.rows, self.before, self.fence), order="sorted", enc_hook=repr)


class FakeStore:
    """A key-value table that several processes share. Values are JSON-able and copied in and out.

    Args:
        name: its name in sites and timelines.
        timeout: seconds after which its client gives up on an answer; None: never.
    """

    def __init__(self, name: str, *, timeout: float | None = 5.0) -> None:
        self.name = name
        self.timeout = timeout

    @property
    def table(self) -> Table:
        world = _world()
        table = world.services.get(self.name)
        if table is None:
            table = world.services[self.name] = Table()
        return table

    @property
    def rows(self) -> dict[str, Any]:
        """Everything in it, without a call: for invariants."""
        return self.table.rows

    async def get(self, key: str, default: Any = None) -> Any:
        table = self.table
        return await self._ask("get", lambda: _copy(table.rows.get(key, default)), kind=At.READ,
                               variants={"read.stale": lambda: _copy(table.before.get(key, table.rows.get(key, default)))})

    async def put(self, key: str, value: Any) -> None:
        await self.put_all({key: value})

    async def put_all(self, rows: Mapping[str, Any], *, fence: int | None = None) -> None:
        """Write several keys, all or none.

        Args:
            fence: the writer's epoch. The store remembers the highest that it has seen, and refuses lower ones.

        Raises:
            FencedError: somebody with a higher epoch was here; nothing was written.
        """
        table, rows = self.table, _copy(dict(rows))

        def write() -> None:
            if fence is not None:
                if fence < table.fence:
                    raise FencedError(f"{self.name}: epoch {fence} is over, {table.fence} was here", do="stop: somebody took over")
                table.fence = fence
            table.write(rows)

        await self._ask("put", write)

    async def put_if(self, key: str, expected: Any, value: Any) -> None:
        """Write if the value is still `expected`.

        Raises:
            ConflictError: it is not; nothing was written.
        """
        table, value = self.table, _copy(value)

        def write() -> None:
            found = table.rows.get(key)
            if found != expected:
                raise ConflictError(f"{self.name}: {key} is {found!r}, not {expected!r}", do="read again", found=found)
            table.write({key: value})

        await self._ask("put_if", write)

    async def add(self, key: str, amount: float) -> float:
        """Add to a number, atomically; a lost answer leaves it unknown whether it was added."""
        table = self.table

        def write() -> float:
            table.write({key: table.rows.get(key, 0) + amount})
            return table.rows[key]  # type: ignore[no-any-return]

        return await self._ask("add", write)  # type: ignore[no-any-return]

    async def _ask(self, op: str, effect: Callable[[], Any], *, kind: At = At.CALL, variants: worlds.Variants | None = None) -> Any:
        return await _world().call(self.name, op, effect, kind=kind, timeout_s=self.timeout, variants=variants)


class Message(msgspec.Struct):
    """One delivery. `id` is the message's own and the same in every delivery; `delivery` counts them from 1."""

    id: str
    body: Any
    delivery: int = 1


class _Kept(msgspec.Struct):
    id: str
    body: Any
    visible_at: float = 0.0
    deliveries: int = 0


class Line:
    """What a queue keeps. The world is asked for the time."""

    def __init__(self) -> None:
        self.kept: list[_Kept] = []
        self.numbers = 0
        self.acked: list[str] = []

    def lose_memory(self) -> None:
        """A broker keeps what it acknowledged."""

    def digest(self) -> Any:
        return tuple((each.id, repr(each.body), each.deliveries) for each in self.kept), tuple(self.acked)

    def visible(self, now: float) -> list[_Kept]:
        return [each for each in self.kept if each.visible_at <= now]


class FakeQueue:
    """A queue that delivers at least once: what is not acknowledged within `hidden_for` seconds comes again.

    Args:
        name: its name in sites and timelines.
        hidden_for: seconds in which a received message is given to nobody else.
        poll: seconds between looks at an empty queue.
    """

    def __init__(self, name: str, *, hidden_for: float = 30.0, poll: float = 0.5, timeout: float | None = 5.0) -> None:
        self.name = name
        self.hidden_for = hidden_for
        self.poll = poll
        self.timeout = timeout

    @property
    def line(self) -> Line:
        world = _world()
        line = world.services.get(self.name)
        if line is None:
            line = world.services[self.name] = Line()
        return line

    async def send(self, body: Any, *, id: str = "") -> None:  # noqa: A002  what brokers call it
        """Put a message into the queue."""
        line, body = self.line, _copy(body)

        def put() -> None:
            line.numbers += 1
            line.kept.append(_Kept(id or f"{self.name}-{line.numbers}", body))

        await _world().call(self.name, "send", put, kind=At.SEND, timeout_s=self.timeout, variants={"msg.drop": lambda: None})

    async def receive(self) -> Message:
        """Wait for a message. Nobody else gets it for `hidden_for` seconds, or ever once it is acknowledged."""
        world, line = _world(), self.line
        while True:
            if line.visible(world.now):
                message = await world.call(self.name, "receive", lambda: self._take(0, self.hidden_for), kind=At.RECEIVE,
                                           timeout_s=self.timeout, variants=self._receive_variants())
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

        await _world().call(self.name, "ack", drop, kind=At.ACK, timeout_s=self.timeout, variants={"msg.redeliver": self._again(message)})

    async def wait_empty(self) -> None:
        """Wait until every message has been acknowledged."""
        while self.line.kept:  # noqa: ASYNC110  a broker is asked, it does not call
            await asyncio.sleep(self.poll)

    def _take(self, which: int, hidden_s: float) -> Message | None:
        now = _world().now
        visible = self.line.visible(now)
        if not visible:
            return None
        kept = visible[min(which, len(visible) - 1)]
        kept.visible_at = now + hidden_s
        kept.deliveries += 1
        return Message(kept.id, _copy(kept.body), kept.deliveries)

    def _receive_variants(self) -> worlds.Variants:
        return {"msg.duplicate": lambda: self._take(0, 0.0), "msg.reorder": lambda: self._take(1, self.hidden_for),
                "msg.delay": self._hide}

    def _hide(self) -> None:
        for kept in self.line.visible(_world().now)[:1]:
            kept.visible_at = _world().now + self.hidden_for

    def _again(self, message: Message) -> Callable[[], None]:
        def forget() -> None:
            for kept in self.line.kept:
                if kept.id == message.id:
                    kept.visible_at = _world().now

        return forget


def _world() -> worlds.World:
    world = worlds.active()
    if world is None:
        raise RuntimeError("a FakeStore or FakeQueue lives in a universe: use it inside a scenario")
    return world


def _copy(value: Any) -> Any:
    """What goes over a network is a copy: a change made later on one side is not seen on the other."""
    return value if isinstance(value, (str, int, float, bool, type(None))) else msgspec.json.decode(msgspec.json.encode(value))
