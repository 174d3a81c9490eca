"""Make a service fail, on purpose and for real: in the service's own process, around whole requests.

With the share of requests that the switch says, drawn evenly:

    refused      503 before anything is done
    error        the effect happens, and the answer is 500
    reply lost   the effect happens, and the connection is cut instead of an answer
    slow         the caller's timeout passes; the effect happens after it, or happened before it
    duplicate    the request is delivered twice, the second time at once or seconds later
    killed       the process dies by kill -9: before the effect, at its commit, or after it

The switch is a file of eight bytes that all services map into memory: turning it takes one write, and reading it costs
nothing. Each fault is written down before it is made, with one unbuffered append, so that what a killed process did counts.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import signal
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, NoReturn

from yaoki.examples.travel.store import Store

KINDS = ("refused", "error", "reply lost", "slow", "duplicate", "killed")
MESSAGE_FAULTS = {
    "refused": "publish refused", "sent in part": "sent in part", "confirmation lost": "confirmation lost", "twice": "delivered twice",
    "keys mixed": "out of order", "acknowledgement lost": "acknowledgement lost", "not let in": "reader not let in",
    "cut off": "reader cut off", "cut off after": "cut off with messages on their way"}
"""What a broker does to the choreographed agency, by the words of `ChaoticBroker`."""
LATE_S = 2.0  # the longest delay of a duplicate

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Switch:
    """The share of requests to fail, in a file that every process sees. Made by `create`, read by `Switch(path)`."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 8)

    @staticmethod
    def create(path: Path, share: float) -> Switch:
        path.write_bytes(struct.pack("d", share))
        return Switch(path)

    @property
    def share(self) -> float:
        found: float = struct.unpack("d", self._bytes[:8])[0]
        return found

    @share.setter
    def share(self, share: float) -> None:
        self._bytes[:8] = struct.pack("d", share)


class Faults:
    """An ASGI application around another that fails on purpose.

    Args:
        app: the service. store: its store, for dying at a commit; None if it keeps nothing.
        switch: how many. log: where each fault is written down.
        seed: what is drawn follows from it and from the order of requests.
        timeout_s: the callers' timeout, in seconds, that a slow answer must exceed.
    """

    def __init__(self, app: App, *, store: Store | None, switch: Switch, log: Path, seed: str, timeout_s: float) -> None:
        self._app = app
        self._store = store
        self._switch = switch
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._rng = random.Random(seed)
        self._timeout_s = timeout_s
        self._late: set[asyncio.Task[None]] = set()
        self._faults: dict[str, Callable[[Any, bytes, Send], Awaitable[None]]] = {
            "refused": self._refused, "error": self._error, "reply lost": self._reply_lost, "slow": self._slow,
            "duplicate": self._duplicate, "killed": self._killed}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        share = self._switch.share
        if not share or scope["type"] != "http" or scope["path"] == "/health" or self._rng.random() >= share:
            await self._app(scope, receive, send)
            return
        kind = self._rng.choice(KINDS)
        # The body is read first: a caller that has given up must not take its request back.
        body = await _whole(receive)
        os.write(self._log, f"{kind}\t{scope['method']} {scope['path']}\n".encode())
        await self._faults[kind](scope, body, send)

    async def _deliver(self, scope: Any, body: bytes, send: Send) -> None:
        await self._app(dict(scope), _again(body), send)

    async def _refused(self, scope: Any, body: bytes, send: Send) -> None:  # noqa: ARG002
        await _answer(send, 503, b"refused on purpose", (b"retry-after", b"0"))

    async def _error(self, scope: Any, body: bytes, send: Send) -> None:
        await self._deliver(scope, body, _nowhere)
        await _answer(send, 500, b"failed on purpose, after the effect")

    async def _reply_lost(self, scope: Any, body: bytes, send: Send) -> None:
        await self._deliver(scope, body, _nowhere)
        await _cut(send)

    async def _slow(self, scope: Any, body: bytes, send: Send) -> None:
        late_s = self._timeout_s * self._rng.uniform(1.2, 2.5)
        if self._rng.random() < 0.5:
            await asyncio.sleep(late_s)
            await self._deliver(scope, body, _nowhere)
        else:
            await self._deliver(scope, body, _nowhere)
            await asyncio.sleep(late_s)
        await _cut(send)

    async def _duplicate(self, scope: Any, body: bytes, send: Send) -> None:
        await self._deliver(scope, body, send)
        late_s = self._rng.choice((0.0, self._rng.uniform(0.0, LATE_S)))
        task = asyncio.create_task(self._later(late_s, scope, body))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _later(self, late_s: float, scope: Any, body: bytes) -> None:
        await asyncio.sleep(late_s)
        await self._deliver(scope, body, _nowhere)

    async def _killed(self, scope: Any, body: bytes, send: Send) -> None:  # noqa: ARG002
        when = self._rng.choice(("before", "at its commit", "after"))
        if when == "before":
            _die()
        if when == "at its commit" and self._store is not None:
            self._store.at_commit = _die
        await self._deliver(scope, body, _nowhere)
        _die()


def count(folder: Path) -> Counter[str]:
    """How many faults of each kind the services wrote down in `folder`."""
    return Counter(line.partition("\t")[0] for path in sorted(folder.glob("*.faults")) for line in path.read_text().splitlines())


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("kill -9 came back")


async def _whole(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


def _again(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _nowhere(_: Message) -> None:
    """Where an answer goes that nobody gets."""


async def _answer(send: Send, status: int, why: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-type", b"text/plain"), (b"content-length", str(len(why)).encode()), *headers]})
    await send({"type": "http.response.body", "body": why})


async def _cut(send: Any) -> None:
    """Cut the connection without an answer. ASGI has no word for it; uvicorn's `send` belongs to what holds the transport."""
    cycle = getattr(send, "__self__", None)
    transport = getattr(cycle, "transport", None)
    if transport is None:  # another server: an answer that ends before its length does makes it close the connection
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        return
    transport.abort()
    for _ in range(3):  # the loop tells uvicorn in its next turn, and then uvicorn expects no answer any more
        await asyncio.sleep(0)
