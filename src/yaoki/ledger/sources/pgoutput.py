"""Read the messages of PostgreSQL's own logical decoding plug-in, `pgoutput`, protocol version 1. Pure.

    R  relation: number, schema, name, columns       I  insert: relation, N, values
    U  update: relation, [K or O, values], N, values      everything else (begin, commit, delete, truncate) is passed over

Source: PostgreSQL documentation, *Logical Replication Message Formats*.
"""

from __future__ import annotations

import struct

Row = tuple[str, dict[str, str | None]]
"""(schema.table, values as text by column)."""

LENGTH = {ord("t"), ord("b")}


class _Reader:
    """A place in the bytes of one message."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def number(self, layout: str) -> int:
        (value,) = struct.unpack_from(">" + layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return int(value)

    def text(self) -> str:
        end = self.data.index(b"\0", self.at)
        value = self.data[self.at:end].decode()
        self.at = end + 1
        return value

    def values(self) -> list[str | None]:
        """The values of a row. NULL, and what did not change and is stored apart, are None."""
        found: list[str | None] = []
        for _ in range(self.number("h")):
            if self.number("B") in LENGTH:
                size = self.number("i")
                found.append(self.data[self.at:self.at + size].decode())
                self.at += size
            else:
                found.append(None)
        return found


class Decoder:
    """Remembers what relations look like, as a session of the protocol does."""

    def __init__(self) -> None:
        self._relations: dict[int, tuple[str, list[str]]] = {}

    def row(self, message: bytes) -> Row | None:
        """The row that this message inserts or updates, None for any other message."""
        kind, reader = message[:1], _Reader(message, 1)
        if kind == b"R":
            self._learn(reader)
        if kind not in {b"I", b"U"}:
            return None
        table, names = self._relations[reader.number("I")]
        tag = reader.number("B")
        while tag != ord("N"):  # the old key, or the old row, comes first
            reader.values()
            tag = reader.number("B")
        return table, dict(zip(names, reader.values(), strict=True))

    def _learn(self, reader: _Reader) -> None:
        number = reader.number("I")
        table = f"{reader.text() or 'pg_catalog'}.{reader.text()}"
        reader.number("B")  # replica identity
        names = []
        for _ in range(reader.number("h")):
            reader.number("B")  # part of the key?
            names.append(reader.text())
            reader.number("I")  # type
            reader.number("i")  # its modifier
        self._relations[number] = table, names
