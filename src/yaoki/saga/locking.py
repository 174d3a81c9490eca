"""Semantic locks: what a saga does to one thing, no other run with the same key does at the same time.

    book_trip = Saga("book-trip", input=Trip, lock=lambda trip: ("seat", trip.flight))        # for the whole run
    @book_trip.step(lock=lambda trip: [("card", trip.card), ("miles", trip.who)])             # from this step on, several

    turn ──claim──▶ holds it ──▶ runs ... ──▶ the run has ended, completed or undone: the next one's turn
             └──▶ waits in the key's queue, parked: nothing but two rows

A key is held to the end of the run, undo included, and also while the run is blocked: it says "what I did to this may be taken
back yet". Keys alone make no deadlock, for everybody claims in the same order: before a key, all smaller ones that the run will want.
With children they can, which is seen and said: `deadlock.py`.

Source: Garcia-Molina and Salem, Sagas, 1987; the countermeasures of Frank and Zahle, Semantic ACID properties, 1998.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki.errors import DefinitionError
from yaoki.saga import deadlock
from yaoki.saga.deadlock import circle
from yaoki.saga.records import Failure, Kind, Record
from yaoki.saga.verdict import Verdict, failure

if TYPE_CHECKING:
    from yaoki.saga.define import Step
    from yaoki.saga.driving.keeping import Keeping

_SCALARS = (str, int, float, bool)


def key_of(parts: Any) -> str:
    """A key as the journal knows it: JSON of a text, a number, or a tuple of them. Raises TypeError."""
    each = parts if isinstance(parts, tuple) else (parts,)
    if not each or not all(isinstance(part, _SCALARS) for part in each):
        raise TypeError(f'a key is a text, a number, or a tuple of them such as ("seat", "LH1"), not {parts!r}')
    return msgspec.json.encode(each).decode()


def shown(key: str) -> str:
    """A key for people: `seat/LH1`."""
    return "/".join(str(part) for part in msgspec.json.decode(key))


class Keys:
    """What the runs of one saga lock: functions of the input, for the whole run ("") or from a step on."""

    def __init__(self, saga: str) -> None:
        self._saga = saga
        self._of: dict[str, Callable[[Any], Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, lock: Callable[[Any], Any], step: Step[..., Any] | None = None) -> None:
        """Raises DefinitionError."""
        if not callable(lock) or inspect.iscoroutinefunction(lock):
            raise DefinitionError(f"saga {self._saga!r}: lock= is a plain function of the input, not {lock!r}",
                                  do='lock=lambda trip: ("seat", trip.flight), say')
        if step is not None:
            step.special = True
        self._of["" if step is None else step.name] = lock

    def of(self, value: Any) -> Wanted:
        """The keys of a run with this input. Raises what the functions raise, and TypeError."""
        return Wanted({step: _several(lock(value)) for step, lock in self._of.items()})


class Wanted:
    """The keys of one run, in the order in which everybody claims them."""

    def __init__(self, of: dict[str, list[str]]) -> None:
        self._of = of
        self._order = sorted({key for keys in of.values() for key in keys})

    def before(self, step: str) -> list[str]:
        """What has to be held before this step begins: its own keys, those of the run, and all smaller ones."""
        last = max((*self._of.get("", ()), *self._of.get(step, ())), default="")
        return [key for key in self._order if key <= last]


def _several(found: Any) -> list[str]:
    if found is None:
        return []
    return [key_of(each) for each in found] if isinstance(found, (list, set, frozenset)) else [key_of(found)]


class Holding:
    """The driver's side: claims what steps need, and holds back those whose keys others have.

    Attributes:
        held_up: names of steps that wait for a key.
        told: the key that is waited for, and who holds it, for people.
    """

    def __init__(self, driver: Keeping, keys: Keys) -> None:
        self._driver = driver
        self._keys = keys
        self._wanted: Wanted | None = None
        self.held_up: frozenset[str] = frozenset()
        self.told = ""

    def look_again(self) -> None:
        """A key may be free now."""
        self.held_up = frozenset()

    def certainly_waits(self, names: Iterable[str]) -> set[str]:
        """Those that cannot have been started, for a key was missing."""
        try:
            wanted = self._keys.of(self._driver.input)
        except Exception:
            return set()
        held = self._driver.machine.outside.locked
        return {name for name in names if not held.issuperset(wanted.before(name))}

    async def allowed(self, work: Sequence[str]) -> list[str]:
        """Those that may run. A function that fails blocks its step: it is the user's code, and a bug in it is one."""
        held = self._driver.machine.outside.locked
        if self._wanted is None:
            try:
                self._wanted = self._keys.of(self._driver.input)
            except Exception as error:
                bug = failure(error, Verdict(bug=True, repeat=False, in_doubt=False), attempts=1, undo=False, in_doubt=False)
                await self._driver.write(Record(Kind.BLOCKED, work[0], msgspec.json.encode(bug), self._driver.now()))
                return []
        new: list[str] = []
        waiting: set[str] = set(self.held_up)
        stuck: list[Record] = []
        for name in work:
            if name in waiting or (key := await self._claim(self._wanted.before(name), held, new)) is None:
                continue
            waiting.add(name)
            if found := await circle(self._driver.journal, self._driver.header.id, key):
                failed = Failure("Deadlock", deadlock.told(found))
                stuck.append(Record(Kind.BLOCKED, name, msgspec.json.encode(failed), self._driver.now()))
        free = [name for name in work if name not in waiting]
        # What a person decides about is not waited for any more.
        self.held_up = frozenset(waiting - {record.step for record in stuck})
        if new:
            stuck.insert(0, Record(Kind.LOCKED, "", msgspec.json.encode(sorted({*held, *new})), self._driver.now()))
        if stuck:
            await self._driver.write(*stuck)
        return free

    async def _claim(self, wanted: list[str], held: frozenset[str], new: list[str]) -> str | None:
        """The key that has to be waited for; None: all are here."""
        run = self._driver.header.id
        for key in wanted:
            if key in held or key in new:
                continue
            holder = await self._driver.journal.claim_lock(run, key)
            if holder != run:
                self.told = f"key {shown(key)}, which run {holder} holds"
                return key
            new.append(key)
        return None
