"""What follows from what, read off the handlers: checks before anything runs, and a diagram. `asyncapi` exports the same.

    @app.on(OrderPlaced, emits=PaymentCaptured | PaymentFailed, within=30, undo=PaymentRefunded)

says: a placed order is answered within 30 s by one of two events, and `PaymentRefunded` takes it back. From all services
together follows what `check` finds: events that nobody hears, failures that do not reach an undo, cycles without an end.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from yaoki.messages.app import Messages
from yaoki.messages.handlers import Handler
from yaoki.messages.schema import schema_of

FAILURE_WORDS = ("Failed", "Rejected", "Declined", "Refused", "Cancelled", "Expired")
"""How events that say no are recognized by their name, unless `failures` names them."""


class Duty(msgspec.Struct, frozen=True):
    """One handler as others see it: `service` hears `takes` and says one of `emits` within `within_s` (0: no limit).

    undo: the event that takes its effect back, or "".
    """

    service: str
    handler: str
    takes: tuple[str, ...]
    emits: tuple[str, ...]
    within_s: float = 0.0
    undo: str = ""


class Finding(msgspec.Struct, frozen=True):
    """What is wrong. kind: unheard, unreached_undo, unsaid_undo, cycle. `where`: the event or handler; `do`: the remedy."""

    kind: str
    where: str
    what: str
    do: str


def duties(*apps: Messages) -> list[Duty]:
    """The duties that the handlers of these services declare."""
    return [_duty(app.service, handler) for app in apps for handler in app.handlers.values()]


def _duty(service: str, handler: Handler) -> Duty:
    return Duty(service, handler.name, tuple(handler.takes), tuple(schema_of(each).name for each in handler.emits),
                handler.within_s, schema_of(handler.undo).name if handler.undo else "")


def check(found: Iterable[Duty], *, ends: Iterable[str] = (), failures: Iterable[str] = ()) -> list[Finding]:
    """What cannot work, or leaves something undone.

    Args:
        ends: events that need no hearer, because they are the end of the story.
        failures: events that say no; default: those named `...Failed`, `...Rejected` and the like.
    """
    all_duties = list(found)
    heard = {name for duty in all_duties for name in duty.takes}
    said = {name for duty in all_duties for name in duty.emits}
    named = set(failures) or {name for name in said if name.endswith(FAILURE_WORDS)}
    return [*_unheard(all_duties, heard | set(ends)), *_unreached(all_duties, named), *_unsaid(all_duties, heard, said),
            *_cycles(all_duties)]


def _unheard(all_duties: list[Duty], known: set[str]) -> list[Finding]:
    return [Finding("unheard", name, f"{duty.service}.{duty.handler} says {name}, and nobody hears it",
                    f"handle {name} somewhere, or name it in `ends`")
            for duty in all_duties for name in duty.emits if name not in known]


def _unsaid(all_duties: list[Duty], heard: set[str], said: set[str]) -> list[Finding]:
    """An undo must be carried out by somebody who hears of a reason, and says that it is done."""
    return [Finding("unsaid_undo", f"{duty.service}.{duty.handler}", f"its undo {duty.undo} is never said by anybody",
                    f"add a handler in {duty.service} that takes the failure back and has emits={duty.undo}")
            for duty in all_duties if duty.undo and duty.undo not in said and duty.undo not in heard]


def _unreached(all_duties: list[Duty], failures: set[str]) -> list[Finding]:
    """Each failure must lead to the undo of every effect that came before it."""
    findings: list[Finding] = []
    for failure in sorted(failures):
        before = _upstream(all_duties, failure)
        after = _downstream(all_duties, failure)
        findings += [
            Finding("unreached_undo", f"{duty.service}.{duty.handler}", f"after {failure}, {duty.undo} never follows",
                    f"handle {failure} (or what follows it) in {duty.service}, with emits={duty.undo}")
            for duty in before if duty.undo and duty.undo not in after and failure not in duty.emits]
    return findings


def _upstream(all_duties: list[Duty], name: str) -> list[Duty]:
    """The duties that have been done when this event is said."""
    found: list[Duty] = []
    wanted, seen = [name], {name}
    while wanted:
        event = wanted.pop()
        for duty in all_duties:
            if event in duty.emits and duty not in found:
                found.append(duty)
                fresh = [each for each in duty.takes if each not in seen]
                seen.update(fresh)
                wanted += fresh
    return found


def _downstream(all_duties: list[Duty], name: str) -> set[str]:
    """The events that may follow this one."""
    wanted, seen = [name], {name}
    while wanted:
        event = wanted.pop()
        fresh = [each for duty in all_duties if event in duty.takes for each in duty.emits if each not in seen]
        seen.update(fresh)
        wanted += fresh
    return seen


def _cycles(all_duties: list[Duty]) -> list[Finding]:
    """Events that lead to themselves: without a bound they may go round for ever."""
    looping = sorted({name for duty in all_duties for name in duty.takes
                      if any(name in _downstream(all_duties, said) for said in duty.emits)})
    if not looping:
        return []
    return [Finding("cycle", ", ".join(looping), f"these lead to themselves: {', '.join(looping)}",
                    "let the payload count the rounds and end them, and declare the event that ends them")]


# ── a picture ────────────────────────────────────────────────────────────────────────────────────────────────────────


def diagram(found: Iterable[Duty]) -> str:
    """A Mermaid flowchart: events as rounded nodes, handlers as boxes."""
    lines = ["flowchart LR"]
    for duty in found:
        box = _id("handler", f"{duty.service}.{duty.handler}")
        lines.append(f'    {box}["{_text(duty.service)}.{_text(duty.handler)}"]')
        lines += [f"    {_event(name)} --> {box}" for name in duty.takes]
        limit = f"|within {duty.within_s:g} s|" if duty.within_s else ""
        lines += [f"    {box} -->{limit} {_event(name)}" for name in duty.emits]
        if duty.undo:
            lines.append(f"    {box} -. undone by .-> {_event(duty.undo)}")
    return "\n".join(lines) + "\n"


def _event(name: str) -> str:
    return f'{_id("event", name)}(["{_text(name)}"])'


def _id(kind: str, name: str) -> str:
    """With its kind, because an event may be called like a handler, or `end`, which is a word of Mermaid's."""
    return f"{kind}_" + "".join(each if each.isascii() and each.isalnum() else f"_{ord(each):x}_" for each in name)


def _text(name: str) -> str:
    return name.replace("#", "#35;").replace('"', "#quot;")


__all__ = ["Duty", "Finding", "check", "diagram", "duties"]
