"""A TCP proxy on loopback that cuts connections at the worst moment: a request has gone through, its answer has not."""

from __future__ import annotations

import asyncio
import contextlib


class CutProxy:
    """Forwards to a port; `cut_answers` lets requests through, swallows what comes back, and breaks the connection."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.cuts = 0
        self._cut_when: bytes | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> CutProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut_answer_to(self, words: bytes) -> None:
        """Cut the connection on which a request that holds these bytes goes by, once, after the server has had it."""
        self._cut_when = words

    def cut_all(self) -> None:
        for pair in list(self._pairs):
            self._break(pair)

    def _break(self, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self._pairs.discard(pair)
        for writer in pair:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, up_writer)
        self._pairs.add(pair)
        state = {"cut": False}
        for work in (self._up(reader, up_writer, pair, state), self._down(up_reader, writer, pair, state)):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
                  state: dict[str, bool]) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(65536):
                if self._cut_when is not None and self._cut_when in data:
                    self._cut_when = None
                    state["cut"] = True
                writer.write(data)
                await writer.drain()
        self._break(pair)

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
                    state: dict[str, bool]) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(65536):
                if state["cut"]:  # the server has answered, so it has done it; the client will not know
                    self.cuts += 1
                    break
                writer.write(data)
                await writer.drain()
        self._break(pair)
