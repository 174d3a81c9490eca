"""The routing slip: the itinerary, the results and the undo log travel in the message. For services that share nothing.

    hotels = SlipStation(app_hotels, {"hotel": (book, cancel)})       # in each service, the steps it can do
    await send_slip(app, ["hotel", "flight", "payment"], input={...}, id="trip-42")

    slip ──▶ do the next step ──ok──▶ slip with its result, to the next station ... ──▶ `slip.ended`
                 │ failed for good
                 ▼
         slip turned back: each station undoes what it did, the last first

Nobody needs the definition, a broker that orders, or a monitor; it is sequential, and what travels grows with the results.
Each leg is a message with an id of its own (`slip/trip-42/3`), so a repetition changes nothing.
Source: Hohpe and Woolf, Enterprise Integration Patterns, "Routing Slip"; its undo log after Vasters, "Sagas" (2012).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from yaoki import effect, runtime
from yaoki.errors import DeclinedError, DefinitionError, InputError
from yaoki.messages.app import Messages
from yaoki.messages.envelope import Message
from yaoki.messages.handlers import Handler
from yaoki.messages.verdict import Retries

Do = Callable[[Any, Mapping[str, Any]], Awaitable[Any]]
Undo = Callable[[Any, Any], Awaitable[None]]
ENDED = "slip.ended"


class Slip(msgspec.Struct, frozen=True, omit_defaults=True):
    """What travels.

    Attributes:
        todo: steps still to do, the next first. done: (step, result), the last first: the undo log.
        input: what the trip began with. failed: why it turned back, or "". leg: counts the messages.
    """

    id: str
    todo: tuple[str, ...]
    input: Any = None
    done: tuple[tuple[str, Any], ...] = ()
    failed: str = ""
    leg: int = 0

    @property
    def next_step(self) -> str:
        """The step that the next station is to do, or to undo; "" at the end."""
        if self.failed:
            return self.done[0][0] if self.done else ""
        return self.todo[0] if self.todo else ""


class SlipStation:
    """What one service can do for slips.

    Args:
        steps: by name: `do(input, results)` returning JSON-able data, and `undo(input, result)`, which tolerates a result
            of None (nobody knows) and being called again. Raise `DeclinedError` from `do` to turn the slip back.
        retries: of `do`; when they end, the slip turns back, undoing this step as in doubt too. An undo never gives up.
    """

    def __init__(self, app: Messages, steps: Mapping[str, tuple[Do, Undo]], *, retries: Retries | None = None) -> None:
        self.app = app
        self.steps = dict(steps)
        self.retries = retries or Retries(attempts=5, first_s=0.2, cap_s=10.0)
        for name in steps:
            app.add(Handler(fn=self._arrived, name=f"slip-{name}", takes={_type(name): Slip}, timeout_s=300.0,
                            retries=Retries(attempts=1_000_000, first_s=self.retries.first_s, cap_s=self.retries.cap_s)))
        if not steps:
            raise DefinitionError(f"{app.service} has no steps for slips", do="give some: {'hotel': (book, cancel)}")

    async def _arrived(self, slip: Slip) -> None:
        do, undo = self.steps[slip.next_step]
        if slip.failed:
            await undo(slip.input, slip.done[0][1])
            await _pass_on(self.app, msgspec.structs.replace(slip, done=slip.done[1:], leg=slip.leg + 1))
            return
        step = slip.todo[0]
        under_way = effect.current.get()
        try:
            result = await do(slip.input, dict(slip.done))
        except DeclinedError as error:
            onward = msgspec.structs.replace(slip, failed=f"{step}: {error}", leg=slip.leg + 1)
        except Exception as error:
            if under_way is None or under_way.attempt < self.retries.attempts:
                raise  # stored, and tried again
            onward = msgspec.structs.replace(slip, failed=f"{step}: {type(error).__name__}: {error}",
                                             done=((step, None), *slip.done), leg=slip.leg + 1)
        else:
            onward = msgspec.structs.replace(slip, todo=slip.todo[1:], done=((step, result), *slip.done), leg=slip.leg + 1)
        await _pass_on(self.app, onward)


async def send_slip(app: Messages, steps: Sequence[str], *, input: Any, id: str) -> None:  # noqa: A002
    """Send a slip on its way. The same id twice is one trip. `slip.ended` says how it ended."""
    if not steps or len(set(steps)) != len(steps):
        raise InputError(f"a slip with the steps {list(steps)} cannot travel", do="name at least one, and each once")
    await _pass_on(app, Slip(id, tuple(steps), input))


async def _pass_on(app: Messages, slip: Slip) -> None:
    step = slip.next_step
    message = Message(id=f"slip/{slip.id}/{slip.leg}", source=app.service, type=_type(step) if step else ENDED, key=slip.id,
                      data=msgspec.json.encode(slip), time=runtime.unix_time(), correlation=slip.id)
    await app.store.append([message])


def _type(step: str) -> str:
    return f"slip.{step}"
