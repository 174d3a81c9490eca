"""Runs that start runs: how a child is called, and what parent and child say to each other.

A child's id is the idempotency key of the step that started it: `trip-42/payment`. So starting it twice is one run, whoever
starts it; whose child a run is can be read off its name; and so can all that a run has started.

    parent ──create, then waits──▶ child
    parent ◀──`Outcome`, durable with the child's end── child
    parent ──undo, durable with the parent's record──▶ child        (it undoes itself, or waits until it can)
    parent ◀──`Outcome`── child
"""

from __future__ import annotations

import msgspec

from yaoki.saga.journal.port import Ask
from yaoki.saga.records import Header, RunState


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a child ended. result: JSON, of a completed one. reason: of one that was undone."""

    child: str
    state: RunState
    result: msgspec.Raw = msgspec.Raw(b"null")
    reason: str = ""

    @property
    def is_undone(self) -> bool:
        return self.state is not RunState.COMPLETED


class Undo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A parent's request, or a person's: leave nothing of this run. past_pivot: but what has no undo, which is said of each parent's."""

    reason: str
    who: str = ""
    past_pivot: bool = False
    person: bool = False

    @property
    def said(self) -> str:
        return f"{self.reason} by {self.who}" if self.who else self.reason


OUTCOME = msgspec.json.Decoder(Outcome)
UNDO = msgspec.json.Decoder(Undo)


def child_id(run: str, step: str, again: int = 0) -> str:
    """The id of the run that this step starts. again: how often a person had the step tried again: each time is a new run."""
    return f"{run}/{step}.{again + 1}" if again else f"{run}/{step}"


def parent_of(run: str) -> tuple[str, str] | None:
    """The run and the step that this one was started by, if its name is that of a child."""
    parent, slash, step = run.rpartition("/")
    return (parent, step.partition(".")[0]) if slash and parent and step else None


def tell_parent(child: Header, state: RunState, result: bytes, reason: str) -> tuple[Ask, ...]:
    """What a run that ends says to the one that started it, if there is one."""
    found = parent_of(child.id)
    if found is None:
        return ()
    outcome = Outcome(child.id, state, msgspec.Raw(result or b"null"), reason)
    return (Ask(found[0], "child", msgspec.json.encode(outcome)),)


def ask_undo(child: str, parent: str, reason: str) -> Ask:
    return Ask(child, "undo", msgspec.json.encode(Undo(f"{parent} is being undone: {reason}", past_pivot=True)))
