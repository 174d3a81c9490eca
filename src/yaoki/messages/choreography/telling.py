"""Words on choreographed runs that anybody may say: start one, cancel it, answer what it waits for, decide what is blocked."""

from __future__ import annotations

from typing import Any

import msgspec

from yaoki import events, runtime
from yaoki.messages.app import Messages
from yaoki.messages.choreography.told import Told, prefix_of, type_of
from yaoki.messages.envelope import Message
from yaoki.saga import codec
from yaoki.saga.define import Saga
from yaoki.saga.records import Abort, Resolution
from yaoki.saga.waiting import check_answer


async def start(app: Messages, saga: Saga[Any], input: object, *, id: str) -> str:  # noqa: A002
    """Start a run: anybody may. The same id twice is one run. Returns the id; see `Monitor` for how it goes on.

    Raises:
        InputError: the input is not what the saga takes.
    """
    data = codec.encode(input)
    saga.input.decode(data)
    now = runtime.unix_time()
    told = Told("started", data=msgspec.Raw(data), at=now, deadline_at=now + saga.deadline if saga.deadline else 0.0,
                graph=saga.graph.hash)
    await app.store.append([word(app, saga, id, told)])
    if events.wanted():
        events.emit(events.RunStarted(run=id, saga=saga.name))
    return id


async def cancel(app: Messages, saga: Saga[Any], run: str, *, reason: str = "cancelled") -> None:
    """Ask for a run to be undone. Too late after its pivot; then nothing happens."""
    await say_cancel(app, saga, run, reason, cancelled=True)


async def signal(app: Messages, saga: Saga[Any], run: str, step: str, answer: object) -> None:
    """Answer what a step waits for. The first answer counts, also when it comes before the question.

    Raises:
        InputError: the step waits for no answer, or not for one of this type.
    """
    data = codec.encode(answer)
    check_answer(saga, step, data)
    await say(app, saga, run, "signal", step=step, data=data, again=f".{runtime.new_id()}")


async def resolve(app: Messages, saga: Saga[Any], run: str, step: str, resolution: Resolution) -> None:
    """Say what a person has decided about a blocked step. See `Resolution`."""
    await say(app, saga, run, "resolved", step=step, data=msgspec.json.encode(resolution), again=f".{runtime.new_id()}")


async def say_cancel(app: Messages, saga: Saga[Any], run: str, reason: str, *, cancelled: bool) -> None:
    await say(app, saga, run, "cancel", data=msgspec.json.encode(Abort(reason, cancelled=cancelled)))


async def say(app: Messages, saga: Saga[Any], run: str, kind: str, *, step: str = "", data: bytes = b"null",
              again: str = "") -> None:
    """Publish a word on a run. again: what makes it another word than the last of its kind on this step."""
    told = Told(kind, step, msgspec.Raw(data), runtime.unix_time())
    await app.store.append([word(app, saga, run, told, again)])


def word(app: Messages, saga: Saga[Any], run: str, told: Told, again: str = "") -> Message:
    """A word as a message. Said twice, it has the same id, and is one word."""
    about = f"{told.step}/{told.kind}" if told.step else told.kind
    return Message(id=f"{prefix_of(saga, run)}{about}{again}", source=app.service, type=type_of(saga), key=run,
                   data=msgspec.json.encode(told), time=told.at, correlation=run)
