"""Many writers of a few keys of a ledger in DynamoDB, on a real server: no holes, nothing twice, nothing lost."""

from __future__ import annotations

import asyncio

import pytest

from yaoki.examples.history.cloud import Cloud
from yaoki.ledger.dynamodb import DynamoLedger

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


async def test_writers_of_one_key_take_turns_without_holes() -> None:
    async with Cloud() as cloud, DynamoLedger(cloud.client("dynamodb"), "points") as ledger:
        async def write(writer: int) -> list[tuple[str, int]]:
            return [(f"k{n % 2}", await ledger.append(f"k{n % 2}", [writer, n])) for n in range(4)]

        written = [each for its in await asyncio.gather(*(write(n) for n in range(5))) for each in its]
        assert len(set(written)) == len(written) == 20
        for key in ("k0", "k1"):
            found = await ledger.history(key)
            assert [each.version for each in found] == list(range(1, 11))
            assert len({tuple(each.value()) for each in found}) == 10
