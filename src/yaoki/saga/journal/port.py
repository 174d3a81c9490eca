"""What a journal must do. `tests/contracts/test_journal.py` says the same, and every journal passes it.

The one promise: **a write that was awaited is found again**, after kill -9 and, with the default durability, after a power
cut. And its reverse: nothing can be read (by `take`, `read` or `search`) that could still be lost.

An owner (an engine) calls `open`, then `take`, `create`, `append`. Everybody else (the command line, a dashboard) may call
`read`, `list`, `counts`, `request` on a journal opened with `observe`, also while an owner runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from yaoki import runtime
from yaoki.saga.attributes import Attributes
from yaoki.saga.journal.locks import Locks
from yaoki.saga.journal.operations import Operations
from yaoki.saga.journal.queues import Queues
from yaoki.saga.journal.registers import Registers
from yaoki.saga.records import Header, Record, RunState, Stored

NORMAL = 5


class NewRun(msgspec.Struct, frozen=True):
    """A run to start. Attributes as in `Header`, and:

    Attributes:
        keep: does its creator go on with it at once? Else it waits for whoever takes it.
        due_at: not before then; seconds since 1970 by the journal's clock; 0.0: now.
        fresh: was the id made up for it, so that no run of the past can have it?
        queue, tenant: what it shares places and turns with. priority: 0 (first) to 9.
        attributes: what it can be found by, besides its id. records: a history that it begins with.
    """

    id: str
    saga: str
    graph: str
    input: bytes
    deadline_at: float = 0.0
    traceparent: str = ""
    at: float = 0.0
    keep: bool = True
    due_at: float = 0.0
    queue: str = "default"
    priority: int = NORMAL
    tenant: str = ""
    fresh: bool = False
    attributes: Attributes = ()
    records: tuple[Record, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Is there nothing more to it than to most runs?"""
        return self.keep and not (self.attributes or self.records or self.due_at)


class Created(msgspec.Struct, frozen=True):
    """The answer to `create`. `new` is False when a run of this id existed; `header` is then that run's."""

    header: Header
    new: bool


class Ask(msgspec.Struct, frozen=True):
    """A request to another run, which is durable together with what one run adds to its history. Attributes as in `Request`."""

    run: str
    kind: str
    data: bytes


class Append(msgspec.Struct, frozen=True):
    """What one run adds to its history in one commit: all of it or nothing.

    Attributes:
        run: the journal's number of the run.
        seq: number of the first of `records`; the journal refuses a number that it has already.
        state: the header's new state; None: unchanged. `result` and `reason` go with it.
        due_at: the run is parked: its owner lets go of it, and it is taken again then (`inf`: when somebody asks something
            of it); seconds since 1970 by the journal's clock. None: its owner keeps it.
        asks: what it asks of other runs.
    """

    run: int
    seq: int
    records: tuple[Record, ...]
    state: RunState | None = None
    result: bytes = b""
    reason: str = ""
    at: float = 0.0
    due_at: float | None = None
    asks: tuple[Ask, ...] = ()


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
    """Which runs to find. Empty means any. `since`, `until`: seconds since 1970, of the start. Newest first.

    idle_since: only those whose last progress was before then. where: attributes that they have, all of them.
    """

    states: tuple[RunState, ...] = ()
    saga: str = ""
    id_prefix: str = ""
    since: float = 0.0
    until: float = 0.0
    before_no: int = 0  # of the last page's last row
    idle_since: float = 0.0
    where: Attributes = ()
    limit: int = 50


