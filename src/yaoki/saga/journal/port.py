"""What a journal must do. `tests/contracts/test_journal.py` says the same, and every journal passes it.

The one promise: **a write that was awaited is found again**, after kill -9 and, with the default durability, after a power
cut. And its reverse: nothing can be read (by `take`, `read` or `search`) that could still be lost.

An owner (an engine) calls `open`, then `take`, `create`, `append`. Everybody else (the command line, a dashboard) may call
`read`, `list`, `counts`, `request` on a journal opened with `observe`, also while an owner runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

import msgspec

from yaoki.saga.records import Header, Record, RunState, Stored


class NewRun(msgspec.Struct, frozen=True):
    """A run to start. Attributes as in `Header`."""

    id: str
    saga: str
    graph: str
    input: bytes
    deadline_at: float = 0.0
    traceparent: str = ""
    at: float = 0.0


class Created(msgspec.Struct, frozen=True):
    """The answer to `create`. `new` is False when a run of this id existed; `header` is then that run's."""

    header: Header
    new: bool


class Append(msgspec.Struct, frozen=True):
    """What one run adds to its history in one commit: all of it or nothing.

    Attributes:
        run: the journal's number of the run.
        seq: number of the first of `records`; the journal refuses a number that it has already.
        state: the header's new state; None: unchanged. `result` and `reason` go with it.
    """

    run: int
    seq: int
    records: tuple[Record, ...]
    state: RunState | None = None
    result: bytes = b""
    reason: str = ""
    at: float = 0.0


class Request(msgspec.Struct, frozen=True):
    """What somebody asks of a run: the engine carries it out, now or when one next runs.

    kind: cancel, resolve. data: JSON (`reason`; or step, decision, result, who, why).
    """

    no: int
    run: str
    kind: str
    data: bytes
    at: float


class Query(msgspec.Struct, frozen=True):
    """Which runs to find. Empty means any. `since`, `until`: seconds since 1970, of the start. Newest first."""

    states: tuple[RunState, ...] = ()
    saga: str = ""
    id_prefix: str = ""
    since: float = 0.0
    until: float = 0.0
    before_no: int = 0  # of the last page's last row
    limit: int = 50


class Journal(Protocol):
    """The port. Raises JournalError, and the errors named under it, when it cannot keep its promise."""

    async def open(self) -> None:
        """Become the owner. Raises JournalLockedError when another process is, JournalForeignError for a foreign store."""

    async def observe(self) -> None:
        """Open for reading and for requests, beside an owner."""

    async def close(self) -> None:
        """Make durable what was given, and let go."""

    def create(self, run: NewRun) -> Awaitable[Created]:
        """Start a run, once for each id."""
        ...

    def append(self, entry: Append) -> Awaitable[None]:
        """Add to a run's history. Given is given: cancelling the wait takes nothing back."""
        ...

    async def take(self, limit: int) -> list[Stored]:
        """The next unfinished runs that this owner has not taken yet, oldest first; empty: none is left.

        A run that this owner created is taken already. Blocked runs are not given.
        """
        ...

    async def take_one(self, run_id: str) -> Stored | None:
        """Take a certain unfinished run (a blocked one too), or None where there is none."""
        ...

    def release(self, no: int) -> None:
        """Give a run back untouched: `take` gives it again if it was created here, else `take_one` or the next owner."""

    async def read(self, run_id: str) -> Stored | None: ...

    async def search(self, query: Query) -> list[Header]: ...

    async def counts(self, saga: str = "") -> dict[RunState, int]: ...

    async def purge(self, before: float, limit: int) -> int:
        """Remove up to `limit` runs that ended before then, with their histories. Returns how many."""
        ...

    async def request(self, run_id: str, kind: str, data: bytes, at: float) -> None: ...

    async def requests(self) -> list[Request]:
        """Requests not carried out yet, oldest first."""
        ...

    async def carried_out(self, numbers: Sequence[int]) -> None: ...

    async def save_graph(self, graph_hash: str, saga: str, graph: bytes) -> None:
        """Keep a definition, so that its runs can be drawn without the program at hand."""

    async def load_graph(self, graph_hash: str) -> bytes | None: ...
