"""A pooler in transaction mode, as hostile as one can be: every transaction of a client goes to another server connection.

PgBouncer does this when it has to; this one always does. So whatever a session keeps (a prepared statement, a setting, LISTEN, an
advisory lock, a temporary table) is gone with the next transaction, and who relies on it fails in its first test.

It understands as much of the protocol as that takes: the length of a message, and `ReadyForQuery` with its transaction state.
Source: PostgreSQL manual, "Frontend/Backend Protocol".
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

READY = b"Z"
IDLE = b"I"
SSL_REQUEST = (80877103).to_bytes(4, "big")


class RotatingPooler:
    """Listens on `port`. `rotations`: how often a client's next transaction went elsewhere than its last."""

    def __init__(self, server_port: int, *, connections: int = 2) -> None:
        self.port = 0
        self.rotations = 0
        self._server_port = server_port
        self._connections = connections
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        startup = await _untyped(reader)
        while startup[4:8] == SSL_REQUEST:
            writer.write(b"N")
            startup = await _untyped(reader)
        pool = [await asyncio.open_connection("127.0.0.1", self._server_port) for _ in range(self._connections)]
        try:
            for number, (server, to_server) in enumerate(pool):
                to_server.write(startup)
                await _until_ready(server, writer if number == 0 else None)
            turn = 0
            while True:
                server, to_server = pool[turn % len(pool)]
                turn += 1
                self.rotations += turn > 1
                await self._one_transaction(reader, writer, server, to_server)
        finally:
            for _, to_server in pool:
                to_server.transport.abort()

    async def _one_transaction(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: asyncio.StreamReader,
                               to_server: asyncio.StreamWriter) -> None:
        """Forward both ways, from the client's first message until the server is ready and outside a transaction."""
        to_server.write(await _typed(reader))
        up = asyncio.create_task(_forward(reader, to_server))
        try:
            while True:
                message = await _typed(server)
                if message[:1] != READY or message[5:6] != IDLE:
                    writer.write(message)
                    continue
                # Nothing of the client's next transaction can be on its way before it has seen this.
                up.cancel()
                await asyncio.wait([up])
                writer.write(message)
                return
        finally:
            up.cancel()


async def _untyped(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(int.from_bytes(length, "big") - 4)


async def _typed(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


async def _until_ready(server: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> None:
    while True:
        message = await _typed(server)
        if writer is not None:
            writer.write(message)
        if message[:1] == READY:
            return


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.transport.abort()  # the client has gone: so does its transaction
