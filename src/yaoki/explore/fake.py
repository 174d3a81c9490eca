"""A participant for people who have no service code at hand: books and cancels, remembers keys, counts every effect.

    payment = FakeService("payment")

    @trip.step
    async def pay(trip: Trip) -> Booking:
        return await payment.book()          # the key and the subject are those of the step under way

    @pay.undo
    async def refund(trip: Trip, pay: Booking | None) -> None:
        await payment.cancel()

It follows the participant's protocol: a repeated book answers as the first did, a repeated cancel does nothing, a cancel
whose book never came is remembered, and a book that comes after its cancel is refused. Each rule can be switched off, to
see what your code does with services that do not keep it.

Inside a universe the state belongs to that universe and every call can fail; outside (a unit test) it simply works.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import msgspec

from yaoki import effect as effects
from yaoki.chaos.faults import At
from yaoki.errors import ConfigError, DeclinedError, SuspendedError
from yaoki.explore import world as worlds

DEFECTS = {
    "no_idempotency": "a repeated book books again",
    "undo_not_idempotent": "a repeated cancel gives back twice",
    "undo_needs_do": "a cancel of what was never booked is an error",
    "no_suspension": "a book that comes after its cancel is carried out",
    "forgets_keys": "keys are kept in memory only, and a restart loses them",
    "undo_ignored": "a cancel says yes and does nothing",
    "books_when_declining": "a declined book holds the money all the same",
}


class Booking(msgspec.Struct, frozen=True):
    """What `book` answers."""

    id: str
    item: str = ""
    units: int = 1


class NotBookedError(DeclinedError):
    """There is nothing to cancel (only with the defect `undo_needs_do`)."""

    code = "YK-1391"


class ServiceState:
    """What one fake service keeps: durable, unless a defect says otherwise. `net`: units held, by subject."""

    def __init__(self, service: FakeService) -> None:
        self.service = service
        self.answers: dict[str, Booking] = {}
        self.held: dict[str, tuple[str, str, int]] = {}
        self.cancelled: dict[str, None] = {}
        self.net: dict[str, int] = {}
        self.stock: dict[str, int] = dict(service.stock)
        self.log: list[tuple[str, str]] = []
        self.numbers = 0

    def lose_memory(self) -> None:
        if "forgets_keys" in self.service.defects:
            self.answers.clear()
            self.cancelled.clear()

    def digest(self) -> Any:
        """Everything that later answers and invariants can depend on."""
        return (tuple(self.answers), tuple(self.held.items()), tuple(self.cancelled), tuple(self.net.items()),
                tuple(self.stock.items()), tuple(self.log))


class FakeService:
    """A service that books and cancels.

    Args:
        name: its host name in sites, timelines and reports.
        timeout: seconds after which its client gives up on an answer; None: never.
        stock: units there are of each item; an item that is not named is never sold out.
        declines: says no to a book of this subject and item; or True for every one.
        defects: rules that it does not keep; see `DEFECTS`.

    Raises:
        ConfigError: an unknown defect.
    """

    def __init__(self, name: str, *, timeout: float | None = 5.0, stock: Mapping[str, int] | None = None,
                 declines: Callable[[str, str], bool] | bool = False, defects: Iterable[str] = ()) -> None:
        self.name = name
        self.timeout = timeout
        self.stock = dict(stock or {})
        self.declines = declines
        self.defects = frozenset(defects)
        if unknown := self.defects - DEFECTS.keys():
            raise ConfigError(f"FakeService has no defect {min(unknown)!r}", do=f"one of {', '.join(DEFECTS)}")
        self._home = ServiceState(self)

    @property
    def state(self) -> ServiceState:
        """Its state in the universe that is running, or its own outside."""
        world = worlds._active
        return self._home if world is None else world.services.get(self.name) or self._state_in(world)

    def _state_in(self, world: worlds.World) -> ServiceState:
        state = world.services.get(self.name)
        if state is None:
            state = world.services[self.name] = ServiceState(self)
        return state

    # ── what it offers ──

    async def book(self, subject: str = "", *, key: str | None = None, item: str = "", units: int = 1) -> Booking:
        """Hold `units` of `item` for `subject`, once per key.

        Args:
            subject: whose effect it is in the accounts; the run and step under way by default.
            key: idempotency key; that of the step under way by default. Without either, every call books.
        """
        subject, key = _whose(subject, key, undo=False)
        world, effect = worlds._active, partial(self._book, subject, key, item, units)
        return effect() if world is None else await world.call(self.name, "book", effect, timeout_s=self.timeout)

    async def cancel(self, subject: str = "", *, key: str | None = None) -> None:
        """Give back what was booked under this key, or by this subject; harmless to repeat, or when nothing was booked."""
        subject, key = _whose(subject, key, undo=True)
        await self._ask("cancel", partial(self._cancel, subject, key))

    async def left(self, item: str) -> int:
        """Units of `item` that can still be booked."""
        return await self._ask("left", lambda: self.state.stock.get(item, 0), kind=At.READ)  # type: ignore[no-any-return]

    def book_blocking(self, subject: str = "", *, key: str | None = None, item: str = "", units: int = 1) -> Booking:
        """`book` for code that is not async."""
        subject, key = _whose(subject, key, undo=False)
        return self._ask_blocking("book", lambda: self._book(subject, key, item, units))  # type: ignore[no-any-return]

    def cancel_blocking(self, subject: str = "", *, key: str | None = None) -> None:
        """`cancel` for code that is not async."""
        subject, key = _whose(subject, key, undo=True)
        self._ask_blocking("cancel", lambda: self._cancel(subject, key))

    def left_blocking(self, item: str) -> int:
        """`left` for code that is not async."""
        return self._ask_blocking("left", lambda: self.state.stock.get(item, 0), kind=At.READ)  # type: ignore[no-any-return]

    def _ask(self, op: str, effect: Callable[[], Any], kind: At = At.CALL) -> Awaitable[Any]:
        world = worlds._active
        return _at_once(effect) if world is None else world.call(self.name, op, effect, kind=kind, timeout_s=self.timeout)

    def _ask_blocking(self, op: str, effect: Callable[[], Any], kind: At = At.CALL) -> Any:
        world = worlds.active()
        return effect() if world is None else world.call_blocking(self.name, op, effect, kind=kind, timeout_s=self.timeout)

    # ── what happens there ──

    def _book(self, subject: str, key: str, item: str, units: int) -> Booking:
        state = self.state
        if key and "no_idempotency" not in self.defects:
            if key in state.answers:
                return state.answers[key]
            if key in state.cancelled and "no_suspension" not in self.defects:
                raise SuspendedError(f"{self.name}: {key} was cancelled before it came", do="nothing: its undo was here first")
        state.numbers += 1
        key = key or f"{self.name}-{state.numbers}"
        declines = self.declines
        declined = declines is not False and (declines is True or (callable(declines) and declines(subject, item)))
        if declined and "books_when_declining" not in self.defects:
            raise DeclinedError(f"{self.name} declines {subject or key}", do="as it was told to")
        if item in state.stock:
            if state.stock[item] < units:
                raise DeclinedError(f"{self.name}: {item} is sold out", do="choose another")
            state.stock[item] -= units
        booking = Booking(f"{self.name}-{state.numbers}", item, units)
        state.answers[key] = booking
        self._hold(state, key, subject or key, item, units)
        if declined:
            raise DeclinedError(f"{self.name} declines {subject or key}", do="as it was told to")
        return booking

    def _hold(self, state: ServiceState, key: str, subject: str, item: str, units: int) -> None:
        state.held[key] = (subject, item, units)
        state.net[subject] = net = state.net.get(subject, 0) + 1
        state.log.append(("book", subject))
        world = worlds._active
        if world is not None and world.notes is not None:
            self._tell("book", subject, net)
        if net > 1:
            self._broken("no_double_effect", f"{self.name} booked {subject} {net} times")

    def _cancel(self, subject: str, key: str) -> None:
        state = self.state
        keys = [key] if key else [each for each, (whose, _, _) in state.held.items() if whose == subject]
        for each in keys:
            self._cancel_key(state, each)

    def _cancel_key(self, state: ServiceState, key: str) -> None:
        state.answers.pop(key, None)
        state.cancelled[key] = None
        held = state.held.get(key)
        if held is None:
            if "undo_needs_do" in self.defects:
                raise NotBookedError(f"{self.name}: {key} was never booked", do="the service should answer a cancel whose book never came")
            return
        if "undo_ignored" in self.defects:
            return
        subject, item, units = held
        if "undo_not_idempotent" not in self.defects:
            del state.held[key]
        if item in state.stock:
            state.stock[item] += units
        state.net[subject] = net = state.net[subject] - 1
        state.log.append(("cancel", subject))
        self._tell("cancel", subject, net)
        if net < 0:
            self._broken("no_double_undo", f"{self.name} gave {subject} back {1 - net} times")

    def _tell(self, op: str, subject: str, net: int) -> None:
        world = worlds._active
        if world is not None and world.notes is not None:
            world.note(self.name, f"● {op} {subject}: now {net}")

    def _broken(self, invariant: str, why: str) -> None:
        world = worlds.active()
        if world is not None:
            world.break_(invariant, why)


async def _at_once(effect: Callable[[], Any]) -> Any:
    return effect()


def _whose(subject: str, key: str | None, *, undo: bool) -> tuple[str, str]:
    """Whose effect it is, and under which key: those of the step under way unless given."""
    current = effects.current.get()
    if current is None:
        return subject, key or ""
    if key is None:
        # An undo names what it undoes by the do's own key.
        key = current.key if undo else current.next_key()
    # Whose effect it is does not depend on the key: a key that changes is one of the bugs to be found.
    return subject or f"{current.run}/{current.step}", key
