"""Steps in which time passes, or somebody else acts: what users write for them. `Saga` has these methods; what they do: `waiting.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from yaoki.errors import DefinitionError
from yaoki.saga import codec
from yaoki.saga.signatures import UNDECIDED as _UNSET
from yaoki.saga.waiting import UNSET, Wait

if TYPE_CHECKING:
    from yaoki.saga.step import Step

R = TypeVar("R")


class Waits:
    """The part of `Saga` that adds steps which wait."""

    name: str

    if TYPE_CHECKING:

        def _add(self, fn: Callable[..., Any], *, name: str, pivot: bool, after: str | Iterable[str], retry: Any, timeout: float | None,
                 deadline: float | None, undo: Callable[..., Any] | None, tx: bool = False, parts: str = "") -> Step[..., Any]: ...

    def sleep(self, length: Callable[..., float | timedelta] | float | timedelta, *, name: str = "",
              after: str | Iterable[str] = ()) -> Step[..., None]:
        """Add a step in which time passes: seconds or a timedelta, or a function of the input and results that returns them.

            book_trip.sleep(3600, name="cooling_off", after="hotel")

            @book_trip.sleep
            def until_check_in(trip: Trip, hotel: Booking) -> float: ...

        It ends by the journal's clock, also if every process was gone meanwhile; a sleeping run costs nothing but its row.
        """
        if not callable(length):
            if not name:
                raise DefinitionError(f"a sleep of saga {self.name!r} has no name", do='give one: saga.sleep(3600, name="cooling_off")')
            fixed = length
            length = lambda: fixed  # noqa: E731  a step is a function
        return self._add_wait(length, Wait("sleep"), type(None), name=name, after=after)

    def wait_for(self, answer: type[R], *, name: str = "", after: str | Iterable[str] = (), timeout: float | None = None,
                 otherwise: Any = UNSET) -> Callable[[Callable[..., Any]], Step[..., R]]:
        """Add a step that asks, and then waits for somebody's answer: a person, or a service that calls back.

            @book_trip.wait_for(Decision, timeout=86_400)
            async def approval(trip: Trip, hotel: Booking, effect: Effect) -> None:
                await mail(trip.boss, f"answer to {effect.key}")          # asks; may be repeated, with the same key

        The answer comes by `app.signal(run_id, "approval", Decision(...))`, `yk runs signal RUN approval JSON`, or HTTP. The
        first one counts, also when it comes before the question. A waiting run costs nothing but its row.

        Args:
            answer: the type of the answer; it becomes the step's result.
            timeout: seconds to wait; then `otherwise` is the result, or, without one, the step fails and the run undoes itself.
        """
        if timeout is not None and not timeout > 0:
            raise DefinitionError(f"saga {self.name!r}: timeout is seconds above 0, not {timeout!r}", do="86_400 is a day")
        if otherwise is not UNSET and timeout is None:
            raise DefinitionError(f"saga {self.name!r}: otherwise= is for when a timeout is over, and there is none", do="give timeout=")
        return lambda fn: self._add_wait(fn, Wait("signal", timeout, otherwise), answer, name=name, after=after)

    def external(self, gives: type[R], *, name: str = "", after: str | Iterable[str] = (), timeout: float | None = None,
                 heartbeat: float | None = None, retry: Any = None,
                 undo: Callable[..., Any] | None = _UNSET) -> Callable[[Callable[..., Any]], Step[..., R]]:
        """Add a step that the world outside completes, by a token that the step hands out.

            @book_trip.external(Ticket, timeout=86_400, heartbeat=600)
            async def ticket(trip: Trip, flight: Booking, effect: Effect) -> None:
                await printer.order(flight, call_back=effect.token)        # may be repeated, with the same token

        Later, from anywhere: `app.complete(token, Ticket(...))` or `app.fail(token, "no paper")`, `yk runs complete TOKEN JSON`, or
        HTTP. A waiting run costs nothing but its row.

        Args:
            gives: the type of the result.
            timeout: seconds for all of it; then the step fails, in doubt, and the run undoes itself.
            heartbeat: seconds within which something must be heard (`app.heartbeat(token)`); else it is asked again, with a new token.
            retry: how often it is asked in all, three times by default; after the pivot without end.
        """
        for what, value in (("timeout", timeout), ("heartbeat", heartbeat)):
            if value is not None and not value > 0:
                raise DefinitionError(f"saga {self.name!r}: {what} is seconds above 0, not {value!r}", do="86_400 is a day")
        wait = Wait("token", timeout, heartbeat_s=heartbeat)
        return lambda fn: self._add_wait(fn, wait, gives, name=name, after=after, retry=retry, undo=undo)

    def _add_wait(self, fn: Callable[..., Any], wait: Wait, gives: type[Any], *, name: str, after: str | Iterable[str],
                  retry: Any = None, undo: Callable[..., Any] | None = None) -> Step[..., Any]:
        step = self._add(fn, name=name, pivot=False, after=after, retry=retry, timeout=None, deadline=None, undo=undo)
        step.wait = wait
        step.hints["return"] = gives
        step.result = codec.Decoder(gives)
        return step
