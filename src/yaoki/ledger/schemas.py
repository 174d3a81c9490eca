"""The shapes that contents have had over the years, and the way up from each to the one that programs read now.

    points = Schemas(3, upcasts={1: add_reason, 2: cents_not_euros}, type=Change)
    async with Ledger("sqlite:///shop.db", schemas=points) as ledger:
        await t.append("A1", Change(...))            # stored with schema 3
        (await ledger.history("A1"))[0].value()      # a Change, whatever it was when it was written

What is stored is never changed. An up-cast takes the JSON data of its shape and returns that of the next; they are applied
one after the other, so each is written once and kept for as long as such contents are. A content from a newer program, or
one that no way leads up from, is refused by name and never guessed at. `unreadable` asks, before a deploy, whether today's
program can read what is really there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki.errors import ConfigError, SchemaError

if TYPE_CHECKING:
    from yaoki.ledger.ledger import Ledger

Upcast = Callable[[Any], Any]


class Schemas:
    """What contents look like now, and how to get there. Pure.

    Args:
        current: the number that new contents get, from 1. Contents written without schemas have 0.
        upcasts: for each older number that is still read, a function from its JSON data to that of the next number.
        type: what `value()` gives: a Struct, dataclass, TypedDict, ... as msgspec reads it; None: plain JSON data.

    Raises:
        ConfigError: the up-casts do not lead to `current` one step at a time.
    """

    def __init__(self, current: int, *, upcasts: Mapping[int, Upcast] | None = None, type: Any = None) -> None:  # noqa: A002
        self.current = current
        self.upcasts = dict(upcasts or {})
        self.oldest = min(self.upcasts, default=current)
        self._type = type
        holes = [number for number in range(self.oldest, current) if number not in self.upcasts]
        if current < 1 or holes or any(number >= current for number in self.upcasts) or self.oldest < 0:
            raise ConfigError(f"the up-casts {sorted(self.upcasts)} do not lead to schema {current} one step at a time",
                              do=f"give one function for each number from the oldest that you read to {current - 1}")

    def read(self, key: str, version: int, content: bytes, schema: int) -> Any:
        """A content as the type of today.

        Raises:
            SchemaError: it is newer than this program, or older than anything it can read, or does not fit.
        """
        self._check(key, version, schema)
        what = "it is not JSON"
        try:
            data = msgspec.json.decode(content)
            for number in range(schema, self.current):
                what = f"the up-cast from schema {number} fails"
                data = self.upcasts[number](data)
            what = f"it is no {getattr(self._type, '__name__', self._type)}"
            return data if self._type is None else msgspec.convert(data, self._type)
        except Exception as error:
            raise SchemaError(f"{key} version {version}, of schema {schema}, cannot be read: {what}: {error}",
                              do="mend the up-cast or the type; what is stored is never changed", key=key, version=version,
                              schema=schema) from error

    def _check(self, key: str, version: int, schema: int) -> None:
        if schema > self.current:
            raise SchemaError(f"{key} version {version} has schema {schema}, and this program knows {self.current}",
                              do="deploy the program that knows the newer schema", key=key, version=version, schema=schema)
        if schema < self.oldest:
            raise SchemaError(f"{key} version {version} has schema {schema}, and nothing leads up from it",
                              do=f"keep an up-cast from {schema}: what is in a ledger stays there", key=key, version=version,
                              schema=schema)


class Unreadable(msgspec.Struct, frozen=True):
    """A content that today's program cannot read, and why."""

    key: str
    version: int
    schema: int
    why: str


async def unreadable(ledger: Ledger, schemas: Schemas, *, since: float = 0.0) -> AsyncIterator[Unreadable]:
    """Would this program read what is there? Reads every sealed content written since then, and gives those that it cannot.

    For CI and before a deploy: up-casts that were forgotten, or dropped too early, show here and not at three in the morning.
    """
    for part in range(ledger.partitions):
        first = 0
        while epochs := await ledger.epochs(part, first=first, limit=50):
            for epoch in epochs:
                if epoch.count and epoch.sealed_at >= since:
                    for row in await ledger.rows(epoch, content=True):
                        if row.content is not None and row.written_at >= since and not row.is_beat:
                            try:
                                schemas.read(row.key, row.version, row.content, row.schema)
                            except SchemaError as error:
                                yield Unreadable(row.key, row.version, row.schema, error.args[0])
            first = epochs[-1].epoch + 1
