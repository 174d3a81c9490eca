"""What the journal keeps of a run: a header that changes, and records that only ever grow.

A run is `header + records`. The header holds what people search by and the two ends of the history: how it started
(`input`) and how it ended (`state`, `result`). Everything between is an append-only list of records, numbered from 0.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class RunState(StrEnum):
    """Where a run is.

        running ──▶ completed
           │  ▲
           │  └───── resolve ─────┐
           ├──── abort ──▶ undoing ──▶ undone, or cancelled when somebody asked for it
           └──▶ blocked ◀─────┘        (blocked: a person decides; nothing is lost)
    """

    RUNNING = "running"
    UNDOING = "undoing"
    BLOCKED = "blocked"
    COMPLETED = "completed"
    UNDONE = "undone"
    CANCELLED = "cancelled"

    is_end: bool


ENDS = frozenset({RunState.COMPLETED, RunState.UNDONE, RunState.CANCELLED})
for _state in RunState:  # asked ten times a run: an attribute, not a function
    _state.is_end = _state in ENDS


class Kind(StrEnum):
    """What a record says."""

    DONE = "done"  # the step's result
    FAILED = "failed"  # the step failed for good: `Failure`
    BLOCKED = "blocked"  # the step, or its undo, needs a person: `Failure`
    RESOLVED = "resolved"  # a person decided: `Resolution`
    ABORT = "abort"  # from here on the run undoes itself: `Abort`
    UNDONE = "undone"  # the step's effect is gone
    WAITING = "waiting"  # the step waits for a time, or for a signal: `Waiting`
    SIGNAL = "signal"  # what a step waits for, or will: JSON
    ADOPTED = "adopted"  # another run did it, which this one was forked from: `Adopted`; its effect is that one's
    SKIPPED = "skipped"  # its condition did not hold: its result is null, and there is nothing to undo
    STARTED = "started"  # an attempt of a step that is made at most once begins
    UNDO_ASKED = "undo-asked"  # undo it as a whole once it is completed, for now it can only go forward: `Abort`
    AGAIN = "again"  # nothing was heard of a step that the outside completes, and it is asked again: `Failure`
    LATE = "late"  # its result came while the run undoes itself: `Late`
    LOCKED = "locked"  # the keys that the run holds now: a list of texts
    RETRIED = "retried"  # a step, and what follows from it, is taken back: `Retried`
    ANEW = "anew"  # nothing is left of these steps, and they are made anew
    MAPPED = "mapped"  # from here on the run is one of another graph, and what came before is told in its words: `Mapped`
    ATTEMPTS = "attempts"  # what became of the earlier attempts of a step that has ended now: `Attempted`; changes nothing


class Record(msgspec.Struct, frozen=True):
    """One thing that happened to a run.

    Attributes:
        kind: what.
        step: whose, or "" for the run as a whole.
        data: JSON: the result, a `Failure`, an `Abort` or a `Resolution`; empty where there is nothing to say.
        at: seconds since 1970, UTC; for people only.
    """

    kind: Kind
    step: str = ""
    data: bytes = b""
    at: float = 0.0


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a step failed or is blocked.

    Attributes:
        error: the type of the error; `message`: what it said.
        in_doubt: may its effect exist all the same?
        attempts: how many were made since the step was last taken up.
        undo: was it the undo that failed?
        trace: the last lines of the traceback, of a bug only.
    """

    error: str
    message: str = ""
    in_doubt: bool = False
    attempts: int = 1
    undo: bool = False
    trace: str = ""

    def __str__(self) -> str:
        return f"{self.error}: {self.message}" if self.message else self.error


class FailedAttempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt that failed. `at`: when, seconds since 1970. `wait_s`: how long the next one waited."""

    at: float
    error: str
    message: str = ""
    wait_s: float = 0.0


class Attempted(msgspec.Struct, frozen=True, omit_defaults=True):
    """The attempts before the last one, written together with what became of the step, for people.

    failed: the first and the last few of them; `left_out`: how many between are not told.
    """

    failed: tuple[FailedAttempt, ...]
    undo: bool = False
    left_out: int = 0


class Adopted(msgspec.Struct, frozen=True):
    """A step's result, from the run that did it."""

    run: str
    result: msgspec.Raw = msgspec.Raw(b"null")


class Mapped(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a history of one graph is told by another. Attributes as in `mapping.GraphMapping`, and:

    results: as they are to be, by new name, of a part by `step/part`. wrapped: steps whose answers hold the result inside.
    """

    old: str
    new: str
    renamed: dict[str, str] = {}
    dropped: tuple[str, ...] = ()
    results: dict[str, msgspec.Raw] = {}
    wrapped: tuple[str, ...] = ()


class Abort(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why the run undoes itself, and which unfinished steps had been started by then.

    Only those can have left an effect. The ones that were never started are never undone.

    whole: the run was completed, and is undone with the run that it is a part of, or because a person wants it.
    past_pivot: what has no undo may stay. kept: then these do.
    """

    reason: str
    step: str = ""
    started: tuple[str, ...] = ()
    cancelled: bool = False
    whole: bool = False
    past_pivot: bool = False
    kept: tuple[str, ...] = ()


class Retried(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person had the run retried from a step.

    Attributes:
        step: which one. steps: it, and all that follow from it. started: those of them that were under way, or may have been.
        id: of the request: it is carried out once.
    """

    step: str
    steps: tuple[str, ...]
    started: tuple[str, ...] = ()
    id: str = ""
    who: str = ""
    why: str = ""


class Waiting(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step waits for, by the journal's clock, in seconds since 1970; 0.0: no limit.

    until: then it is looked at again. limit: then its time is over, if that is later.
    """

    until: float = 0.0
    limit: float = 0.0


class Late(msgspec.Struct, frozen=True):
    """A result that came from outside while the run undoes itself.

    again: the undo is under way, and is made once more. alone: nothing at all is under way.
    """

    result: msgspec.Raw
    again: bool = False
    alone: bool = False


class Resolution(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person decided about a blocked step.

    decision:
        retry   try it again (after a fix);
        done    its effect exists: go on with `result` (of a blocked undo: leave the effect, and undo the rest);
        undone  its effect does not exist, or was removed by hand.
    """

    decision: str
    result: msgspec.Raw = msgspec.Raw(b"null")
    who: str = ""
    why: str = ""


class Header(msgspec.Struct):
    """What the journal knows of a run besides its records.

    Attributes:
        no: the journal's own number: later runs have higher ones.
        id: the name its user gave it; also its idempotency key.
        graph: hash of the definition that it was started with (see `define.Graph`).
        input, result: JSON.
        reason: why it is being undone or is blocked, for people.
        created_at, updated_at, finished_at, deadline_at: seconds since 1970, UTC; 0.0 where there is none.
    """

    no: int
    id: str
    saga: str
    graph: str
    state: RunState
    input: bytes
    result: bytes = b""
    reason: str = ""
    traceparent: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0
    finished_at: float = 0.0
    deadline_at: float = 0.0
    fence: int = 0


class Stored(msgspec.Struct):
    """A run as the journal gives it back.

    Attributes:
        records: oldest first. queue: where it waited, as far as `take` says so.
        damage: what of it is not what was written, in words; "" as a rule. Nobody may go on from it.
    """

    header: Header
    records: list[Record]
    queue: str = "default"
    damage: str = ""
