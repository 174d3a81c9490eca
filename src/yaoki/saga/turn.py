"""What the attempts of a step ask of whoever drives the run: the engine's `Driver`, or a participant of a choreography.

Two drive steps in the same way and keep their history in different places. What both must have is this, and no more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from yaoki.saga.define import Saga
    from yaoki.saga.journal.port import Append
    from yaoki.saga.machine import Machine
    from yaoki.saga.records import Header, Record


class Transacts(Protocol):
    """Where a step's own transaction is made, and whether others drive runs of the same journal."""

    @property
    def shared(self) -> bool: ...

    async def transact(self, run: int, work: Callable[[Any], Any]) -> Append:
        """See `Journal.transact`."""
        ...


class Turn(Protocol):
    """One run, as seen by the attempts of one of its steps.

    Attributes:
        perhaps_started: steps that an earlier process may have begun.
        clock: monotonic seconds. now, unix_time: seconds since 1970; `now` by the clock that waits end by.
        hold: awaited before each effect, or None.
        notes: records for people, written with the next one that counts.
    """

    results: dict[str, Any]
    notes: list[Record]

    @property
    def saga(self) -> Saga[Any]: ...
    @property
    def machine(self) -> Machine: ...
    @property
    def header(self) -> Header: ...
    @property
    def input(self) -> Any: ...
    @property
    def perhaps_started(self) -> Collection[str]: ...
    @property
    def journal(self) -> Transacts: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def now(self) -> Callable[[], float]: ...
    @property
    def unix_time(self) -> Callable[[], float]: ...
    @property
    def hold(self) -> Callable[[], Awaitable[Any]] | None: ...
    @property
    def is_stopping(self) -> Callable[[], bool]: ...

    def gives_up_on(self, name: str, *, forward: bool) -> bool:
        """Is this step to be undone, so that no further attempt is to be made? forward: it can only be made, as things are."""
        ...

    def is_under_way(self) -> bool: ...
    async def pause(self, delay_s: float, /) -> None: ...
    async def hand_back(self, delay_s: float, /) -> None: ...
    async def write(self, record: Record, /) -> None: ...
    def entry_of(self, record: Record, /) -> Append: ...
    def written(self, entry: Append, /) -> None: ...
