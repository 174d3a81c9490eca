"""A step retried in place, with all that follows from it: first taken back, then made anew. Deciders.

    yk runs retry trip-42 --from flight --who ada --why 'wrong date'

    hotel ✓  flight ✓  seat ✓  payment !     retried from flight: what runs of these is awaited, then seat and flight are undone
    hotel ✓  flight ▸  seat ·  payment ·     anew: they are ready again, under keys of their own: `trip-42/flight~2`

    retried ──those that run have ended──▶ undone, the last first ──nothing of them is left──▶ anew
        └──────────────── abort: cancelled, past its deadline, another step failed ────────────────▶ the whole run undoes itself

What is made anew is a new effect, for a participant that has seen the undo of the old one would refuse its key, rightly. So nothing
may be left of the old one: what cannot be undone, and may have happened, is a reason to refuse; so is the point of no return. A step
that was declared to need no undo is simply made again: that is what the declaration says. Steps that do not follow from it stay.

Source: what Temporal's reset, Step Functions' redrive and Restate's restart from a journal entry do, less what they leave to the
user: the effects of the steps that are made a second time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import msgspec

from yaoki.errors import RetryFromError
from yaoki.saga.graph import LEAVES_NOTHING, Graph
from yaoki.saga.records import Kind, Record, Retried
from yaoki.saga.standing import Step

if TYPE_CHECKING:
    from yaoki.saga.machine import Machine

class Rewinding:
    """Steps that are taken back, to be made anew.

    Attributes:
        numbers: which; all that follow from one of them are among them.
        awaited: those that run yet. left: how many of them are not clear.
    """

    __slots__ = ("awaited", "left", "numbers")

    def __init__(self, numbers: frozenset[int]) -> None:
        self.numbers = numbers
        self.awaited: set[int] = set()
        self.left = len(numbers)


def followers_of(graph: Graph, steps: Iterable[str]) -> frozenset[int]:
    """The numbers of these steps, and of all that follow from them. Names that the graph does not have are passed over."""
    found = {graph.index[name] for name in steps if name in graph.index}
    for number in range(len(graph)):
        if number not in found and not found.isdisjoint(graph.needs[number]):
            found.add(number)
    return frozenset(found)


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person's request. id: so that it is carried out once, though its row may be read twice."""

    step: str
    id: str
    who: str = ""
    why: str = ""


def retried(machine: Machine, asked: Retry, started: Collection[str], now: float) -> Record | None:
    """The record by which the run turns back. None: it has done so already. started: unfinished steps that may have been begun.

    Raises RetryFromError when it must not.
    """
    if asked.id in machine.retries:
        return None
    check(machine, asked.step, started)
    graph = machine.graph
    names = tuple(graph.names[number] for number in sorted(followers_of(graph, [asked.step])))
    said = Retried(asked.step, names, tuple(name for name in started if name in names), asked.id, asked.who, asked.why)
    return Record(Kind.RETRIED, "", msgspec.json.encode(said), now)


def check(machine: Machine, step: str, started: Collection[str] = ()) -> None:
    """Raises RetryFromError where the run cannot be retried from this step, with the reason."""
    graph, state = machine.graph, machine.state
    if step not in graph.index:
        raise RetryFromError(f"saga {graph.saga} has no step {step!r}", do=f"name one of: {', '.join(graph.names)}")
    if state.is_end:
        raise RetryFromError(f"the run has ended: it is {state}", do="start a new run with the same input, or, if it was completed, "
                             f"fork it: yk runs fork RUN --from {step}")
    if machine.abort is not None or machine.undo_asked is not None:
        raise RetryFromError("the run undoes itself, and an abort is not taken back", do="let it end, then start a new run with the same input")
    if machine.rewinding is not None:
        raise RetryFromError("the run is being taken back already", do="wait until its steps are undone: `yk runs show`")
    number = graph.index[step]
    if machine.steps[number] == Step.WAITING or (machine.steps[number] == Step.READY and not _has_begun(machine, number, started)):
        raise RetryFromError(f"step {step} has not begun", do="it comes by itself; name a step that was made")
    if number <= graph.pivot and machine.too_late(started):
        raise RetryFromError(f"the run has passed {graph.names[graph.pivot]}, its point of no return",
                             do=f"retry it from a step below, or fork it: yk runs fork RUN --from {step}")
    for each in sorted(followers_of(graph, [step])):
        if each >= graph.pivot >= 0 and _would_stay(machine, each, started):
            name = graph.names[each]
            raise RetryFromError(f"{name} comes after the point of no return, may have happened, and has no undo: made anew it would be there twice",
                                 do=f"yk runs retry RUN {name} repeats a blocked step by its old key; yk runs fork makes new effects, knowingly")


def _has_begun(machine: Machine, number: int, started: Collection[str]) -> bool:
    return machine.graph.names[number] in started or number in machine.again or number in machine.parts


def _would_stay(machine: Machine, number: int, started: Collection[str]) -> bool:
    """May this step have left something that nothing takes back?"""
    node, standing = machine.graph.nodes[number], machine.steps[number]
    if node.undo or node.waits in LEAVES_NOTHING or number in machine.skipped:
        return False
    return standing not in {Step.WAITING, Step.READY} or (standing == Step.READY and _has_begun(machine, number, started))


def of_this_round(records: list[Record], step: str) -> list[Record]:
    """A history without what happened to the step before it was made anew the last time."""
    begins, taken_back = 0, False
    for place, record in enumerate(records):
        if record.kind is Kind.RETRIED:
            taken_back = step in msgspec.json.decode(record.data, type=Retried).steps
        elif record.kind is Kind.ANEW and taken_back:
            begins = place + 1
    return records[begins:]
