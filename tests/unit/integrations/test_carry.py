"""Requests that nobody waits for any more: let go, bounded in time, and forgotten when they are over."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from virtual_time import run
from yaoki.integrations.carry import LONGEST_S, Carrier

REQUEST = SimpleNamespace(method="GET", url=SimpleNamespace(path="/"))


class Answer:
    closed = False

    async def aclose(self) -> None:
        self.closed = True


async def let_go(carrier: Carrier, handle: Any) -> None:
    """Begin a request, and stop waiting for it."""
    waiting = asyncio.ensure_future(carrier.send(handle, REQUEST))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_an_answer_that_comes_late_is_closed_and_nothing_is_kept_until_the_request_would_have_been_cut_off():
    async def main() -> None:
        loop, timers = asyncio.get_running_loop(), []
        call_later = loop.call_later
        loop.call_later = lambda delay, *what: timers.append(call_later(delay, *what)) or timers[-1]
        carrier, answer = Carrier(), Answer()

        async def handle(_: Any) -> Answer:
            await gate.wait()
            return answer

        gate = asyncio.Event()
        await let_go(carrier, handle)
        assert carrier.let_go == 1
        cut_off = [timer for timer in timers if timer.when() - loop.time() > LONGEST_S / 2]
        assert len(cut_off) == 1
        gate.set()
        await asyncio.sleep(0.1)
        assert answer.closed
        assert carrier.let_go == 0
        assert cut_off[0].cancelled()

    run(main())


def test_a_request_that_never_ends_is_cut_off():
    async def main() -> None:
        carrier = Carrier()

        async def handle(_: Any) -> None:
            await asyncio.Event().wait()

        await let_go(carrier, handle)
        await asyncio.sleep(LONGEST_S - 1)
        assert carrier.let_go == 1
        await asyncio.sleep(2)
        assert carrier.let_go == 0

    run(main())
