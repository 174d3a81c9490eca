"""A service's messages: what it says, what it listens to, and the database that both are safe in.

    app = Messages("orders", "sqlite:///orders.db")

    @app.on(OrderPlaced)
    async def reserve(order: OrderPlaced) -> RoomReserved: ...

    async with app:                                     # handlers run until the block ends
        await app.publish(OrderPlaced(...), key="order-42")

Without a `broker` the database is the broker, for every service that opens it. With one, a relay sends what this service
publishes, and an inbox takes in what it handles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self, TypeVar

import msgspec

from yaoki import runtime
from yaoki.errors import ConfigError, DefinitionError, NoReplyError
from yaoki.messages.brokers.port import Broker, check_durability
from yaoki.messages.compose import Key, compose, compose_all
from yaoki.messages.consumer import Consumer, Pace
from yaoki.messages.envelope import Message
from yaoki.messages.handlers import Fn, Handler, flatten, handler_of
from yaoki.messages.intake import Intake
from yaoki.messages.lanes import LIMIT_BYTES
from yaoki.messages.outbox import Outbox
from yaoki.messages.pruner import Pruner
from yaoki.messages.relay import Relay
from yaoki.messages.store.opening import open_store
from yaoki.messages.store.port import Store
from yaoki.messages.verdict import Retries

F = TypeVar("F", bound=Fn)
Worker = Consumer | Relay | Intake | Pruner


class AnyJson:
    """A payload that is taken as it comes."""

    model_validate_json = staticmethod(msgspec.json.decode)


class Messages:
    """The messages of one service.

    Args:
        service: its name: the source of what it publishes, and the first part of its handlers' groups.
        store: where they are safe: `sqlite:///file`, `postgresql://...`, or an open `Store`. The best place is the
            service's own database, so that handlers can write with them.
        broker: how they reach other services, or None: through the store itself.
        pace: leases and draining.
        durability: the least that the broker must give: `power`, `process` or `memory`; see `brokers.port`. Default:
            whatever it gives, with a warning when that is less than `power`.
        keep: seconds after which messages that every reader has done are taken out of the store; None: never. A message
            that comes again after that is taken for new.
    """

    def __init__(self, service: str, store: str | Store, *, broker: Broker | None = None, pace: Pace | None = None,
                 durability: str = "", keep: float | None = None) -> None:
        if not service or any(each in service for each in ". \n"):
            raise ConfigError(f"service={service!r} cannot be the name of a service",
                              do="use a short name without dots or spaces: it is part of every group's name")
        if keep is not None and keep <= 0:
            raise ConfigError(f"keep={keep} seconds cannot be", do="give more than the longest time after which a message may "
                              "come again: a week is 7 * 86_400")
        if broker is not None:
            check_durability(broker, durability)
        self.service = service
        self.pace = pace or Pace()
        self.broker = broker
        self.outbox = Outbox(service)
        self.keep = keep
        self.handlers: dict[str, Handler] = {}
        self._given = store
        self._store: Store | None = None
        self._workers: list[Worker] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._replies: dict[str, asyncio.Future[Any]] = {}
        self._reply_type = f"reply.{service}"
        self._reply_reader: Consumer | None = None

    # ── what it listens to ───────────────────────────────────────────────────────────────────────────────────────

    def on(self, *payloads: Any, name: str = "", retries: Retries | None = None, timeout: float = 30.0,
           in_flight: int = 64, in_flight_bytes: int = LIMIT_BYTES, since: str = "beginning", emits: Any = (), within: float = 0.0,
           undo: type | None = None) -> Callable[[F], F]:
        """Handle these events with the decorated function. See `handlers`.

        Args:
            payloads: classes, or unions of them.
            name: under which progress is kept; default: the function's name.
            retries: see `Retries`. timeout: seconds for one attempt.
            in_flight: messages under way at most; of a transactional handler, in one transaction.
            in_flight_bytes: of the data of messages in memory, waiting or under way, about.
            since: where a handler that is new begins: `beginning` or `now`.
            emits, within, undo: what may follow, in how many seconds, and what takes it back.
        """
        if since not in {"beginning", "now"} or in_flight < 1 or in_flight_bytes < 1 or timeout <= 0 or within < 0:
            raise ConfigError(f"since={since!r}, in_flight={in_flight}, timeout={timeout}, within={within} cannot be",
                              do="since is 'beginning' or 'now', in_flight at least 1, timeout above 0, within at least 0")

        def register(fn: F) -> F:
            self.add(handler_of(fn, payloads, name=name, settings={
                "retries": retries or Retries(), "timeout_s": timeout, "in_flight": in_flight,
                "in_flight_bytes": in_flight_bytes, "since": since,
                "emits": flatten(emits), "within_s": within, "undo": undo}))
            return fn

        return register

    def add(self, handler: Handler) -> None:
        """Register a handler made by hand. Raises `DefinitionError` for a name that is taken or too late."""
        if handler.name in self.handlers:
            raise DefinitionError(f"{self.service} has two handlers named {handler.name!r}",
                                  do="give one of them name=...: progress is kept under it")
        if self._store is not None:
            raise DefinitionError(f"the handler {handler.name!r} of {self.service} comes after the messages were opened",
                                  do="register all handlers before `async with`")
        self.handlers[handler.name] = handler

    # ── open and close ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def store(self) -> Store:
        if self._store is None:
            raise ConfigError(f"the messages of {self.service} are not open", do="use `async with app:`")
        return self._store

    async def __aenter__(self) -> Self:
        self._store = await open_store(self._given) if isinstance(self._given, str) else self._given
        try:
            self._workers = self._make_workers()
            for each in self._workers:
                self._set_to_work(each, f"{self.service}-{type(each).__name__}")
        except BaseException:
            await self._close_store()
            raise
        return self

    def _make_workers(self) -> list[Worker]:
        workers: list[Worker] = [
            Consumer(self.store, handler, service=self.service, pace=self.pace) for handler in self.handlers.values()]
        if self.keep is not None:
            workers.append(Pruner(self.store, keep_s=self.keep))
        if self.broker is not None:
            workers.append(Relay(self.store, self.broker, service=self.service, pace=self.pace))
        if self.broker is not None and getattr(self.broker, "delivers", True):
            types = {self._reply_type, *(name for handler in self.handlers.values() for name in handler.takes)}
            workers.append(Intake(self.store, self.broker, service=self.service, types=types, pace=self.pace))
        return workers

    def _set_to_work(self, worker: Worker, name: str) -> None:
        task = runtime.spawn(worker.run(), name=name)
        task.add_done_callback(_told_if_failed)
        self._tasks.append(task)

    async def __aexit__(self, *_: object) -> None:
        """Drain: take nothing more, let handlers finish, write what is done, and free the partitions."""
        for each in self._workers:
            each.stop()
        try:
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            try:
                await self._end_tasks()
                reader, self._reply_reader = self._reply_reader, None
                if reader is not None:
                    await self.store.forget(reader.group)
            finally:
                await self._close_store()

    async def _end_tasks(self) -> None:
        tasks, self._tasks, self._workers = self._tasks, [], []
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None and isinstance(self._given, str):
            await store.close()

    # ── what it says ─────────────────────────────────────────────────────────────────────────────────────────────

    async def publish(self, *payloads: object, key: Key = "", connection: Any = None, delay: float = 0.0,
                      due: float = 0.0, headers: dict[str, str] | None = None, id: str = "") -> list[Message]:  # noqa: A002
        """Publish; returns when it is durable. With `connection`, in its transaction: see `Outbox`.

        Args:
            key: messages of one key are handled in the order in which they were published; or a function from the payload.
            delay, due: seconds from now, or since 1970, before which it is not handled. It then has no order.
            headers: CloudEvents extensions. id: the same id is the same message; default: a new one.

        Raises:
            InputError: a payload cannot be written. StoreError: it could not be stored, and is not published.
        """
        at = due or (runtime.unix_time() + delay if delay else 0.0)
        if connection is not None:
            return await self.outbox.publish(*payloads, connection=connection, key=key, due=at, headers=headers, id=id)
        messages = compose_all(payloads, source=self.service, key=key, due=at, headers=headers, id=id)
        await self.store.append(messages)
        return messages

    async def request(self, payload: object, *, key: str = "", timeout: float = 30.0) -> Any:
        """Publish, and wait for what its handler returns (as JSON data).

        Raises:
            NoReplyError: none came in `timeout` seconds. The request stays published: it may still be carried out.
        """
        await self._listen_for_replies()
        message = compose(payload, source=self.service, key=key, reply_to=self._reply_type)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._replies[message.correlation] = answer
        try:
            await self.store.append([message])
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError as error:
            raise NoReplyError(f"no answer to {message.type} {message.id} in {timeout:g} s",
                               do="ask for the outcome later: the request is stored and will be handled",
                               timeout=timeout) from error
        finally:
            self._replies.pop(message.correlation, None)

    async def _listen_for_replies(self) -> None:
        """This process reads the service's answers from its first request on, and picks out its own."""
        if self._reply_reader is not None:
            return
        handler = Handler(fn=self._answered, name=f"reply-{runtime.new_id()}", since="now",
                          takes={self._reply_type: AnyJson}, wants_message=True)
        reader = Consumer(self.store, handler, service=self.service, pace=self.pace)
        # Before the request is stored, so that an answer that is quicker than this reader is not missed.
        await self.store.declare(reader.group, handler.takes, since="now")
        if self._reply_reader is not None:  # another request was faster
            await self.store.forget(reader.group)
            return
        self._reply_reader = reader
        self._workers.append(reader)
        self._set_to_work(reader, reader.group)

    async def _answered(self, payload: Any, message: Message) -> None:
        answer = self._replies.get(message.correlation)
        if answer is not None and not answer.done():
            answer.set_result(payload)


def _told_if_failed(task: asyncio.Task[None]) -> None:
    """A worker that ends by an error is a bug; it is raised when the app closes, and said at once."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": f"{task.get_name()} has stopped: its messages wait until the app is opened again",
             "exception": error, "task": task})