class StepFailed(Exception):
    """Raised by the work in `transact`: it is the step's failure, and the transaction is rolled back."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class TransactionLost(Exception):
    """The connection broke at the commit, and reading back showed that it had not gone through."""


class Journal(Registers, Locks, Operations, Queues, Protocol):
    """The port. Raises JournalError, and the errors named under it, when it cannot keep its promise.

    Attributes:
        shared: may several owners be at work on it? Then each drives what it took, and learns of the others' doings by asking.
        bell: called by the journal when there may be something to take or to carry out.
        fenced: called by a shared journal when this owner was declared dead; `open` makes it a new one.
        name: how this owner is called among others.
    """

    shared: bool
    bell: Callable[[], None]
    fenced: Callable[[], None]
    name: str

    def now(self) -> float:
        """Seconds since 1970 by the clock that all owners of this journal share."""
        ...

    @property
    def is_bare(self) -> bool:
        """Is it certain, without asking anybody, that no run is in it?"""
        ...

    async def peek(self) -> tuple[bool, bool]:
        """On a shared journal: may there be something to take, and something to carry out? Cheap."""
        ...

    async def hold(self) -> None:
        """Wait until this owner is certainly not taken for dead. Awaited before each effect on a shared journal."""

    async def serve(self, graphs: Sequence[str], queues: Sequence[str] | None = None) -> None:
        """Take only runs of these definitions (hashes) and queues; None: of all queues."""

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

    async def transact(self, run: int, work: Callable[[Any], Any]) -> Append:
        """Do `work` (of a connection; it returns, or is a coroutine of, an Append) and write that entry, in one transaction.

        Raises:
            StepFailed: the work did; nothing was written. TransactionLost: neither was anything here.
        """
        ...

    async def move(self, run: int, entry: Append, graph: str) -> None:
        """Write an entry, and put the run under another definition (hash), in one transaction. Raises TransactionLost."""

    async def take(self, limit: int) -> list[Stored]:
        """The next unfinished runs that this owner has not taken yet, oldest first; empty: none is left.

        A run that this owner created is taken already. Blocked runs are not given.
        """
        ...

    async def take_one(self, run_id: str) -> Stored | None:
        """Take a certain unfinished run (a blocked one too), or None where there is none."""
        ...

    async def take_ended(self, run_id: str) -> Stored | None:
        """Take a certain completed run, wherever it is kept by now, to undo it as a whole; None where there is none.

        Its end stands until its owner appends to it. On a shared journal it counts as running from now on.
        """
        ...

    def release(self, no: int) -> None:
        """Give a run back untouched: `take` gives it again if it was created here, else `take_one` or the next owner."""

    async def read(self, run_id: str) -> Stored | None: ...

    async def headers(self, run_ids: Sequence[str]) -> list[Header]:
        """The headers of those of these runs that exist."""
        ...

    async def ring(self) -> None:
        """Tell the other owners that there is something to take."""

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

    async def graphs(self, sagas: Sequence[str]) -> list[tuple[str, bytes]]:
        """(hash, JSON) of every definition of these sagas that was saved, on a shared journal."""
        ...

    async def archive(self, before: float, limit: int = 1000) -> int:
        """On a shared journal: move up to `limit` runs that ended before then out of the way of live ones."""
        ...

    async def stranded(self) -> list[tuple[str, str, int]]:
        """(saga, graph, runs that wait, up to a thousand) of each definition that no live owner can run."""
        ...

    async def owned(self) -> list[tuple[int, str]]:
        """(number, id) of the unfinished runs that are this owner's, by the store itself."""
        ...


class OneOwner:
    """What a journal with a single owner answers where a shared one has to ask the others."""

    shared = False
    name = ""
    bell: Callable[[], None] = staticmethod(lambda: None)
    fenced: Callable[[], None] = staticmethod(lambda: None)

    def now(self) -> float:
        return runtime.unix_time()

    @property
    def is_bare(self) -> bool:
        return False

    async def peek(self) -> tuple[bool, bool]:
        return True, True

    async def hold(self) -> None:
        """Always sure."""

    async def serve(self, graphs: Sequence[str], queues: Sequence[str] | None = None) -> None:
        """The engine leaves alone what it cannot run."""

    async def ring(self) -> None:
        """There are no others."""

    async def graphs(self, sagas: Sequence[str]) -> list[tuple[str, bytes]]:
        """Not asked for: the one owner tries every run."""
        del sagas
        return []

    async def stranded(self) -> list[tuple[str, str, int]]:
        return []

    async def owned(self) -> list[tuple[int, str]]:
        """Not asked for: there is nobody else who could have them."""
        return []

    async def archive(self, before: float, limit: int = 1000) -> int:
        del before, limit
        return 0

    async def read(self, run_id: str) -> Stored | None:
        raise NotImplementedError

    async def headers(self, run_ids: Sequence[str]) -> list[Header]:
        found = [await self.read(run_id) for run_id in run_ids]
        return [stored.header for stored in found if stored is not None]
