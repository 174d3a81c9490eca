"""The pages about steps that are more than one call: their code runs, and does what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from virtual_time import run
from yaoki import runtime
from yaoki.app import App
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.records import RunState

DOCS = Path(__file__).parents[3] / "docs"


def program(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "composed_docs"}
    import sys
    import types

    module = types.ModuleType("composed_docs")
    sys.modules["composed_docs"] = module
    for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, page, "exec", dont_inherit=True), module.__dict__)
    names.update(module.__dict__)
    return names


def test_the_references_saga_runs():
    names = program("reference/sagas-composed.md")

    async def main() -> None:
        async with App(MemoryJournal(), [names["book_trip"]], concurrency=10, grace=1.0) as app:
            handle = await app.start(names["book_trip"], names["Trip"]("visa", 2, ["ann", "bob"]), id="trip-42")
            assert await handle.result() == ["seat in row 0 by trip-42/seats/seat-0", "seat in row 1 by trip-42/seats/seat-1"]
            assert (await app.engine.wait("trip-42/payment")).state is RunState.COMPLETED

    run(main())


@pytest.mark.parametrize("approved", [True, False])
def test_the_agent_books_what_it_wants_and_takes_it_back(approved: bool):
    names = program("how-to/let-an-agent-call-tools.md")

    async def main() -> None:
        async with App(MemoryJournal(), [names["agents"]], concurrency=10, grace=1.0) as app:
            handle = await app.start(names["agents"], names["Task"]("Kyoto"), id="task-1")
            await runtime.sleep(5.0)
            assert sorted(names["booked"]) == ["task-1/agent/book_flight-0", "task-1/agent/book_hotel-2"]
            await handle.signal("approved", answer=approved)
            await runtime.sleep(5.0)
            if approved:
                assert await handle.result() == "Kyoto: flight to Kyoto, grand hotel"
            else:
                assert await handle.wait() is RunState.UNDONE
                assert names["booked"] == {}

    run(main())


@pytest.mark.parametrize("items", [["sun", "star"], ["sun", "moon"]])
def test_the_shop_charges_picks_and_sends_or_takes_it_all_back(items: list[str]):
    names = program("how-to/compose-sagas.md")

    async def main() -> None:
        async with App(MemoryJournal(), [names["orders"]], concurrency=10, grace=1.0) as app:
            handle = await app.start(names["orders"], names["Order"]("ann", items), id="order-7")
            if "moon" in items:
                assert await handle.wait() is RunState.UNDONE
            else:
                assert await handle.result() == "paid, 2 picked, by van"
            assert (await app.engine.wait("order-7/payment")).state is (RunState.UNDONE if "moon" in items else RunState.COMPLETED)

    run(main())
