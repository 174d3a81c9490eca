"""What operators do, in a journal: pauses, attributes to search by, and a log of every action with who and why.

    pause     of a saga, a queue or a run: it begins nothing new until it is resumed
    operation one line of the log; never changed, never removed
    attribute of a run, given at its start: `customer=42`

    memory.py  sqlite.py  postgres.py     one mixin a journal
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from yaoki.saga.journal.port import Ask
    from yaoki.saga.queue import Queue

# A run that is held back by a pause is parked until this time: never, but not the `inf` of a run that waits for somebody, so
# that those of a pause are found by an index when it ends.
PAUSED_UNTIL = 1e300

# A blocked run, the same: so that counting those that wait for a person does not look at every run that waits for an answer.
BLOCKED_UNTIL = 1e301

KINDS = ("saga", "queue", "run")


class Pause(msgspec.Struct, frozen=True):
    """A pause. kind: saga, queue or run; name: which one. at: since when, seconds since 1970."""

    kind: str
    name: str
    at: float = 0.0
    who: str = ""
    why: str = ""


class Operation(msgspec.Struct, frozen=True):
    """Something that a person, or a program in somebody's name, did.

    Attributes:
        no: grows; 0 before it is written. at: seconds since 1970.
        action: cancel, resolve, signal, pause, resume, fork, ...
        kind, name: of what: a run, a saga or a queue.
        data: JSON: the rest of it.
    """

    action: str
    kind: str
    name: str
    who: str = ""
    why: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")
    at: float = 0.0
    no: int = 0


class _Words(msgspec.Struct):
    who: str = ""
    why: str = ""
    reason: str = ""
    run: str = ""
    person: bool = False  # of an undo, which a run asks of another as well


def told(asked: Ask, at: float) -> Operation | None:
    """What the log says of a request; None for one that a program makes in nobody's name, as answers are."""
    words = msgspec.json.decode(asked.data, type=_Words)
    if asked.kind not in {"cancel", "resolve", "retry", "resume", "fork"} and not (words.who or words.person):
        return None
    if asked.kind == "resume" and not asked.run:
        return Operation("release", "saga", str(msgspec.json.decode(asked.data).get("saga", "")), words.who, words.why, at=at)
    return Operation(asked.kind, "run", asked.run or words.run, words.who, words.why or words.reason, msgspec.Raw(asked.data), at)


def set_by_hand(queue: Queue, who: str, why: str) -> Operation:
    return Operation("set", "queue", queue.name, who, why, msgspec.Raw(msgspec.json.encode(queue.limits())))


class Operations(Protocol):
    """The part of a journal's port that is about operators."""

    async def request_many(self, asked: Sequence[Ask], at: float) -> None:
        """Make requests, all of them or none, and log them."""

    async def log_operation(self, operation: Operation) -> None: ...

    async def operations(self, *, kind: str = "", name: str = "", before_no: int = 0, limit: int = 50) -> list[Operation]:
        """The log, newest first."""
        ...

    async def news(self) -> int:
        """The number of the newest operation: when it has changed, pauses and queues may have."""
        ...

    async def pause(self, kind: str, name: str, *, who: str = "", why: str = "") -> bool:
        """Pause a saga, a queue or a run, for good or until `resume`. False: it was paused already."""
        ...

    async def resume(self, kind: str, name: str, *, who: str = "", why: str = "") -> bool:
        """False: it was not paused."""
        ...

    async def pauses(self) -> list[Pause]: ...

    async def free_paused(self) -> int:
        """Make due what a pause has parked that has ended meanwhile: parking and resuming may miss each other. Returns how many."""
        ...

    async def attributes(self, numbers: Sequence[int]) -> dict[int, dict[str, str]]:
        """The attributes of runs, by the journal's numbers of them; those without have no entry."""
        ...

    async def blocked(self) -> list[tuple[str, int, float]]:
        """(saga, blocked runs up to a thousand, since when the first of them waits) of each saga that has any."""
        ...
