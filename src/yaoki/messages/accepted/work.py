"""What is behind an endpoint that answers 202: work that is handed in under an id, and can be looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from yaoki import runtime
from yaoki.errors import InputError, RunConflictError
from yaoki.messages.app import Messages
from yaoki.messages.envelope import Message
from yaoki.messages.schema import decode, schema_of
from yaoki.messages.store.port import Entry


class State(StrEnum):
    """Where handed-in work is. `lost` only if somebody who audits says so; nothing concludes it by itself."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"

    @property
    def is_end(self) -> bool:
        return self not in {State.QUEUED, State.RUNNING}


class Status(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the status resource says.

    Attributes:
        accepted_at: seconds since 1970. attempts: made and failed so far. error: the last failure, one line.
        progress: what the work said of itself last, JSON. result: JSON, once it has succeeded.
    """

    id: str
    state: State
    accepted_at: float = 0.0
    attempts: int = 0
    error: str = ""
    progress: msgspec.Raw = msgspec.Raw(b"")
    result: msgspec.Raw = msgspec.Raw(b"")


class Conflict(Exception):
    """The id is taken by other work: the same key came with another body."""


class Work(Protocol):
    """Anything that can be handed in."""

    async def submit(self, id: str, body: bytes) -> bool:  # noqa: A002
        """Take it in durably. True: it is new; False: the same was handed in before. Raises `Conflict`, `InputError`."""
        ...

    async def look(self, id: str) -> Status | None:  # noqa: A002
        """Where it is, or None if there is no such work (any more)."""
        ...

    async def age_s(self) -> float:
        """How long the oldest work has waited: what decides whether more is taken in."""
        ...

    async def wait_changed(self, timeout_s: float) -> None:
        """Return when something may have changed, or after `timeout_s`."""
        ...


class HandlerWork:
    """Work for one handler of `app`: the body is the event, and what the handler returns is the result.

    Nothing but the log of messages is needed: the request is a message under its id, and where it is follows from the
    handler's cursor, its held rows and what it published.

    Args:
        payload: the event's class. handler: the name of the handler whose progress counts.
        is_lost: asked for work that is queued or running: does the audit say that it was lost?
    """

    def __init__(self, app: Messages, payload: type, *, handler: str,
                 is_lost: Callable[[str], Awaitable[bool]] | None = None) -> None:
        self.app = app
        self.payload = payload
        self.group = f"{app.service}.{handler}"
        self._is_lost = is_lost

    async def submit(self, id: str, body: bytes) -> bool:  # noqa: A002
        schema = schema_of(self.payload)
        message = Message(id=id, source=self.app.service, type=schema.name, version=schema.version, data=body, key=id,
                          time=runtime.unix_time(), correlation=id)
        decode(self.payload, message)
        known = await self._entry(id)
        if known is None:
            await self.app.store.append([message])
            known = await self._entry(id)  # two at once: one of them is stored, and both compare with it
            assert known is not None
            return _same(known.message, message) and known.message.time == message.time
        _same(known.message, message)
        return False

    async def _entry(self, id: str) -> Entry | None:  # noqa: A002
        return next((each for each in await self.app.store.get(id) if each.message.id == id), None)

    async def look(self, id: str) -> Status | None:  # noqa: A002
        entry = await self._entry(id)
        if entry is None:
            return None
        said = {each.message.id: each.message for each in await self.app.store.starting_with(id, limit=1_000)}
        progress = [message.data for name, message in said.items() if name.startswith(f"{id}/progress/")]
        about: dict[str, Any] = {"id": id, "accepted_at": entry.message.time}
        if progress:
            about["progress"] = msgspec.Raw(progress[-1])
        held = await self.app.store.held(group=self.group, key=entry.message.key, limit=1_000,
                                         states=("retry", "quarantined", "dead", "behind", "done"))
        row = next((row for _, each, row in held if each.message.id == id), None)
        if row is not None and row.state != "done":
            failed = row.state in {"quarantined", "dead"}
            state = State.FAILED if failed else State.RUNNING
            return Status(state=state, attempts=row.attempts, error=row.error, **about)
        answer = f"{id}.{self.group}.0"
        result = said.get(answer)
        if result is not None or await self.app.store.is_done(self.group, entry.part, entry.position):
            if result is None:  # both are stored in one transaction, which may have come between the two looks
                result = next((each.message for each in await self.app.store.get(answer) if each.message.id == answer), None)
            return Status(state=State.SUCCEEDED, result=msgspec.Raw(result.data if result else b"null"), **about)
        if self._is_lost is not None and await self._is_lost(id):
            return Status(state=State.LOST, **about)
        return Status(state=State.RUNNING if progress else State.QUEUED, **about)

    async def age_s(self) -> float:
        lags = await self.app.store.lag(self.group)
        return lags[0].oldest_s if lags else 0.0

    async def wait_changed(self, timeout_s: float) -> None:
        await self.app.store.wait_changed(timeout_s)


def _same(known: Message, message: Message) -> bool:
    if known.type != message.type or msgspec.json.decode(known.data) != msgspec.json.decode(message.data):
        raise Conflict
    return True


async def progress(app: Messages, message: Message, data: object) -> None:
    """Say from inside a handler how far it is; it appears in the status resource and its event stream."""
    said = Message(id=f"{message.id}/progress/{runtime.new_id()}", source=app.service, type="yaoki.progress",
                   data=msgspec.json.encode(data), key=message.key, time=runtime.unix_time(), correlation=message.id)
    await app.store.append([said])


class SagaWork:
    """Work that is a run of a saga: the id of the work is the id of the run.

    Args:
        app: what `yaoki.open` gave. saga: its definition.
    """

    def __init__(self, app: Any, saga: Any, *, look_s: float = 0.25) -> None:
        self.app = app
        self.saga = saga
        self._look_s = look_s

    async def submit(self, id: str, body: bytes) -> bool:  # noqa: A002
        known = await self.app.journal.read(id)
        try:
            given = self.saga.input.decode(body)
        except (msgspec.DecodeError, ValueError) as error:
            raise InputError(f"not what {self.saga.name} takes: {error}", do="correct the body") from error
        try:
            await self.app.start(self.saga, given, id=id)
        except RunConflictError:
            raise Conflict from None
        return known is None

    async def look(self, id: str) -> Status | None:  # noqa: A002
        stored = await self.app.journal.read(id)
        if stored is None:
            return None
        header = stored.header
        state = {"completed": State.SUCCEEDED, "undone": State.FAILED, "cancelled": State.FAILED}.get(header.state.value, State.RUNNING)
        about: dict[str, Any] = {"result": msgspec.Raw(bytes(header.result))} if state is State.SUCCEEDED else {}
        told = msgspec.Raw(msgspec.json.encode({"run": header.state.value, "records": len(stored.records)}))
        return Status(id=id, state=state, accepted_at=header.created_at, error=header.reason, progress=told, **about)

    async def age_s(self) -> float:
        return 0.0  # the engine bounds what runs at a time by itself

    async def wait_changed(self, timeout_s: float) -> None:
        await runtime.sleep(min(self._look_s, timeout_s))
