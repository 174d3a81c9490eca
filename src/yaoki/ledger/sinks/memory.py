"""A sink in memory, for tests: takes each name once, and can be made to lose, alter, double or refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from yaoki import runtime
from yaoki.errors import ContentConflictError
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.records import Batch, Naming, Record
from yaoki.ledger.sinks.port import Foreign

PAGE = 1000


class MemorySink:
    """Versions in a dictionary.

    Attributes:
        contents: what is at rest: change it to lose or alter something.
        copies: how many more times a name is listed than once.
        losing: while True, everything is accepted and nothing arrives: a consumer that acknowledges and drops.
        refusing: keys whose `put` fails; "*" for all.
    """

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.knows_digests = True
        self.foreign = Foreign()
        self.contents: dict[Naming, bytes] = {}
        self.times: dict[Naming, float] = {}
        self.copies: dict[Naming, int] = {}
        self.losing = False
        self.refusing: set[str] = set()
        self.puts: list[Naming] = []

    async def open(self) -> None:
        """Nothing to prepare."""

    async def close(self) -> None:
        """Nothing to end."""

    async def put(self, key: str, version: int, content: bytes, digest: bytes) -> bool:
        if key in self.refusing or "*" in self.refusing:
            raise ConnectionError(f"the sink refuses {key}")
        self.puts.append((key, version))
        if self.losing:
            return True
        there = self.contents.get((key, version))
        if there is None:
            self.contents[key, version] = content
            self.times[key, version] = runtime.unix_time()
        elif content_digest(there) != digest:
            raise ContentConflictError(f"another content is at rest under {key} version {version}",
                                       name=f"{key}-{version}", do="compare it with the ledger's")
        return there is None

    async def listing(self) -> AsyncIterator[Batch]:
        names = list(self.contents)
        for start in range(0, len(names), PAGE):
            yield Batch.of(await self.read(names[start:start + PAGE]))

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        return [Record(*name, content_digest(self.contents[name]), self.times.get(name, 0.0)) for name in names
                if name in self.contents for _ in range(1 + self.copies.get(name, 0))]

    async def forget(self, names: Sequence[Naming]) -> None:
        for name in names:
            self.contents.pop(name, None)
