"""The participant's reference page is real code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "participant.md"


async def test_the_pages_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    spaces: list[dict[str, Any]] = [{}, {}, {}]
    for block, space in zip(blocks, spaces, strict=True):
        exec(compile(block, str(PAGE), "exec"), space)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(spaces[1]["app"]), base_url="http://hotel") as client:
        done = await client.post("/bookings", json={"room": 7}, headers={"Idempotency-Key": "trip-42/hotel"})
        taken = await client.post("/bookings", json={"room": 7}, headers={"Idempotency-Key": "trip-43/hotel"})
        undone = await client.delete("/bookings", headers={"Idempotency-Key": "trip-42/hotel:undo"})
        assert [reply.status_code for reply in (done, taken, undone)] == [200, 409, 200]
    spaces[1]["db"].close()
